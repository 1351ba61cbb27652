"""From emissions to words with times and confidences, a segment at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import BundleError, ConfigError
from edgeasr.tokenizer import SPACE, Tokenizer

# Half precision may round a log-probability a little above 0; anything larger is a logit.
_LARGEST_LOG_PROB = 0.01


@dataclass(frozen=True)
class Word:
    """A recognised word.

    start, end: seconds of stream time; words never overlap
    conf:       in [0, 1], as the decoder that made it defines
    """

    word: str
    start: float
    end: float
    conf: float


@dataclass(frozen=True)
class Sentence:
    """What a grammar makes of a segment.

    rule: name of the public rule that was said; None where the segment is no sentence, and has no words
    tags: those of the rule and of the rules it names, in the order in which they were met
    fit:  in [0, 1], how well the sentence explains what was heard, as `GrammarDecoder` defines it
    """

    rule: str | None
    tags: tuple[str, ...]
    fit: float


class Decoder(Protocol):
    """What the recogniser needs of a decoder, which outlives segments and counts the frames of a stream.

    start_s, end_s:     bounds of the current segment: where it was started, what was accepted so far
    num_frames:         frames of the current segment
    has_speech:         whether the segment holds a word or the beginning of one
    trailing_silence_s: time since the last frame that carried a letter, or since the segment's start
    stable_words:       how many leading words of `hypothesis()` are complete and will not change
    """

    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def has_speech(self) -> bool: ...
    @property
    def trailing_silence_s(self) -> float: ...
    @property
    def stable_words(self) -> int: ...
    @property
    def text(self) -> str: ...

    def accept(self, log_probs: NDArray[np.floating[Any]]) -> None:
        """Decodes the next frames. log_probs: (T, V), any T, 0 included."""

    def hypothesis(self) -> tuple[Word, ...]:
        """Words of the current segment so far."""

    def finish(self) -> None:
        """No more frames of the segment come: what waits for them is decided."""

    def reset(self, start_frame: int | None = None) -> None:
        """Starts a new segment at start_frame: None where the last ended, more after a gap, 0 anew."""

    def cut(self) -> tuple[Word, ...]:
        """Starts a new segment in running speech and returns the words of the old one.

        An unfinished word is not broken: it moves into the new segment, unless it is all that there is.
        """


def best_tokens(
    log_probs: NDArray[np.floating[Any]], num_tokens: int, start_s: float, frame_s: float
) -> tuple[list[int], list[float]]:
    """The likeliest token of every frame and its log-probability.

    log_probs: (T, V), whose first frame begins at start_s
    errors:    BundleError for another V, NaN or what cannot be log-probabilities
    """
    if log_probs.ndim != 2 or log_probs.shape[1] != num_tokens:
        raise BundleError(
            f"got log-probabilities of shape {log_probs.shape}, wanted (T, {num_tokens}): "
            "use the tokens of the model that made them"
        )
    ids = log_probs.argmax(axis=1)  # that of the first NaN, where there are any
    best = log_probs[np.arange(len(ids)), ids].tolist()
    wrong = next((frame for frame, value in enumerate(best) if not -math.inf < value <= _LARGEST_LOG_PROB), None)
    if wrong is not None:
        at_s = start_s + wrong * frame_s
        raise BundleError(
            f"got {best[wrong]} as highest log-probability at {at_s:.2f} s, wanted a number up to 0: "
            "the model is damaged or does not end in log_softmax, export it again"
        )
    return ids.tolist(), best


class SegmentClock:
    """Where in the stream a decoder is, and its segment; the times of `Decoder`.

    frame_s: duration of a frame
    errors:  ConfigError for what is no duration
    """

    def __init__(self, frame_s: float) -> None:
        if not 0 < frame_s < math.inf:
            raise ConfigError(f"got frame_s {frame_s}, wanted a duration above 0: take it from the model's config")
        self.frame_s = frame_s
        self._start_frame = 0
        self._next_frame = 0
        self._sound_end_frame = 0  # after the last frame that carried a letter or a phone

    @property
    def start_s(self) -> float:
        return self._start_frame * self.frame_s

    @property
    def end_s(self) -> float:
        return self._next_frame * self.frame_s

    @property
    def num_frames(self) -> int:
        return self._next_frame - self._start_frame

    @property
    def trailing_silence_s(self) -> float:
        return (self._next_frame - max(self._start_frame, self._sound_end_frame)) * self.frame_s


@dataclass
class Emission:
    """A letter or a piece of a word, and the frames that it was heard in. log_prob: the highest of these"""

    letters: str
    start_frame: int
    end_frame: int
    log_prob: float


class Spelling:
    """Tokens, one after another, to words: a space, alone or before the letters of a piece, finishes one.

    A word starts with the first frame of its first letter (or piece) and ends after the last frame of its last one.
    Its confidence is the geometric mean over its letters (or pieces) of the highest posterior in the frames of each.
    """

    def __init__(self, frame_s: float, unfinished: Sequence[Emission] = (), finished: Sequence[Word] = ()) -> None:
        self._frame_s = frame_s
        self.finished = list(finished)
        self.unfinished = list(unfinished)

    @property
    def words(self) -> tuple[Word, ...]:
        """All words; only the last can be unfinished."""
        return (*self.finished, *self._unfinished_word())

    def copy(self) -> Spelling:
        """One that goes on by itself."""
        # Four times as fast as dataclasses.replace, and this is asked for with every guess.
        held = [Emission(one.letters, one.start_frame, one.end_frame, one.log_prob) for one in self.unfinished]
        return Spelling(self._frame_s, held, self.finished)

    def take(self, token: str, frame: int, log_prob: float) -> bool:
        """The next token. returns: whether it has letters"""
        letters = token.removeprefix(SPACE)
        if letters != token:
            self.finished.extend(self._unfinished_word())
            self.unfinished = []
        if letters:
            self.unfinished.append(Emission(letters, frame, frame + 1, log_prob))
        return bool(letters)

    def hold(self, frame: int, log_prob: float) -> None:
        """The last token lasts."""
        if self.unfinished:
            held = self.unfinished[-1]
            held.end_frame, held.log_prob = frame + 1, max(held.log_prob, log_prob)

    def _unfinished_word(self) -> tuple[Word, ...]:
        emissions = self.unfinished
        if not emissions:
            return ()
        mean_log_prob = math.fsum(emission.log_prob for emission in emissions) / len(emissions)
        word = Word(
            word="".join(emission.letters for emission in emissions),
            start=emissions[0].start_frame * self._frame_s,
            end=emissions[-1].end_frame * self._frame_s,
            conf=min(1.0, math.exp(mean_log_prob)),
        )
        return (word,)


class CtcGreedyDecoder(SegmentClock):
    """The best token of every frame, repeats collapsed, blanks removed (Graves et al. 2006, best path).

    Earlier output never changes. Words are as in `Spelling`; a letter lasts as long as its run of frames.

    frame_s: duration of a frame
    """

    def __init__(self, tokenizer: Tokenizer, frame_s: float) -> None:
        super().__init__(frame_s)
        self.tokenizer = tokenizer
        self._last_id = tokenizer.blank_id
        self._spelling = Spelling(frame_s)

    @property
    def has_speech(self) -> bool:
        return bool(self._spelling.finished or self._spelling.unfinished)

    @property
    def stable_words(self) -> int:
        return len(self._spelling.finished)

    @property
    def text(self) -> str:
        return " ".join(word.word for word in self.hypothesis())

    def accept(self, log_probs: NDArray[np.floating[Any]]) -> None:
        """Decodes the next frames.

        log_probs: (T, V), any T, 0 included
        errors:    BundleError for another V, NaN or what cannot be log-probabilities; no frame is taken then
        """
        ids, best = best_tokens(log_probs, len(self.tokenizer), self.end_s, self.frame_s)
        for token_id, log_prob in zip(ids, best, strict=True):
            self._take(token_id, log_prob)

    def hypothesis(self) -> tuple[Word, ...]:
        """Words of the current segment so far; only the last can be unfinished."""
        return self._spelling.words

    def finish(self) -> None:
        """As in `Decoder`. Nothing waits."""

    def reset(self, start_frame: int | None = None) -> None:
        """As in `Decoder`. A letter held across the end of a segment belongs to the old one; after a jump it
        counts anew.
        """
        if start_frame is not None and start_frame != self._next_frame:
            self._next_frame = self._sound_end_frame = start_frame
            self._last_id = self.tokenizer.blank_id
        self._begin_segment(self._next_frame)

    def cut(self) -> tuple[Word, ...]:
        finished, carried = self._spelling.finished, self._spelling.unfinished
        if not (finished and carried):
            words = self.hypothesis()
            self.reset()
            return words
        self._begin_segment(carried[0].start_frame, carried)
        return tuple(finished)

    def _begin_segment(self, start_frame: int, unfinished: Sequence[Emission] = ()) -> None:
        self._start_frame = start_frame
        self._spelling = Spelling(self.frame_s, unfinished)

    def _take(self, token_id: int, log_prob: float) -> None:
        frame, repeated = self._next_frame, token_id == self._last_id
        self._next_frame, self._last_id = frame + 1, token_id
        if token_id == self.tokenizer.blank_id:
            return
        token = self.tokenizer.tokens[token_id]
        if token.removeprefix(SPACE):
            self._sound_end_frame = frame + 1
        if not repeated:
            self._spelling.take(token, frame, log_prob)
        elif token != SPACE:
            self._spelling.hold(frame, log_prob)
