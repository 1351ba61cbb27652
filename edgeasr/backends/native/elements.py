"""Operators on elements, and on rows of them."""

from __future__ import annotations

import math

import numpy as np

from edgeasr.backends.native.patterns import Group
from edgeasr.backends.native.program import Builder
from edgeasr.backends.native.tensors import View, bits, broadcast, merged, padded
from edgeasr.errors import UnsupportedGraphError
from edgeasr.onnx_reader import GraphNode

_TYPES = {"float32": 0, "int64": 1, "bool": 2}
BINARY = ("Add", "Sub", "Mul", "Div", "Mod", "Greater", "GreaterOrEqual", "Less", "Equal", "And", "Max")
UNARY = ("Exp", "Log", "Sigmoid", "Cos", "Sin", "Clip", "Cast", "Tanh", "Neg", "Floor", "Not")
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "Equal")
_CASTS = {1: "float32", 7: "int64", 9: "bool"}  # of TensorProto.DataType


def binary(b: Builder, node: GraphNode) -> None:
    """Of two tensors, broadcast."""
    if len(node.inputs) != 2:
        raise UnsupportedGraphError(f"got {node.op_type} of {len(node.inputs)} tensors, wanted two")
    x, y = (b.view(name) for name in node.inputs)
    wanted = ("bool",) if node.op_type == "And" else ("float32", "int64")
    if x.dtype != y.dtype or x.dtype not in wanted:
        raise UnsupportedGraphError(f"got {node.op_type} of {x.dtype} and {y.dtype}")
    if node.op_type == "Mod" and node.attributes.get("fmod", 0) != (x.dtype == "float32"):
        raise UnsupportedGraphError(f"got a Mod of {x.dtype} with fmod {node.attributes.get('fmod', 0)}")
    shape = np.broadcast_shapes(x.shape, y.shape)
    dtype = "bool" if node.op_type in _COMPARISONS else x.dtype
    to = b.made(node.outputs[0], dtype, shape)
    x, y = broadcast(x, shape), broadcast(y, shape)
    sizes, (_, x_strides, y_strides) = merged(shape, (to, x, y))
    b.emit(
        "binary",
        BINARY.index(node.op_type),
        _TYPES[x.dtype],
        len(sizes),
        *padded(sizes),
        to,
        to.item_bytes,
        x,
        *padded(x_strides),
        y,
        *padded(y_strides),
    )


def unary(b: Builder, node: GraphNode) -> None:
    """Of one tensor."""
    x = b.as_dense(b.view(node.inputs[0]))
    parameter, dtype = 0.0, x.dtype
    if node.op_type == "Cast":
        dtype = _CASTS.get(node.attributes["to"], "")
    elif node.op_type == "Clip":
        if (len(node.inputs) > 2 and node.inputs[2]) or node.inputs[1] not in b.arrays:
            raise UnsupportedGraphError("got a Clip with another limit than a constant least value")
        parameter = float(b.arrays[node.inputs[1]].item())
    wanted = {"Cast": tuple(_TYPES), "Not": ("bool",)}.get(node.op_type, ("float32",))
    if x.dtype not in wanted or dtype not in _TYPES:
        raise UnsupportedGraphError(f"got {node.op_type} of {x.dtype}")
    to = b.made(node.outputs[0], dtype, x.shape)
    numbers = (UNARY.index(node.op_type), _TYPES[x.dtype], _TYPES[dtype], math.prod(x.shape))
    b.emit("unary", *numbers, to, x, bits(parameter))


def where(b: Builder, node: GraphNode) -> None:
    """Where."""
    condition, x, y = (b.view(name) for name in node.inputs)
    if condition.dtype != "bool" or x.dtype != y.dtype:
        raise UnsupportedGraphError(f"got a Where of {condition.dtype}, {x.dtype} and {y.dtype}")
    shape = np.broadcast_shapes(condition.shape, x.shape, y.shape)
    to = b.made(node.outputs[0], x.dtype, shape)
    views = [broadcast(view, shape) for view in (condition, x, y)]
    sizes, (_, *strides) = merged(shape, (to, *views))
    reads: list[int | View] = []
    for view, own in zip(views, strides, strict=True):
        reads += [view, *padded(own)]
    b.emit("where", to.item_bytes, len(sizes), *padded(sizes), to, *reads)


