"""What a source of speech gives, one utterance after another, before anything of it is checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """An utterance as its source describes it."""

    name: str  # which it is, for people: a path or an id
    audio: Path | bytes  # a file, or what stands in one
    text: str
    speaker: str = ""
    source: str = ""  # which corpus it is of
    start_s: float = 0.0
    duration_s: float | None = None  # None: up to the end
    channel: int | None = None  # from 0; None: the mean of all
    recording_s: float | None = None  # how long the whole file is said to be


@dataclass(frozen=True)
class LeftOut:
    """What cannot be an utterance, and why."""

    name: str
    reason: str


Source = Iterator[Found | LeftOut]
