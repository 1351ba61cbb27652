"""The live page's web socket: sound of a browser or of this machine's microphone in, words and gauges out.

    -> {"type": "hello", "token": "..."}             the token only where the server has one
    <- {"type": "welcome", "model": "tiny-en", "version": "0.1.0"}
    -> {"type": "start", "source": "browser", "rate": 48000} | {"type": "start", "source": "device"}
    <- {"type": "started", "stream": "5f0c...", "stream_s": 0.0}
    -> 16-bit little-endian mono samples             of a browser; {"type": "gap", "samples": 4800}: lost before them
    <- partial, final, memory, status                see live_teller.py; of the device "level" too, peak and rms in 0..1
    -> {"type": "here"}                              of who only watches, now and then: else it counts as gone
    -> {"type": "stop"}
    <- {"type": "ended", "reason": "stop"}           after the last words; or "idle" or "stopping", without being asked

Instead of any answer {"type": "error", "code": "...", "text": "..."} may come, and then the socket is closed; code is
unauthorized, full, device, audio or malformed.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import web

from edgeasr import __version__
from edgeasr.audio import Waveform, check_sample_rate
from edgeasr.errors import AudioFormatError, DeviceError, EdgeasrError, ServeError
from edgeasr.serve.faults import first_fault
from edgeasr.serve.hub import Hub, StreamRefusedError
from edgeasr.serve.live_device import LiveDevice
from edgeasr.serve.live_teller import LiveTeller
from edgeasr.serve.mailbox import Mailbox
from edgeasr.serve.page_files import page
from edgeasr.serve.security import Access, without_token
from edgeasr.serve.stream import Stream
from edgeasr.serve.websocket import Socket

_PROTOCOL = "live"
_HELLO_S = 10.0
_ROOM = 400  # messages that wait for a page and must not be left out
_MAX_SAMPLE_RATE_HZ = 192_000
_MAX_GAP_S = 3600.0


class LiveError(ServeError):
    """A page that says what is not understood, or is not admitted; code: a word for it."""

    def __init__(self, message: str, code: str = "malformed") -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class LivePage:
    """The page's side of a server."""

    hub: Hub
    access: Access
    device: LiveDevice
    model_name: str

    def add_to(self, app: web.Application) -> None:
        """With the page's files; the page itself is `page_files.page`, for whoever answers at /."""
        app.router.add_get("/live", self.handle)
        app.router.add_get("/page/{name}", page)

    @without_token
    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for a web socket; the token comes in its first message."""
        socket = await Socket.accept(request, self.hub)
        error: EdgeasrError | None = None
        try:
            await self._serve(socket)
        except* EdgeasrError as group:
            error = first_fault(group)
        except* ConnectionError:
            pass  # nobody is there to be told
        if error is not None:
            await _refuse(socket, error)
        await socket.close(*socket.farewell)
        return socket.response

    async def _serve(self, socket: Socket) -> None:
        await self._greet(socket)
        start = await _order(socket)
        if start is None:
            return
        if start["type"] != "start" or start.get("source") not in ("browser", "device"):
            raise LiveError(f"got {start!r:.80}, wanted start with the source browser or device")
        if start["source"] == "device":
            await _Watching(socket, self.device).run()
        else:
            rate_hz = check_sample_rate(_number(start, "rate", _MAX_SAMPLE_RATE_HZ), "the browser's sound")
            await _Hearing(socket, self.hub, rate_hz).run()

    async def _greet(self, socket: Socket) -> None:
        try:
            async with asyncio.timeout(_HELLO_S):
                hello = await _order(socket) or {}
        except TimeoutError:
            raise LiveError("got no hello, wanted it first") from None
        token = hello.get("token")
        if not self.access.admits(token if isinstance(token, str) else None):
            self.hub.metrics.refused.labels("token").inc()
            raise LiveError("That is not the token of this server.", "unauthorized")
        await socket.send({"type": "welcome", "model": self.model_name, "version": __version__})


class _Hearing:
    """A browser's sound, from start to its last words."""

    def __init__(self, socket: Socket, hub: Hub, rate_hz: int) -> None:
        self._socket, self._hub, self._rate_hz = socket, hub, rate_hz
        self._mailbox = Mailbox(_ROOM)
        self._teller = LiveTeller(self._mailbox.put)

    async def run(self) -> None:
        """errors: EdgeasrError for the page to be told, ConnectionError where it went away"""
        async with self._hub.stream(_PROTOCOL, self._teller.admitted) as stream, asyncio.TaskGroup() as tasks:
            self._mailbox.put({"type": "started", "stream": secrets.token_hex(8), "stream_s": 0.0})
            tasks.create_task(_deliver(self._mailbox, self._socket))
            words = tasks.create_task(self._teller.events(stream))
            status = tasks.create_task(self._teller.status(stream))
            await self._feed(stream)
            stream.finish()
            await words
            status.cancel()
            self._mailbox.put({"type": "ended", "reason": _reason(self._socket)})

    async def _feed(self, stream: Stream) -> None:
        gap_samples = 0
        while (message := await self._socket.receive()) is not None:
            if isinstance(message, bytes):
                await stream.accept(_samples(message), self._rate_hz, gap_samples)
                gap_samples = 0
                continue
            order = _parsed(message)
            if order["type"] == "stop":
                return
            if order["type"] == "gap":
                gap_samples += _number(order, "samples", int(_MAX_GAP_S * self._rate_hz))
        _raise_if_gone(self._socket)


