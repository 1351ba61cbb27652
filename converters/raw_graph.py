"""A graph in the raw forms that artefacts are made of."""

from __future__ import annotations

from functools import cached_property

from edgeasr.converters.signature import Graph
from edgeasr.converters.to_onnx import to_onnx


class RawGraph:
    """A graph, exported in fp32 when first asked for and then kept: makers of several artefacts share it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @property
    def name(self) -> str:
        """The part of the bundle that it is."""
        return self.graph.name

    @cached_property
    def onnx(self) -> bytes:
        """In opset 18, as the exporter left it."""
        return to_onnx(self.graph)

    @cached_property
    def litert(self) -> bytes:
        """As a LiteRT model with the names of the graph."""
        from edgeasr.converters.to_litert import to_litert

        return to_litert(self.graph)
