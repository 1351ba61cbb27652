"""One client's audio on its way through a recogniser of its own.

Its methods belong to the event loop, apart from `turn`, which runs on a thread of the workers. Between the two lie a
queue of audio, of bounded length in seconds, and an outbox of events.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

import numpy as np

from edgeasr.audio import Waveform, check_sample_rate
from edgeasr.errors import EdgeasrError, ServeError
from edgeasr.memory import Admission
from edgeasr.recognizer import Recognizer
from edgeasr.serve.limits import Limits
from edgeasr.serve.meter import StreamMeter
from edgeasr.serve.metrics import Metrics
from edgeasr.serve.outbox import Outbox
from edgeasr.serve.workers import Workers
from edgeasr.transcript import Event

PIECE_S = (
    0.1  # audio waits in pieces of this length: so much is taken in at once, and so exact are the bounds of queues
)

_log = logging.getLogger(__name__)


class NewRecognizer(Protocol):
    """Makes the recogniser of a stream, such as partial(Recognizer, model, decoder="greedy")."""

    def __call__(self, *, on_admission: Callable[[Admission], None]) -> Recognizer: ...


class _Piece(NamedTuple):
    samples: Waveform
    sample_rate_hz: int
    gap_samples: int  # lost just before
    arrived_s: float  # time.monotonic()

    @property
    def duration_s(self) -> float:
        return (self.gap_samples + len(self.samples)) / self.sample_rate_hz


class Stream:
    """Audio in, events out; made by `Hub.stream`.

    on_admission: told in the event loop of every summary that was offered to the memory
    meter:        what the stream costs and its latency
    """

    def __init__(
        self,
        new_recognizer: NewRecognizer,
        workers: Workers,
        limits: Limits,
        metrics: Metrics,
        protocol: str,
        on_admission: Callable[[Admission], None] | None = None,
    ) -> None:
        self.meter = StreamMeter(protocol, metrics)
        self._new_recognizer, self._workers, self._limits, self._metrics = new_recognizer, workers, limits, metrics
        self._on_admission = on_admission
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._pending: deque[_Piece] = deque()
        self._outbox = Outbox(limits.max_finals)
        # Written by the event loop:
        self._odd_byte = b""
        self._accepted_s = 0.0
        self._input_ended = self._left = False
        # Written by the thread that has the turn. Durations are added up there in the same order, so they become equal.
        self._recognizer: Recognizer | None = None
        self._taken_s = self._heard_s = 0.0
        self._flushed = self._done = False
        self._error: EdgeasrError | None = None

    @property
    def accepted_s(self) -> float:
        """Time of the audio so far, that which waits too."""
        return self._accepted_s

    @property
    def waiting_s(self) -> float:
        """Audio that waits for its turn."""
        return self._accepted_s - self._taken_s

    @property
    def takes_audio(self) -> bool:
        """Until finish(), which the hub calls too when it stops, or an error."""
        return not self._input_ended and self._error is None

    async def accept_pcm(self, pcm: bytes, sample_rate_hz: int) -> bool:
        """Take 16-bit little-endian mono samples; half a sample is kept for the next time. Otherwise as accept()."""
        pcm = self._odd_byte + pcm
        num_samples = len(pcm) // 2
        self._odd_byte = pcm[2 * num_samples :]
        samples = np.frombuffer(pcm, "<i2", num_samples).astype(np.float32) * np.float32(2**-15)
        return await self.accept(samples, sample_rate_hz)

    async def accept(self, waveform: Waveform, sample_rate_hz: int, gap_samples: int = 0) -> bool:
        """Take samples; waits while Limits.queue_s of the stream wait, so that whoever reads a socket stops reading it.

        waveform:    (num_samples,) float32 in [-1, 1], not copied; may be empty
        gap_samples: lost just before them
        returns:     False where not all were taken, since the stream does not take audio any more
        errors:      AudioFormatError for an impossible rate; later ones come out of events() and heard()
        """
        check_sample_rate(sample_rate_hz, "the stream")
        length = max(1, int(PIECE_S * sample_rate_hz))
        for first in range(0, len(waveform), length):
            await self._until(lambda: self.waiting_s < self._limits.queue_s or not self.takes_audio)
            if not self.takes_audio:
                return False
            piece = _Piece(waveform[first : first + length], sample_rate_hz, gap_samples, time.monotonic())
            gap_samples = 0
            self._accepted_s += piece.duration_s
            self._pending.append(piece)
            self._workers.wake(self)
        return self.takes_audio

    def finish(self) -> None:
        """No more audio comes: the last words come out, and events() ends."""
        self._input_ended = True
        self._changed.set()
        self._workers.wake(self)

    async def heard(self) -> list[Event]:
        """What came of all audio accepted so far, once it was heard; for protocols that answer every message.

        After finish() these are the last events.
        errors: as events()
        """
        events: list[Event] = []
        up_to_date = False
        while not up_to_date:
            await self._until(lambda: self._is_up_to_date or self._outbox.is_full)
            up_to_date = self._is_up_to_date
            events += self._outbox.take()
            self._workers.wake(self)
        if self._error is not None and not events:
            raise self._error
        return events

    async def events(self) -> AsyncIterator[Event]:
        """Events as they come, until the stream was finished and its last words are out.

        Of partials that were not fetched in time only the last one comes; of finals all.
        errors: EdgeasrError for what the client's audio caused, ServeError for a fault of ours
        """
        over = False
        while not over:
            await self._until(lambda: bool(len(self._outbox)) or self._over)
            over = self._over
            events = self._outbox.take()
            self._workers.wake(self)
            for event in events:
                yield event
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Nobody wants the rest."""
        self._left = self._input_ended = True
        self._pending.clear()
        self._changed.set()

    def turn(self) -> bool:
        """Hear one chunk."""
        if self._over or self._outbox.is_full:
            return False
        more = False
        try:
            more = self._hear_chunk()
        except EdgeasrError as error:
            self._error = error
        except Exception:  # noqa: BLE001 - a fault of ours ends one stream, not the thread that serves all
            _log.exception("a stream ended by a fault of the program")
            self._error = ServeError("the stream ended by a fault of the server, whose log has more of it")
        self._loop.call_soon_threadsafe(self._changed.set)
        return more

    @property
    def _over(self) -> bool:
        return self._done or self._left or self._error is not None

    @property
    def _is_up_to_date(self) -> bool:
        return self._over or (not self._input_ended and self._heard_s == self._accepted_s)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _hear_chunk(self) -> bool:
        """returns: whether to ask again"""
        if self._recognizer is None:
            self._recognizer = self._new_recognizer(on_admission=self._admitted)
        recognizer = self._recognizer
        ended = self._input_ended  # asked first: once it is so, nothing more is put into the queue
        while not recognizer.is_ready() and self._pending:
            self._take_in(recognizer, self._pending.popleft())
        if ended and not recognizer.is_ready() and not self._flushed:
            recognizer.input_finished()
            self._flushed = True
        if recognizer.is_ready():
            self._step(recognizer)
            return True
        self._heard_s, self._done = self._taken_s, self._flushed
        return False

    def _take_in(self, recognizer: Recognizer, piece: _Piece) -> None:
        self._taken_s += piece.duration_s
        self.meter.arrived(self._taken_s, piece.arrived_s)
        recognizer.accept_gap(piece.gap_samples, piece.sample_rate_hz)
        recognizer.accept_waveform(piece.samples, piece.sample_rate_hz)

    def _step(self, recognizer: Recognizer) -> None:
        replaced = self._outbox.num_replaced
        with self.meter.step(recognizer.model.config.chunk_s):
            events = recognizer.step()
        self._outbox.put(events)
        self.meter.told(events)
        self._metrics.partials_replaced.inc(self._outbox.num_replaced - replaced)

    def _admitted(self, admission: Admission) -> None:
        self._metrics.admitted(admission)
        if self._on_admission is not None:
            self._loop.call_soon_threadsafe(self._on_admission, admission)
