"""The artefact that PyTorch runs: the weights as they are, in one file for all graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeasr.backends.torch import weights_file
from edgeasr.converters.artefacts import ExportOptions
from edgeasr.converters.calibration import Feed
from edgeasr.converters.raw_graph import RawGraph


def forms(
    raw: RawGraph, kinds: Sequence[str], options: ExportOptions, feeds: Sequence[Feed]
) -> Iterator[tuple[str, bytes]]:
    """All graphs in one. raw: the step"""
    del options, feeds
    for kind in kinds:
        yield kind, weights_file(raw.graph.encoder)
