import json
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="export needs the extra `train`")

from edgeasr.backends import load_graph
from edgeasr.backends.choice import backends_of
from edgeasr.bundle import Bundle
from edgeasr.errors import ExtraMissingError

KINDS = ("onnx-fp32", "executorch-fp32", "executorch-int8")

# What programs say of themselves and compute, and what is none; printed as JSON.
RUN = """
import json, sys
import numpy as np
from edgeasr.audio import FileSource
from edgeasr.backends import load_graph
from edgeasr.backends.onnxruntime import OnnxGraph
from edgeasr.bundle import Bundle
from edgeasr.errors import BundleError
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer

bundle, recording = Bundle.load(sys.argv[1]), sys.argv[2]
found = {"heard": [], "refused": []}
for kind in ("onnx-fp32", "executorch-fp32", "executorch-int8"):
    with FileSource(recording) as source:
        events = list(Recognizer(bundle, backend=kind).stream(source))
    found["heard"].append([(event.type, event.text) for event in events])
step = {kind: bundle.artefact(kind)["step"] for kind in ("onnx-fp32", "executorch-fp32")}
graph, other = load_graph("executorch", step["executorch-fp32"], 1), OnnxGraph(step["onnx-fp32"])
assert (graph.inputs, graph.outputs) == (other.inputs, other.outputs)
state = AcousticModel(bundle, backend="onnx-fp32").init_state()
rng, outputs = np.random.default_rng(0), []
for _ in range(2):
    features = rng.normal(size=graph.inputs["features"].shape).astype(np.float32)
    given = {"features": features, **state}
    outputs.append((graph.run(given), other.run(given)))
difference = max(float(np.abs(a[name] - b[name]).max()) for a, b in outputs for name in a)
found["difference"] = difference
for content in (b"", b"no program", step["executorch-fp32"].read_bytes()[:1000]):
    try:
        load_graph("executorch", content, 1)
    except BundleError as error:
        found["refused"].append(str(error))
print(json.dumps(found))
"""

# A graph with an operator that programs do not have, as `--target executorch` answers it.
INVERT = """
import torch
from edgeasr.converters.to_executorch import to_executorch
from edgeasr.errors import BundleError

class Invert(torch.nn.Module):
    name = "step"

    def example_inputs(self):
        return [("x", torch.eye(3))]

    def output_names(self):
        return ["y"]

    def forward(self, x):
        return (torch.linalg.inv(x),)

try:
    to_executorch(Invert(), "fp32")
except BundleError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def program(repository):
    """The command line of the environment that executorch has of its own."""
    found = repository / ".venv-executorch" / "bin" / "edgeasr"
    if not found.exists():
        pytest.skip("executorch is not set up: `make executorch` does it")
    return found


@pytest.fixture(scope="module")
def made(exported, program, tmp_path_factory):
    """The toy model for both runtimes, and what the command printed of it."""
    folder = tmp_path_factory.mktemp("executorch")
    exported.checkpoint.save(folder / "toy.safetensors")
    done = subprocess.run(
        [program, "export", folder / "toy.safetensors", "--output", folder / "toy-model", "--json"]
        + [argument for kind in KINDS for argument in ("--artefact", kind)]
        + ["--check", exported.recording],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return Bundle.load(folder / "toy-model"), json.loads(done.stdout)


@pytest.fixture(scope="module")
def ran(made, exported, program):
    """What RUN found."""
    done = subprocess.run(
        [program.with_name("python"), "-c", RUN, made[0].path, exported.recording],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_every_program_is_as_close_to_torch_as_it_should_be(made):
    rows = {row["artefact"]: row for row in made[1]["artefacts"]}
    assert rows["executorch-fp32"]["max_difference"] < 1e-4
    assert rows["executorch-fp32"]["agreement"] == 1.0
    assert rows["executorch-int8"]["max_difference"] > 1e-4
    assert rows["executorch-int8"]["snr_db"] > 20


def test_a_program_has_the_names_of_its_graph_and_computes_what_that_does(ran):
    assert 0 < ran["difference"] < 1e-3


def test_all_hear_the_same(ran):
    reference, fp32, int8 = ran["heard"]
    assert reference == fp32 == int8
    assert reference[-1][0] == "final"


def test_what_is_no_program_is_refused(ran):
    assert len(ran["refused"]) == 3
    for message in ran["refused"]:
        assert message.startswith("ExecuTorch cannot load the model (")
        assert message.endswith("): export the bundle again")


def test_an_operator_that_programs_do_not_have_is_named(program):
    command = [program.with_name("python"), "-c", INVERT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ExecuTorch cannot lower the step graph (Operator torch._ops.aten.linalg_inv_ex")
    assert done.stdout.count("\n") == 1


# Where the package is missing


@pytest.fixture
def without(monkeypatch):
    """As if executorch were not there."""
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)


def test_a_missing_runtime_is_named(without, capfd):
    with pytest.raises(ExtraMissingError, match=r"ExecuTorch is not there .*edgeasr\[executorch\]'.*make executorch"):
        load_graph("executorch", b"", threads=1)
    assert capfd.readouterr() == ("", "")


def test_a_missing_converter_is_named(exported, tmp_path):
    exported.checkpoint.save(tmp_path / "toy.safetensors")
    code = "import sys; sys.modules['executorch'] = None; from edgeasr.cli.main import main; main()"
    arguments = ("export", tmp_path / "toy.safetensors", "--target", "executorch", "--output", tmp_path / "toy")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edgeasr: error: got no package executorch")
    assert done.stderr.endswith(
        "wanted what edgeasr[executorch-export] brings: pip install edgeasr[executorch-export]\n"
    )
    assert not (tmp_path / "toy").exists()


def test_each_program_has_one_backend():
    assert backends_of("executorch-int8") == ("executorch",)
