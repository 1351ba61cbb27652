"""What the store holds and finds, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ModelKey:
    """Whose vectors they are: vectors of different models are never compared.

    fingerprint: the same for models of the same weights
    width:       values of a vector
    """

    fingerprint: str
    width: int


@dataclass(frozen=True)
class Stream:
    """One recording, or one session at a microphone."""

    id: int
    name: str
    began: float  # seconds since 1970
    heard_s: float  # end of the last span or segment
    vectors: int
    segments: int


@dataclass(frozen=True)
class Segment:
    """The final transcript of a segment."""

    id: int
    stream: int
    start_s: float
    end_s: float
    text: str
    words: tuple[SpokenWord, ...]


@dataclass(frozen=True)
class SpokenWord:
    """A word of a segment. start_s, end_s: stream time"""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Span:
    """A part of a stream. start_s, end_s: stream time; text: what was said in it"""

    start_s: float
    end_s: float
    text: str = ""


@dataclass(frozen=True)
class Summary:
    """A vector that is to be stored.

    level, number: as in `edgeasr.memory.SummaryContext`
    vector:        (C,) float32
    speech:        share of the span in which something was heard
    content:       (2, R, H, D) keys and values, kept where the vector may be recalled
    """

    level: int
    number: int
    span: Span
    vector: Floats = field(repr=False, compare=False)
    speech: float = 1.0
    pinned: bool = False
    content: NDArray[np.float16] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class StoredVector:
    """An admitted summary."""

    id: int
    stream: int
    stream_name: str
    level: int
    number: int  # of the summary in its stream
    span: Span
    count: int  # summaries that it stands for
    last_seen: float  # seconds since 1970
    pinned: bool
    vector: Floats = field(repr=False, compare=False)  # (C,)


@dataclass(frozen=True)
class Neighbour:
    """A vector near to a query.

    count:      summaries that it stands for
    similarity: cosine, less what all vectors of the model share
    """

    id: int
    count: int
    similarity: float
    vector: Floats = field(repr=False, compare=False)  # (C,)


@dataclass(frozen=True)
class Heard:
    """A span that is near to a query. vector: that stands for it"""

    stream: int
    start_s: float
    vector: int
    similarity: float


@dataclass(frozen=True)
class TextHit:
    """Where a phrase was said. score: 0 to 1, 1 for the very words"""

    stream: int
    stream_name: str
    segment: int
    span: Span
    score: float


@dataclass(frozen=True)
class SoundHit:
    """Where a recording, or something like it, was heard.

    span:    where it would lie in the stream
    vectors: that are like its summaries, or stand for spans that are
    score:   0 to 1, how similar and how many of its summaries are
    """

    stream: int
    stream_name: str
    vectors: tuple[int, ...]
    span: Span
    score: float


@dataclass(frozen=True)
class StoreStats:
    """How much there is."""

    streams: int
    segments: int
    vectors: int
    pinned: int
    merged: int  # summaries that were merged into vectors
    models: int
    cells: int
    oldest: float | None  # seconds since 1970
    newest: float | None
    size_bytes: int  # of the file
