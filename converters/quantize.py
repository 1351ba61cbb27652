"""Dynamic int8 quantisation of an ONNX graph's matrix products."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

_ZERO_POINT = 3  # input of MatMulInteger, of the weights


def quantize_int8(model: bytes) -> bytes:
    """Weights of matrix products to int8, per output channel; activations are quantised as they come.

    The range is reduced to 7 bits: without VNNI, x86 adds pairs of products in 16 bits, which would saturate.
    """
    with tempfile.TemporaryDirectory() as folder, without_advice():
        source, target = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(model)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        quantised: bytes = _without_zero_points(onnx.load(target)).SerializeToString()
        return quantised


def _without_zero_points(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights are symmetric: their zero points are zeros, column by column, which products need not be told."""
    graph = model.graph
    zeros = {tensor.name for tensor in graph.initializer if not numpy_helper.to_array(tensor).any()}
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[_ZERO_POINT:] and node.input[_ZERO_POINT] in zeros:
            del node.input[_ZERO_POINT:]
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


@contextmanager
def without_advice() -> Iterator[None]:
    """The quantiser advises through the root logger to pre-process graphs, which makes these slower; not heard here."""
    root, unheard = logging.getLogger(), logging.NullHandler()
    root.addHandler(unheard)  # without any handler, logging would install one for good
    root.addFilter(_is_no_advice)
    try:
        yield
    finally:
        root.removeFilter(_is_no_advice)
        root.removeHandler(unheard)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
