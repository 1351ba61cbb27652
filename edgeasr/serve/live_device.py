"""The microphone of this machine as one stream, however many pages watch it; it is open while one does."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import numpy as np

from edgeasr.audio import AudioBlock, Source
from edgeasr.errors import DeviceError, EdgeasrError
from edgeasr.serve.faults import first_fault
from edgeasr.serve.hub import Hub
from edgeasr.serve.live_teller import LiveTeller
from edgeasr.serve.mailbox import Mailbox, Message
from edgeasr.serve.stream import Stream

OpenSource = Callable[[], Source[AudioBlock]]

_log = logging.getLogger(__name__)

_PROTOCOL = "device"
_LEVEL_EVERY_S = 0.1
_SILENCE_S = 1.0  # without a block
_KNOWN_FINALS, _KNOWN_VECTORS = 100, 48  # that who comes later is told


class LiveDevice:
    """open_source: the microphone, DeviceError where there is none; called on a thread"""

    def __init__(self, hub: Hub, open_source: OpenSource) -> None:
        self._hub, self._open_source = hub, open_source
        self._listening: _Listening | None = None

    @asynccontextmanager
    async def watch(self, mailbox: Mailbox) -> AsyncIterator[_Listening]:
        """Messages come into the mailbox, first "started", at last "ended" or "error"."""
        while self._listening is not None and self._listening.unwanted:
            await asyncio.wait([self._listening.task])
        if self._listening is None:
            self._listening = _Listening(self._hub, self._open_source)
            self._listening.task.add_done_callback(self._ended)
        listening = self._listening
        listening.add(mailbox)
        try:
            yield listening
        finally:
            listening.remove(mailbox)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del task
        self._listening = None


class _Listening:
    """From the opening of the microphone to its close.

    task:     ends when the last words were told
    unwanted: whether it was told to end
    """

    def __init__(self, hub: Hub, open_source: OpenSource) -> None:
        self._hub, self._open_source = hub, open_source
        self._mailboxes: set[Mailbox] = set()
        self._finals: deque[Message] = deque(maxlen=_KNOWN_FINALS)
        self._vectors: deque[Message] = deque(maxlen=_KNOWN_VECTORS)
        self._teller = LiveTeller(self._tell)
        self._levels_told = 0
        self._id = secrets.token_hex(8)
        self._stream: Stream | None = None  # once it is heard
        self._source: Source[AudioBlock] | None = None
        self.unwanted = False
        self.task = asyncio.create_task(self._run())

    def add(self, mailbox: Mailbox) -> None:
        """One more watches, and is told what was said of late."""
        self._mailboxes.add(mailbox)
        if self._stream is not None:
            for message in (self._started(self._stream), *self._finals, *self._vectors):
                mailbox.put(message)

    def remove(self, mailbox: Mailbox) -> None:
        """One less watches; the last one closes the microphone."""
        self._mailboxes.discard(mailbox)
        if not self._mailboxes:
            self._end()

    def leave(self, mailbox: Mailbox, reason: str) -> None:
        """One wants no more than the last words: of the stream where nobody else watches, else of itself."""
        if self._mailboxes == {mailbox}:
            self._end()
        else:
            self._mailboxes.discard(mailbox)
            mailbox.put({"type": "ended", "reason": reason})

    def _end(self) -> None:
        self.unwanted = True
        if self._source is not None:
            self._source.close()

    async def _run(self) -> None:
        try:
            async with self._hub.stream(_PROTOCOL, self._teller.admitted) as stream:
                with closing(await asyncio.to_thread(self._open_source)) as self._source:
                    if not self.unwanted:
                        await self._hear(self._source, stream)
            self._tell({"type": "ended", "reason": "stopping" if self._hub.stopping else "stop"})
        except* EdgeasrError as group:
            fault = first_fault(group)
            code = "device" if isinstance(fault, DeviceError) else "full"
            self._tell({"type": "error", "code": code, "text": str(fault)})
        except* Exception:  # noqa: BLE001 - a fault of ours ends one stream, and its watchers are told
            _log.exception("the microphone's stream ended by a fault of the program")
            self._tell({"type": "error", "code": "fault", "text": "A fault of the server, whose log has more of it."})

    async def _hear(self, source: Source[AudioBlock], stream: Stream) -> None:
        self._stream = stream
        self._tell(self._started(stream))
        async with asyncio.TaskGroup() as tasks:
            words = tasks.create_task(self._teller.events(stream))
            gauges = [tasks.create_task(gauge) for gauge in (self._teller.status(stream), self._silence())]
            try:
                await asyncio.to_thread(self._feed, source, stream, asyncio.get_running_loop())
            finally:
                stream.finish()
                await words
                for gauge in gauges:
                    gauge.cancel()

    async def _silence(self) -> None:
        """Where the microphone gives nothing at all, since it was unplugged and is waited for, pages see that too."""
        while True:
            told = self._levels_told
            await asyncio.sleep(_SILENCE_S)
            if told == self._levels_told:
                self._tell({"type": "level", "peak": 0.0, "rms": 0.0})

    def _feed(self, source: Source[AudioBlock], stream: Stream, loop: asyncio.AbstractEventLoop) -> None:
        """On a thread of its own: a microphone is waited for."""
        level = _Level(source.sample_rate_hz)
        for block in source.blocks():
            if message := level.of(block):
                loop.call_soon_threadsafe(self._tell, message)
            taking = stream.accept(block.samples, source.sample_rate_hz, block.gap_samples)
            if not asyncio.run_coroutine_threadsafe(taking, loop).result():
                return

    def _tell(self, message: Message) -> None:
        self._levels_told += message["type"] == "level"
        if message["type"] == "final":
            self._finals.append(message)
        elif message["type"] == "memory":
            self._vectors.append(message)
        for mailbox in self._mailboxes:
            mailbox.put(message)

    def _started(self, stream: Stream) -> dict[str, Any]:
        return {"type": "started", "stream": self._id, "stream_s": round(stream.accepted_s, 3)}


class _Level:
    """Of blocks, a message for every tenth of a second or so."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._wanted = int(_LEVEL_EVERY_S * sample_rate_hz)
        self._peak = self._energy = 0.0
        self._count = 0

    def of(self, block: AudioBlock) -> dict[str, Any] | None:
        """What to tell after this block, if anything."""
        self._peak = max(self._peak, float(np.abs(block.samples).max()))
        self._energy += float(np.square(block.samples, dtype=np.float64).sum())
        self._count += len(block.samples)
        if self._count < self._wanted:
            return None
        message = {"type": "level", "peak": round(self._peak, 5), "rms": round((self._energy / self._count) ** 0.5, 6)}
        self._peak = self._energy = 0.0
        self._count = 0
        return message
