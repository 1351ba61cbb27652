"""Forgetting: by limits of size and age, and on request.

What is forgotten is overwritten (secure_delete), in the index of texts and in the -wal file too. Pinned vectors and
what was said in them outlive the limits, not a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgeasr.config import require
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import Segment, Span
from edgeasr.store.text_search import search_text

DEFAULT_MAX_MB = 256
_DAY_S = 86_400.0
_SHARE = 0.02  # of what there is, forgotten at a time when the store is too large
_MIN_SHARE_ROWS = 64


@dataclass(frozen=True)
class Limits:
    """How large and how old a store becomes. max_age_days: None for any age"""

    max_bytes: int = DEFAULT_MAX_MB << 20
    max_age_days: float | None = None

    def __post_init__(self) -> None:
        require(self.max_bytes >= 1 << 20, f"the store may have {self.max_bytes} bytes: it needs at least 1 MB")
        require(
            self.max_age_days is None or self.max_age_days > 0, f"the age is {self.max_age_days} days: above 0 only"
        )


class Forgotten(NamedTuple):
    """How much went."""

    vectors: int = 0
    segments: int = 0
    streams: int = 0

    def plus(self, other: Forgotten) -> Forgotten:
        return Forgotten(*(a + b for a, b in zip(self, other, strict=True)))


def enforce(store: MemoryStore, limits: Limits, keep_stream: int | None = None) -> Forgotten:
    """Forget the oldest, transaction by transaction, until the store keeps to its limits.

    keep_stream: stays, though it may be empty
    """
    gone = Forgotten()
    if limits.max_age_days is not None:
        gone = gone.plus(_forget_until(store, store.now() - limits.max_age_days * _DAY_S, keep_stream))
    while store.size_bytes() > limits.max_bytes:
        release(store)
        if store.size_bytes() <= limits.max_bytes or (oldest_s := _end_of_oldest_share(store)) is None:
            break
        gone = gone.plus(_forget_until(store, oldest_s, keep_stream))
    return gone


def release(store: MemoryStore) -> None:
    """Give free pages back to the file system."""
    store.rows("PRAGMA incremental_vacuum")


def scrub(store: MemoryStore) -> bool:
    """Empty the -wal file, where forgotten things still stand; False where another process reads from it just now."""
    return not store.rows("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]


def forget_vectors(store: MemoryStore, vectors: Sequence[int]) -> Forgotten:
    """Vectors, the spans that were merged into them, and the words that were said in all of these.

    errors: StoreError where there is none of one id, and nothing is forgotten
    """
    segments = 0
    with store.transaction():
        for vector in vectors:
            found = store.vector(vector)
            segments += sum(_cut(store, found.stream, span) for span in (found.span, *store.occurrences(vector)))
            store.run("DELETE FROM vectors WHERE id = ?", vector)
        return Forgotten(len(vectors), segments).plus(_drop_empty(store, None))


def forget_stream(store: MemoryStore, stream: int) -> Forgotten:
    """All of a stream. Errors: StoreError where there is none of this id"""
    with store.transaction():
        store.stream_name(stream)
        segments = store.run("DELETE FROM segments WHERE stream = ?", stream)
        vectors = store.run("DELETE FROM vectors WHERE stream = ?", stream)
        return Forgotten(vectors, segments).plus(_drop_empty(store, None))


def forget_before(store: MemoryStore, time: float) -> Forgotten:
    """What was last seen before a time. time: seconds since 1970"""
    with store.transaction():
        segments = store.run("DELETE FROM segments WHERE stored < ?", time)
        vectors = store.run("DELETE FROM vectors WHERE last_seen < ?", time)
        return Forgotten(vectors, segments).plus(_drop_empty(store, None))


def forget_text(store: MemoryStore, phrase: str) -> Forgotten:
    """Every segment in which the very words were said, and the vectors of its time."""
    with store.transaction():
        gone = Forgotten()
        while hits := search_text(store, phrase, limit=100, least_score=1.0):
            for hit in hits:
                gone = gone.plus(_forget_segment(store, hit.segment))
        return gone.plus(_drop_empty(store, None))


def forget_all(store: MemoryStore) -> Forgotten:
    """Everything, what was learnt of the models' vectors too."""
    with store.transaction():
        segments = store.run("DELETE FROM segments")
        vectors = store.run("DELETE FROM vectors")
        gone = Forgotten(vectors, segments).plus(_drop_empty(store, None))
        store.run("DELETE FROM models")
        return gone


