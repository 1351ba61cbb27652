"""Graphs to ONNX that TensorRT reads: static shapes and standard operators only, in fp32, fp16 or symmetric int8.

TensorRT compiles these on the device that will run them (`engine_script.py`); elsewhere ONNX Runtime runs them. All
precisions take and give the same tensors: the state of a stream is fp32, and whole numbers stay whole.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edgeasr.converters.quantize import without_advice
from edgeasr.converters.tensorrt_opset13 import to_opset13
from edgeasr.errors import BundleError

Feed = Mapping[str, NDArray[np.generic]]

PRECISIONS = ("fp32", "fp16", "int8")

# Sums, exponentials and logarithms lose words in 16 bits, and masks are infinite; TensorRT computes them in fp32 too.
_IN_32_BITS = (
    *DEFAULT_OP_BLOCK_LIST,
    *("Clip", "Cos", "Div", "Exp", "Expand", "Floor", "GatherElements", "Greater", "IsNaN", "LayerNormalization"),
    *("Log", "LogSoftmax", "Pad", "ReduceMax", "ReduceSum", "Sin", "Softmax", "Where"),
)
_PASS_NUMBERS_ON = frozenset({"Cos", "Sin"})  # what follows these is bounded again


def to_tensorrt(exported: bytes, tensorrt: str = "10") -> bytes:
    """The raw export in fp32, in the operators that this version of TensorRT knows.

    exported: what `to_onnx` gave
    tensorrt: "10" (JetPack 6 and 7), or "8.2" (JetPack 4.6), which stops at opset 13
    errors:   BundleError for another version
    """
    if tensorrt not in ("10", "8.2"):
        raise BundleError(f"got TensorRT {tensorrt}, wanted 10 or 8.2: choose the one of the board's JetPack")
    return exported if tensorrt == "10" else to_opset13(exported)


def to_fp16(model: bytes) -> bytes:
    """Weights and activations in fp16; inputs and outputs, positions and the sums of summaries stay in fp32."""
    loaded = onnx.load_from_string(model)
    _name_nodes(loaded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says of every small weight that it becomes a subnormal
        converted = convert_float_to_float16(
            loaded, keep_io_types=True, op_block_list=list(_IN_32_BITS), node_block_list=_delicate(loaded)
        )
    del converted.graph.value_info[:]  # has types of before beside those of after
    _stay_in_32_bits(converted.graph)
    OnnxModel.graph_topological_sort(converted.graph)
    onnx.checker.check_model(converted, full_check=True)
    return bytes(converted.SerializeToString())


def to_qdq_int8(model: bytes, calibration: Sequence[Feed]) -> bytes:
    """Products with weights in int8 between QuantizeLinear and DequantizeLinear, all zero points 0.

    Weights per output channel, activations a tensor; products of two activations stay as they are.
    calibration: inputs of the graph as they occur on speech
    errors:      BundleError without any
    """
    if not calibration:
        raise BundleError(
            "got no inputs to calibrate int8 on, wanted those of some minutes of speech: name a manifest of longer "
            "recordings"
        )
    loaded = onnx.load_from_string(model)
    _name_nodes(loaded)
    with tempfile.TemporaryDirectory() as folder, without_advice():
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(loaded, source)
        quantize_static(
            source,
            target,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=_products_with_weights(loaded),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "DedicatedQDQPair": True,
                "QuantizeBias": False,
            },
        )
        return target.read_bytes()


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Both converters speak of nodes by name."""
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}.{i}"


def _stay_in_32_bits(graph: onnx.GraphProto) -> None:
    """Between two nodes in 32 bits the converter rounds to 16 and back: what it inserted is taken out there."""
    # `_name_nodes` named all that were there before: a cast of truth values to 16 bits, say, has another meaning.
    inserted = [node for node in graph.node if node.op_type == "Cast" and not node.name.startswith("Cast.")]
    made_by = {name: node for node in inserted for name in node.output}
    source = {}
    for node in inserted:
        before = made_by.get(node.input[0]) if _casts_to(node, onnx.TensorProto.FLOAT) else None
        if before is not None and _casts_to(before, onnx.TensorProto.FLOAT16):
            source[node.output[0]] = before.input[0]
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = source.get(name, name)
    wanted = {value.name for value in graph.output} | {name for node in graph.node for name in node.input}
    kept = [node for node in graph.node if not wanted.isdisjoint(node.output)]
    # A cast to 16 bits whose only reader was taken out goes too.
    wanted = {value.name for value in graph.output} | {name for node in kept for name in node.input}
    del graph.node[:]
    graph.node.extend(node for node in kept if not wanted.isdisjoint(node.output))


def _casts_to(node: onnx.NodeProto, dtype: int) -> bool:
    return node.op_type == "Cast" and any(a.name == "to" and a.i == dtype for a in node.attribute)


def _products_with_weights(model: onnx.ModelProto) -> list[str]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def _delicate(model: onnx.ModelProto) -> list[str]:
    """Nodes in which numbers are too large or too fine for 16 bits: positions up to their sine, and summaries' sums."""
    followed = {
        value.name
        for value in model.graph.input
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT64 or value.name.startswith("state.pool.")
    }
    names = []
    inferred = onnx.shape_inference.infer_shapes(model)
    truths = {v.name for v in inferred.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.BOOL}
    for node in model.graph.node:
        if followed.isdisjoint(node.input):
            continue
        names.append(node.name)
        if node.op_type not in _PASS_NUMBERS_ON:
            followed.update(name for name in node.output if name not in truths)
    return names
