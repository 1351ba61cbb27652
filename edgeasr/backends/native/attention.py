"""Attention, and the rotation of what it compares."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeasr.backends.native.patterns import Group
from edgeasr.backends.native.program import FIRST_OWN, Builder
from edgeasr.backends.native.tensors import bits, dense_strides
from edgeasr.backends.native.views import new_shape
from edgeasr.errors import UnsupportedGraphError
from edgeasr.onnx_reader import GraphNode

_QUERIES = 4  # of kernels.c, in one tile


def rotate(b: Builder, node: GraphNode) -> None:
    """RotaryEmbedding, by tables that are constants."""
    x, numbers, cosines, sines = (b.as_dense(b.view(name)) for name in node.inputs)
    # Of the tables' rows, which nobody looks after while a program runs.
    chosen = b.arrays.get(node.inputs[1])
    if chosen is None or chosen.min() < 0 or chosen.max() >= cosines.shape[0]:
        raise UnsupportedGraphError(f"got a RotaryEmbedding at {node.inputs[1]!r}, wanted constants within its tables")
    if len(x.shape) != 4 or len(cosines.shape) != 2 or 2 * cosines.shape[-1] != x.shape[-1]:
        raise UnsupportedGraphError(f"got a RotaryEmbedding of {list(x.shape)} by {list(cosines.shape)}")
    # (batch, heads, sequence, size) and (batch, sequence): with one head the vectors lie as their numbers do.
    if x.shape[1] != 1 or math.prod(numbers.shape) != math.prod(x.shape[:-1]):
        raise UnsupportedGraphError(f"got a RotaryEmbedding of {list(x.shape)} at {list(numbers.shape)}")
    if (x.dtype, numbers.dtype) != ("float32", "int64") or cosines.shape != sines.shape:
        raise UnsupportedGraphError(f"got a RotaryEmbedding of {x.dtype} at {numbers.dtype}")
    to = b.made(node.outputs[0], x.dtype, x.shape)
    b.emit("rotate", math.prod(x.shape[:-1]), x.shape[-1], to, x, numbers, cosines, sines)


def windowed_attention(b: Builder, group: Group) -> None:
    """A group "attention": over a past and what is new."""
    names = ("query", "past_key", "new_key", "past_value", "new_value")
    views = [b.view(group.tensors[name]) for name in names]
    query, bias = views[0], b.dense_floats(group.tensors["bias"])
    queries, batch, heads, size = query.shape
    segments = []
    for key, value in ((views[1], views[3]), (views[2], views[4])):
        if key.shape != value.shape or key.strides != value.strides or key.shape[1:] != (1, heads, size):
            raise UnsupportedGraphError(f"got keys {list(key.shape)} and values {list(value.shape)}")
        segments += [key, value, key.shape[0], key.strides[0], key.strides[2]]
    keys = sum(view.shape[0] for view in views[1:3])
    if batch != 1 or bias.shape != (1, 1, queries, keys) or any(view.strides[-1] != 1 for view in views):
        raise UnsupportedGraphError(f"got attention of {list(query.shape)} with a bias of {list(bias.shape)}")
    if any(view.dtype != "float32" for view in views):
        raise UnsupportedGraphError("got attention of other numbers than float32")
    mixed = replace(query, shape=(1, queries, heads, size))
    shape = new_shape(b, b.content.nodes[group.values["shaped"]], mixed)
    if math.prod(shape) != math.prod(mixed.shape):
        raise UnsupportedGraphError(f"got attention of {list(query.shape)} as {list(shape)}")
    to = b.made(group.output, "float32", shape)
    scores = b.scratch_view("float32", [2 * _QUERIES * keys])
    b.emit(
        "attention",
        *(heads, queries, size, bits(group.values["factor"])),
        *(to, heads * size, size),
        *(query, query.strides[0], query.strides[2]),
        *(bias, scores, 2),
        *segments,
        macs=2 * heads * queries * size * keys,
    )


def cross_attention(b: Builder, node: GraphNode) -> None:
    """MultiHeadAttention over keys and values by heads, as many as there are."""
    query = b.dense_floats(node.inputs[0])
    key, value = (b.any_view(name) for name in node.inputs[1:3])
    heads = node.attributes["num_heads"]
    _, queries, width = query.shape
    size, rows = width // heads, key.shape[2]
    bias = b.any_view(node.inputs[5]) if len(node.inputs) > 5 and node.inputs[5] else None
    others = [name for i, name in enumerate(node.inputs) if i in (3, 4) or i > 5]
    factor = node.attributes.get("scale", 0.0) or 1 / math.sqrt(size)
    if any(others) or query.shape[0] != 1 or (key.shape[:2], key.shape[3]) != ((1, heads), size):
        raise UnsupportedGraphError(f"got a MultiHeadAttention of {list(query.shape)} over {list(key.shape)}")
    if key.shape != value.shape or (bias is not None and bias.shape != (1, 1, queries, rows)):
        raise UnsupportedGraphError(f"got a MultiHeadAttention over {list(key.shape)} and {list(value.shape)}")
    views = [view for view in (key, value, bias) if view is not None]
    if any(view.dtype != "float32" for view in views) or width % heads:
        raise UnsupportedGraphError(f"got a MultiHeadAttention of {width} in {heads} heads, or not of float32")
    most, number = rows, rows
    if not isinstance(rows, int):
        # Strides of what varies are not known: only the caller's own memory is as it is taken to be.
        if any(view.buffer.root < FIRST_OWN or view.strides != dense_strides(view.shape) for view in views):
            raise UnsupportedGraphError(f"got a MultiHeadAttention over {list(key.shape)}, which is not an input")
        if rows not in b.most:
            raise UnsupportedGraphError(f"got the size {rows!r}, which nothing limits")
        if rows not in b.varying:
            b.varying.append(rows)
        most, number = b.most[rows], -1 - b.varying.index(rows)
    else:
        key, value = b.dense_floats(node.inputs[1]), b.dense_floats(node.inputs[2])
        bias = bias and b.as_dense(bias)
    to = b.made(node.outputs[0], "float32", query.shape)
    scores = b.scratch_view("float32", [2 * _QUERIES * most])
    b.emit(
        "attention",
        *(heads, queries, size, bits(factor)),
        *(to, width, size),
        *(query, width, size),
        *(bias, scores, 1),
        *(key, value, number, size, -1),
        macs=2 * queries * width * (rows if isinstance(rows, int) else 1),
        varying=None if isinstance(rows, int) else rows,
    )
