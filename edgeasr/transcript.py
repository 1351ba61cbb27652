"""Transcripts: events, the promises about them, and writers for text, JSON lines, SRT and VTT.

The promises, kept by `TranscriptBuilder`:

* a final never changes: no later event speaks of its segment or its time again; nor after a rejected segment;
* only the last segment may be partial;
* the stable prefix of a partial never changes: every later event of the segment begins with the same words.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

from edgeasr.decoder import Sentence, Word

# Two bounds that come from the same frames may differ by rounding.
_SAME_TIME_S = 1e-3

MAX_LINE_CHARS = 42
MAX_CUE_LINES = 2
MAX_CUE_S = 7.0
MIN_CUE_S = 1.0


@dataclass(frozen=True)
class _SegmentEvent:
    type: ClassVar[str]

    segment: int
    start: float
    end: float
    text: str
    stable: int
    words: tuple[Word, ...]

    def to_dict(self) -> dict[str, Any]:
        """The event for JSON, times and confidences rounded to 3 places."""
        return {
            "type": self.type,
            "segment": self.segment,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "text": self.text,
            "stable": self.stable,
            "words": [
                {
                    "word": word.word,
                    "start": round(word.start, 3),
                    "end": round(word.end, 3),
                    "conf": round(word.conf, 3),
                }
                for word in self.words
            ],
        }


@dataclass(frozen=True)
class Partial(_SegmentEvent):
    """What was heard so far of the last segment.

    segment:    counts from 0
    start, end: bounds of the segment in seconds of stream time
    text:       the words, joined by spaces
    stable:     length in characters of the prefix of text that will not change
    """

    type: ClassVar[str] = "partial"


@dataclass(frozen=True)
class _FinishedSegment(_SegmentEvent):
    """endpoint: name of the rule that ended it, see `edgeasr.endpoint.Endpoint`; empty where it is not known
    sentence: what the grammar makes of it; None without a grammar
    """

    endpoint: str = ""
    sentence: Sentence | None = None

    def to_dict(self) -> dict[str, Any]:
        """As of any event, with the endpoint where it is known, and what the grammar makes of it."""
        known = super().to_dict()
        if self.endpoint:
            known["endpoint"] = self.endpoint
        if (sentence := self.sentence) is not None:
            known |= {"rule": sentence.rule, "tags": list(sentence.tags), "fit": round(sentence.fit, 3)}
        return known


@dataclass(frozen=True)
class Final(_FinishedSegment):
    """A finished segment; as `Partial`, and all of the text is stable."""

    type: ClassVar[str] = "final"


@dataclass(frozen=True)
class Rejected(_FinishedSegment):
    """Speech that is no sentence of the grammar: it has no words, and takes back what partials of the segment said."""

    type: ClassVar[str] = "rejected"


Event = Partial | Final | Rejected


class TranscriptBuilder:
    """Turns hypotheses into events and keeps the promises; a broken one is a RuntimeError, a bug of ours."""

    def __init__(self) -> None:
        self._segment = 0
        self._closed_s = 0.0
        self._stable_words: list[str] = []
        self._said = ("", 0)

    def partial(self, words: tuple[Word, ...], *, stable_words: int, start: float, end: float) -> Partial | None:
        """The segment so far, or None where its text and stable prefix are what the last partial said."""
        self._check(words, stable_words, start, end)
        text, stable = _text(words), len(_text(words[:stable_words]))
        self._stable_words = _spoken(words[:stable_words])
        if (text, stable) == self._said:
            return None
        self._said = (text, stable)
        return Partial(self._segment, start, end, text, stable, words)

    def final(
        self,
        words: tuple[Word, ...],
        *,
        start: float,
        end: float,
        endpoint: str = "",
        sentence: Sentence | None = None,
    ) -> Final | Rejected:
        """Closes the segment; the next event belongs to a new one. sentence: of a grammar, that may reject it"""
        self._check(words, len(words), start, end)
        text = _text(words)
        kind = Rejected if sentence is not None and sentence.rule is None else Final
        event = kind(self._segment, start, end, text, len(text), words, endpoint, sentence)
        self._segment += 1
        self._closed_s = end
        self._stable_words = []
        self._said = ("", 0)
        return event

    def _check(self, words: tuple[Word, ...], stable_words: int, start: float, end: float) -> None:
        times = [self._closed_s, start, *(time for word in words for time in (word.start, word.end)), end]
        if any(later < earlier - _SAME_TIME_S for earlier, later in pairwise(times)):
            raise RuntimeError(f"segment {self._segment}: times run backwards: {times}")
        if not len(self._stable_words) <= stable_words <= len(words):
            raise RuntimeError(
                f"segment {self._segment}: {stable_words} stable words of {len(words)}, after {len(self._stable_words)}"
            )
        if _spoken(words[: len(self._stable_words)]) != self._stable_words:
            raise RuntimeError(f"segment {self._segment}: stable {self._stable_words} became {_spoken(words)}")


def _spoken(words: Iterable[Word]) -> list[str]:
    return [word.word for word in words]


def _text(words: Iterable[Word]) -> str:
    return " ".join(_spoken(words))


class TranscriptWriter(Protocol):
    """A format, written as the events come: the header, then `write` of every event, then the footer."""

    header: str
    footer: str

    def write(self, event: Event) -> str:
        """What the event adds to the output; may be empty."""


class TextWriter:
    """One line a final; a final without words adds nothing."""

    header = ""
    footer = ""

    def write(self, event: Event) -> str:
        return f"{event.text}\n" if isinstance(event, Final) and event.text else ""


class JsonLinesWriter:
    """One JSON object an event, partials included.

    extra: keys that every object carries after its own, such as the file's name
    """

    header = ""
    footer = ""

    def __init__(self, extra: Mapping[str, Any] | None = None) -> None:
        self._extra = dict(extra or {})

    def write(self, event: Event) -> str:
        return json.dumps(event.to_dict() | self._extra, allow_nan=False) + "\n"


class SrtWriter:
    """SubRip subtitles: numbered cues of finals."""

    header = ""
    footer = ""

    def __init__(self) -> None:
        self._num_cues = 0

    def write(self, event: Event) -> str:
        blocks = []
        for cue in cues(event):
            self._num_cues += 1
            times = f"{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}"
            blocks.append(f"{self._num_cues}\n{times}\n{cue.text}\n\n")
        return "".join(blocks)


class VttWriter:
    """WebVTT subtitles (W3C): cues of finals, & < > escaped."""

    header = "WEBVTT\n\n"
    footer = ""

    def write(self, event: Event) -> str:
        return "".join(
            f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_escape_vtt(cue.text)}\n\n" for cue in cues(event)
        )


@dataclass(frozen=True)
class Cue:
    """A subtitle: at most 2 lines of 42 characters, at most 7 s."""

    start: float
    end: float
    text: str


def cues(event: Event) -> Iterator[Cue]:
    """The subtitles of a final, split between words; none of a partial.

    A cue begins with its first word and ends with its last, or later so as to be seen for 1 s, but never
    after the next cue's or the next segment's start.
    """
    if not isinstance(event, Final):
        return
    groups = list(_cue_groups(event.words))
    starts = [group[0].start for group in groups]
    for group, start, limit in zip(groups, starts, [*starts[1:], event.end], strict=False):
        readable = max(group[-1].end, start + MIN_CUE_S)
        yield Cue(start, min(readable, start + MAX_CUE_S, limit), "\n".join(_lines(group)))


def _cue_groups(words: tuple[Word, ...]) -> Iterator[list[Word]]:
    group: list[Word] = []
    for word in (piece for whole in words for piece in _pieces(whole)):
        grown = [*group, word]
        if group and (len(_lines(grown)) > MAX_CUE_LINES or word.end - group[0].start > MAX_CUE_S):
            yield group
            grown = [word]
        group = grown
    if group:
        yield group


def _pieces(word: Word) -> Iterator[Word]:
    """A word that fits no line is broken, its time shared out by length."""
    length, duration = len(word.word), word.end - word.start
    for first in range(0, length, MAX_LINE_CHARS):
        last = min(first + MAX_LINE_CHARS, length)
        start, end = (word.start + duration * char / length for char in (first, last))
        yield Word(word.word[first:last], start, end, word.conf)


def _lines(group: list[Word]) -> list[str]:
    return textwrap.wrap(_text(group), MAX_LINE_CHARS, break_long_words=False, break_on_hyphens=False)


def _clock(seconds: float, decimal_mark: str) -> str:
    whole_s, ms = divmod(round(seconds * 1000), 1000)
    minutes, s = divmod(whole_s, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{s:02}{decimal_mark}{ms:03}"


def _escape_vtt(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
