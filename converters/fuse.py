"""Fewer, larger operators with the same values, for ONNX Runtime.

A chunk of a small model spends more time in starting operators than in their arithmetic. What the exporter spells out
is put together here again: each rule, of onnxscript's rewriter, knows one part of the encoder as torch exports it. The
operators of the domain com.microsoft are ONNX Runtime's own, in all its builds; the exported graph itself has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx_ir.passes import common
from onnxscript.rewriter import MatchResult, pattern, rewrite

from edgeasr.converters.fuse_pool import align_pool
from edgeasr.converters.fuse_positions import Angles, WindowMask
from edgeasr.converters.rewriting import as_array, constant, is_constant, require
from edgeasr.converters.windows import open_windows

MakeRule = Callable[[], Any]

DOMAIN = "com.microsoft"

_HEADS_FIRST = [0, 2, 1, 3]  # (B, T, H, D) <-> (B, H, T, D)
_TIME_FIRST = [2, 0, 1, 3]  # (B, H, T, D) -> (T, B, H, D)
_TIME_THIRD = [1, 2, 0, 3]  # and back


def fuse(model: bytes, rules: Sequence[MakeRule] | None = None) -> bytes:
    """The same graph in ONNX Runtime's operators; what no rule knows stays as it is. rules: None for all, in order"""
    graph = onnx_ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(onnx.load_from_string(model)))
    graph.opset_imports[DOMAIN] = 1
    for make in RULES if rules is None else rules:
        graph = rewrite(graph, [make()])
    if rules is None:
        align_pool(graph)
    graph.graph.sort()
    tidy = onnx_ir.passes.Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.ClearMetadataAndDocStringPass(),
        common.ShapeInferencePass(),
    )
    graph = tidy(graph).model
    open_windows(graph)
    serialised: bytes = onnx_ir.serde.serialize_model(common.RemoveUnusedNodesPass()(graph).model).SerializeToString()
    return serialised


