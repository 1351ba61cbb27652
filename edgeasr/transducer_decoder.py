"""Pieces of words as a transducer hears them, the best at every frame, as a `Decoder`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.decoder import Emission, SegmentClock, Spelling, Word, best_tokens
from edgeasr.errors import BundleError
from edgeasr.features import Floats
from edgeasr.tokenizer import Tokenizer
from edgeasr.transducer import PieceFinder, Predicted

# A blank that CTC is so sure of stays one, and costs nothing.
SURE_BLANK = math.log(0.95)
# Between what CTC and the transducer hear of one piece, in frames.
_NEAR = 2
_BLANK_ID = 0


class _Heard(NamedTuple):
    """A piece that was heard."""

    token_id: int
    frame: int
    log_prob: float

    def is_near(self, other: _Heard) -> bool:
        """Whether the other is the same piece at about the same time."""
        return self.token_id == other.token_id and abs(self.frame - other.frame) <= _NEAR


class TransducerDecoder(SegmentClock):
    """The best token of every frame, given those before it: no beam, no words but those that it spells.

    A frame is decided once the transducer knows what comes after it, `ahead` frames later, and decided output never
    changes. Of the frames since, CTC's best path is shown as a first guess, which costs nothing. Words are as in
    `Spelling`, silence is what CTC says.

    frame_s: duration of a frame
    errors:  BundleError for a transducer of other tokens
    """

    def __init__(self, transducer: PieceFinder, tokenizer: Tokenizer, frame_s: float) -> None:
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
        self._predicted: tuple[tuple[int, ...], Predicted] | None = None  # of which context what follows it
        self._guesses: list[_Heard] = []
        self._last_id = _BLANK_ID
        # Emissions that are not decided yet; their frames projected, and those before that the window reaches.
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
        ids, best = best_tokens(log_probs, len(self.tokenizer), self.end_s, self.frame_s)
        for token_id, log_prob in zip(ids, best, strict=True):
            self._guess(token_id, log_prob)
        emissions = log_probs.astype(np.float32)
        self._open = np.concatenate([self._open, emissions])
        self._frames = np.concatenate([self._frames, self._transducer.project(emissions)])
        self._decide(max(0, len(self._open) - self._transducer.ahead), self._frames)
        self._hypothesis = None

    def hypothesis(self) -> tuple[Word, ...]:
        """Words of the current segment so far; those that are not stable may change."""
        if self._hypothesis is None:
            spelling = self._spelling.copy() if self._guesses else self._spelling
            for guess in self._guesses:
                self._spell(spelling, guess)
            self._hypothesis = spelling.words
        return self._hypothesis

    def finish(self) -> None:
        """As in `Decoder`: the open frames are decided as though nothing followed."""
        transducer = self._transducer
        absent = np.tile(transducer.absent, (transducer.ahead, 1))
        self._decide(len(self._open), np.concatenate([self._frames, absent]))
        self._hypothesis = None

    def reset(self, start_frame: int | None = None) -> None:
        """As in `Decoder`. Frames that are not decided yet belong to the old segment; after a jump all is new."""
        if start_frame is not None and start_frame != self._next_frame:
            self._next_frame = self._sound_end_frame = start_frame
            self._forget()
        self._drop(len(self._open))
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
        self._open, self._guesses, self._last_id = self._open[:0], [], _BLANK_ID
        self._frames = np.tile(transducer.absent, (transducer.behind, 1))

    def _guess(self, token_id: int, log_prob: float) -> None:
        """The next frame, as CTC hears it."""
        if token_id not in (_BLANK_ID, self._last_id):
            self._guesses.append(_Heard(token_id, self._next_frame, log_prob))
        self._next_frame, self._last_id = self._next_frame + 1, token_id
        if token_id != _BLANK_ID:
            self._sound_end_frame = self._next_frame

    def _decide(self, count: int, frames: Floats) -> None:
        """Take the first open frames for good. frames: projected, from `behind` before the first to all that count"""
        unsure = np.flatnonzero(self._open[:count, _BLANK_ID] < SURE_BLANK)
        if len(unsure):
            self._find(unsure, self._transducer.hear(frames, unsure))
        self._drop(count)

    def _find(self, unsure: NDArray[np.intp], heard: Floats) -> None:
        """Take the pieces of open frames. unsure: which frames, (n,); heard: the acoustic part of these, (n, D)"""
        emissions, first = self._open[unsure], self._next_frame - len(self._open)
        at = 0
        while at < len(unsure):
            # All that are left, as though nothing were heard: the first that is a piece is right.
            found = self._transducer.first_piece(heard[at:], self._prediction(), emissions[at:])
            if found is None:
                return
            at += found.row + 1
            self._take(_Heard(found.token_id, first + int(unsure[at - 1]), found.log_prob))

    def _prediction(self) -> Predicted:
        """What follows the context; asked for in every chunk, and another after each piece alone."""
        if self._predicted is None or self._predicted[0] != self._context:
            self._predicted = self._context, self._transducer.predict(self._context)
        return self._predicted[1]

    def _take(self, heard: _Heard) -> None:
        self._context = (*self._context[1:], heard.token_id)
        self._spell(self._spelling, heard)
        # CTC may hear the same piece a little later than it was decided.
        self._guesses = [guess for guess in self._guesses if not heard.is_near(guess)]

    def _drop(self, count: int) -> None:
        """The first open frames are open no more."""
        self._open, self._frames = self._open[count:], self._frames[count:]
        first = self._next_frame - len(self._open)
        self._guesses = [guess for guess in self._guesses if guess.frame >= first]

    def _spell(self, spelling: Spelling, heard: _Heard) -> None:
        spelling.take(self.tokenizer.tokens[heard.token_id], heard.frame, heard.log_prob)
