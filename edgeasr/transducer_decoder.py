"""Pieces of words as a transducer hears them, the best at every frame, as a `Decoder`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.decoder import Emission, SegmentClock, Spelling, Word, best_tokens
from edgeasr.errors import BundleError
from edgeasr.features import Floats
from edgeasr.tokenizer import Tokenizer
from edgeasr.transducer import Transducer

# A blank that CTC is so sure of stays one, and costs nothing.
_SURE_BLANK = math.log(0.98)
_BLANK_ID = 0


class _Heard(NamedTuple):
    """A piece that was heard."""

    token_id: int
    frame: int
    log_prob: float


class TransducerDecoder(SegmentClock):
    """The best token of every frame, given those before it: no beam, no words but those that it spells.

    A frame is decided once the transducer knows what comes after it, `ahead` frames later; what comes of the frames
    since is shown, and may change. Decided output never changes. Words are as in `Spelling`, silence is what CTC says.

    frame_s: duration of a frame
    errors:  BundleError for a transducer of other tokens
    """

    def __init__(self, transducer: Transducer, tokenizer: Tokenizer, frame_s: float) -> None:
        super().__init__(frame_s)
        if transducer.vocabulary_size != len(tokenizer):
            raise BundleError(
                f"got a transducer of {transducer.vocabulary_size} tokens, wanted {len(tokenizer)}: "
                "take the model's own"
            )
        self.tokenizer = tokenizer
        self._transducer = transducer
        self._hypothesis: tuple[Word, ...] | None = None  # None where it has to be found anew
        self._context = transducer.begin
        # Emissions that are not decided yet; shares of their frames and of those before that the window reaches.
        self._open: Floats = np.zeros((0, transducer.vocabulary_size), np.float32)
        self._shares: Floats = transducer.silence[None][:0]
        self._forget()
        self._begin_segment(0)

    @property
    def has_speech(self) -> bool:
        return bool(self.hypothesis())

    @property
    def stable_words(self) -> int:
        return len(self._spelling.finished)

    @property
    def text(self) -> str:
        return " ".join(word.word for word in self.hypothesis())

    def accept(self, log_probs: NDArray[np.floating[Any]]) -> None:
        """Decodes the next frames.

        log_probs: (T, V) of CTC, any T, 0 included
        errors:    BundleError for another V, NaN or what cannot be log-probabilities; no frame is taken then
        """
        ids, _ = best_tokens(log_probs, len(self.tokenizer), self.end_s, self.frame_s)
        for token_id in ids:
            self._next_frame += 1
            if token_id != _BLANK_ID:
                self._sound_end_frame = self._next_frame
        emissions = log_probs.astype(np.float32)
        self._open = np.concatenate([self._open, emissions])
        shares = self._transducer.shares(self._transducer.project(emissions))
        self._shares = np.concatenate([self._shares, shares])
        if (count := len(self._open) - self._transducer.ahead) > 0:
            for heard in self._pieces(self._shares, count):
                self._context = (*self._context[1:], heard.token_id)
                self._spell(self._spelling, heard)
            self._open, self._shares = self._open[count:], self._shares[count:]
        self._hypothesis = None

    def hypothesis(self) -> tuple[Word, ...]:
        """Words of the current segment so far; those that are not stable may change."""
        if self._hypothesis is not None:
            return self._hypothesis
        spelling = self._spelling.copy()
        silence = np.repeat(self._transducer.silence[None], self._transducer.ahead, axis=0)
        for heard in self._pieces(np.concatenate([self._shares, silence]), len(self._open)):
            self._spell(spelling, heard)
        words = self._hypothesis = spelling.words
        return words

    def reset(self, start_frame: int | None = None) -> None:
        """As in `Decoder`. Frames that are not decided yet belong to the old segment; after a jump all is new."""
        if start_frame is not None and start_frame != self._next_frame:
            self._next_frame = self._sound_end_frame = start_frame
            self._forget()
        self._open, self._shares = self._open[:0], self._shares[len(self._open) :]
        self._context = self._transducer.begin
        self._begin_segment(self._next_frame)

    def cut(self) -> tuple[Word, ...]:
        """As in `Decoder`. What is not decided yet moves on, too."""
        finished, carried = self._spelling.finished, self._spelling.unfinished
        if not finished:
            words = self.hypothesis()
            self.reset()
            return words
        self._begin_segment(carried[0].start_frame if carried else self._next_frame - len(self._open), carried)
        return tuple(finished)

    def _begin_segment(self, start_frame: int, unfinished: Sequence[Emission] = ()) -> None:
        self._start_frame = start_frame
        self._spelling = Spelling(self.frame_s, unfinished)
        self._hypothesis = None

    def _forget(self) -> None:
        """Nothing was heard, nothing said."""
        transducer = self._transducer
        self._context = transducer.begin
        self._open = self._open[:0]
        self._shares = np.repeat(transducer.silence[None], transducer.behind, axis=0)

    def _pieces(self, shares: Floats, count: int) -> Iterator[_Heard]:
        """What is heard in the first open frames. shares: of behind + count + ahead frames or more"""
        unsure = np.flatnonzero(self._open[:count, _BLANK_ID] < _SURE_BLANK)
        if not len(unsure):
            return
        transducer, context = self._transducer, self._context
        acoustic = transducer.hear(shares[: transducer.behind + count + transducer.ahead])
        first = self._next_frame - len(self._open)
        while len(unsure):
            # All that are left, as though nothing were heard: the first that is a piece is right.
            scores = transducer.join(acoustic[unsure], transducer.predict(context), self._open[unsure])
            best = scores.argmax(axis=1)
            pieces = np.flatnonzero(best != _BLANK_ID)
            if not len(pieces):
                return
            at = int(pieces[0])
            piece, row = int(best[at]), scores[at]
            yield _Heard(piece, first + int(unsure[at]), -math.log(np.exp(row - row[piece]).sum()))
            context, unsure = (*context[1:], piece), unsure[at + 1 :]

    def _spell(self, spelling: Spelling, heard: _Heard) -> None:
        spelling.take(self.tokenizer.tokens[heard.token_id], heard.frame, heard.log_prob)
