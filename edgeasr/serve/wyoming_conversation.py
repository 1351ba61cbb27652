"""The Wyoming protocol, by which Home Assistant hears: events with audio in, transcripts out.

    describe                                 -> info
    [transcribe] audio-start audio-chunk...  -> transcript-start transcript-chunk...
    audio-stop                               -> transcript-chunk transcript transcript-stop

The texts of the chunks, joined, are the transcript's: a chunk holds only words that will not change any more.

https://github.com/OHF-Voice/wyoming
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.ping import Ping, Pong

from edgeasr import __version__
from edgeasr.errors import AudioFormatError, EdgeasrError, ServeError
from edgeasr.serve.faults import first_fault
from edgeasr.serve.hub import Hub, StreamRefusedError
from edgeasr.serve.pcm import PcmDecoder
from edgeasr.serve.stable_text import StableText
from edgeasr.serve.stream import Stream
from edgeasr.serve.wyoming_events import MAX_HEADER_BYTES, EventError, number, read_event, text_of

_PROTOCOL = "wyoming"
_LINGER_S = 1.0


@dataclass(frozen=True)
class WyomingModel:
    """What clients are told: the model's name, and the language that it hears as a code such as "en"."""

    name: str
    language: str = "en"

    def hears(self, language: str) -> bool:
        """Whether the language, perhaps with a region, is this one."""
        return language.replace("_", "-").split("-")[0].casefold() == self.language.split("-")[0].casefold()

    def info(self) -> Info:
        """What a server of it answers to `describe`."""
        us = Attribution("edgeasr", "")
        description = f"{self.name}, streaming, on this device"
        model = AsrModel(
            self.name, us, installed=True, description=description, version=__version__, languages=[self.language]
        )
        program = AsrProgram(
            "edgeasr",
            us,
            installed=True,
            description="Streaming speech recognition for small boards",
            version=__version__,
            models=[model],
            supports_transcript_streaming=True,
        )
        return Info(asr=[program])


class WyomingConversation:
    """One client, from its first event to its last."""

    def __init__(
        self, hub: Hub, model: WyomingModel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._hub, self._model, self._reader, self._writer = hub, model, reader, writer

    async def run(self) -> None:
        """Answer until the client goes, or is refused something."""
        try:
            await self._converse()
        except* EdgeasrError as group:
            error = first_fault(group)
            if isinstance(error, EventError):
                self._hub.metrics.refused.labels("malformed").inc()
            await self.refuse(_code(error), str(error))
        except* TimeoutError:
            await self._part()
        except* OSError:
            pass  # it went away

    async def refuse(self, code: str, text: str) -> None:
        """Say why, before the connection is closed."""
        with suppress(OSError, TimeoutError):
            await self._send(Error(text, code))
            self._writer.write_eof()
            # What comes meanwhile is read: closed with something unread, TCP may take back what was said last.
            async with asyncio.timeout(_LINGER_S):
                while await self._reader.read(MAX_HEADER_BYTES):
                    pass

    async def _converse(self) -> None:
        while (event := await self._next()) is not None:
            if _is_audio(event):
                await self._transcribe(event)
            else:
                await self._answer(event)

    async def _transcribe(self, first: Event) -> None:
        """From the start of an utterance to its transcript, which comes too where nothing more does."""
        quiet = False
        async with self._hub.stream(_PROTOCOL) as stream, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell(stream))
            try:
                await self._feed(stream, first)
            except TimeoutError:
                quiet = True
            stream.finish()
        if quiet:
            raise TimeoutError

    async def _feed(self, stream: Stream, first: Event) -> None:
        """Audio from this event on, until it stops."""
        decoder, decodes = PcmDecoder(2, 1), (2, 1)
        event: Event | None = first
        while event is not None and not AudioStop.is_type(event.type):
            if AudioStart.is_type(event.type) and event is not first:
                raise EventError("got audio-start before audio-stop: send audio-stop first")
            if _is_audio(event):
                format_ = number(event, "width"), number(event, "channels")
                if format_ != decodes:
                    decoder, decodes = PcmDecoder(*format_), format_
                await stream.accept(decoder.decode(event.payload or b""), number(event, "rate"))
            else:
                await self._answer(event)
            event = await self._next()

    async def _tell(self, stream: Stream) -> None:
        """What is heard, until the stream ends."""
        stable, language = StableText(), self._model.language
        begun = False
        async for event in stream.events():
            added = stable.advance(event)
            if added and not begun:
                begun = True
                await self._send(TranscriptStart(language=language))
            if added:
                await self._send(TranscriptChunk(added))
        if not begun:
            await self._send(TranscriptStart(language=language))
        await self._send(Transcript(stable.text, language=language))
        await self._send(TranscriptStop())

    async def _answer(self, event: Event) -> None:
        """To what is no audio; events of other kinds are dropped, as the protocol wants it."""
        if Describe.is_type(event.type):
            await self._send(self._model.info())
        elif Ping.is_type(event.type):
            await self._send(Pong(text_of(event, "text")))
        elif Transcribe.is_type(event.type):
            self._check(event)

    def _check(self, transcribe: Event) -> None:
        language, name = text_of(transcribe, "language"), text_of(transcribe, "name")
        if language and not self._model.hears(language):
            raise _UnfitError(f"got language {language!r:.40}, this server hears {self._model.language}: choose that")
        if name and name != self._model.name:
            raise _UnfitError(f"got model {name!r:.40}, this server has {self._model.name}: choose that, or none")

    async def _next(self) -> Event | None:
        async with self._hub.patience(self._hub.limits.idle_s):
            return await read_event(self._reader, self._hub.limits.max_message_bytes)

    async def _part(self) -> None:
        """From a client that says nothing, or because the server stops."""
        if self._hub.stopping:
            await self.refuse("stopping", "the server stops")
            return
        self._hub.metrics.closed.labels("idle").inc()
        await self.refuse("idle", f"nothing came for {self._hub.limits.idle_s:g} s")

    async def _send(self, what: Eventable) -> None:
        try:
            async with asyncio.timeout(self._hub.limits.unread_s):
                await async_write_event(what.event(), self._writer)
        except TimeoutError as error:
            self._hub.metrics.closed.labels("unread").inc()
            raise ConnectionAbortedError("the client takes nothing of what is sent to it") from error


class _UnfitError(ServeError):
    """A language or a model that is not here."""


def _is_audio(event: Event) -> bool:
    return AudioStart.is_type(event.type) or AudioChunk.is_type(event.type)


def _code(error: EdgeasrError) -> str:
    codes = {EventError: "malformed", StreamRefusedError: "full", _UnfitError: "unfit", AudioFormatError: "audio"}
    return codes.get(type(error), "fault")
