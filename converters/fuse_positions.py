"""What a step computes from its place in the stream, in fewer operators: masks of attention, angles.

The encoder writes these for any chunk of any stream. A step graph runs one whole chunk, so only the number of frames
before it varies: whatever holds between positions of a chunk and of its cache is a constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnxscript.rewriter import MatchResult, pattern

from edgeasr.converters.rewriting import as_array, constant, is_constant, require


class _OfPositions(pattern.RewriteRuleClassBase):
    """A rule for one of several values that are computed from the same positions, which therefore have to stay."""

    def __init__(self) -> None:
        super().__init__(remove_nodes=False)


class WindowMask(_OfPositions):
    """`edgeasr.streaming.visible` of a chunk and its cache: which slots are still empty, and a constant."""

    def pattern(
        self,
        op: Any,
        seen: Any,
        axis: Any,
        offsets: Any,
        first: Any,
        last: Any,
        time: Any,
        step: Any,
        query_axis: Any,
        key_axis: Any,
        zero: Any,
        left_context: Any,
        chunk: Any,
        head_axis: Any,
        shown: Any,
        hidden: Any,
    ) -> Any:
        position = op.Add(op.Unsqueeze(seen, axis), offsets)
        query = op.Unsqueeze(op.Slice(position, first, last, time, step), query_axis)
        key = op.Unsqueeze(position, key_axis)
        near = op.And(op.GreaterOrEqual(key, zero), op.LessOrEqual(op.Sub(query, key), left_context))
        end = op.Add(op.Sub(query, op.Mod(query, chunk)), chunk)
        within = op.And(near, op.Less(key, end))
        return op.Where(op.Unsqueeze(within, head_axis), shown, hidden)

    def check(self, op: Any, offsets: Any, left_context: Any, chunk: Any, **_: Any) -> MatchResult:
        known = all(is_constant(value) for value in (offsets, left_context, chunk))
        return require(known, "the chunk or what is before it varies")

    def rewrite(
        self, op: Any, seen: Any, offsets: Any, first: Any, left_context: Any, chunk: Any, hidden: Any, **_: Any
    ) -> Any:
        key = as_array(offsets)  # from the first frame of the chunk, which begins at a multiple of its length
        query = key[int(as_array(first).item()) :, None]
        size = as_array(chunk)
        visible = (query - key <= as_array(left_context)) & (key < query - query % size + size)
        mask = np.where(visible, np.float32(0), as_array(hidden))[None, None]
        return op.Where(op.GreaterOrEqual(seen, constant(op, -key)), constant(op, mask), hidden)


class Angles(_OfPositions):
    """The angles of `edgeasr.layers.rotation`: of the chunk's first frame, and from there on constants."""

    def pattern(
        self,
        op: Any,
        seen: Any,
        axis: Any,
        offsets: Any,
        first: Any,
        last: Any,
        time: Any,
        step: Any,
        turn: Any,
        axes: Any,
        steps: Any,
    ) -> Any:
        position = op.Slice(op.Add(op.Unsqueeze(seen, axis), offsets), first, last, time, step)
        return op.Mod(op.Mul(op.Unsqueeze(op.Mod(position, turn), axes), steps), turn)

    def check(self, op: Any, offsets: Any, steps: Any, **_: Any) -> MatchResult:
        return require(is_constant(offsets) and is_constant(steps), "the chunk varies")

    def rewrite(self, op: Any, seen: Any, offsets: Any, first: Any, turn: Any, steps: Any, **_: Any) -> Any:
        # Products wrap around at 2^64, of which a turn is a divisor: what is left of them is exact all the same.
        of_frames = as_array(offsets)[int(as_array(first).item()) :, None] * as_array(steps)
        return op.Mod(op.Add(op.Mul(seen, steps), constant(op, of_frames[None, None])), turn)
