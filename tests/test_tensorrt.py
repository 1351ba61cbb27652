# ruff: noqa: E402 - torch is looked for before the modules that import it
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeasr.converters import calibration, raw_graph
from edgeasr.converters.artefacts import ExportOptions
from edgeasr.converters.export import export
from edgeasr.converters.tensorrt_support import require_supported, unsupported
from edgeasr.errors import BundleError, ConfigError
from edgeasr.model import AcousticModel

KINDS = ("tensorrt-fp16", "tensorrt-fp32", "tensorrt-int8")


@pytest.fixture(scope="module", autouse=True)
def ready(exported):
    """The graphs are exported already."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(raw_graph, "to_onnx", lambda graph: exported.onnx[graph.name])
        yield


@pytest.fixture(scope="module")
def made(exported, tmp_path_factory):
    """The toy model for TensorRT 10, in all precisions, scales set on the recording that it is compared on."""
    output = tmp_path_factory.mktemp("tensorrt") / "toy"
    options = ExportOptions(calibration=[exported.recording] * 8)
    return export(exported.checkpoint, output, KINDS, exported.recording, options=options)


def graphs_of(made, kind):
    return {part: onnx.load(path) for part, path in made.bundle.artefact(kind).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_have_fixed_sizes_and_standard_operators_alone(made, kind):
    for graph in graphs_of(made, kind).values():
        assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
        for value in (*graph.graph.input, *graph.graph.output):
            assert all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)


def test_int8_is_symmetric_and_weights_have_a_scale_a_channel(made):
    step = graphs_of(made, "tensorrt-int8")["step"].graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in step.initializer}
    scaled = [node for node in step.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(scaled) > 20
    for node in scaled:
        assert not constants[node.input[2]].any()
        assert constants[node.input[2]].dtype == np.int8
    weights = [node for node in scaled if node.input[0] in constants]
    assert weights
    assert all(constants[node.input[1]].size == constants[node.input[0]].shape[-1] for node in weights)


def test_every_precision_is_as_close_to_torch_as_it_should_be(made):
    differences = {parity.artefact: parity.max_difference for parity in made.parities}
    assert differences["tensorrt-fp32"] < 1e-4 < differences["tensorrt-int8"]
    assert differences["tensorrt-fp32"] < differences["tensorrt-fp16"] < 0.02
    assert all(parity.agreement >= 0.95 for parity in made.parities)


def test_states_are_the_same_in_all_precisions(made):
    step = [AcousticModel(made.bundle, backend=kind) for kind in KINDS]
    specs = [{name: (array.shape, array.dtype) for name, array in model.init_state().items()} for model in step]
    assert specs[0] == specs[1] == specs[2]


def test_a_script_that_builds_every_engine_lies_in_the_bundle(made):
    lines = made.bundle.content("build_engine.sh").decode().splitlines()
    built = [line.split()[1:4] for line in lines if line.startswith("build tensorrt-")]
    files = made.bundle.files
    assert built == [
        [kind, name, files[name].sha256] for kind in KINDS for name in made.bundle.artefacts[kind].values()
    ]
    assert len(built) == 6


def test_for_tensorrt_8_there_is_opset_13(exported, tmp_path):
    options = ExportOptions("8.2")
    made = export(exported.checkpoint, tmp_path / "toy", ["tensorrt-fp32"], exported.recording, options=options)
    for graph in graphs_of(made, "tensorrt-fp32").values():
        assert [one.version for one in graph.opset_import if one.domain == ""] == [13]
        assert not {"LayerNormalization", "Mod"} & {node.op_type for node in graph.graph.node}
    assert made.parities[0].max_difference < 1e-4


def test_what_8_does_not_have_is_named(exported):
    raw = exported.onnx["step"]
    with pytest.raises(BundleError, match=r"TensorRT 8\.2 cannot build the step graph: .*export for this release"):
        require_supported(raw, "step", "8.2")
    assert unsupported(raw, "10") == []


def graph_of(node, inputs, constants=(), dims=(1, 4)):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in inputs]
    output = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "a", values, [output], list(constants))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets).SerializeToString()


ZERO, SCALE = numpy_helper.from_array(np.int8(3), "z"), numpy_helper.from_array(np.float32(0.1), "s")


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (graph_of(helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), ["x"]), "com.microsoft.Gelu"),
        (graph_of(helper.make_node("Relu", ["x"], ["y"]), ["x"], dims=("n", 4)), "a size of x that varies"),
        (graph_of(helper.make_node("Det", ["x"], ["y"]), ["x"], dims=(4, 4)), "Det"),
        (
            graph_of(helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"]), ["x"], [SCALE, ZERO]),
            "QuantizeLinear with a zero point other than 0",
        ),
    ],
)
def test_what_no_engine_can_be_built_of_is_named(model, what):
    assert what in [one.what for one in unsupported(model, "10")]
    with pytest.raises(BundleError, match="TensorRT 10 cannot build the step graph"):
        require_supported(model, "step", "10")


def test_bad_input_is_answered(exported, tmp_path, monkeypatch):
    def try_it(kind, options):
        export(exported.checkpoint, tmp_path / "toy", [kind], exported.recording, options=options)

    with pytest.raises(BundleError, match=r"got TensorRT 9, wanted 10 or 8\.2"):
        try_it("tensorrt-fp32", ExportOptions("9"))
    with pytest.raises(ConfigError, match="without speech to set its scales on: name a --calibration MANIFEST"):
        try_it("tensorrt-int8", ExportOptions())
    monkeypatch.setattr(calibration, "_chunks", lambda path, model: iter(()))
    with pytest.raises(BundleError, match="too short to calibrate the step graph"):
        try_it("tensorrt-int8", ExportOptions(calibration=[exported.recording]))
    assert not (tmp_path / "toy").exists()
