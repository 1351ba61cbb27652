"""The contract of streaming modules: explicit state, and one function that decides who sees whom.

    y, next_state = module.step(x, state)      # one chunk
    y             = module.forward(x)          # a whole recording: the same body from init_state()

State is a NamedTuple of tensors (or of tuples of such), passed in and returned, never kept on the module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

StateT = TypeVar("StateT")


def chunk_start(position: Tensor, chunk_frames: int) -> Tensor:
    """First position of the chunk that holds each position."""
    # No division: exporters divide integers in float32, which loses count after a week of frames.
    return position - position % chunk_frames


def visible(query: Tensor, key: Tensor, left_context: int, chunk_frames: int) -> Tensor:
    """Which keys each query may attend to, from absolute positions; a negative key position is an empty slot.

    A query sees `left_context` positions back and its own chunk to the end.

    query: (B, Q) int64; key: (B, K) int64
    returns: (B, Q, K) bool
    """
    q, k = query[:, :, None], key[:, None, :]
    return (k >= 0) & (q - k <= left_context) & (k < chunk_start(q, chunk_frames) + chunk_frames)


def positions(seen: Tensor, past: int, length: int) -> Tensor:
    """Absolute positions of `past` cached and `length` new vectors; those before the stream are negative.

    seen: (B,) int64, vectors consumed before the new ones
    returns: (B, past + length) int64
    """
    return seen[:, None] + torch.arange(-past, length, device=seen.device)


def state_tensors(state: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state with their dotted names (`level1.0.key`), in a fixed order."""
    if isinstance(state, Tensor):
        yield prefix, state
        return
    fields = state._fields if hasattr(state, "_fields") else range(len(state))
    for field, value in zip(fields, state, strict=True):
        yield from state_tensors(value, f"{prefix}.{field}" if prefix else str(field))


def replace_tensors(state: StateT, tensors: Iterator[Tensor]) -> StateT:
    """A state of the same structure with its tensors taken in order from `tensors`."""
    if isinstance(state, Tensor):
        return next(tensors)  # type: ignore[return-value]
    parts = [replace_tensors(value, tensors) for value in state]  # type: ignore[attr-defined]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)  # type: ignore[return-value]