class Rotation(pattern.RewriteRuleClassBase):
    """`edgeasr.layers.rotate`, one operator instead of nine, before vectors are split into heads."""

    def pattern(self, op: Any, x: Any, heads: Any, cos: Any, sin: Any) -> Any:
        split = op.Transpose(op.Reshape(x, heads), perm=_HEADS_FIRST)
        a, b = op.Split(split, axis=3, num_outputs=2, _outputs=2)
        first = op.Sub(op.Mul(a, cos), op.Mul(b, sin))
        return op.Concat(first, op.Add(op.Mul(a, sin), op.Mul(b, cos)), axis=-1)

    def check(self, op: Any, heads: Any, **_: Any) -> MatchResult:
        return require(is_constant(heads), "the number of heads varies")

    def rewrite(self, op: Any, x: Any, heads: Any, cos: Any, sin: Any) -> Any:
        _, length, num_heads, head_dim = as_array(heads)
        table = constant(op, [length, head_dim // 2])
        rows = constant(op, [list(range(length))])
        turned = op.RotaryEmbedding(
            x, rows, op.Reshape(cos, table), op.Reshape(sin, table), num_heads=int(num_heads), _domain=DOMAIN
        )
        return op.Transpose(op.Reshape(turned, heads), perm=_HEADS_FIRST)


class Attention(pattern.RewriteRuleClassBase):
    """Scaled dot-product attention with an added mask, queries still unsplit, keys and values split into heads."""

    def pattern(
        self,
        op: Any,
        query: Any,
        key: Any,
        value: Any,
        mask: Any,
        heads: Any,
        scale: Any,
        flat: Any,
        unflat: Any,
        merged: Any,
    ) -> Any:
        queries = op.Mul(op.Transpose(op.Reshape(query, heads), perm=_HEADS_FIRST), scale)
        keys = op.Mul(op.Reshape(op.Transpose(op.Reshape(key, flat), perm=[0, 2, 1]), unflat), scale)
        weights = op.Softmax(op.Add(op.MatMul(queries, keys), mask), axis=-1)
        # Torch gives zeros where nothing at all is visible; here a query sees its own chunk, or the empty slot.
        weights = pattern.OrValue([op.Where(op.IsNaN(weights), pattern.ANY_VALUE, weights), weights])
        return op.Reshape(op.Transpose(op.MatMul(weights, value), perm=_HEADS_FIRST), merged)

    def check(self, op: Any, heads: Any, scale: Any, **_: Any) -> MatchResult:
        return require(is_constant(heads) and is_constant(scale), "the number of heads or the scale varies")

    def rewrite(self, op: Any, query: Any, key: Any, value: Any, mask: Any, heads: Any, scale: Any, **_: Any) -> Any:
        _, length, num_heads, _ = as_array(heads)
        if mask.shape is None or mask.shape[2] != length:
            mask = op.Expand(mask, constant(op, [1, 1, length, 1]))
        return op.MultiHeadAttention(
            query,
            key,
            value,
            None,
            None,
            mask,
            num_heads=int(num_heads),
            scale=float(as_array(scale).item()) ** 2,
            _domain=DOMAIN,
        )


class WindowedAttention(pattern.RewriteRuleClassBase):
    """Attention over a cache and the chunk behind it, computed on rows of time: what is cached is kept as it is read.

    MultiHeadAttention copies a cache head by head to append to it. Rows of time lie one behind the other, so appending
    is one copy, or none (`edgeasr.converters.windows`), and products read heads where they lie.
    """

    def pattern(
        self,
        op: Any,
        query: Any,
        key: Any,
        value: Any,
        past_key: Any,
        past_value: Any,
        mask: Any,
        heads: Any,
        first: Any,
        last: Any,
        axis: Any,
        step: Any,
        num_heads: Any,
        scale: Any,
    ) -> Any:
        keys = op.Concat(past_key, op.Transpose(op.Reshape(key, heads), perm=_HEADS_FIRST), axis=2)
        values = op.Concat(past_value, op.Transpose(op.Reshape(value, heads), perm=_HEADS_FIRST), axis=2)
        y = op.MultiHeadAttention(
            query, keys, values, None, None, mask, num_heads=num_heads, scale=scale, _domain=DOMAIN
        )
        return y, op.Slice(keys, first, last, axis, step), op.Slice(values, first, last, axis, step)

    def check(self, op: Any, heads: Any, axis: Any, **_: Any) -> MatchResult:
        of_time = is_constant(heads) and is_constant(axis) and as_array(axis).tolist() == [2]
        return require(of_time, "the number of heads varies, or what is kept of the cache is not the last of it")

    def rewrite(
        self,
        op: Any,
        query: Any,
        key: Any,
        value: Any,
        past_key: Any,
        past_value: Any,
        mask: Any,
        heads: Any,
        first: Any,
        last: Any,
        step: Any,
        scale: Any,
        **_: Any,
    ) -> Any:
        length, num_heads, head_dim = (int(size) for size in as_array(heads)[1:])
        rows = constant(op, [length, 1, num_heads, head_dim])
        along_time = constant(op, [0])
        new = [op.Reshape(part, rows) for part in (key, value)]
        for part in new:  # which shape inference, that does not know the operator before it, cannot tell
            part.shape, part.dtype = onnx_ir.Shape([length, 1, num_heads, head_dim]), past_key.dtype
        keys, values = (
            op.Concat(op.Transpose(past, perm=_TIME_FIRST), part, axis=0)
            for past, part in zip((past_key, past_value), new, strict=True)
        )
        scores = op.FusedMatMul(
            op.Reshape(query, rows),
            keys,
            transBatchA=1,
            transBatchB=1,
            transB=1,
            alpha=float(scale.as_float()),
            _domain=DOMAIN,
        )
        weights = op.Softmax(op.Add(scores, mask), axis=-1)
        context = op.Transpose(op.FusedMatMul(weights, values, transBatchB=1, _domain=DOMAIN), perm=_HEADS_FIRST)
        kept = (
            op.Transpose(op.Slice(part, first, last, along_time, step), perm=_TIME_THIRD) for part in (keys, values)
        )
        return op.Reshape(context, constant(op, [1, length, num_heads * head_dim])), *kept


class PackedRotation(pattern.RewriteRuleClassBase):
    """Queries, keys and values turned as they come, side by side: values by nothing.

    One operator turns all heads of a frame where two turned queries and keys, and what is split then needs no other
    form. Behind the angles of a chunk's frames stands one of zero, which leaves values as they are.
    """

    def pattern(self, op: Any, x: Any, cos: Any, sin: Any, rows: Any, heads: Any) -> Any:
        query, key, value = op.Split(x, axis=2, num_outputs=3, _outputs=3)

        def turned(part: Any) -> Any:
            tables = (op.Reshape(table, pattern.ANY_VALUE) for table in (cos, sin))
            return op.RotaryEmbedding(part, pattern.ANY_VALUE, *tables, num_heads=heads, _domain=DOMAIN)

        return op.Reshape(turned(query), rows), op.Reshape(turned(key), rows), op.Reshape(value, rows)

    def check(self, op: Any, rows: Any, **_: Any) -> MatchResult:
        of_time = is_constant(rows) and as_array(rows).shape == (len(_TIME_FIRST),) and as_array(rows)[1] == 1
        return require(of_time, "not in rows of time of one stream, or their number varies")

    def rewrite(self, op: Any, x: Any, cos: Any, sin: Any, rows: Any, **_: Any) -> Any:
        length, batch, num_heads, head_dim = (int(size) for size in as_array(rows))
        packed = op.Reshape(x, constant(op, [length, batch, 3 * num_heads, head_dim]))
        # The operator takes heads for positions here, and wants a row of its tables for each.
        still = np.zeros((max(1, 3 * num_heads - length), head_dim // 2), np.float32)
        tables = (
            op.Concat(op.Reshape(table, constant(op, [length, head_dim // 2])), constant(op, of_zero), axis=0)
            for table, of_zero in ((cos, still + 1), (sin, still))
        )
        turns = [[frame] * 2 * num_heads + [length] * num_heads for frame in range(length)]
        turned = op.RotaryEmbedding(packed, constant(op, turns), *tables, _domain=DOMAIN)
        return op.Split(turned, axis=2, num_outputs=3, _outputs=3)


class DepthwiseConvolution(pattern.RewriteRuleClassBase):
    """A depthwise convolution over the few frames of a chunk: each frame's window times the kernel, and a sum.

    The convolution of ONNX Runtime wants time last and channels in blocks: four transpositions for four frames.
    """

    def pattern(self, op: Any, x: Any, axes: Any, weight: Any, bias: Any, zero: Any) -> Any:
        columns = op.Unsqueeze(op.Transpose(x, perm=[0, 2, 1]), axes)
        y = op.Conv(columns, weight, bias, strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1])
        return op.Transpose(op.Gather(y, zero, axis=3), perm=[0, 2, 1])

    def check(self, op: Any, x: Any, weight: Any, **_: Any) -> MatchResult:
        known = is_constant(weight) and x.shape is not None and x.shape.is_static()
        return require(known and weight.shape[1] == weight.shape[3] == 1, "not depthwise over time, or sizes vary")

    def rewrite(self, op: Any, x: Any, weight: Any, bias: Any, **_: Any) -> Any:
        kernel = as_array(weight)[:, 0, :, 0].T  # (kernel, C)
        taps = np.arange(len(kernel))
        starts = np.arange(x.shape[1] - len(kernel) + 1)
        windows = op.Gather(x, constant(op, starts[:, None] + taps), axis=1)  # (B, T, kernel, C)
        weighted = op.Mul(windows, constant(op, np.ascontiguousarray(kernel)))
        return op.Add(op.ReduceSum(weighted, constant(op, [2]), keepdims=0), bias)


RULES: Sequence[MakeRule] = (
    Rotation.rule,
    Attention.rule,
    WindowedAttention.rule,
    PackedRotation.rule,
    DepthwiseConvolution.rule,
    WindowMask.rule,
    Angles.rule,
)
