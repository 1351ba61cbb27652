"""Operators that look at a tensor in another way, and those that copy it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeasr.backends.native.program import Builder, Cut
from edgeasr.backends.native.tensors import Buffer, View, broadcast, dense_strides
from edgeasr.errors import UnsupportedGraphError
from edgeasr.onnx_reader import GraphNode


def reshape(b: Builder, node: GraphNode) -> None:
    """Reshape, Squeeze, Unsqueeze and Identity."""
    view = b.view(node.inputs[0])
    shape = new_shape(b, node, view)
    if math.prod(shape) != math.prod(view.shape):
        raise UnsupportedGraphError(f"got {node.op_type} of {list(view.shape)} to {list(shape)}")
    if node.op_type == "Reshape":
        view = b.as_dense(view)
        b.named(node.outputs[0], replace(view, shape=shape, strides=dense_strides(shape)))
        return
    steps = iter([stride for size, stride in zip(view.shape, view.strides, strict=True) if size != 1])
    strides = tuple(0 if size == 1 else next(steps) for size in shape)
    b.named(node.outputs[0], replace(view, shape=shape, strides=strides))


def new_shape(b: Builder, node: GraphNode, view: View) -> tuple[Any, ...]:
    """What a node of `reshape` makes of a shape."""
    numbers = b.numbers(node.inputs[1]) if len(node.inputs) > 1 else []
    if node.op_type == "Identity":
        return view.shape
    if node.op_type == "Unsqueeze":
        rank = len(view.shape) + len(numbers)
        added, left = {number % rank for number in numbers}, iter(view.shape)
        return tuple(1 if axis in added else next(left) for axis in range(rank))
    if node.op_type == "Squeeze":
        rank = len(view.shape)
        gone = {number % rank for number in numbers} or {i for i, size in enumerate(view.shape) if size == 1}
        return tuple(size for axis, size in enumerate(view.shape) if axis not in gone)
    kept = not node.attributes.get("allowzero", 0)
    wanted = [view.shape[i] if size == 0 and kept else size for i, size in enumerate(numbers)]
    known = math.prod(size for size in wanted if size >= 0)
    return tuple(math.prod(view.shape) // known if size < 0 else size for size in wanted)


def transpose(b: Builder, node: GraphNode) -> None:
    """Transpose."""
    view = b.view(node.inputs[0])
    order = node.attributes.get("perm") or tuple(reversed(range(len(view.shape))))
    turned = replace(view, shape=tuple(view.shape[i] for i in order), strides=tuple(view.strides[i] for i in order))
    b.named(node.outputs[0], turned)


def part(view: View, axis: int, first: int, count: int, step: int = 1) -> View:
    """So many elements along an axis, from the first on."""
    shape, strides = list(view.shape), list(view.strides)
    offset = view.offset + first * strides[axis] * view.item_bytes
    shape[axis], strides[axis] = count, strides[axis] * step
    return replace(view, shape=tuple(shape), strides=tuple(strides), offset=offset)


def cut_out(b: Builder, node: GraphNode) -> None:
    """Slice; to an end that varies only of an output."""
    source, starts, ends, *rest = node.inputs
    view = b.view(source)
    if ends not in b.arrays:
        _cut(b, node, view)
        return
    firsts, lasts = b.numbers(starts), b.numbers(ends)
    axes = b.numbers(rest[0]) if rest and rest[0] else list(range(len(firsts)))
    steps = b.numbers(rest[1]) if len(rest) > 1 and rest[1] else [1] * len(firsts)
    for first, last, axis, step in zip(firsts, lasts, axes, steps, strict=True):
        if step < 1:
            raise UnsupportedGraphError(f"got a slice in steps of {step}, wanted 1 or more")
        chosen = range(view.shape[axis])[first:last:step]
        view = part(view, axis % len(view.shape), chosen.start, len(chosen), step)
    b.named(node.outputs[0], view)


def _cut(b: Builder, node: GraphNode, view: View) -> None:
    """An output whose end only the run knows: given whole, and cut by the caller."""
    source, starts, ends, *rest = node.inputs
    name, axes = node.outputs[0], b.numbers(rest[0]) if rest and rest[0] else [0]
    steps = b.numbers(rest[1]) if len(rest) > 1 and rest[1] else [1]
    # What it gives is longer than the graph has it: nobody here may read that.
    read = any(name in other.inputs for other in b.content.nodes)
    if name not in b.outputs or read or b.numbers(starts) != [0] or len(axes) != 1 or steps != [1]:
        raise UnsupportedGraphError(f"got a slice of {source!r} to an end that varies, wanted an output from 0 on")
    if ends not in b.outputs:
        end = b.as_dense(b.view(ends))
        b.extra.append(ends)
        b.outputs[ends] = Buffer(0, 0)
        b.copy(b.made(ends, end.dtype, end.shape), end)
    axis = axes[0] % len(view.shape)
    said: Sequence[Any] = b.content.specs[name].shape
    if not isinstance(said[axis], str):  # whoever gives room of one size for it would take all of that
        raise UnsupportedGraphError(f"got {name!r} of {list(said)}, wanted a size that varies along axis {axis}")
    b.cuts[name] = Cut(axis, ends)
    b.named(name, view)


def split(b: Builder, node: GraphNode) -> None:
    """Split."""
    view = b.view(node.inputs[0])
    axis = node.attributes.get("axis", 0) % len(view.shape)
    if len(node.inputs) > 1:
        counts = b.numbers(node.inputs[1])
    else:
        counts = [math.ceil(view.shape[axis] / len(node.outputs))] * (len(node.outputs) - 1)
        counts.append(view.shape[axis] - sum(counts))
    whole = min(counts) >= 0 and sum(counts) == view.shape[axis]
    if not whole or node.attributes.get("num_outputs", len(counts)) != len(counts):
        raise UnsupportedGraphError(f"got a Split of {list(view.shape)} into {counts} along axis {axis}")
    first = 0
    for name, count in zip(node.outputs, counts, strict=True):
        b.named(name, part(view, axis, first, count))
        first += count


def gather(b: Builder, node: GraphNode) -> None:
    """Gather of one constant row."""
    view, chosen = b.view(node.inputs[0]), b.arrays.get(node.inputs[1])
    if chosen is None or chosen.ndim:
        raise UnsupportedGraphError("got a Gather of more than one constant row")
    axis = node.attributes.get("axis", 0) % len(view.shape)
    row = part(view, axis, range(view.shape[axis])[int(chosen)], 1)
    dropped = (tuple(value for i, value in enumerate(values) if i != axis) for values in (row.shape, row.strides))
    shape, strides = dropped
    b.named(node.outputs[0], replace(row, shape=shape, strides=strides))


def expand(b: Builder, node: GraphNode) -> None:
    """Expand."""
    view = b.view(node.inputs[0])
    shape = np.broadcast_shapes(view.shape, tuple(b.numbers(node.inputs[1])))
    b.named(node.outputs[0], broadcast(view, shape))


def concat(b: Builder, node: GraphNode) -> None:
    """Concat."""
    joined = [b.view(name) for name in node.inputs]
    axis = node.attributes["axis"] % len(joined[0].shape)
    shape = list(joined[0].shape)
    shape[axis] = sum(view.shape[axis] for view in joined)
    to, first = b.made(node.outputs[0], joined[0].dtype, shape), 0
    for view in joined:
        b.copy(part(to, axis, first, view.shape[axis]), view)
        first += view.shape[axis]


def pad(b: Builder, node: GraphNode) -> None:
    """Pad with a constant."""
    view, pads = b.view(node.inputs[0]), b.numbers(node.inputs[1])
    rank = len(view.shape)
    some = len(node.inputs) > 3 and node.inputs[3]
    if min(pads) < 0 or len(pads) != 2 * rank or some:
        raise UnsupportedGraphError(f"got padding by {pads}, wanted constants beside it")
    shape = [size + pads[i] + pads[rank + i] for i, size in enumerate(view.shape)]
    to = b.made(node.outputs[0], view.dtype, shape)
    given = len(node.inputs) > 2 and node.inputs[2]
    value = b.view(node.inputs[2]) if given else b.constant(np.zeros((), view.dtype))
    b.copy(to, broadcast(value, shape))
    for axis, size in enumerate(view.shape):
        to = part(to, axis, pads[axis], size)
    b.copy(to, view)
