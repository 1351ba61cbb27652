"""Dynamic int8 quantisation of an ONNX graph's matrix products."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic


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
        return target.read_bytes()


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
