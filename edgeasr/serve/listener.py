"""Ports: opened, with bounds for those who connect to them."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from edgeasr.errors import ServeError, UnavailableError
from edgeasr.serve.http_errors import HttpError
from edgeasr.serve.hub import RETRY_AFTER_S, Hub
from edgeasr.serve.security import is_loopback, secure

_BACKLOG = 128
# The kernel holds so much for a client that does not read; more of it would hide a slow reader for longer.
_SEND_BUFFER_BYTES = 64 << 10
_EVERYWHERE = {"0.0.0.0", "::"}
_REFUSED_S = 1.0  # for a client to read why it was refused


def open_ports(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at all addresses of the host, IPv4 and IPv6. port: 0 for any that is free

    errors: UnavailableError for a port in use, and an address or a name that this machine does not have, which it may
            have later; ServeError for what can never be listened at
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UnavailableError(_no_address(host, error.strerror or error)) from error
    except UnicodeError as error:
        raise ServeError(_no_address(host, error)) from error
    opened: list[socket.socket] = []
    try:
        for family, *_, address in dict.fromkeys(found):
            taken = opened[0].getsockname()[1] if opened else port
            opened.append(_open_port(family, (address[0], taken, *address[2:])))
    except OSError as error:
        for one in opened:
            one.close()
        if error.errno == errno.EADDRINUSE:
            raise UnavailableError(
                f"port {port} of {host} is in use: end the program that has it, or choose another port"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise UnavailableError(
                f"cannot listen at {host} port {port} ({error.strerror}): choose an address of this machine"
            ) from error
        raise ServeError(f"cannot listen at {host} port {port} ({error.strerror}): choose another") from error
    return opened


def may_meet(host: str, other: str) -> bool:
    """Whether a port of one can be the same as that of the other, by how they are written."""
    both = {host, other}
    if len(both) == 1 or "" in both:
        return True
    if "localhost" in both:
        return all(map(is_loopback, both)) or bool(both & _EVERYWHERE)
    return any(one in both and all((":" in host) == (":" in one) for host in both) for one in _EVERYWHERE)


def _no_address(host: str, reason: object) -> str:
    return f"got the address {host!r} ({reason}), wanted one of this machine: take 127.0.0.1"


def _open_port(family: int, address: tuple[object, ...]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # those that it accepts have it too
        opened.bind(address)
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def server_tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """For HTTPS. key: None where it is in the certificate's file. errors: ServeError for what cannot be used"""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:  # of TLS too
        reason = error.strerror or str(error)
        raise ServeError(
            f"cannot use the certificate {certificate}{f' with the key {key}' if key else ''} ({reason}): "
            "give PEM files without a password"
        ) from error
    return context


class BoundedServer:
    """Makes the protocol of each connection: aiohttp's, or above Limits.max_connections one that says so.

    options: of aiohttp's
    """

    def __init__(self, server: web.Server, hub: Hub, options: Mapping[str, Any]) -> None:
        self._server, self._hub, self._options = server, hub, options
        hub.metrics.watch("edgeasr_connections", "Connections that are open.", self.__len__)

    def __len__(self) -> int:
        """Connections that are open."""
        return len(self._server.connections)

    def __call__(self) -> asyncio.Protocol:
        most = self._hub.limits.max_connections
        if len(self) < most:
            return _Connection(self._server, loop=asyncio.get_running_loop(), **self._options)
        self._hub.metrics.refused.labels("connections").inc()
        return _Refusal(f"the server has {most} connections, as many as it takes: try again later")


class _Connection(web.RequestHandler):
    """Answers what is no HTTP as everything else is answered: without the bytes that came, and the versions we run."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(request, status, exc, message)  # which logs it
        phrase = HTTPStatus(status).phrase.lower()
        answer = HttpError(status, f"the request ended by: {phrase}", "http").response()
        secure(answer)
        answer.force_close()
        return answer


class _Refusal(asyncio.Protocol):
    def __init__(self, message: str) -> None:
        self._message = message

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        body = json.dumps(HttpError(503, self._message, "connections").as_dict())
        transport.write(
            f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_S}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        # What the client sends has to be read, or its system would drop the answer.
        if transport.can_write_eof():
            with suppress(OSError):  # it went away
                transport.write_eof()
        asyncio.get_running_loop().call_later(_REFUSED_S, transport.abort)
