"""The artefacts that ONNX Runtime runs: the graph fused, and its matrix products in int8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeasr.converters.artefacts import KINDS, ExportOptions
from edgeasr.converters.calibration import Feed
from edgeasr.converters.fuse import fuse
from edgeasr.converters.preparation import set_apart
from edgeasr.converters.quantize import quantize_int8
from edgeasr.converters.raw_graph import RawGraph
from edgeasr.model import MEMORY


def forms(
    raw: RawGraph, kinds: Sequence[str], options: ExportOptions, feeds: Sequence[Feed]
) -> Iterator[tuple[str, bytes]]:
    """The graph in the form of each kind."""
    del options, feeds
    fused = fuse(raw.onnx)
    exact = fused if raw.name == MEMORY else set_apart(fused)
    for kind in kinds:
        yield kind, quantize_int8(exact) if KINDS[kind].precision == "int8" else exact
