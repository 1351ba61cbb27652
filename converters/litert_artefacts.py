"""The artefacts that LiteRT and tflite-runtime run: the graph, and its fully connected layers in int8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeasr.converters.artefacts import KINDS, ExportOptions
from edgeasr.converters.calibration import Feed
from edgeasr.converters.raw_graph import RawGraph
from edgeasr.converters.to_litert import quantize_litert


def forms(
    raw: RawGraph, kinds: Sequence[str], options: ExportOptions, feeds: Sequence[Feed]
) -> Iterator[tuple[str, bytes]]:
    """The graph in the form of each kind. errors: BundleError where an operator cannot be converted"""
    del options, feeds
    for kind in kinds:
        if KINDS[kind].precision == "int8":
            yield kind, quantize_litert(raw.litert, per_channel=not kind.startswith("tflite-"))
        else:
            yield kind, raw.litert
