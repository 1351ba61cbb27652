"""A source that goes on hearing while what was heard is recognised."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

import numpy as np

from edgeasr.audio import AudioBlock, AudioSource, Waveform
from edgeasr.capture.losses import AWAY, BEHIND, SYSTEM, Losses, Say, spoken_s
from edgeasr.capture.ring import Piece, Ring
from edgeasr.errors import EdgeasrError

CAPACITY_S = 10.0  # heard and not yet taken, at most
LONGEST_READ_S = 1.0  # in one block, when behind
POLL_S = 0.2
_SILENCE_S = 1.0  # of a device that is away, handed on at a time
_HEARD_AFTER_S = 0.5  # a block that comes now holds nothing from before that: what is older is surely silence
_SOUNDING_S = 0.01  # of it as samples, since a block cannot be empty; the rest as a gap


def say_nothing(_: str) -> None:
    """For who does not want to know."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


class LiveSource(AudioSource):
    """Samples that another thread puts into a ring.

    Who is slow gets longer blocks, so that the chunks in them can be stepped through at once. Samples that no room was
    left for are the gap of the next block, where drops is set: the oldest go. Otherwise the other thread waits.

    A device that went away leaves silence behind, handed on second by second: what was said before ends as it should,
    and time goes on. How long it was away is measured when it is back.

    say:     told in one line what a user should know
    stopped: asked often; blocks() then gives what was heard so far, and ends
    """

    duration_s = None
    drops = True
    lost_reason = SYSTEM  # why samples are missing while the device is there

    def __init__(
        self,
        name: str,
        sample_rate_hz: int,
        say: Say = say_nothing,
        stopped: Callable[[], bool] = never,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.sample_rate_hz = name, sample_rate_hz
        self._say, self._stopped, self._clock = say, stopped, clock
        self._losses = Losses(name, say, clock)
        self._ring = Ring(round(CAPACITY_S * sample_rate_hz))
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._started = self._closed = self._ended = False
        self._failure: EdgeasrError | None = None  # why it ended
        # Of an absence: why, while it lasts; since when; samples of silence handed on since then.
        self._away_reason = ""
        self._away_since_s = 0.0
        self._said_away = False
        self._silent = 0
        # Of the other thread: when it heard the last sample, whether the next one comes after an absence, and samples
        # missing for that reason that were not accounted for yet.
        self._heard_at_s = clock()
        self._returns = False
        self._absent = 0

    @abstractmethod
    def _start(self) -> None:
        """Begin to hear. errors: DeviceError"""

    @abstractmethod
    def _stop(self) -> None:
        """Hear no more; called once."""

    def _idle(self) -> None:
        """Nothing came for a moment: whatever is to be done about it. errors: DeviceError"""

    @property
    def backlog_s(self) -> float:
        """Time of what was heard and not yet taken, where it is lost beyond a bound; else 0."""
        return self._ring.waiting / self.sample_rate_hz if self.drops else 0.0

    @property
    def is_away(self) -> bool:
        """Whether the device is, so that what comes now is silence in its place."""
        return bool(self._away_reason)

    def blocks(self) -> Iterator[AudioBlock]:
        if not self._started and not self._closed:
            self._started = True
            self._heard_at_s = self._clock()
            self._start()
        while True:
            if self._stopped():
                self.close()
            at_end = self._closed or self._ended
            piece = self._ring.read(round(LONGEST_READ_S * self.sample_rate_hz))
            if piece is not None:
                yield self._block_of(piece)
            elif at_end:
                break
            elif not self._rings():
                self._idle()
                yield from self._silence()
        if self._failure is not None and not self._closed:
            raise self._failure

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._away_reason and self._ring.position:
                self._losses.add(self._clock() - self._heard_at_s, AWAY, quietly=True)
            self._stop()
            self._ring_bell()

    def report(self) -> str | None:
        """One line on what was lost; None where nothing was."""
        return self._losses.report()

    def _put(self, samples: Waveform) -> None:
        """On the other thread: samples that were heard just now."""
        now_s = self._clock()
        if self._returns:
            missing = max(0, round((now_s - self._heard_at_s) * self.sample_rate_hz) - len(samples))
            self._ring.skip(missing)
            self._absent += missing
            self._returns = False
        self._heard_at_s = now_s
        self._ring.write(samples)
        self._ring_bell()

    def _finish(self, failure: EdgeasrError | None = None) -> None:
        """On the other thread: nothing more comes."""
        self._failure = failure
        self._ended = True
        self._ring_bell()

    def _leave(self, reason: str) -> None:
        """The device is away, or not there yet; its thread hears nothing until it is back."""
        if not self._away_reason:
            self._away_since_s = self._heard_at_s
        self._returns = True
        self._away_reason = reason

    def _change_rate(self, sample_rate_hz: int) -> None:
        """While nothing is heard: the device is there again at another rate."""
        heard_s = (self._ring.position + self._silent) / self.sample_rate_hz
        self._heard_at_s += self._silent / self.sample_rate_hz
        self._losses.add(self._silent / self.sample_rate_hz, AWAY, quietly=True)
        self._silent = 0
        self.sample_rate_hz = sample_rate_hz
        self._ring = Ring(round(CAPACITY_S * sample_rate_hz), round(heard_s * sample_rate_hz))

    def _ring_bell(self) -> None:
        if not self._bell.qsize():
            self._bell.put(None)

    def _rings(self) -> bool:
        """Whether something came, after a wait for it."""
        try:
            self._bell.get(timeout=POLL_S)
        except Empty:
            return False
        return True

    def _silence(self) -> Iterator[AudioBlock]:
        """A second of silence if the device has been away for as long; says first that it is away."""
        if not self._away_reason:
            return
        if not self._said_away:
            self._said_away = True
            self._say(f"{self.name} {self._away_reason}: waiting for it")
        certain_s = self._clock() - self._heard_at_s - _HEARD_AFTER_S
        missing = round(certain_s * self.sample_rate_hz) - self._silent
        if self._returns and missing >= _SILENCE_S * self.sample_rate_hz:
            sounding = max(1, round(_SOUNDING_S * self.sample_rate_hz))
            start = self._ring.position + self._silent + missing - sounding
            self._silent += missing
            yield AudioBlock(np.zeros(sounding, np.float32), start, missing - sounding)

    def _block_of(self, piece: Piece) -> AudioBlock:
        if self._away_reason and not self._returns:
            self._back()
        silent = absent = 0
        if piece.skipped and self._absent:
            absent, self._absent = min(self._absent, piece.skipped), 0
            silent, self._silent = self._silent, 0
        self._losses.add(absent / self.sample_rate_hz, AWAY, quietly=True)
        self._losses.add((piece.skipped - absent) / self.sample_rate_hz, self.lost_reason)
        self._losses.add(piece.dropped / self.sample_rate_hz, BEHIND)
        self._losses.say_more()
        return AudioBlock(piece.samples, piece.start_sample, max(0, piece.skipped + piece.dropped - silent))

    def _back(self) -> None:
        away = spoken_s(self._heard_at_s - self._away_since_s)
        self._say(f"{self.name} is back after {away}" if self._said_away else f"{self.name} was away for {away}")
        self._away_reason, self._said_away = "", False
