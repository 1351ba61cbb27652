"""Words of a lexicon, weighed by a language model, as a `Decoder`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.decoder import SegmentClock, Word, best_tokens
from edgeasr.lexicon import ROOT
from edgeasr.lexicon_native import fastest_search
from edgeasr.lexicon_search import (
    FIRST,
    NO_RECORD,
    NODE,
    RECORD,
    SOUNDS,
    STATE,
    PrefixSearch,
    WordGraph,
    WordRecord,
)

# What a prefix that ends within a word must be likelier by to be preferred to one that ends with a word.
_UNFINISHED_PENALTY = math.exp(-8.0)
# A path gets so long before its alternatives at the far end are given up, in words.
_MAX_OPEN_WORDS = 60
_MAX_RECORDS = 4000
# Of what is taken for noise so many settled words are remembered.
_MAX_NOISE_WORDS = 10
_BLANK_ID = 0


class LexiconDecoder(SegmentClock):
    """Prefix beam search over a lexicon with a word language model (`lexicon_search.py`).

    It takes log-probabilities of phones. The hypothesis is the likeliest prefix; where its last word is unfinished,
    that is the likeliest that begins so; once the segment has ended, it is what is likeliest as a whole sentence.
    Words are stable once all prefixes that are kept begin with them. A word starts with the first frame of its first
    phone and ends where it is complete, after the first frame of its last one. Its confidence is the geometric mean
    over its phones of the highest posterior that the acoustic model gave each: a word that only the language model
    wanted has a low one. While all words of a segment have such, it is taken for noise and has no words.

    frame_s: duration of a frame
    """

    def __init__(self, graph: WordGraph, frame_s: float) -> None:
        super().__init__(frame_s)
        self._graph = graph
        self._search = fastest_search(graph)
        self._hypothesis: tuple[Word, ...] | None = None  # None where it has to be found anew
        self._trusted = False
        self._last_id = self._held_id = _BLANK_ID
        self._begin_segment(0)

    @property
    def has_speech(self) -> bool:
        return bool(self.hypothesis())

    @property
    def stable_words(self) -> int:
        return len(self._stable) if self._trusted else 0

    @property
    def text(self) -> str:
        return " ".join(word.word for word in self.hypothesis())

    def accept(self, log_probs: NDArray[np.floating[Any]]) -> None:
        """Decodes the next frames.

        log_probs: (T, P) of phones, any T, 0 included
        errors:    BundleError for another P, NaN or what cannot be log-probabilities; no frame is taken then
        """
        ids, _ = best_tokens(log_probs, int(self._graph.lexicon.num_phones), self.end_s, self.frame_s)
        first, taken = self._next_frame, []
        for row, token_id in enumerate(ids):
            self._last_id = token_id
            if token_id != _BLANK_ID:
                self._sound_end_frame = first + row + 1
            if token_id == self._held_id != _BLANK_ID:
                continue
            self._held_id = _BLANK_ID
            taken.append(row)
        self._next_frame += len(ids)
        if taken:
            self._search.accept_frames(log_probs[taken], [first + row for row in taken])
        if ids:
            # Whether it is speech must not depend on who asks when.
            self._hypothesis = self._words(self._settle())
            if not self._trusted:
                # No rule ends a noise that never pauses.
                del self._stable[:-_MAX_NOISE_WORDS]

    def hypothesis(self) -> tuple[Word, ...]:
        """Words of the current segment so far; only the last can be unfinished."""
        if self._hypothesis is None:
            self._hypothesis = self._words(self._best())
        return self._hypothesis

    def finish(self) -> None:
        """As in `Decoder`. Nothing waits, but what is shown now is a whole sentence."""
        self._ended = True
        self._hypothesis = None

    def use(self, graph: WordGraph) -> None:
        """Decode from the next frame on with another beam. graph: that of before with another one, see `with_beam`"""
        self._graph = graph
        self._search.use(graph)

    def reset(self, start_frame: int | None = None) -> None:
        """As in `Decoder`. A phone held across the end of a segment belongs to the old one; after a jump it
        counts anew.
        """
        self._held_id = self._last_id
        if start_frame is not None and start_frame != self._next_frame:
            self._next_frame = self._sound_end_frame = start_frame
            self._last_id = self._held_id = _BLANK_ID
        self._search.begin(self._graph.start)
        self._begin_segment(self._next_frame)

    def cut(self) -> tuple[Word, ...]:
        """As in `Decoder`. What has begun after the last finished word moves on, the likely and the less likely."""
        record = self._record(self._best())
        words = (*self._stable, *self._open_words(record))
        if not words or not self._trusted:
            words = self.hypothesis()
            self.reset()
            return words
        self._search.keep(self._search.whole[RECORD] == record)
        self._search.forget(record)
        begun = self._search.whole[NODE] != ROOT
        self._begin_segment(int(self._search.whole[FIRST, begun].min(initial=self._next_frame)), trusted=True)
        return words

    def _begin_segment(self, start_frame: int, *, trusted: bool = False) -> None:
        self._start_frame = start_frame
        self._stable: list[Word] = []
        self._settled = NO_RECORD  # the last record of the stable words
        self._hypothesis = None
        self._trusted = trusted  # that it is speech
        self._ended = False

    def _words(self, best: int) -> tuple[Word, ...]:
        """Those of the segment up to a prefix, once they are believed."""
        words = (
            *self._stable,
            *self._open_words(self._record(best)),
            *last_word(self._graph, self._search, best, self.frame_s),
        )
        # What was once shown stays: a stable prefix never changes.
        self._trusted = self._trusted or mean_conf(words) >= self._graph.config.min_conf
        return words if self._trusted else ()

    def _settle(self) -> int:
        """Make stable what all prefixes agree on, and forget what is no longer needed. returns: the prefix to show"""
        search, best = self._search, self._best()
        path = search.path(self._record(best), self._settled)
        if len(path) > _MAX_OPEN_WORDS:
            search.keep_through(path[len(path) // 2])
            best = self._best()
        common = search.common_record(self._settled)
        if common != self._settled:
            self._stable.extend(self._open_words(common))
            self._settled = common
        if len(search.records) > _MAX_RECORDS:
            search.forget(self._settled)
            self._settled = NO_RECORD
        return best

    def _best(self) -> int:
        """The prefix to show: the likeliest, those that end with a word preferred."""
        search = self._search
        scores = np.where(search.whole[NODE] == ROOT, search.scores, search.scores * _UNFINISHED_PENALTY)
        scores *= self._graph.if_ended(search.whole[STATE])
        if self._ended:
            scores *= self._graph.if_last(search.whole[STATE])
        return int(scores.argmax())

    def _record(self, prefix: int) -> int:
        return int(self._search.whole[RECORD, prefix])

    def _open_words(self, record: int) -> list[Word]:
        """The words from the stable ones to a record."""
        records = self._search.records
        path = reversed(self._search.path(record, self._settled))
        return [recorded_word(self._graph, records[number], self.frame_s) for number in path]


def recorded_word(graph: WordGraph, record: WordRecord, frame_s: float) -> Word:
    """A word that is complete."""
    return _timed(graph.model.words[record.word], record.start_frame, record.end_frame, record.log_conf, frame_s)


def last_word(graph: WordGraph, search: PrefixSearch, prefix: int, frame_s: float) -> tuple[Word, ...]:
    """The likeliest word that a prefix has begun, if it has."""
    node, *_, first, last = search.whole[:, prefix].tolist()
    if node == ROOT:
        return ()
    log_conf = float(search.parts[SOUNDS, prefix]) / int(graph.lexicon.depth[node])
    return (_timed(graph.model.words[graph.lexicon.likeliest[node]], first, last, log_conf, frame_s),)


def _timed(word: str, first: int, last: int, log_conf: float, frame_s: float) -> Word:
    return Word(word, first * frame_s, last * frame_s, min(1.0, math.exp(log_conf)))


def mean_conf(words: Sequence[Word]) -> float:
    """Of the words of a segment; 0 for none."""
    return math.fsum(word.conf for word in words) / len(words) if words else 0.0
