"""Admission on the host, between steps: what becomes of a new summary.

The encoder's banks are fixed-size tensors in its state. When a segment is complete, the memory graph makes an
entry for each level, and admission decides which slot it takes. Policies see the summary before it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ConfigError

Array = NDArray[np.generic]
State = Mapping[str, Array]


class Decision(Enum):
    """What a policy says of a summary."""

    STORE = "store"
    SKIP = "skip"


@dataclass(frozen=True)
class SummaryContext:
    """What is known when a summary is offered."""

    level: int  # 2 for summaries of frames, 3 for summaries of summaries, ...
    number: int  # counts the summaries of this level in the stream
    start_s: float  # span of the stream that it summarises
    end_s: float


MemoryPolicy = Callable[[NDArray[np.float32], SummaryContext], Decision]


def store_everything(summary: NDArray[np.float32], context: SummaryContext) -> Decision:
    """The default policy: every summary is stored; when a bank is full, its oldest goes."""
    del summary, context
    return Decision.STORE


def admit(bank: State, entry: State, level: int, policy: MemoryPolicy, span_s: float) -> dict[str, Array]:
    """The bank after one new entry of its level.

    bank, entry: arrays number, merged, vector, key and value as in `edgeasr.hierarchy.BankState`, batch 1
    span_s: seconds that one summary of this level covers
    returns: new arrays; those given are not changed
    errors:  ConfigError for a policy that gives something else than a Decision
    """
    number = int(entry["number"][0, 0])
    if number < 0:
        return dict(bank)
    vector = np.asarray(entry["vector"][0, 0], np.float32)
    context = SummaryContext(level, number, number * span_s, (number + 1) * span_s)
    decision = policy(vector, context)
    if not isinstance(decision, Decision):
        raise ConfigError(f"the memory policy gave {decision!r}, wanted Decision.STORE or Decision.SKIP: mend it")
    if decision is Decision.SKIP:
        return dict(bank)
    slot = number % bank["number"].shape[1]
    return {name: _replaced(bank[name], entry[name], slot, axis=_SLOT_AXIS[name]) for name in _SLOT_AXIS}


_SLOT_AXIS = {"number": 1, "merged": 1, "vector": 1, "key": 3, "value": 3}


def _replaced(array: Array, entry: Array, slot: int, axis: int) -> Array:
    copy = array.copy()
    where = [slice(None)] * array.ndim
    where[axis] = slice(slot, slot + 1)
    copy[tuple(where)] = entry
    return copy
