# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
import subprocess
import sys

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
from edgeasr.errors import BundleError, ExtraMissingError
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer


def named(name, index):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def tensor(name, shape, scales=()):
    """Of float32; of int8 and with the content of the second buffer where there are scales."""
    made = schema.TensorT()
    made.name, made.shape, made.type = name, shape, schema.TensorType.FLOAT32
    if scales:
        made.type, made.buffer, made.quantization = schema.TensorType.INT8, 1, schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = list(scales), [0] * len(scales)
    return made


def operator(name, inputs, outputs):
    """Its code, and itself: both are entries of a model."""
    code, made = schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name.upper())
    code.version = 1 if name == "add" else 3  # of weights in int8 under activations in float32
    title = "".join(part.title() for part in name.split("_")) + "Options"
    made.builtinOptionsType = getattr(schema.BuiltinOptions, title)
    made.inputs, made.outputs, made.builtinOptions = inputs, outputs, getattr(schema, f"{title}T")()
    return code, made


def model_bytes(tensors, made, inputs, outputs, weights=()) -> bytes:
    code, one = made
    graph, signature, model = schema.SubGraphT(), schema.SignatureDefT(), schema.ModelT()
    graph.tensors, graph.operators = tensors, [one]
    graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
    signature.inputs, signature.outputs = ([named(*pair) for pair in side.items()] for side in (inputs, outputs))
    signature.signatureKey = "serving_default"
    content = schema.BufferT()
    content.data = np.array(weights, np.int8).view(np.uint8)
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers, model.signatureDefs = [schema.BufferT(), content], [signature]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def graph_bytes() -> bytes:
    """state.sum + x, under names that the tensors themselves do not have."""
    tensors = [tensor(name, [1, 3]) for name in ("a", "b", "c")]
    add = operator("add", [0, 1], [2])
    return model_bytes(tensors, add, {"x": 0, "state.sum": 1}, {"next_state.sum": 2})


def layer_bytes(*scales) -> bytes:
    """x and a matrix of two channels, in int8 with one scale or two."""
    tensors = [tensor("a", [1, 3]), tensor("w", [2, 3], scales), tensor("y", [1, 2])]
    layer = operator("fully_connected", [0, 1, -1], [2])
    return model_bytes(tensors, layer, {"x": 0}, {"y": 2}, weights=[1, 2, 3, 4, 5, 6])


@pytest.fixture(params=["litert", "tflite"])
def backend(request):
    return request.param


@pytest.fixture(params=["bytes", "path"])
def graph(request, tmp_path, backend):
    content = graph_bytes()
    if request.param == "path":
        (tmp_path / "step.tflite").write_bytes(content)
        return load_graph(backend, tmp_path / "step.tflite", threads=1)
    return load_graph(backend, content, threads=1)


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


def test_weights_with_one_scale_are_run_by_both(backend):
    layer = load_graph(backend, layer_bytes(0.5), threads=1)
    np.testing.assert_allclose(layer.run({"x": row(1, 1, 1)})["y"], [[3.0, 7.5]], rtol=0.01)


def test_weights_with_a_scale_a_channel_are_refused_for_tflite_runtime():
    layer = load_graph("litert", layer_bytes(0.5, 0.25), threads=1)
    np.testing.assert_allclose(layer.run({"x": row(1, 1, 1)})["y"], [[3.0, 3.75]], rtol=0.01)
    with pytest.raises(BundleError, match=r"has int8 weights with 2 scales .*misreads.* --target tflite-armv7$"):
        load_graph("tflite", layer_bytes(0.5, 0.25), threads=1)


def test_without_a_runtime_the_extra_is_named(monkeypatch):
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExtraMissingError, match=r"^tflite-runtime is not installed.* pip install 'edgeasr\[tflite\]'"):
        load_graph("tflite", graph_bytes(), threads=1)


# Export, in the environment that it has of its own


@pytest.fixture(scope="module")
def bundle(exported, repository, tmp_path_factory):
    """The toy model for both runtimes, and what the command printed of it."""
    program = repository / ".venv-litert" / "bin" / "edgeasr"
    if not program.exists():
        pytest.skip("litert-torch is not set up: `make litert` does it")
    folder = tmp_path_factory.mktemp("litert")
    exported.checkpoint.save(folder / "toy.safetensors")
    kinds = ("onnx-int8", "onnx-fp32", "litert-int8", "litert-fp32", "tflite-int8")
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
    for kind in ("litert-int8", "tflite-int8"):
        assert rows[kind]["max_difference"] > 1e-4
        assert rows[kind]["snr_db"] > 20
        assert rows[kind]["size_mb"] < rows["litert-fp32"]["size_mb"]
        assert rows[kind]["fp32_share"] < 0.9 < rows["litert-fp32"]["fp32_share"] == 1.0


def test_a_scale_a_matrix_is_for_tflite_runtime_and_a_scale_a_channel_is_refused_there(bundle):
    assert AcousticModel(bundle[0], backend="tflite-int8").backend == "tflite"
    with pytest.raises(BundleError, match="misreads"):
        load_graph("tflite", bundle[0].artefact("litert-int8")["step"], threads=1)


@pytest.mark.parametrize("kind", ["litert-int8", "litert-fp32", "tflite-int8"])
def test_constants_begin_where_32_bit_arm_can_read_them(bundle, kind):
    for path in bundle[0].artefact(kind).values():
        content = np.fromfile(path, np.uint8)
        model = schema.Model.GetRootAsModel(content, 0)
        found = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength())]
        begins = [array.ctypes.data - content.ctypes.data for array in found if isinstance(array, np.ndarray)]
        assert len(begins) > 20
        assert not any(begin % 16 for begin in begins)


def test_both_runtimes_read_and_write_the_same(bundle):
    model, reference = (AcousticModel(bundle[0], backend=backend) for backend in ("litert-int8", "onnx-int8"))
    assert (model.backend, reference.artefact) == ("litert", "onnx-int8")
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
