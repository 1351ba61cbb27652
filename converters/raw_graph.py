"""A graph in the raw forms that artefacts are made of."""

from __future__ import annotations

from functools import cached_property

import onnx

from edgeasr.converters.signature import Graph
from edgeasr.converters.to_onnx import to_onnx
from edgeasr.errors import BundleError


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
        """In opset 18, as the exporter left it. errors: BundleError where it cannot be exported, or a size varies"""
        model = to_onnx(self.graph)
        _require_fixed_sizes(model, self.name)
        return model

    @cached_property
    def litert(self) -> bytes:
        """As a LiteRT model with the names of the graph. errors: BundleError where it cannot be converted"""
        from edgeasr.converters.to_litert import to_litert

        return to_litert(self.graph)


def _require_fixed_sizes(model: bytes, name: str) -> None:
    """A bundle's states have one size each, and so must what its graphs read and give."""
    graph = onnx.load_from_string(model).graph
    for value in (*graph.input, *graph.output):
        varying = [dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim if not dim.HasField("dim_value")]
        if varying:
            raise BundleError(
                f"the {name} graph has a size of {value.name} that varies ({', '.join(varying)}), wanted fixed sizes: "
                "give the sizes of chunks and states as numbers in the model"
            )
