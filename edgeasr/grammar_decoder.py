"""Sentences of a grammar as a `Decoder`; speech that is none of them is rejected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.decoder import SegmentClock, Sentence, Word, best_tokens
from edgeasr.grammar_graph import GrammarGraph
from edgeasr.lexicon import ROOT
from edgeasr.lexicon_decoder import last_word, mean_conf, recorded_word
from edgeasr.lexicon_search import NO_RECORD, NODE, RECORD, STATE, PrefixSearch, heard_frames

# So many phones, as the acoustic model alone hears them, are speech: it may end, and be rejected.
_LEAST_PHONES = 3
# Of the phones of a sentence it must hear so many too: where it hears next to nothing, everything fits.
_LEAST_HEARD = 0.5
# And believe in its words, this part of what open recognition asks for: in noise every phone is a little likely.
_LEAST_TRUST = 0.6
_MAX_RECORDS = 4000
_BLANK_ID = 0


class GrammarDecoder(SegmentClock):
    """Prefix beam search over the sentences of a grammar (`lexicon_search.py`, `grammar_graph.py`).

    It takes log-probabilities of phones. A sentence is rejected, and has no words, unless it fits what was heard. Its
    fit says how much less likely it is than the likeliest phones of every frame, whatever they are (a filler of free
    phones), as a geometric mean over its phones, or over those that the acoustic model alone hears if they are more.
    The grammar's own weights do not count. 1 is what sounds like this sentence and like nothing else; 0 what is more
    than twice as long as what the acoustic model alone hears, since a long noise might be anything.

    As it may be rejected, nothing of a sentence is stable before it is over. Times and confidences of words are those
    of `LexiconDecoder`.

    frame_s: duration of a frame
    """

    def __init__(self, graph: GrammarGraph, frame_s: float) -> None:
        super().__init__(frame_s)
        self._graph = graph
        self._search = PrefixSearch(graph)
        self._last_id = self._held_id = _BLANK_ID
        self._begin_segment()

    @property
    def has_speech(self) -> bool:
        return self._num_phones >= _LEAST_PHONES

    @property
    def stable_words(self) -> int:
        return 0

    @property
    def text(self) -> str:
        return " ".join(word.word for word in self.hypothesis())

    def accept(self, log_probs: NDArray[np.floating[Any]]) -> None:
        """As `LexiconDecoder.accept`."""
        ids, _ = best_tokens(log_probs, int(self._graph.lexicon.num_phones), self.end_s, self.frame_s)
        for heard, token_id in zip(heard_frames(log_probs, self._graph.config), ids, strict=True):
            frame = self._next_frame
            self._next_frame += 1
            is_new = token_id != self._last_id
            self._last_id = token_id
            if token_id != _BLANK_ID:
                self._sound_end_frame = frame + 1
            if token_id == self._held_id != _BLANK_ID:
                continue
            self._held_id = _BLANK_ID
            self._num_phones += is_new and token_id != _BLANK_ID
            self._search.accept(heard, frame)
        self._tidy()

    def hypothesis(self) -> tuple[Word, ...]:
        """The words of the likeliest sentence, or beginning of one, so far; none while it does not fit."""
        scores = self._log_odds
        best = int(scores.argmax())
        if self._fit(best, float(scores[best])) < self._graph.config.min_fit:
            return ()
        return (*self._words(best), *last_word(self._graph, self._search, best, self.frame_s))

    def sentence(self) -> tuple[Sentence, tuple[Word, ...]]:
        """What the segment is, if it ends here, and its words."""
        graph, whole, log_odds = self._graph, self._search.whole, self._log_odds
        ends = graph.config.lm_weight * graph.finals[whole[STATE]]
        scores = np.where(whole[NODE] == ROOT, log_odds + ends, -np.inf)
        best = int(scores.argmax())
        words = self._words(best)
        fit = self._fit(best, float(log_odds[best])) if words and scores[best] > -math.inf else 0.0
        believed = mean_conf(words) >= _LEAST_TRUST * graph.config.min_conf
        if not fit or fit < graph.config.min_fit or not believed:
            return Sentence(None, (), fit), ()
        reading = graph.network.read([word.word for word in words])
        assert reading is not None  # the search follows the same grammar
        return Sentence(reading.rule, reading.tags, fit), words

    def finish(self) -> None:
        """As in `Decoder`. Nothing waits."""

    def reset(self, start_frame: int | None = None) -> None:
        """As `LexiconDecoder.reset`."""
        self._held_id = self._last_id
        if start_frame is not None and start_frame != self._next_frame:
            self._next_frame = self._sound_end_frame = start_frame
            self._last_id = self._held_id = _BLANK_ID
        self._search.begin(self._graph.start)
        self._begin_segment()

    def cut(self) -> tuple[Word, ...]:
        """As in `Decoder`, but a sentence ends where it is cut, and a word that it has begun with it."""
        _, words = self.sentence()
        self.reset()
        return words

    def _begin_segment(self) -> None:
        self._start_frame = self._next_frame
        self._num_phones = 0  # that the acoustic model hears

    @property
    def _log_odds(self) -> NDArray[np.float64]:
        """(N,) of each prefix against the likeliest phones."""
        with np.errstate(divide="ignore"):
            log_odds: NDArray[np.float64] = np.log(self._search.scores) + self._search.behind
        return log_odds

    def _fit(self, prefix: int, log_odds: float) -> float:
        """How well a prefix explains what was heard, in [0, 1]."""
        graph, (node, *_) = self._graph, self._search.whole[:, prefix].tolist()
        arcs = [self._search.records[record].word for record in self._path(prefix)]
        weights = graph.config.lm_weight * float(graph.model.unigrams[arcs].sum())
        weights += graph.config.word_score * len(arcs) + graph.ahead(node)
        num_phones = graph.num_phones_of(arcs) + int(graph.lexicon.depth[node])
        if self._num_phones < _LEAST_HEARD * num_phones:
            return 0.0
        return math.exp(min(0.0, (log_odds - weights) / max(1, num_phones, self._num_phones)))

    def _words(self, prefix: int) -> tuple[Word, ...]:
        """Those that are complete."""
        records = self._search.records
        return tuple(recorded_word(self._graph, records[number], self.frame_s) for number in self._path(prefix))

    def _path(self, prefix: int) -> Sequence[int]:
        return self._search.path(int(self._search.whole[RECORD, prefix]), NO_RECORD)[::-1]

    def _tidy(self) -> None:
        """Forget the words that no prefix goes through, and a sentence without an end."""
        if len(self._search.records) > _MAX_RECORDS:
            self._search.forget(NO_RECORD)
            if len(self._search.records) > _MAX_RECORDS // 2:
                self._search.begin(self._graph.start)
