"""The artefacts of a bundle that TensorRT builds its engines from: ONNX files, which ONNX Runtime runs too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeasr.converters.artefacts import KINDS, ExportOptions
from edgeasr.converters.calibration import Feed
from edgeasr.converters.raw_graph import RawGraph
from edgeasr.converters.tensorrt_support import require_supported
from edgeasr.converters.to_tensorrt import to_fp16, to_qdq_int8, to_tensorrt


def forms(
    raw: RawGraph, kinds: Sequence[str], options: ExportOptions, feeds: Sequence[Feed]
) -> Iterator[tuple[str, bytes]]:
    """The graph in each of these artefacts.

    feeds:  inputs on speech, for int8
    errors: BundleError that names what this release of TensorRT does not take
    """
    exact = to_tensorrt(raw.onnx, options.tensorrt)
    for kind in kinds:
        model = _in_precision(exact, KINDS[kind].precision, feeds)
        require_supported(model, raw.name, options.tensorrt)
        yield kind, model


def _in_precision(exact: bytes, precision: str, feeds: Sequence[Feed]) -> bytes:
    if precision == "fp16":
        return to_fp16(exact)
    return to_qdq_int8(exact, feeds) if precision == "int8" else exact
