"""Streams of all clients on one model. Read this first; a protocol is a coroutine that uses it in one of two ways.

Where events go out as they come, one task feeds and another one sends:

    async with hub.stream("live") as stream, asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(feed(stream))      # await stream.accept_pcm(pcm, 16_000) ...; stream.finish()
        async for event in stream.events():            # Partial or Final; ends after the last words
            async with asyncio.timeout(limits.unread_s):
                await send(event)                      # a slow reader misses partials, no finals, and stalls nobody
        feeding.cancel()                               # it may wait for a client that says nothing, see below

Where every message is answered, one task does both:

    async with hub.stream("vosk") as stream:
        while (pcm := await receive()) is not None:
            await stream.accept_pcm(pcm, 8_000)        # waits while too much waits: the socket is not read
            await answer(await stream.heard())         # what came of it
        stream.finish()
        await answer(await stream.heard())             # the last words

The rest of what a protocol has to know:

* `hub.stream` raises StreamRefusedError where too many are heard, or the hub stops; `retry_after_s` is for the client.
* Wait for a client inside `async with hub.patience(limits.idle_s)`: TimeoutError where it says nothing for so long, and
  at once where the hub stops (`hub.stopping`). Either way finish the stream, send its last words, then close.
* Leaving the block gives the place free, whatever was left to do.
* accept_pcm, heard and events raise EdgeasrError with a message for the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

from edgeasr.errors import ServeError
from edgeasr.memory import Admission
from edgeasr.serve.limits import Limits
from edgeasr.serve.metrics import Metrics
from edgeasr.serve.stream import NewRecognizer, Stream
from edgeasr.serve.workers import Workers
from edgeasr.wording import counted

RETRY_AFTER_S = 5


class StreamRefusedError(ServeError):
    """A stream more than the server takes."""

    retry_after_s = RETRY_AFTER_S


class Hub:
    """Gives out streams, within limits, and ends them all when it stops; a context manager of one event loop.

    new_recognizer: makes the recogniser of a stream; all of them share a model
    threads:        that run steps, each for another stream
    """

    def __init__(self, new_recognizer: NewRecognizer, limits: Limits, metrics: Metrics, *, threads: int = 1) -> None:
        self.limits, self.metrics = limits, metrics
        self._new_recognizer = new_recognizer
        self._workers = Workers(threads)
        self._streams: set[Stream] = set()
        self._waits: set[asyncio.Timeout] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.stopping = False
        metrics.watch("edgeasr_queue_seconds", "Audio that waits, of all streams.", self.waiting_s)
        metrics.watch("edgeasr_max_streams", "Streams that are heard at once at most.", lambda: limits.max_streams)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()
        self._workers.close()

    @asynccontextmanager
    async def stream(
        self, protocol: str, on_admission: Callable[[Admission], None] | None = None
    ) -> AsyncIterator[Stream]:
        """A place for a stream.

        protocol: for the metrics
        errors:   StreamRefusedError
        """
        self._refuse_if_full()
        workers, limits, metrics = self._workers, self.limits, self.metrics
        stream = Stream(self._new_recognizer, workers, limits, metrics, protocol, on_admission)
        self._streams.add(stream)
        self._empty.clear()
        metrics.begun.labels(protocol).inc()
        try:
            with metrics.streams.labels(protocol).track_inprogress():
                yield stream
        finally:
            stream.leave()
            self._streams.remove(stream)
            if not self._streams:
                self._empty.set()

    @asynccontextmanager
    async def patience(self, seconds: float) -> AsyncIterator[None]:
        """To wait for a client in. errors: TimeoutError after that time, or as soon as the hub stops"""
        async with asyncio.timeout(0 if self.stopping else seconds) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.remove(wait)

    async def stop(self) -> None:
        """Take no more streams, finish those that are there, and wait Limits.stop_s for their clients to be told."""
        self.stopping = True
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(0)
        for stream in self._streams:
            stream.finish()
        try:
            async with asyncio.timeout(self.limits.stop_s):
                await self._empty.wait()
        except TimeoutError:
            for stream in self._streams:
                stream.leave()

    @property
    def num_streams(self) -> int:
        return len(self._streams)

    def waiting_s(self) -> float:
        """Audio that waits, of all streams."""
        return sum((stream.waiting_s for stream in self._streams), 0.0)

    @property
    def stalled_s(self) -> float:
        """For how long recognition has not moved although there is something to do."""
        return self._workers.stalled_s

    def _refuse_if_full(self) -> None:
        if self.stopping:
            self.metrics.refused.labels("stopping").inc()
            raise StreamRefusedError("the server is stopping: try again later")
        if len(self._streams) >= self.limits.max_streams:
            self.metrics.refused.labels("streams").inc()
            heard = counted(len(self._streams), "stream")
            raise StreamRefusedError(f"the server hears {heard}, as many as it takes: try again later")