def _forget_segment(store: MemoryStore, segment: int) -> Forgotten:
    found = store.rows("SELECT stream, start_s, end_s FROM segments WHERE id = ?", segment)
    if not found:
        return Forgotten()
    ((stream, start_s, end_s),) = found
    store.run("DELETE FROM segments WHERE id = ?", segment)
    vectors = store.run("DELETE FROM vectors WHERE stream = ? AND start_s < ? AND end_s > ?", stream, end_s, start_s)
    return Forgotten(vectors, 1)


def _cut(store: MemoryStore, stream: int, span: Span) -> int:
    """Take the words of a span out of the segments of a stream; how many segments lost all of theirs."""
    lost = 0
    for segment in _overlapping(store, stream, span):
        kept = [w for w in segment.words if not span.start_s <= (w.start_s + w.end_s) / 2 < span.end_s]
        if len(kept) == len(segment.words):
            continue
        ((stored,),) = store.rows("SELECT stored FROM segments WHERE id = ?", segment.id)
        store.run("DELETE FROM segments WHERE id = ?", segment.id)
        lost += not kept
        if kept:
            rest = Span(segment.start_s, segment.end_s, " ".join(word.word for word in kept))
            store.add_segment(stream, rest, kept, stored=stored)
    return lost


def _overlapping(store: MemoryStore, stream: int, span: Span) -> list[Segment]:
    rows = store.rows(
        "SELECT id FROM segments WHERE stream = ? AND start_s < ? AND end_s > ?", stream, span.end_s, span.start_s
    )
    return [segment for row in rows for segment in store.segments(stream, after=row[0] - 1, limit=1)]


def _end_of_oldest_share(store: MemoryStore) -> float | None:
    """When the youngest of the oldest share was last seen; None where nothing may be forgotten."""
    ((count,),) = store.rows(f"SELECT count(*) FROM ({_FORGETTABLE})")
    rank = min(max(int(count * _SHARE), _MIN_SHARE_ROWS), count) - 1
    if rank < 0:
        return None
    ((time,),) = store.rows(f"{_FORGETTABLE} ORDER BY 1 LIMIT 1 OFFSET ?", rank)
    return float(time)


_UNDER_A_PIN = """EXISTS (
    SELECT 1 FROM vectors v
    WHERE v.stream = segments.stream AND v.pinned AND v.start_s < segments.end_s AND v.end_s > segments.start_s
)"""
_FORGETTABLE = (
    f"SELECT last_seen FROM vectors WHERE pinned = 0 UNION ALL SELECT stored FROM segments WHERE NOT {_UNDER_A_PIN}"
)


def _forget_until(store: MemoryStore, time: float, keep_stream: int | None) -> Forgotten:
    with store.transaction():
        segments = store.run(f"DELETE FROM segments WHERE stored <= ? AND NOT {_UNDER_A_PIN}", time)
        vectors = store.run("DELETE FROM vectors WHERE pinned = 0 AND last_seen <= ?", time)
        return Forgotten(vectors, segments).plus(_drop_empty(store, keep_stream))


def _drop_empty(store: MemoryStore, keep_stream: int | None) -> Forgotten:
    store.run("DELETE FROM cells WHERE size = 0")
    store.changed_otherwise()
    streams = store.run(
        "DELETE FROM streams WHERE id IS NOT ? AND id NOT IN (SELECT stream FROM vectors) "
        "AND id NOT IN (SELECT stream FROM segments)",
        keep_stream,
    )
    return Forgotten(streams=streams)
