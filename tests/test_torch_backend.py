# ruff: noqa: E402 - torch is looked for before the modules that import it
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the backend needs the extra `train`")

from safetensors.torch import save

from edgeasr.audio import FileSource
from edgeasr.backends import load_graph
from edgeasr.backends.torch import weights_file
from edgeasr.bundle import Bundle
from edgeasr.converters import raw_graph
from edgeasr.converters.export import export
from edgeasr.errors import BundleError
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer


@pytest.fixture(scope="module")
def made(exported, tmp_path_factory):
    """The toy model for PyTorch and ONNX Runtime, with chunks of 320 ms beside its own."""
    output = tmp_path_factory.mktemp("torch") / "toy"
    return export(exported.checkpoint, output, ["torch-fp32", "onnx-fp32"], exported.recording, chunk_lengths_ms=[320])


def heard(bundle, backend, recording):
    recognizer = Recognizer(bundle, backend=backend)
    with FileSource(recording) as source:
        return [(event.type, event.text) for event in recognizer.stream(source)]


def test_one_file_holds_all_graphs(made):
    parts = made.bundle.artefacts["torch-fp32"]
    assert parts == dict.fromkeys(("step", "step.320", "memory"), "model.fp32.safetensors")
    assert made.size_bytes("torch-fp32") == made.bundle.files["model.fp32.safetensors"].size_bytes


def test_it_is_the_model_that_was_trained(made):
    differences = {(one.artefact, one.chunk_ms): one.max_difference for one in made.parities}
    assert differences.keys() == {(kind, ms) for kind in ("torch-fp32", "onnx-fp32") for ms in (160, 320)}
    assert differences["torch-fp32", 160] == differences["torch-fp32", 320] == 0.0


@pytest.mark.parametrize("threads", [1, 2])
def test_it_hears_what_onnx_runtime_hears(made, exported, threads):
    model = AcousticModel(made.bundle, backend="torch", threads=threads)
    assert (model.artefact, model.backend, model.chunk_lengths_ms) == ("torch-fp32", "torch", (160, 320))
    mine = heard(made.bundle, "torch", exported.recording)
    assert mine == heard(made.bundle, "onnx-fp32", exported.recording)
    assert mine[-1][0] == "final"


def test_a_bundle_in_a_zip_is_heard_too(exported, tmp_path):
    made = export(exported.checkpoint, tmp_path / "toy.edgeasr", ["torch-fp32"], exported.recording)
    bundle = Bundle.load(made.bundle.path)
    assert heard(bundle, None, exported.recording) == heard(exported.bundle, "onnx-fp32", exported.recording)


def test_a_step_changes_nothing_that_it_was_given(made):
    model = AcousticModel(made.bundle, backend="torch")
    config = model.config
    features = np.zeros((config.encoder.chunk_features, config.features.num_mels), np.float32)
    first = model.init_state()
    before = {name: array.copy() for name, array in first.items()}
    once, state = model.step(features, first)
    again, _ = model.step(features, first)
    model.step(features, state)
    np.testing.assert_array_equal(once.tokens, again.tokens)
    for name, array in before.items():
        np.testing.assert_array_equal(first[name], array)


def test_what_is_no_such_file_is_refused(exported, tmp_path):
    whole = weights_file(exported.encoder)
    named = {name: tensor for name, tensor in exported.encoder.state_dict().items() if "emission" not in name}
    for content in (b"", b"no model", whole[:-20], save({"a": torch.zeros(2)}), save(named, {"config": "{}"})):
        (tmp_path / "model.fp32.safetensors").write_bytes(content)
        with pytest.raises(BundleError, match=r"PyTorch cannot load .*model\.fp32.* \(.+\): export the bundle again"):
            load_graph("torch", tmp_path / "model.fp32.safetensors", 1, "step")
    with pytest.raises(BundleError, match=r"got the part 'other', wanted step, step\.MS or memory"):
        load_graph("torch", whole, 1, "other")


def test_without_torch_the_extra_is_named(made):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgeasr.errors import ExtraMissingError\n"
        "from edgeasr.recognizer import Recognizer\n"
        "try: Recognizer(sys.argv[1], backend='torch')\n"
        "except ExtraMissingError as error: print(error)"
    )
    command = [sys.executable, "-c", code, made.bundle.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "PyTorch is not installed: pip install 'edgeasr[train]'\n"


def test_nothing_is_exported_for_it(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(raw_graph, "to_onnx", lambda graph: pytest.fail("exported"))
    assert export(exported.checkpoint, tmp_path / "toy", ["torch-fp32"], exported.recording).fits == []
