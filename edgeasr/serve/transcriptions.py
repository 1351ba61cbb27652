"""OpenAI's interface to transcribe files: POST /v1/audio/transcriptions and GET /v1/models.

A file is a stream like any other, heard chunk by chunk in turns with the live ones.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

import numpy as np
from aiohttp import web

from edgeasr.errors import EdgeasrError
from edgeasr.serve.file_hearing import FileHearing
from edgeasr.serve.http_errors import busy, http_error
from edgeasr.serve.hub import RETRY_AFTER_S, Hub
from edgeasr.serve.slow_readers import being_read
from edgeasr.serve.stable_text import StableText
from edgeasr.serve.transcription_form import TranscriptionRequest, received
from edgeasr.transcript import Final, SrtWriter, VttWriter


class Transcriptions:
    """The handlers.

    model_name: what the model calls itself
    """

    def __init__(self, hub: Hub, model_name: str) -> None:
        self._hub, self._model_name = hub, model_name
        self._num_uploads = 0

    async def models(self, request: web.Request) -> web.Response:
        """The one model."""
        del request
        model = {"id": self._model_name, "object": "model", "created": 0, "owned_by": "edgeasr"}
        return web.json_response({"object": "list", "data": [model]})

    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        """The words of a file. errors: HttpError, EdgeasrError"""
        hub = self._hub
        with self._upload():
            async with hub.stream("http") as stream, received(request, hub, self._model_name) as wanted:
                hearing = FileHearing(stream, wanted.path, wanted.name, hub.limits.max_audio_s)
                if wanted.stream:
                    return await _Events(request, hub).send(hearing)
                async with aclosing(hearing.events()) as events:
                    finals = [event async for event in events if isinstance(event, Final)]
                return _answer(wanted, finals, hearing.duration_s)

    @contextmanager
    def _upload(self) -> Iterator[None]:
        most = self._hub.limits.max_uploads
        if self._num_uploads >= most:
            raise busy(
                f"the server transcribes {most} files, as many as it takes: try again later", "busy", RETRY_AFTER_S
            )
        self._num_uploads += 1
        try:
            yield
        finally:
            self._num_uploads -= 1


def _answer(wanted: TranscriptionRequest, finals: list[Final], duration_s: float) -> web.Response:
    text = _text(finals)
    if wanted.format == "json":
        return web.json_response({"text": text, "usage": _usage(duration_s)})
    if wanted.format == "verbose_json":
        return web.json_response(verbose(wanted, finals, duration_s))
    if wanted.format == "text":
        return web.Response(text=f"{text}\n")
    writer = SrtWriter() if wanted.format == "srt" else VttWriter()
    content_type = "application/x-subrip" if wanted.format == "srt" else "text/vtt"
    body = "".join([writer.header, *(writer.write(final) for final in finals), writer.footer])
    return web.Response(text=body, content_type=content_type)


def verbose(wanted: TranscriptionRequest, finals: list[Final], duration_s: float) -> dict[str, Any]:
    """verbose_json. What only Whisper has (seek, tokens, temperature, no_speech_prob) is 0 or empty."""
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": "english",
        "duration": round(duration_s, 3),
        "text": _text(finals),
        "usage": _usage(duration_s),
    }
    if wanted.segments:
        answer["segments"] = [_segment(number, final) for number, final in enumerate(finals)]
    if wanted.words:
        answer["words"] = [
            {"word": word.word, "start": round(word.start, 3), "end": round(word.end, 3)}
            for final in finals
            for word in final.words
        ]
    return answer


def _segment(number: int, final: Final) -> dict[str, Any]:
    """avg_logprob is that of words, by their confidences; compression_ratio is Whisper's measure of repetition."""
    text = final.text.encode()
    confs = [max(word.conf, 1e-6) for word in final.words]
    return {
        "id": number,
        "seek": 0,
        "start": round(final.start, 3),
        "end": round(final.end, 3),
        "text": final.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(float(np.mean(np.log(confs))), 4),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "no_speech_prob": 0.0,
    }


class _Events:
    """Server-sent events, as OpenAI's transcription streams: text that only grows, then all of it."""

    def __init__(self, request: web.Request, hub: Hub) -> None:
        self._request, self._hub = request, hub
        self._response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})

    async def send(self, hearing: FileHearing) -> web.StreamResponse:
        """errors: EdgeasrError of what was found before there was text; later ones are an event"""
        text = StableText()
        try:
            async with aclosing(hearing.events()) as events:
                async for event in events:
                    if added := text.advance(event):
                        await self._send({"type": "transcript.text.delta", "delta": added})
        except EdgeasrError as error:
            if not self._response.prepared:
                raise
            await self._send(http_error(error).as_dict())
        else:
            done = {"type": "transcript.text.done", "text": text.text, "usage": _usage(hearing.duration_s)}
            await self._send(done)
        await self._response.write_eof()
        return self._response

    async def _send(self, message: Mapping[str, Any]) -> None:
        async with being_read(self._request, self._hub):
            if not self._response.prepared:
                await self._response.prepare(self._request)
            await self._response.write(f"data: {json.dumps(message)}\n\n".encode())


def _text(finals: list[Final]) -> str:
    return " ".join(final.text for final in finals)


def _usage(duration_s: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(duration_s)}
