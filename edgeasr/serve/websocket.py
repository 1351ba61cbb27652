"""A web socket within the server's limits, whatever is spoken over it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from edgeasr.serve.hub import Hub
from edgeasr.serve.security import SUBPROTOCOL
from edgeasr.serve.slow_readers import being_read

_CLOSE_S = 2.0  # for a client to answer that it closes too
_MAX_REASON_BYTES = 120  # a control frame holds 125, two of them are the code


class Socket:
    """Made by `Socket.accept`; `response` is what the handler of the request returns.

    ended_by: why receive() gave None: "client", "idle", "stopping" or "malformed"
    """

    def __init__(self, response: web.WebSocketResponse, request: web.Request, hub: Hub) -> None:
        self.response = response
        self.ended_by = ""
        self._request, self._hub = request, hub

    @classmethod
    async def accept(cls, request: web.Request, hub: Hub) -> Socket:
        """Answer the request for a web socket. errors: aiohttp's for one that is none"""
        response = web.WebSocketResponse(
            timeout=_CLOSE_S,
            max_msg_size=hub.limits.max_message_bytes + 1,  # aiohttp takes less than that
            compress=False,
            protocols=(SUBPROTOCOL,),
        )
        await response.prepare(request)
        return cls(response, request, hub)

    async def receive(self) -> str | bytes | None:
        """The next message; None at the end, when nothing came for Limits.idle_s, and when the server stops."""
        try:
            async with self._hub.patience(self._hub.limits.idle_s):
                message = await self.response.receive()
        except TimeoutError:
            self.ended_by = "stopping" if self._hub.stopping else "idle"
            self._hub.metrics.closed.labels(self.ended_by).inc()
            return None
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            data: str | bytes = message.data
            return data
        self.ended_by = "client"
        if message.type is WSMsgType.ERROR:
            self.ended_by = "malformed"
            self._hub.metrics.closed.labels(self.ended_by).inc()
        return None

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
        return WSCloseCode.OK, ""
