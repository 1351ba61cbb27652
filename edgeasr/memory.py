"""Admission: what becomes of a new summary. It is stored, merged into the most similar one, or skipped.

The encoder's banks are fixed-size tensors in its state. When a segment is complete, it becomes a summary, and the
rules below decide in this order: a policy of the application, the learned write gate, similarity. On a device they
run on the host between two steps (`admit`); in training they run over a whole recording at once (`judge_all`): the
same function decides in both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.config import require

Array = NDArray[np.generic]
Floats = NDArray[np.float32]
State = Mapping[str, Array]

WRITE_THRESHOLD = 0.5


class Decision(Enum):
    """What becomes of a summary."""

    STORE = "store"
    MERGE = "merge"  # into the most similar one, whose count and last-seen time go up
    SKIP = "skip"
    PIN = "pin"  # stored, and never evicted


@dataclass(frozen=True)
class SummaryContext:
    """What is known when a summary is offered."""

    level: int  # 2 for summaries of frames, 3 for summaries of summaries, ...
    number: int  # counts the summaries of this level in the stream
    start_s: float  # span of the stream that it summarises
    end_s: float
    speech: float = 1.0  # share of the span in which the model heard something, 0 to 1
    text: str = ""  # the words of the open segment so far
    similarity: float = -1.0  # cosine to the most similar vector in the bank, -1 where it is empty
    voice: float = 1.0  # mean over the span of the probability that somebody spoke, by level and model, 0 to 1


# None leaves the decision to the write gate and the similarity, as the model's configuration has them.
MemoryPolicy = Callable[[Floats, SummaryContext], Decision | None]


@dataclass(frozen=True)
class Admission:
    """What became of one summary."""

    context: SummaryContext
    vector: Floats  # (C,)
    decision: Decision
    by: str  # "policy", "gate" or "similarity"; "capacity" where every slot is pinned, "vector" where it is not finite
    into: int | None = None  # number of the summary that it was merged into
    evicted: int | None = None  # number of the summary whose slot it took
    content: NDArray[np.float16] | None = None  # (2, R, H, D) keys and values for every reader, to recall it later

    @property
    def similarity(self) -> float:
        """Cosine to the most similar vector before it, -1 where there was none."""
        return self.context.similarity


class Rules(NamedTuple):
    """How one bank admits."""

    capacity: int
    merge_similarity: float  # a cosine above it merges; 1: never


class Slots(NamedTuple):
    """One bank of one stream, as far as admission reads it; changed in place."""

    number: NDArray[np.int64]  # (slots,) of the stored summary; negative: an empty slot
    merged: Floats  # (slots,) how many summaries this slot stands for
    last: NDArray[np.int64]  # (slots,) number of the last of them
    pinned: NDArray[np.bool_]  # (slots,)
    vector: Floats  # (slots, C)

    @classmethod
    def empty(cls, capacity: int, width: int) -> Slots:
        """A bank with nothing in it."""
        numbers = np.full(capacity, -1, np.int64)
        zeros = np.zeros(capacity, np.float32)
        return cls(numbers, zeros, numbers.copy(), np.zeros(capacity, bool), np.zeros((capacity, width), np.float32))

    @classmethod
    def copied(cls, parts: Iterable[Any]) -> Slots:
        """Of the arrays given, which stay as they are."""
        return cls(*[np.array(part) for part in parts])

    def first(self, count: int) -> Slots:
        """A view of the first slots: what is written to it is written here."""
        number, merged, last, pinned, vector = self
        return Slots(number[:count], merged[:count], last[:count], pinned[:count], vector[:count])


class Verdict(NamedTuple):
    """A decision, the slot that it concerns (-1: none) and who took it."""

    decision: Decision
    slot: int
    by: str


def nearest(slots: Slots, vector: Floats) -> tuple[int, float]:
    """The slot whose vector has the largest cosine with this one, and that cosine; (-1, -1.0) in an empty bank."""
    filled = np.flatnonzero(slots.number >= 0)
    if not len(filled):
        return -1, -1.0
    known = slots.vector[filled]
    scale = np.linalg.norm(known, axis=1) * np.linalg.norm(vector)
    cosine = known @ vector / np.maximum(scale, 1e-12)
    best = int(cosine.argmax())
    return int(filled[best]), min(1.0, float(cosine[best]))


def judge(
    slots: Slots, number: int, write: float, rules: Rules, match: tuple[int, float], wish: Decision | None = None
) -> Verdict:
    """Decide on one summary.

    number: its number in the stream
    write:  what the write gate says, 1 for a model without one
    match:  as from `nearest`
    wish:   the decision of a policy, None to leave it to the gate and the similarity
    """
    similar, similarity = match
    decision, by = wish, "policy"
    if decision is None:
        merges, by = similarity > rules.merge_similarity, "similarity"
        decision = Decision.MERGE if merges else Decision.STORE
        if write < WRITE_THRESHOLD:
            decision, by = Decision.SKIP, "gate"
    if decision is Decision.SKIP:
        return Verdict(decision, -1, by)
    if decision is Decision.MERGE and similar >= 0:
        return Verdict(decision, similar, by)
    decision = Decision.STORE if decision is Decision.MERGE else decision
    slot = _free_slot(slots, number)
    return Verdict(decision, slot, by) if slot >= 0 else Verdict(Decision.SKIP, -1, "capacity")


def _free_slot(slots: Slots, number: int) -> int:
    """An empty slot, else the least useful one that is not pinned; -1 where there is none.

    Being merged into twice as often is worth as much as having been heard a whole bank later.
    """
    empty = np.flatnonzero(slots.number < 0)
    if len(empty):
        return int(empty[0])
    loose = np.flatnonzero(~slots.pinned)
    if not len(loose):
        return -1
    age = (number - slots.last[loose]) / len(slots.number)
    return int(loose[(np.log2(slots.merged[loose]) - age).argmin()])


def write_down(slots: Slots, verdict: Verdict, number: int, vector: Floats) -> None:
    """Carry a verdict out, in place."""
    decision, slot, _ = verdict
    if decision is Decision.MERGE:
        slots.merged[slot] += 1
        slots.last[slot] = number
    elif decision is not Decision.SKIP:
        slots.number[slot], slots.last[slot], slots.merged[slot] = number, number, 1
        slots.pinned[slot] = decision is Decision.PIN
        slots.vector[slot] = vector


class Judged(NamedTuple):
    """What became of several summaries, offered one after another to one bank."""

    merged: Floats  # (S + 1, slots + S) what each slot, or summary, stands for after s of them; 0 where it is not held
    source: NDArray[np.int64]  # (slots,) where each slot's content comes from: itself, or slots + s


def judge_all(
    slots: Slots, number: NDArray[np.int64], write: Floats, vector: Floats, rules: Rules
) -> tuple[Judged, Slots]:
    """Offer summaries in their order; those with a negative number are incomplete, and not offered.

    number, write: (S,); vector: (S, C)
    returns: what became of them, and the slots after the last one; those given stay as they were
    """
    slots = Slots.copied(slots)
    size, new = len(slots.number), len(number)
    source = np.arange(size)
    merged = np.zeros((new + 1, size + new), np.float32)
    for s in range(new + 1):
        held = slots.number >= 0
        merged[s, source[held]] = slots.merged[held]
        if s < new and number[s] >= 0 and np.isfinite(vector[s]).all():
            verdict = judge(slots, int(number[s]), float(write[s]), rules, nearest(slots, vector[s]))
            write_down(slots, verdict, int(number[s]), vector[s])
            if verdict.decision is Decision.STORE:
                source[verdict.slot] = size + s
    return Judged(merged, source), slots


class Recalled(NamedTuple):
    """A vector that was stored before, perhaps in another stream, and may be read again."""

    merged: float  # how many summaries it stands for
    content: NDArray[np.float16]  # (2, R, H, D) as in Admission


@dataclass(frozen=True)
class Recall:
    """Sparse reads from a larger memory: after every summary, the last `slots` of level 2 hold what is most like it.

    nearest: the vectors most like this one, best first
    """

    nearest: Callable[[Floats, int], Sequence[Recalled]]
    slots: int = 8

    def __post_init__(self) -> None:
        require(self.slots > 0, f"slots is {self.slots}: it must be positive")


class MemoryKeeper:
    """Admission to the banks of one stream on the host, with a policy and an observer of the application.

    policy:       asked first; one that raises, or gives no decision, is warned about once, and not asked again
    on_admission: told of every summary after its bank was changed
    recall:       reads from a larger memory into a part of the bank; None for none
    errors:       ConfigError for a policy that cannot be called
    """

    def __init__(
        self,
        policy: MemoryPolicy | None = None,
        on_admission: Callable[[Admission], None] | None = None,
        recall: Recall | None = None,
    ) -> None:
        require(policy is None or callable(policy), f"the memory policy is {policy!r}: it must be a function")
        self._policy, self._on_admission, self._recall = policy, on_admission, recall
        self._spans: dict[int, _Span] = {}
        self._moved_s = 0.0
        self.text = ""  # the words of the open segment, kept up to date by the recogniser
        self.voice = 1.0  # probability that somebody speaks in the next chunk that is heard, as well

    def heard(self, speech: float, levels: int) -> None:
        """A chunk was heard, `speech` of it not blank; `levels` banks wait for summaries."""
        for level in range(2, 2 + levels):
            span = self._spans.setdefault(level, _Span(self._moved_s))
            span.speech += speech
            span.voice += self.voice
            span.chunks += 1

    def moved(self, seconds: float) -> None:
        """The stream went on by time that the model does not run through."""
        self._moved_s += seconds

    def admit(self, bank: State, entry: State, level: int, rules: Rules, span_s: float) -> dict[str, Array]:
        """The bank after one new entry of its level.

        bank:    arrays of `edgeasr.hierarchy.BankState`, batch 1
        entry:   arrays of `edgeasr.hierarchy.Entries`, one entry; a model without a write gate gives no `write`
        span_s:  seconds that one summary of this level covers
        returns: new arrays; those given are not changed
        """
        number = int(entry["number"][0, 0])
        if number < 0:
            return dict(bank)
        vector = np.asarray(entry["vector"][0, 0], np.float32)
        recall = self._recall if level == 2 else None
        own = bank["number"].shape[1] - (recall.slots if recall else 0)
        whole = Slots.copied(bank[name][0] for name in Slots._fields)
        slots = whole.first(own)
        if not np.isfinite(vector).all():
            self._tell(Admission(self._context(level, number, span_s, -1.0), vector, Decision.SKIP, "vector"))
            return dict(bank)
        match = nearest(slots, vector)
        context = self._context(level, number, span_s, match[1])
        write = float(entry["write"][0, 0]) if "write" in entry else 1.0
        verdict = judge(slots, number, write, rules, match, self._ask(vector, context))
        taken = int(slots.number[verdict.slot]) if verdict.slot >= 0 else -1
        write_down(slots, verdict, number, vector)
        merged = verdict.decision is Decision.MERGE
        self._tell(
            Admission(
                context,
                vector,
                verdict.decision,
                verdict.by,
                into=taken if merged else None,
                evicted=taken if taken >= 0 and not merged else None,
                content=np.stack([entry["key"][0, :, :, 0], entry["value"][0, :, :, 0]]).astype(np.float16),
            )
        )
        stored = verdict.slot if verdict.decision in (Decision.STORE, Decision.PIN) else -1
        after: dict[str, Array] = {
            **{name: part[None] for name, part in whole._asdict().items()},
            **{name: _replaced(bank[name], entry[name], stored) for name in ("key", "value")},
        }
        return _with_recalled(after, recall.nearest(vector, recall.slots), own, number) if recall else after

    def _context(self, level: int, number: int, span_s: float, similarity: float) -> SummaryContext:
        span = self._spans.get(level, _Span(self._moved_s))
        self._spans[level] = _Span(self._moved_s)
        start_s, end_s = number * span_s + span.moved_s, (number + 1) * span_s + self._moved_s
        return SummaryContext(
            level, number, start_s, end_s, span.mean(span.speech), self.text, similarity, span.mean(span.voice)
        )

    def _ask(self, vector: Floats, context: SummaryContext) -> Decision | None:
        if self._policy is None:
            return None
        try:
            wish: object = self._policy(vector, context)
        except Exception as error:  # noqa: BLE001 - whatever an application's code raises must not end recognition
            fault = f"raised {error!r}"
        else:
            if wish is None or isinstance(wish, Decision):
                return wish
            fault = f"gave {wish!r}, wanted a Decision or None,"
        warnings.warn(
            f"the memory policy {fault} at {context.start_s:.1f} s: it is not asked again, the model's "
            "own rules decide",
            RuntimeWarning,
            stacklevel=2,
        )
        self._policy = None
        return None

    def _tell(self, admission: Admission) -> None:
        if self._on_admission is not None:
            self._on_admission(admission)


@dataclass
class _Span:
    """What was heard since the last summary of a level."""

    moved_s: float  # by how much the stream was ahead of the model when it began
    speech: float = 0.0
    voice: float = 0.0
    chunks: int = 0

    def mean(self, total: float) -> float:
        """Over the chunks, 1 where there are none."""
        return total / self.chunks if self.chunks else 1.0


def _with_recalled(bank: dict[str, Array], found: Sequence[Recalled], own: int, number: int) -> dict[str, Array]:
    """The bank with what was recalled in the slots from `own` on."""
    bank |= {name: bank[name].copy() for name in ("number", "merged", "last", "key", "value")}
    bank["number"][:, own:] = -1
    for slot, (merged, content) in enumerate(found[: bank["number"].shape[1] - own], own):
        bank["number"][:, slot] = bank["last"][:, slot] = number
        bank["merged"][:, slot] = merged
        bank["key"][0, :, :, slot], bank["value"][0, :, :, slot] = content
    return bank


def _replaced(array: Array, entry: Array, slot: int) -> Array:
    """(1, R, H, slots, D) with one slot from (1, R, H, 1, D); the array itself for slot -1."""
    if slot < 0:
        return array
    copy = array.copy()
    copy[:, :, :, slot : slot + 1] = entry
    return copy
