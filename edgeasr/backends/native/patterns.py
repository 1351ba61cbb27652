"""Groups of operators that one of `kernels.c` does at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.onnx_reader import GraphNode, OnnxContent

Constants = Mapping[str, NDArray[Any]]

_FLOAT = 1  # of TensorProto.DataType
_BY_ROWS = {"transBatchA": 1, "transBatchB": 1, "transB": 1}


class Group(NamedTuple):
    """Operators that are done at once.

    kind:   "linear", "attention", "depthwise", "gate" or "convolution"
    nodes:  their numbers in the graph; it is done where the last of them stands
    output: name of what comes of it
    tensors: names of what it reads, by what they are to it; "" for none
    values: its numbers
    """

    kind: str
    nodes: tuple[int, ...]
    output: str
    tensors: Mapping[str, str]
    values: Mapping[str, Any]


def grouped(content: OnnxContent, constants: Constants) -> tuple[Group, ...]:
    """The groups of a graph, whose nodes come after what they read; no node is in two of them."""
    graph = _Links(content, constants)
    matchers: tuple[Callable[[_Links, int], Group | None], ...] = (
        _linear,
        _attention,
        _depthwise,
        _convolution,
        _gate,
    )
    found: list[Group] = []
    for matcher in matchers:
        for number in range(len(content.nodes)):
            if number not in graph.taken and (group := matcher(graph, number)) is not None:
                found.append(group)
                graph.take(group)
    return tuple(found)


class _Links:
    """Who makes and who reads what. taken: nodes that are in a group already"""

    def __init__(self, content: OnnxContent, constants: Constants) -> None:
        self.nodes, self.constants = content.nodes, constants
        self.given = set(content.outputs)
        self.taken: set[int] = set()
        self.maker = {name: i for i, node in enumerate(content.nodes) for name in node.outputs if name}
        readers: dict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(content.nodes):
            for name in node.inputs:
                readers[name].append(i)
        self.readers = readers

    def take(self, group: Group) -> None:
        """Its nodes, but for what other groups need as well: what is quantised may be multiplied more than once."""
        self.taken |= {number for number in group.nodes if self.nodes[number].op_type != "DynamicQuantizeLinear"}

    def only(self, name: str, op_type: str) -> int | None:
        """The only reader of what the graph does not give, if it is of this kind and in no group yet."""
        readers = self.readers[name]
        if name in self.given or len(readers) != 1 or self.nodes[readers[0]].op_type != op_type:
            return None
        return None if readers[0] in self.taken else readers[0]

    def made_by(self, name: str, op_type: str) -> int | None:
        """What makes it, if it is of this kind."""
        number = self.maker.get(name)
        return number if number is not None and self.nodes[number].op_type == op_type else None

    def silu(self, name: str) -> tuple[int, int] | None:
        """Sigmoid and Mul that make name * sigmoid(name), if nothing else reads it."""
        readers = self.readers[name]
        if name in self.given or len(readers) != 2:
            return None
        first, second = sorted(readers, key=lambda number: self.nodes[number].op_type, reverse=True)
        sigmoid, product = self.nodes[first], self.nodes[second]
        if (sigmoid.op_type, product.op_type) != ("Sigmoid", "Mul") or self.only(sigmoid.outputs[0], "Mul") != second:
            return None
        return (first, second) if name in product.inputs else None


def _other(node: GraphNode, name: str) -> str:
    """The input of two that is not this one."""
    first, second = node.inputs
    return second if first == name else first


def _linear(graph: _Links, number: int) -> Group | None:
    """Numbers quantised as they come, times constant weights in int8; bias, SiLU and what is added to it."""
    node = graph.nodes[number]
    if node.op_type != "MatMulInteger" or any(np.any(graph.constants.get(name, 1)) for name in node.inputs[3:]):
        return None
    quantised, weights, zero_point = node.inputs[:3]
    source = graph.made_by(quantised, "DynamicQuantizeLinear")
    cast = graph.only(node.outputs[0], "Cast")
    if source is None or cast is None or weights not in graph.constants:
        return None
    scaled = graph.only(graph.nodes[cast].outputs[0], "Mul")
    if scaled is None or graph.nodes[cast].attributes.get("to") != _FLOAT:
        return None
    x = graph.nodes[source]
    scale = graph.made_by(_other(graph.nodes[scaled], graph.nodes[cast].outputs[0]), "Mul")
    if scale is None or x.outputs[1] not in graph.nodes[scale].inputs or x.outputs[2] != zero_point:
        return None
    scales = _other(graph.nodes[scale], x.outputs[1])
    if scales not in graph.constants:
        return None
    nodes, output, bias, residual = [source, number, cast, scale, scaled], graph.nodes[scaled].outputs[0], "", ""
    added = graph.only(output, "Add")
    if added is not None and (name := _other(graph.nodes[added], output)) in graph.constants:
        nodes, output, bias = [*nodes, added], graph.nodes[added].outputs[0], name
    silu = graph.silu(output)
    if silu is not None:
        nodes, output = [*nodes, *silu], graph.nodes[silu[1]].outputs[0]
    else:
        added = graph.only(output, "Add")
        if added is not None and (name := _other(graph.nodes[added], output)) not in graph.constants:
            nodes, output, residual = [*nodes, added], graph.nodes[added].outputs[0], name
    tensors = {"x": x.inputs[0], "weights": weights, "scales": scales, "bias": bias, "residual": residual}
    return Group("linear", tuple(nodes), output, tensors, {"silu": silu is not None})


def _attention(graph: _Links, number: int) -> Group | None:
    """Softmax of products of queries and keys, both as rows of time, times values: over a past and what is new."""
    node = graph.nodes[number]
    if node.op_type != "FusedMatMul" or not _has(node, _BY_ROWS):
        return None
    query, keys = node.inputs
    masked = graph.only(node.outputs[0], "Add")
    weighed = None if masked is None else graph.only(graph.nodes[masked].outputs[0], "Softmax")
    if masked is None or weighed is None or graph.nodes[weighed].attributes.get("axis") not in (-1, 3):
        return None
    mixed = graph.only(graph.nodes[weighed].outputs[0], "FusedMatMul")
    turned = None if mixed is None else graph.only(graph.nodes[mixed].outputs[0], "Transpose")
    shaped = None if turned is None else graph.only(graph.nodes[turned].outputs[0], "Reshape")
    if mixed is None or turned is None or shaped is None or not _has(graph.nodes[mixed], {"transBatchB": 1}):
        return None
    if graph.nodes[turned].attributes.get("perm") != (0, 2, 1, 3) or graph.nodes[mixed].attributes.get("alpha", 1) != 1:
        return None
    key_parts, value_parts = (_parts(graph, name, axis=0) for name in (keys, graph.nodes[mixed].inputs[1]))
    if key_parts is None or value_parts is None:
        return None
    (kept, past_key, new_key), (also_kept, past_value, new_value) = key_parts, value_parts
    tensors = {
        "query": query,
        "past_key": past_key,
        "new_key": new_key,
        "past_value": past_value,
        "new_value": new_value,
        "bias": _other(graph.nodes[masked], node.outputs[0]),
    }
    nodes = (number, masked, weighed, mixed, turned, shaped, *kept, *also_kept)
    values = {"factor": node.attributes.get("alpha", 1.0), "shaped": shaped}
    return Group("attention", nodes, graph.nodes[shaped].outputs[0], tensors, values)


def _depthwise(graph: _Links, number: int) -> Group | None:
    """A convolution of each channel for itself: rows of time gathered by taps, times weights, and summed."""
    node = graph.nodes[number]
    if node.op_type != "Gather" or node.attributes.get("axis") != 1 or node.inputs[1] not in graph.constants:
        return None
    parts = _parts(graph, node.inputs[0], axis=1)
    product = graph.only(node.outputs[0], "Mul")
    summed = None if product is None else graph.only(graph.nodes[product].outputs[0], "ReduceSum")
    added = None if summed is None else graph.only(graph.nodes[summed].outputs[0], "Add")
    if parts is None or product is None or summed is None or added is None:
        return None
    rows = graph.constants[node.inputs[1]]
    weights, bias = (
        _other(graph.nodes[reader], name)
        for reader, name in ((product, node.outputs[0]), (added, graph.nodes[summed].outputs[0]))
    )
    axes = graph.constants.get(graph.nodes[summed].inputs[1])
    taken = np.arange(rows.shape[0])[:, None] + np.arange(rows.shape[-1]) if rows.ndim == 2 else None
    if taken is None or not np.array_equal(rows, taken) or axes is None or axes.tolist() != [2]:
        return None
    if graph.nodes[summed].attributes.get("keepdims") != 0 or not {weights, bias} <= graph.constants.keys():
        return None
    kept, past, new = parts
    tensors = {"past": past, "new": new, "weights": weights, "bias": bias}
    nodes = (number, product, summed, added, *kept)
    return Group(
        "depthwise", nodes, graph.nodes[added].outputs[0], tensors, {"rows": rows.shape[0], "taps": rows.shape[1]}
    )


def _convolution(graph: _Links, number: int) -> Group | None:
    """A convolution with SiLU behind it."""
    node = graph.nodes[number]
    silu = graph.silu(node.outputs[0]) if node.op_type == "Conv" else None
    if silu is None:
        return None
    return Group("convolution", (number, *silu), graph.nodes[silu[1]].outputs[0], {"x": node.inputs[0]}, {})


def _gate(graph: _Links, number: int) -> Group | None:
    """One thing times the logistic function of another, or of itself."""
    node = graph.nodes[number]
    product = graph.only(node.outputs[0], "Mul") if node.op_type == "Sigmoid" else None
    if product is None:
        return None
    x = _other(graph.nodes[product], node.outputs[0])
    tensors = {"x": x, "gate": node.inputs[0]}
    return Group("gate", (number, product), graph.nodes[product].outputs[0], tensors, {})


def _parts(graph: _Links, name: str, axis: int) -> tuple[tuple[int, ...], str, str] | None:
    """A past and what is new, and before them what joins both, unless somebody else reads them joined."""
    number = graph.made_by(name, "Concat")
    if number is None:
        return None
    node = graph.nodes[number]
    if node.attributes.get("axis") != axis or len(node.inputs) != 2:
        return None
    alone = name not in graph.given and len(graph.readers[name]) == 1
    return (number,) if alone else (), node.inputs[0], node.inputs[1]


def _has(node: GraphNode, wanted: Mapping[str, int]) -> bool:
    """Whether these switches of a product are on, and no others."""
    switches: Sequence[str] = ("transA", "transB", "transBatchA", "transBatchB")
    return all(node.attributes.get(name, 0) == wanted.get(name, 0) for name in switches)
