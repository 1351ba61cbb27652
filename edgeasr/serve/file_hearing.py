"""A file as a stream of the hub: read in a thread, as fast as its chunks get their turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from edgeasr.audio import FileSource
from edgeasr.errors import AudioFormatError
from edgeasr.serve.hub import StreamRefusedError
from edgeasr.serve.stream import Stream
from edgeasr.transcript import Event

_BLOCK_MS = 1000


class FileHearing:
    """One file.

    name:       for messages
    duration_s: of what was read so far
    """

    def __init__(self, stream: Stream, path: str, name: str, max_s: float) -> None:
        self.duration_s = 0.0
        self._stream, self._path, self._name, self._max_s = stream, path, name, max_s
        self._loop = asyncio.get_running_loop()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Its events, to be closed (contextlib.aclosing) where not all are fetched.

        errors: AudioFormatError for what cannot be read to its end, after the events of what could be;
                StreamRefusedError where the server stops before
        """
        reading = self._loop.run_in_executor(None, self._read)
        reading.add_done_callback(_looked_at)
        try:
            async for event in self._stream.events():
                yield event
        finally:
            self._stream.leave()  # where the events were not fetched to their end, the thread ends by it
            await asyncio.wait([reading])
        reading.result()

    def _read(self) -> None:
        try:
            with FileSource(self._path, _BLOCK_MS) as source:
                self._check_length(source.duration_s or 0.0)
                for block in source.blocks():
                    accepting = self._stream.accept(block.samples, source.sample_rate_hz, block.gap_samples)
                    if not asyncio.run_coroutine_threadsafe(accepting, self._loop).result():
                        raise StreamRefusedError("the server is stopping: try again later")
                    self.duration_s = (block.start_sample + len(block.samples)) / source.sample_rate_hz
                    self._check_length(self.duration_s)
        except AudioFormatError as error:
            raise AudioFormatError(str(error).replace(self._path, self._name)) from error
        finally:
            self._loop.call_soon_threadsafe(self._stream.finish)

    def _check_length(self, duration_s: float) -> None:
        if duration_s > self._max_s:
            raise AudioFormatError(
                f"{self._name} is {duration_s:.0f} s long, want at most {self._max_s:.0f} s: send it in parts"
            )


def _looked_at(reading: asyncio.Future[None]) -> None:
    """What it raised need not be told of where its client has gone."""
    if not reading.cancelled():
        reading.exception()
