"""A web socket within the server's limits, whatever is spoken over it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from edgeasr.serve.hub import Hub
from edgeasr.serve.security import SUBPROTOCOL
from edgeasr.serve.slow_readers import being_read

_CLOSE_S = 2.0  # for a client to answer that it closes too
_LINGER_S = 1.0  # for what a client that is refused still sends
_MAX_REASON_BYTES = 120  # a control frame holds 125, two of them are the code


class _Response(web.WebSocketResponse):
    """Of aiohttp, but where it cannot read on it leaves it to others to say so, and to close.

    receiving: whether somebody waits for a message
    """

    receiving = False
    _broken = False

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if self.receiving and code != WSCloseCode.OK:
            self._broken = True
            return False
        if self._broken:
            await self._linger(code, message)
        return await super().close(code=code, message=message, drain=drain)

    async def _linger(self, code: int, message: bytes) -> None:
        """Say goodbye and pass over what still comes, without which TCP would drop what the client has yet to read."""
        assert self._writer is not None
        assert self._req is not None
        with suppress(ConnectionError):
            await self._writer.close(code, message)
        deadline_s = time.monotonic() + _LINGER_S
        while (transport := self._req.transport) is not None and not transport.is_closing():
            if time.monotonic() > deadline_s:
                transport.close()
            else:
                await asyncio.sleep(_LINGER_S / 20)


class Socket:
    """Made by `Socket.accept`; `response` is what the handler of the request returns.

    ended_by: why receive() gave None: "client", "idle", "stopping" or "malformed"
    fault:    what is wrong with what came, where it can be said to the client; empty otherwise
    """

    def __init__(self, response: _Response, request: web.Request, hub: Hub) -> None:
        self.response = response
        self.ended_by = self.fault = ""
        self._fault_code: int = WSCloseCode.OK
        self._request, self._hub = request, hub

    @classmethod
    async def accept(cls, request: web.Request, hub: Hub) -> Socket:
        """Answer the request for a web socket. errors: aiohttp's for one that is none"""
        response = _Response(
            timeout=_CLOSE_S,
            max_msg_size=hub.limits.max_message_bytes + 1,  # aiohttp takes less than that
            compress=False,
            protocols=(SUBPROTOCOL,),
        )
        await response.prepare(request)
        return cls(response, request, hub)

    async def receive(self) -> str | bytes | None:
        """The next message; None at the end, when nothing came for Limits.idle_s, and when the server stops."""
        self.response.receiving = True
        try:
            async with self._hub.patience(self._hub.limits.idle_s):
                message = await self.response.receive()
        except TimeoutError:
            self.ended_by = "stopping" if self._hub.stopping else "idle"
            self._hub.metrics.closed.labels(self.ended_by).inc()
            return None
        finally:
            self.response.receiving = False
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        self.ended_by = "client"
        if message.type is WSMsgType.ERROR:
            self.ended_by = "malformed"
            self._hub.metrics.closed.labels(self.ended_by).inc()
            if isinstance(message.data, WebSocketError):
                self._keep(message.data)
        return None

    def _keep(self, error: WebSocketError) -> None:
        self._fault_code = error.code
        if error.code == WSCloseCode.MESSAGE_TOO_BIG:
            most = self._hub.limits.max_message_bytes
            self.fault = f"got a message of more than {most} bytes, wanted at most that: send it in parts"
        else:
            self.fault = f"got what is no message of a web socket ({error}): correct it"

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send JSON. errors: ConnectionError where the client is gone or, for Limits.unread_s, takes nothing"""
        async with being_read(self._request, self._hub):
            await self.response.send_str(json.dumps(message, allow_nan=False))

    async def fail(self, message: str, code: int = WSCloseCode.POLICY_VIOLATION) -> None:
        """Tell the client what is wrong, and close."""
        await self.send({"error": message})
        await self.close(code, message)

    async def close(self, code: int = WSCloseCode.OK, reason: str = "") -> None:
        """Say goodbye; nothing where it is closed already."""
        cut = reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        await self.response.close(code=code, message=cut.encode())

    @property
    def farewell(self) -> tuple[int, str]:
        """Code and reason to close with after receive() gave None."""
        if self.ended_by == "stopping":
            return WSCloseCode.GOING_AWAY, "the server is stopping"
        if self.ended_by == "idle":
            return WSCloseCode.GOING_AWAY, f"nothing came for {self._hub.limits.idle_s:g} s"
        return self._fault_code, self.fault
