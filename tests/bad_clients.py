"""Clients that do everything wrong: what a server on loopback has to bear. Seeded; for tests and soak_serve.py."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import soundfile

_ANSWER_S = 0.05  # that is waited for an answer; what comes later is not wanted
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
)
_TEXTS = (
    '{"config": {"sample_rate": 16000, "words": true, "max_alternatives": 2, "phrase_list": ["a", "b"]}}',
    '{"config": {"sample_rate": 8000}}',
    '{"eof" : 1}',
)
_PATHS = ("/health", "/metrics", "/v1/models", "/", "/vosk", "/live", "/page/x", "/%00/../../etc/passwd")
_LENGTHS = ("", "Content-Length: 99999999999999999999\r\n", "Transfer-Encoding: chunked\r\n")
_TEXT, _BINARY, _CLOSE = 1, 2, 8


def frame(opcode: int, payload: bytes, *, length: int | None = None, masked: bool = True, first: int = 0x80) -> bytes:
    """A frame of a web socket (RFC 6455, 5.2).

    length: what it claims, where that is not true; first: the bits above the opcode
    """
    size = len(payload) if length is None else length
    short = size if size < 126 else 126 if size < 65536 else 127
    head = bytes([first | opcode, (0x80 if masked else 0) | short])
    head += struct.pack("!H", size) if short == 126 else struct.pack("!Q", size) if short == 127 else b""
    return head + (bytes(4) if masked else b"") + payload  # a mask of zeros changes nothing


class BadClients:
    """port: of the server, at 127.0.0.1"""

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._random = port, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._form = _form()
        self._kinds: list[Callable[[], tuple[bytes, int]]] = [
            self._noise,
            self._mutated_request,
            self._cut_request,
            self._mutated_form,
            self._bad_frames,
            self._mutated_messages,
            self._noise_as_audio,
        ]

    async def inputs(self, count: int, at_once: int = 20) -> None:
        """So many inputs, a few clients at a time; counts says of which kinds."""
        left = iter(range(count))

        async def client() -> None:
            while self.counts.total() < count and next(left, None) is not None:
                await self._one()

        await asyncio.gather(*[client() for _ in range(at_once)])

    async def _one(self) -> None:
        kind = self._random.choice(self._kinds)
        content, inputs = kind()
        self.counts[kind.__name__.strip("_")] += inputs
        with suppress(OSError):  # a connection that is refused is none
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(content)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ANSWER_S):
                        if self._random.random() < 0.3 and writer.can_write_eof():
                            writer.write_eof()
                        await writer.drain()
                        while self._random.random() < 0.8 and await reader.read(65536):
                            pass
            finally:
                if self._random.random() < 0.5:
                    writer.transport.abort()
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

    def upgrade(self) -> bytes:
        """The request for a web socket, in order for once."""
        return _UPGRADE + base64.b64encode(self._random.randbytes(16)) + b"\r\n\r\n"

    # What they send, and how many inputs that is

    def _noise(self) -> tuple[bytes, int]:
        return self._random.randbytes(self._random.randrange(1, 2000)), 1

    def _mutated_request(self) -> tuple[bytes, int]:
        path, length = self._random.choice(_PATHS), self._random.choice(_LENGTHS)
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n{length}\r\n"
        return self._mutated(request.encode()), 1

    def _cut_request(self) -> tuple[bytes, int]:
        spoken = self.upgrade() + frame(_BINARY, bytes(3000))
        whole = self._random.choice([self._form, spoken, b"GET /health HTTP/1.1\r\n\r\n"])
        return whole[: self._random.randrange(1, len(whole))], 1

    def _mutated_form(self) -> tuple[bytes, int]:
        return self._mutated(self._form), 1

    def _bad_frames(self) -> tuple[bytes, int]:
        pick = self._random
        frames = [
            frame(_BINARY, b"ab", length=2**62),
            frame(_BINARY, b"ab", length=2 << 20),
            frame(_TEXT, b"\xff\xfe\xfa"),
            frame(_TEXT, b"unmasked", masked=False),
            frame(pick.randrange(16), pick.randbytes(20)),
            frame(_TEXT, b"compressed", first=0xC0),
            frame(0, b"goes on with nothing"),
            frame(9, bytes(126)),
            frame(_CLOSE, b"\x03"),
            frame(_CLOSE, struct.pack("!H", pick.randrange(65536)) + b"\xff"),
            pick.randbytes(pick.randrange(1, 200)),
        ]
        return self.upgrade() + pick.choice(frames), 1

    def _mutated_messages(self) -> tuple[bytes, int]:
        count = self._random.randrange(1, 8)
        parts = [frame(_TEXT, self._mutated(self._random.choice(_TEXTS).encode())) for _ in range(count)]
        return self.upgrade() + b"".join(parts), count

    def _noise_as_audio(self) -> tuple[bytes, int]:
        count = self._random.randrange(1, 8)
        rate = self._random.choice([1000, 8000, 11025, 16000, 48000, 192_000])
        parts = [frame(_TEXT, json.dumps({"config": {"sample_rate": rate}}).encode())]
        parts += [frame(_BINARY, self._random.randbytes(self._random.randrange(0, 4000))) for _ in range(count)]
        return self.upgrade() + b"".join(parts), count + 1

    def _mutated(self, content: bytes) -> bytes:
        """With a few bytes changed, cut out, doubled or put in."""
        changed = bytearray(content)
        for _ in range(self._random.randrange(1, 6)):
            at = self._random.randrange(len(changed) or 1)
            some = self._random.randrange(1, 9)
            how = self._random.randrange(4)
            if how == 0 and changed:
                changed[min(at, len(changed) - 1)] = self._random.randrange(256)
            elif how == 1:
                del changed[at : at + some]
            elif how == 2:
                changed[at:at] = changed[at : at + some] * self._random.randrange(1, 5)
            else:
                changed[at:at] = self._random.randbytes(some)
        return bytes(changed)


def _form() -> bytes:
    """A whole request to transcribe half a second of noise."""
    wav = io.BytesIO()
    noise = 0.1 * np.random.default_rng(1).standard_normal(4000)
    soundfile.write(wav, noise, 8000, format="WAV")
    part = b'--x\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n'
    body = (
        part % (b"response_format", b"")
        + b"verbose_json\r\n"
        + part % (b"file", b'; filename="a.wav"')
        + wav.getvalue()
        + b"\r\n--x--\r\n"
    )
    head = (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
    )
    return head % len(body) + body