def gather(b: Builder, node: GraphNode) -> None:
    """GatherElements, of numbers that only the run knows."""
    x, numbers = (b.as_dense(b.view(name)) for name in node.inputs)
    axis = range(len(x.shape))[node.attributes.get("axis", 0)]
    beside = [[size for i, size in enumerate(view.shape) if i != axis] for view in (x, numbers)]
    if numbers.dtype != "int64" or x.item_bytes not in (1, 4, 8) or beside[0] != beside[1]:
        raise UnsupportedGraphError(f"got GatherElements of {x.dtype} {list(x.shape)} by {list(numbers.shape)}")
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    to = b.made(node.outputs[0], x.dtype, numbers.shape)
    b.emit("gather", x.item_bytes, outer, x.shape[axis], numbers.shape[axis], inner, to, x, numbers)


def reduce(b: Builder, node: GraphNode) -> None:
    """ReduceSum and ReduceMax, over axes that lie side by side."""
    x = b.as_dense(b.view(node.inputs[0]))
    rank = len(x.shape)
    given = b.numbers(node.inputs[1]) if len(node.inputs) > 1 else node.attributes.get("axes", range(rank))
    axes = sorted(number % rank for number in given)
    if axes != list(range(axes[0], axes[-1] + 1)) or x.dtype not in ("float32", "int64"):
        raise UnsupportedGraphError(f"got {node.op_type} of {x.dtype} over the axes {axes}")
    kept = node.attributes.get("keepdims", 1)
    shape = [1 if i in axes else size for i, size in enumerate(x.shape) if i not in axes or kept]
    outer, length, inner = (
        math.prod(part) for part in (x.shape[: axes[0]], x.shape[axes[0] : axes[-1] + 1], x.shape[axes[-1] + 1 :])
    )
    to = b.made(node.outputs[0], x.dtype, shape)
    b.emit("reduce", int(node.op_type == "ReduceMax"), _TYPES[x.dtype], outer, length, inner, to, x)


def softmax(b: Builder, node: GraphNode) -> None:
    """Softmax and LogSoftmax over the last axis."""
    x = b.dense_floats(node.inputs[0])
    if node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        raise UnsupportedGraphError(f"got {node.op_type} over another axis than the last")
    to = b.made(node.outputs[0], x.dtype, x.shape)
    b.emit("softmax", int(node.op_type == "LogSoftmax"), math.prod(x.shape[:-1]), x.shape[-1], to, x)


def layer_norm(b: Builder, node: GraphNode) -> None:
    """LayerNormalization over the last axis."""
    x, weight, bias = (b.dense_floats(name) for name in node.inputs)
    if node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        raise UnsupportedGraphError("got a LayerNormalization over more than the last axis")
    if not weight.shape == bias.shape == x.shape[-1:]:
        raise UnsupportedGraphError(f"got a LayerNormalization of {list(x.shape)} with {list(weight.shape)}")
    to = b.made(node.outputs[0], x.dtype, x.shape)
    epsilon = bits(node.attributes.get("epsilon", 1e-5))
    b.emit("layer_norm", math.prod(x.shape[:-1]), x.shape[-1], epsilon, to, x, weight, bias)


def gate(b: Builder, group: Group) -> None:
    """A group "gate": x times the logistic function of another tensor, or of itself."""
    x, gate = (b.view(group.tensors[name]) for name in ("x", "gate"))
    if {x.dtype, gate.dtype} != {"float32"}:
        raise UnsupportedGraphError(f"got a gate of {gate.dtype} for {x.dtype}")
    shape = np.broadcast_shapes(x.shape, gate.shape)
    x, gate = broadcast(x, shape), broadcast(gate, shape)
    to = b.made(group.output, x.dtype, x.shape)
    sizes, (_, x_strides, gate_strides) = merged(x.shape, (to, x, gate))
    if len(sizes) > 2 or (x_strides[-1], gate_strides[-1]) != (1, 1):
        x, gate = b.as_dense(x), b.as_dense(gate)
        sizes, x_strides, gate_strides = [math.prod(x.shape)], [1], [1]
    rows = sizes[0] if len(sizes) == 2 else 1
    b.emit("gate", rows, sizes[-1], to, x, x_strides[0], gate, gate_strides[0])
