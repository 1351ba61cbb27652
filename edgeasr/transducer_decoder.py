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
        # Not decided yet, and those projected, with as many before them as the window reaches back.
        self._open: Floats = np.zeros((0, transducer.vocabulary_size), np.float32)
        self._frames: Floats = np.zeros((0, len(transducer.absent)), np.float32)
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
        self._frames = np.concatenate([self._frames, self._transducer.project(emissions)])
        if (count := len(self._open) - self._transducer.ahead) > 0:
            for heard in self._pieces(self._frames, count):
                self._context = (*self._context[1:], heard.token_id)
                self._spell(self._spelling, heard)
            self._open, self._frames = self._open[count:], self._frames[count:]
        self._hypothesis = None

    def hypothesis(self) -> tuple[Word, ...]:
        """Words of the current segment so far; those that are not stable may change."""
        if self._hypothesis is not None:
            return self._hypothesis
        spelling = self._spelling.copy()
        absent = np.tile(self._transducer.absent, (self._transducer.ahead, 1))
        for heard in self._pieces(np.concatenate([self._frames, absent]), len(self._open)):
            self._spell(spelling, heard)
        words = self._hypothesis = spelling.words
        return words

    def reset(self, start_frame: int | None = None) -> None:
        """As in `Decoder`. Frames that are not decided yet belong to the old segment; after a jump all is new."""
        if start_frame is not None and start_frame != self._next_frame:
            self._next_frame = self._sound_end_frame = start_frame
            self._forget()
        self._open, self._frames = self._open[:0], self._frames[len(self._open) :]
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
        self._frames = np.tile(transducer.absent, (transducer.behind, 1))

    def _pieces(self, frames: Floats, count: int) -> Iterator[_Heard]:
        """What is heard in the first open frames. frames: (behind + count + ahead, P) or more"""
        blanks = self._open[:count, _BLANK_ID]
        unsure = np.flatnonzero(blanks < _SURE_BLANK).tolist()
        if not unsure:
            return
        transducer = self._transducer
        context, predicted = self._context, None
        acoustic = transducer.hear(frames[: transducer.behind + count + transducer.ahead])
        first = self._next_frame - len(self._open)
        for i in unsure:
            if predicted is None:
                predicted = transducer.predict(context)
            scores = transducer.join(acoustic[i], predicted, self._open[i])
            best = int(scores.argmax())
            if best != _BLANK_ID:
                context, predicted = (*context[1:], best), None
                yield _Heard(best, first + i, -math.log(np.exp(scores - scores[best]).sum()))

    def _spell(self, spelling: Spelling, heard: _Heard) -> None:
        spelling.take(self.tokenizer.tokens[heard.token_id], heard.frame, heard.log_prob)
