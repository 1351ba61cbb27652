"""Sessions: consecutive utterances of one speaker heard as one recording, minutes long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.audio import AudioBlock, AudioSource, block_length
from edgeasr.manifest import Utterance
from edgeasr.recording import resampled

PAUSE_S = 0.5


@dataclass(frozen=True)
class Session:
    """Utterances of one speaker, one after another with pauses between; it stands where an Utterance may."""

    utterances: tuple[Utterance, ...]
    pause_s: float = PAUSE_S

    @property
    def path(self) -> Path:
        """Of the first utterance: it names the session."""
        return self.utterances[0].path

    @property
    def duration_s(self) -> float:
        """With the pauses."""
        return sum(u.duration_s for u in self.utterances) + self.pause_s * (len(self.utterances) - 1)

    @property
    def text(self) -> str:
        """What is said, in one line."""
        return " ".join(u.text for u in self.utterances)

    @property
    def speaker(self) -> str:
        """Of all utterances."""
        return self.utterances[0].speaker

    @property
    def source(self) -> str:
        """Of the first utterance."""
        return self.utterances[0].source


def sessions(utterances: Iterable[Utterance], longest_s: float, pause_s: float = PAUSE_S) -> list[Session]:
    """Neighbours of one speaker together, up to `longest_s`; one that is longer alone is a session of its own.

    Utterances without a speaker stay alone.
    """
    made: list[Session] = []
    for speaker, group in groupby(utterances, key=lambda utterance: utterance.speaker):
        open_session: tuple[Utterance, ...] = ()
        for utterance in group:
            longer = Session((*open_session, utterance), pause_s)
            if open_session and (not speaker or longer.duration_s > longest_s):
                made.append(Session(open_session, pause_s))
                longer = Session((utterance,), pause_s)
            open_session = longer.utterances
        made.append(Session(open_session, pause_s))
    return made


def joined(waveforms: Sequence[NDArray[np.float32]], pauses: Sequence[int]) -> NDArray[np.float32]:
    """Waveforms with so many silent samples between them."""
    parts = [waveforms[0]]
    for waveform, pause in zip(waveforms[1:], pauses, strict=True):
        parts += [np.zeros(pause, np.float32), waveform]
    return np.concatenate(parts)


class SessionSource(AudioSource):
    """The recordings of a session as one stream, at one rate.

    errors: AudioFormatError of the first recording that cannot be read whole, after the samples before that
    """

    def __init__(self, session: Session, block_ms: int = 100, sample_rate_hz: int = 16_000) -> None:
        self.name = f"{session.path} and {len(session.utterances) - 1} more"
        self.sample_rate_hz = sample_rate_hz
        self.duration_s = session.duration_s
        self._session, self._block = session, block_length(sample_rate_hz, block_ms)

    def blocks(self) -> Iterator[AudioBlock]:
        position, waiting = 0, np.zeros(0, np.float32)
        for piece in self._pieces():
            waiting = np.concatenate([waiting, piece])
            while len(waiting) >= self._block:
                yield AudioBlock(waiting[: self._block], position)
                position, waiting = position + self._block, waiting[self._block :]
        if len(waiting):
            yield AudioBlock(waiting, position)

    def close(self) -> None:
        """Recordings are open only while they are read."""

    def _pieces(self) -> Iterator[NDArray[np.float32]]:
        for i, utterance in enumerate(self._session.utterances):
            if i:
                yield np.zeros(round(self._session.pause_s * self.sample_rate_hz), np.float32)
            yield from resampled(utterance.path, self.sample_rate_hz)
