"""The protocol of vosk-server: what its clients send and expect to read.

    -> {"config": {"sample_rate": 16000, "words": true, "max_alternatives": 0}}    optional, not answered
    -> 16-bit little-endian mono samples                                           answered once each
    <- {"partial": "he had written"}                                               or, where a segment ended,
    <- {"result": [{"conf": 0.97, "start": 0.4, "end": 0.52, "word": "he"}, ...], "text": "he had written"}
    -> {"eof": 1}                                                                  answered by the last result

https://github.com/alphacep/vosk-server, websocket/asr_server.py. Keys of `config` that are not named here are ignored.
What is wrong is answered by {"error": "..."} before the connection is closed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import WSCloseCode, web

from edgeasr.audio import MIN_SAMPLE_RATE_HZ
from edgeasr.decoder import Word
from edgeasr.errors import AudioFormatError, EdgeasrError
from edgeasr.serve.hub import Hub, StreamRefusedError
from edgeasr.serve.stream import Stream
from edgeasr.serve.websocket import Socket
from edgeasr.transcript import Event, Final

DEFAULT_SAMPLE_RATE_HZ = 8_000  # as vosk-server has it, for clients that do not say
_MAX_SAMPLE_RATE_HZ = 192_000


class VoskProtocolError(EdgeasrError):
    """A message that the protocol does not have."""


@dataclass(frozen=True)
class VoskConfig:
    """What a client may choose."""

    sample_rate_hz: int = DEFAULT_SAMPLE_RATE_HZ
    words: bool = True
    max_alternatives: int = 0

    def changed(self, wanted: object) -> VoskConfig:
        """With what a client wants. errors: VoskProtocolError, AudioFormatError for what cannot be"""
        if not isinstance(wanted, dict):
            raise VoskProtocolError(f"got config {_short(wanted)}, wanted an object: see the protocol of vosk-server")
        rate = _number(wanted, "sample_rate", self.sample_rate_hz)
        if not MIN_SAMPLE_RATE_HZ <= rate <= _MAX_SAMPLE_RATE_HZ:
            wanted_hz = f"{MIN_SAMPLE_RATE_HZ} to {_MAX_SAMPLE_RATE_HZ} Hz"
            raise AudioFormatError(f"got sample_rate {rate:g}, wanted {wanted_hz}: correct it, or resample")
        return replace(
            self,
            sample_rate_hz=int(rate),
            words=bool(wanted.get("words", self.words)),
            max_alternatives=int(_number(wanted, "max_alternatives", self.max_alternatives)),
        )


async def vosk(request: web.Request, hub: Hub) -> web.StreamResponse:
    """Answer a request for a web socket."""
    socket = await Socket.accept(request, hub)
    try:
        async with hub.stream("vosk") as stream:
            farewell = await _Conversation(socket, stream).run()
        await socket.close(*farewell)
    except StreamRefusedError as error:
        await socket.fail(str(error), WSCloseCode.TRY_AGAIN_LATER)
    except EdgeasrError as error:
        await socket.fail(str(error))
    except ConnectionError:
        pass  # nobody is there to be told
    return socket.response


class _Conversation:
    def __init__(self, socket: Socket, stream: Stream) -> None:
        self._socket, self._stream = socket, stream
        self._config = VoskConfig()
        self._partial = ""

    async def run(self) -> tuple[int, str]:
        """Answer until the end. returns: what to close with"""
        while (message := await self._socket.receive()) is not None:
            if isinstance(message, bytes):
                await self._stream.accept_pcm(message, self._config.sample_rate_hz)
                await self._socket.send(self._answer(await self._stream.heard()))
            elif self._is_eof(message):
                break
        if self._socket.ended_by not in ("client", "malformed"):
            self._stream.finish()
            await self._socket.send(self._result(await self._stream.heard()))
        if self._socket.fault:
            await self._socket.send({"error": self._socket.fault})
        return self._socket.farewell

    def _is_eof(self, text: str) -> bool:
        """Whether a message of text ends the stream; otherwise it changes the config."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise VoskProtocolError(f"got text that is no JSON ({error}): send samples as binary messages") from error
        if isinstance(message, dict) and "config" in message:
            self._config = self._config.changed(message["config"])
            return False
        if isinstance(message, dict) and message.get("eof"):
            return True
        raise VoskProtocolError(
            f'got {_short(message)}, wanted {{"config": {{...}}}} or {{"eof": 1}}: send one of these'
        )

    def _answer(self, events: list[Event]) -> dict[str, Any]:
        partials = [event.text for event in events if not isinstance(event, Final)]
        ended = any(isinstance(event, Final) for event in events)
        if partials and not isinstance(events[-1], Final):
            self._partial = partials[-1]
        elif ended:
            self._partial = ""
        return self._result(events) if ended else {"partial": self._partial}

    def _result(self, events: list[Event]) -> dict[str, Any]:
        """All segments that ended, as one."""
        words = [word for event in events if isinstance(event, Final) for word in event.words]
        text = " ".join(word.word for word in words)
        if self._config.max_alternatives > 0:
            conf = sum(word.conf for word in words) / max(1, len(words))
            return {"alternatives": [{"confidence": round(conf, 6)} | self._words(words) | {"text": text}]}
        return self._words(words) | {"text": text}

    def _words(self, words: list[Word]) -> dict[str, Any]:
        if not (words and self._config.words):
            return {}
        return {
            "result": [
                {
                    "conf": round(word.conf, 6),
                    "end": round(word.end, 3),
                    "start": round(word.start, 3),
                    "word": word.word,
                }
                for word in words
            ]
        }


def _number(wanted: dict[str, Any], key: str, default: int) -> float:
    """errors: VoskProtocolError for what is no number"""
    value = wanted.get(key, default)
    try:
        number = float("nan" if isinstance(value, bool) else value)
        int(number)  # not of infinity or NaN
    except (TypeError, ValueError, OverflowError):
        raise VoskProtocolError(f"got {key} {_short(value)}, wanted a number: correct the config") from None
    return number


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