class _Watching:
    """A page that watches the device, until it or the device stops."""

    def __init__(self, socket: Socket, device: LiveDevice) -> None:
        self._socket, self._device = socket, device

    async def run(self) -> None:
        """errors: EdgeasrError for the page to be told, ConnectionError where it went away"""
        mailbox = Mailbox(_ROOM)
        async with self._device.watch(mailbox) as listening, asyncio.TaskGroup() as tasks:
            delivering = tasks.create_task(_deliver(mailbox, self._socket))
            obeying = tasks.create_task(self._until_stop())
            await asyncio.wait([delivering, obeying], return_when=asyncio.FIRST_COMPLETED)
            if obeying.done() and obeying.exception() is None:
                listening.leave(mailbox, _reason(self._socket))
                await delivering
            obeying.cancel()

    async def _until_stop(self) -> None:
        while (order := await _order(self._socket)) is not None:
            if order["type"] == "stop":
                return
        _raise_if_gone(self._socket)


async def _deliver(mailbox: Mailbox, socket: Socket) -> None:
    """Send what comes into the mailbox, until it is the last. errors: ConnectionError"""
    while True:
        for message in await mailbox.take():
            await socket.send(message)
            if message["type"] in ("ended", "error"):
                return
        if mailbox.overflowed:
            raise ConnectionResetError("the page takes too little")


async def _refuse(socket: Socket, error: EdgeasrError) -> None:
    codes = {StreamRefusedError: "full", DeviceError: "device", AudioFormatError: "audio"}
    code = error.code if isinstance(error, LiveError) else codes.get(type(error), "fault")
    with suppress(ConnectionError):
        await socket.send({"type": "error", "code": code, "text": str(error)})


def _reason(socket: Socket) -> str:
    return socket.ended_by or "stop"


def _raise_if_gone(socket: Socket) -> None:
    if socket.fault:
        raise LiveError(socket.fault)
    if socket.ended_by in ("client", "malformed"):
        raise ConnectionResetError("the page went away")


async def _order(socket: Socket) -> dict[str, Any] | None:
    """What the page says in JSON; None as Socket.receive. errors: LiveError for anything else"""
    message = await socket.receive()
    if isinstance(message, bytes):
        raise LiveError("got sound, wanted start with the source browser before")
    if message is None and socket.fault:
        raise LiveError(socket.fault)
    return None if message is None else _parsed(message)


def _parsed(text: str) -> dict[str, Any]:
    try:
        order = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LiveError("got text that is no JSON") from error
    if not isinstance(order, dict) or not isinstance(order.get("type"), str):
        raise LiveError(f"got {order!r:.80}, wanted an object with a type")
    return order


def _number(order: dict[str, Any], key: str, most: int) -> int:
    value = order.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise LiveError(f"got {key} {value!r:.40}, wanted a whole number up to {most}")
    return value


def _samples(pcm: bytes) -> Waveform:
    if len(pcm) % 2:
        raise LiveError(f"got {len(pcm)} bytes of sound, wanted 16-bit samples")
    return np.frombuffer(pcm, "<i2").astype(np.float32) * np.float32(2**-15)
