"""Where a phrase was said, though it may not have been recognised word for word.

FTS5 finds segments that share words (or their stems) with the phrase; in each, and in the segment that follows it, the
part most like the phrase, letter by letter, is what was said, and its words say when.
"""

from __future__ import annotations

import re

from rapidfuzz.fuzz import partial_ratio_alignment, ratio

from edgeasr.errors import StoreError
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import Segment, Span, TextHit

LEAST_SCORE = 0.6
_CANDIDATES = 200
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def search_text(store: MemoryStore, phrase: str, *, limit: int = 10, least_score: float = LEAST_SCORE) -> list[TextHit]:
    """Where something like a phrase was said, the most similar first, the newest first among equals.

    least_score: share of the letters that agree; 1 for the very words
    errors:      StoreError for a phrase without a word
    """
    words = _WORD.findall(phrase.lower().replace("\u2019", "'"))
    if not words:
        raise StoreError(f"got the phrase {phrase!r}, wanted at least one word: say what to look for")
    found = (_hit(store, segment, " ".join(words)) for segment in _candidates(store, words))
    hits: list[TextHit] = []
    for hit in sorted(filter(None, found), key=lambda hit: (-hit.score, -hit.segment)):
        if len(hits) == limit or hit.score < least_score:
            break
        if not any(_same(hit, other) for other in hits):
            hits.append(hit)
    return hits


def _candidates(store: MemoryStore, words: list[str]) -> list[Segment]:
    """Segments with the words as a phrase, then those that share most of the rarer ones."""
    quoted = [f'"{word}"' for word in words]
    queries = {f'"{" ".join(words)}"': "rowid DESC", " OR ".join(quoted): "rank"}
    found: dict[int, None] = {}
    for query, order in queries.items():
        rows = store.rows(
            f"SELECT rowid FROM segment_texts WHERE segment_texts MATCH ? ORDER BY {order} LIMIT ?", query, _CANDIDATES
        )
        found |= {row[0]: None for row in rows}
    return [segment for key in found for segment in store.segments(after=key - 1, limit=1)]


def _hit(store: MemoryStore, segment: Segment, phrase: str) -> TextHit | None:
    """The part of a segment, and of the one after it, that is most like the phrase; None if it is all in the latter."""
    following = store.segments(segment.stream, after=segment.id, limit=1)
    words = [*segment.words, *(word for other in following for word in other.words)]
    # Spaces around keep "cat" out of "concatenate".
    text = "".join(f" {word.word}" for word in words).lower() + " "
    found = partial_ratio_alignment(f" {phrase} ", text)
    if found is None:
        return None
    word_of = [i for i, word in enumerate(words) for _ in f" {word.word}"]
    inside = sorted({word_of[at] for at in range(found.dest_start + 1, min(found.dest_end - 1, len(word_of)))})
    if not inside or inside[0] >= len(segment.words):
        return None
    said = words[inside[0] : inside[-1] + 1]
    span = Span(said[0].start_s, said[-1].end_s, " ".join(word.word for word in said))
    return TextHit(
        segment.stream, store.stream_name(segment.stream), segment.id, span, ratio(phrase, span.text.lower()) / 100
    )


def _same(hit: TextHit, other: TextHit) -> bool:
    return hit.stream == other.stream and hit.span.start_s < other.span.end_s and other.span.start_s < hit.span.end_s
