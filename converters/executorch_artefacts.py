"""The artefacts that ExecuTorch runs, on XNNPACK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeasr.converters.artefacts import KINDS, ExportOptions
from edgeasr.converters.calibration import Feed
from edgeasr.converters.raw_graph import RawGraph
from edgeasr.converters.to_executorch import to_executorch


def forms(
    raw: RawGraph, kinds: Sequence[str], options: ExportOptions, feeds: Sequence[Feed]
) -> Iterator[tuple[str, bytes]]:
    """The graph in the form of each kind. errors: BundleError where an operator cannot be lowered"""
    del options, feeds
    for kind in kinds:
        yield kind, to_executorch(raw.graph, KINDS[kind].precision)
