"""Products of matrices and convolutions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.native.patterns import Group
from edgeasr.backends.native.program import Builder
from edgeasr.backends.native.tensors import View, bits, broadcast
from edgeasr.errors import UnsupportedGraphError
from edgeasr.onnx_reader import GraphNode

_PANEL = 64  # of kernels.c: columns of weights side by side
_SEVEN_BITS = 64
_MOST_SUMMED = (2**31 - 1) // (255 * 128)  # products of 8 bits in a sum of 32


def product(b: Builder, node: GraphNode) -> None:
    """MatMul and FusedMatMul in fp32, of any strides."""
    x, y = (b.view(name) for name in node.inputs)
    attributes = node.attributes
    rank = len(x.shape)
    if not 2 <= rank <= 5 or len(y.shape) != rank or {x.dtype, y.dtype} != {"float32"}:
        raise UnsupportedGraphError(f"got a product of {list(x.shape)} and {list(y.shape)}")
    x, y = (
        _turned(view, attributes.get(f"transBatch{side}", 0), attributes.get(f"trans{side}", 0))
        for view, side in ((x, "A"), (y, "B"))
    )
    if x.shape[-1] != y.shape[-2]:
        raise UnsupportedGraphError(f"got a product of {list(x.shape)} and {list(y.shape)}")
    batches = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    (m, k), n = x.shape[-2:], y.shape[-1]
    to = b.made(node.outputs[0], x.dtype, (*batches, m, n))
    x, y = broadcast(x, (*batches, m, k)), broadcast(y, (*batches, k, n))
    missing = 3 - len(batches)
    strides: list[int | View] = []
    for view in (to, x, y):
        strides += [view, *[0] * missing, *view.strides]
    sizes = (*[1] * missing, *batches, m, n, k)
    b.emit("product", *sizes, bits(attributes.get("alpha", 1.0)), *strides, macs=math.prod(sizes))


def _turned(view: View, batch: int, last: int) -> View:
    """As FusedMatMul does. batch: moves the first axis behind all others but the last; last: swaps the last two"""
    order = list(range(len(view.shape)))
    if batch:
        order = [*order[1:-1], order[0], order[-1]]
    if last:
        order[-2:] = reversed(order[-2:])
    return replace(view, shape=tuple(view.shape[i] for i in order), strides=tuple(view.strides[i] for i in order))


def linear(b: Builder, group: Group) -> None:
    """A group "linear": a product in int8, with what stands around it."""
    x = b.dense_floats(group.tensors["x"])
    weights = b.arrays[group.tensors["weights"]]
    if weights.ndim != 2 or weights.dtype != np.int8 or x.shape[-1] != weights.shape[0]:
        raise UnsupportedGraphError(f"got weights {weights.dtype.name} {list(weights.shape)} for {list(x.shape)}")
    k, n = weights.shape
    if k > _MOST_SUMMED:
        raise UnsupportedGraphError(f"got products of {k} numbers, wanted {_MOST_SUMMED} at most")
    if not b.layout.eight_bits and np.abs(weights.astype(np.int16)).max(initial=0) > _SEVEN_BITS:
        raise UnsupportedGraphError("got weights of 8 bits, which this processor multiplies with 7 bits only")
    rows, groups = math.prod(x.shape[:-1]), -(-k // 4)
    panels, sums = _panels(b, group.tensors["weights"], weights)
    scales, bias = (
        None if array is None else _of_panels(_row(array, n))
        for array in (b.arrays.get(group.tensors[name]) for name in ("scales", "bias"))
    )
    residual = None
    if group.tensors["residual"]:
        residual = b.dense_floats(group.tensors["residual"])
        if residual.shape != (*x.shape[:-1], n):
            raise UnsupportedGraphError(f"got {list(residual.shape)} to add to {[*x.shape[:-1], n]}")
    quantised = b.scratch_view("uint8", [rows * (4 * groups + (k if k % 4 else 0))])
    to = b.made(group.output, "float32", (*x.shape[:-1], n))
    b.emit(
        "linear",
        *(rows, k, n, int(group.values["silu"])),
        *(to, x, quantised),
        *(panels, sums),
        *(None if array is None else b.constant(array) for array in (scales, bias)),
        residual,
        macs=rows * k * n,
    )


def _panels(b: Builder, name: str, weights: NDArray[np.int8]) -> tuple[View, View]:
    """A matrix as products read it, and the sums of its columns: once, though several products read it."""
    if name not in b.packed:
        k, n = weights.shape
        groups, panels = -(-k // 4), -(-n // _PANEL)
        whole = np.zeros((groups * 4, panels * _PANEL), np.int8)
        whole[:k, :n] = weights
        packed = whole.reshape(groups, 4, panels, _PANEL).transpose(2, 0, 3, 1)
        b.packed[name] = b.constant(packed), b.constant(whole.sum(axis=0, dtype=np.int32))
    return b.packed[name]


def convolution(b: Builder, node: GraphNode) -> None:
    """Conv of one picture."""
    _convolution(b, node, node.outputs[0], silu=False)


def convolution_with_silu(b: Builder, group: Group) -> None:
    """A group "convolution"."""
    _convolution(b, b.content.nodes[group.nodes[0]], group.output, silu=True)


def _convolution(b: Builder, node: GraphNode, output: str, *, silu: bool) -> None:
    x, weights = b.dense_floats(node.inputs[0]), b.arrays.get(node.inputs[1])
    attributes = node.attributes
    if weights is None or weights.ndim != 4 or weights.dtype != np.float32 or len(x.shape) != 4 or x.shape[0] != 1:
        raise UnsupportedGraphError(f"got a Conv of {list(x.shape)}, wanted one picture and constant weights")
    if weights.shape[1] != x.shape[1] or set(attributes.get("dilations", (1,))) != {1}:
        raise UnsupportedGraphError(f"got a Conv of {list(x.shape)} by {list(weights.shape)}, or with dilation")
    out, channels, height, width = weights.shape
    pads, strides = attributes.get("pads", (0, 0, 0, 0)), attributes.get("strides", (1, 1))
    if min(pads) < 0 or min(strides) < 1 or tuple(attributes.get("kernel_shape", (height, width))) != (height, width):
        raise UnsupportedGraphError(f"got a Conv by {list(weights.shape)} with {dict(attributes)}")
    (top, left, bottom, right), (down, across) = pads, strides
    rows = (x.shape[2] + top + bottom - height) // down + 1
    columns = (x.shape[3] + left + right - width) // across + 1
    tile = b.layout.channels
    whole = np.zeros((-(-out // tile) * tile, channels, height, width), np.float32)
    whole[:out] = weights
    packed = whole.reshape(-1, tile, channels, height, width).transpose(0, 2, 3, 4, 1)
    bias = np.zeros(len(whole), np.float32)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias[:out] = b.arrays[node.inputs[2]]
    to = b.made(output, "float32", (1, out, rows, columns))
    sizes = (channels, *x.shape[2:], out, height, width, down, across, top, left, rows, columns, int(silu))
    macs = math.prod(to.shape) * math.prod(weights.shape[1:])
    b.emit("convolution", *sizes, to, x, b.constant(packed), b.constant(bias), macs=macs)


def depthwise(b: Builder, group: Group) -> None:
    """A group "depthwise"."""
    past, new, weights, bias = (b.dense_floats(group.tensors[name]) for name in ("past", "new", "weights", "bias"))
    taps, channels = group.values["taps"], new.shape[-1]
    rows, before = new.shape[1], past.shape[1]
    if past.shape != (1, taps - 1, channels) or new.shape != (1, group.values["rows"], channels):
        raise UnsupportedGraphError(f"got a convolution over {list(past.shape)} and {list(new.shape)}")
    wanted = (1,) * (len(weights.shape) - 2) + (taps, channels)
    if weights.shape != wanted or bias.shape != (1,) * (len(bias.shape) - 1) + (channels,) or len(bias.shape) > 3:
        raise UnsupportedGraphError(f"got a convolution by {list(weights.shape)} and {list(bias.shape)}")
    to = b.made(group.output, "float32", new.shape)
    b.emit("depthwise", rows, channels, taps, before, to, past, new, weights, bias)


def _row(values: NDArray[Any], n: int) -> NDArray[Any]:
    """One number for each column. errors: UnsupportedGraphError where they differ between rows, or add some"""
    if values.dtype != np.float32 or values.size not in (1, n) or (values.ndim > 1 and values.size != values.shape[-1]):
        raise UnsupportedGraphError(f"got {values.dtype} {list(values.shape)} for {n} columns")
    return np.broadcast_to(values.reshape(-1), n)


def _of_panels(values: NDArray[Any]) -> NDArray[np.float32]:
    """With zeros up to a whole panel."""
    whole = np.zeros(-(-len(values) // _PANEL) * _PANEL, np.float32)
    whole[: len(values)] = values
    return whole
