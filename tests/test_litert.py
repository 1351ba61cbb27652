# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
import subprocess

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs the extra `train`")
schema = pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="the runtime needs the extra `litert`", exc_type=ImportError
)

import flatbuffers

from edgeasr.audio import FileSource
from edgeasr.backends import load_graph
from edgeasr.bundle import Bundle
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import BundleError
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer


def named(name, index):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def tensor(name, shape):
    made = schema.TensorT()
    made.name, made.shape, made.type = name, shape, schema.TensorType.FLOAT32
    return made


def graph_bytes() -> bytes:
    """state.sum + x, under names that the tensors themselves do not have."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    add = schema.OperatorT()
    add.inputs, add.outputs = [0, 1], [2]
    add.builtinOptionsType, add.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph = schema.SubGraphT()
    graph.tensors = [tensor(name, [1, 3]) for name in ("a", "b", "c")]
    graph.inputs, graph.outputs, graph.operators = [0, 1], [2], [add]
    signature = schema.SignatureDefT()
    signature.inputs, signature.outputs = [named("x", 0), named("state.sum", 1)], [named("next_state.sum", 2)]
    signature.signatureKey = "serving_default"
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers, model.signatureDefs = [schema.BufferT()], [signature]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(params=["bytes", "path"])
def graph(request, tmp_path):
    content = graph_bytes()
    if request.param == "path":
        (tmp_path / "step.tflite").write_bytes(content)
        return load_graph("litert", tmp_path / "step.tflite", threads=1)
    return load_graph("litert", content, threads=1)


def row(*values):
    return np.array([values], np.float32)


def test_a_graph_has_the_names_of_its_signature(graph):
    spec = TensorSpec((1, 3), "float32")
    assert graph.inputs == {"x": spec, "state.sum": spec}
    assert graph.outputs == {"next_state.sum": spec}


def test_it_keeps_nothing_and_its_outputs_stay_as_they_are(graph):
    first = graph.run({"x": row(1, 2, 3), "state.sum": row(10, 20, 30), "unread": row(0)})["next_state.sum"]
    second = graph.run({"x": row(1, 1, 1), "state.sum": first})["next_state.sum"]
    assert first.tolist() == [[11, 22, 33]]
    assert second.tolist() == [[12, 23, 34]]


@pytest.mark.parametrize("content", [b"", b"no model", graph_bytes()[:200]])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "step.tflite"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"LiteRT cannot load .*step\.tflite .*export the bundle again"):
        load_graph("litert", path, threads=1)


# Export, in the environment that it has of its own


@pytest.fixture(scope="module")
def bundle(exported, repository, tmp_path_factory):
    """The toy model for both runtimes, and what the command printed of it."""
    program = repository / ".venv-litert" / "bin" / "edgeasr"
    if not program.exists():
        pytest.skip("litert-torch is not set up: `make litert` does it")
    folder = tmp_path_factory.mktemp("litert")
    exported.checkpoint.save(folder / "toy.safetensors")
    kinds = ("onnx-int8", "onnx-fp32", "litert-int8", "litert-fp32")
    done = subprocess.run(
        [program, "export", folder / "toy.safetensors", "--output", folder / "toy-model", "--json"]
        + [argument for kind in kinds for argument in ("--artefact", kind)]
        + ["--check-audio", exported.recording],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Bundle.load(folder / "toy-model"), json.loads(done.stdout)


def test_every_artefact_is_that_of_torch(bundle):
    rows = {row["artefact"]: row for row in bundle[1]["artefacts"]}
    assert rows["litert-fp32"]["max_difference"] < 1e-4
    assert rows["litert-fp32"]["agreement"] == 1.0
    assert rows["litert-int8"]["max_difference"] > 1e-4
    assert rows["litert-int8"]["snr_db"] > 20
    assert rows["litert-int8"]["size_mb"] < rows["litert-fp32"]["size_mb"]


def test_both_runtimes_read_and_write_the_same(bundle):
    model, reference = (AcousticModel(bundle[0], backend=backend) for backend in ("litert-int8", "onnx-int8"))
    assert (model.backend, reference.backend) == ("litert", "onnxruntime")
    assert model.init_state().keys() == reference.init_state().keys()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_both_runtimes_hear_the_same(bundle, exported, precision):
    heard = []
    for kind in ("onnx", "litert"):
        with FileSource(exported.recording) as source:
            recognizer = Recognizer(bundle[0], backend=f"{kind}-{precision}")
            heard.append([(event.type, event.text) for event in recognizer.stream(source)])
    assert heard[0] == heard[1]
    assert heard[0][-1][0] == "final"
