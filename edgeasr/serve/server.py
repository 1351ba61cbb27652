"""The server: what it listens at, and how it begins and ends."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aiohttp import web

from edgeasr.errors import ServeError
from edgeasr.microphone import Microphone
from edgeasr.serve.app import STALLED_S, make_app
from edgeasr.serve.http_errors import connections_log
from edgeasr.serve.hub import Hub
from edgeasr.serve.listener import BoundedServer, open_ports, server_tls
from edgeasr.serve.live_device import OpenSource
from edgeasr.serve.security import Access, check_host
from edgeasr.service.notify import ServiceManager
from edgeasr.wording import counted

_CLOSE_S = 2.0  # for what is left of requests after all streams have ended
_TELL_EVERY_S = 5.0  # a service manager, where it asked for no more


@dataclass(frozen=True)
class ServerConfig:
    """access:      who may use it
    host:        to listen at; another than loopback needs a token
    port:        of HTTP and web sockets; 0 for any that is free
    vosk_port:   a second port, such as 2700, for clients of vosk-server that know no other; None for none
    certificate: of TLS, a PEM file; None for none; its key may be in the same file
    errors:      ServeError for an address that others can reach, without a token; for a key without a certificate; for
                 a port that is named twice
    """

    access: Access
    host: str = "127.0.0.1"
    port: int = 8000
    vosk_port: int | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        check_host(self.host, self.access.token)
        if self.key is not None and self.certificate is None:
            raise ServeError(f"got the key {self.key} without a certificate, wanted both: add --certificate PEM")
        if self.port and self.port == self.vosk_port:
            raise ServeError(f"got --port {self.port} and --vosk-port {self.port}, wanted two ports: leave one out")


class Server:
    """Listens inside `async with`; on leaving it clients get their last words, and the hub has stopped.

    open_source: what the live page hears of this machine
    urls:   where it listens, once it does
    errors: ServeError where it cannot
    """

    def __init__(self, hub: Hub, config: ServerConfig, model_name: str, open_source: OpenSource = Microphone) -> None:
        self._hub, self._config = hub, config
        self._app = make_app(hub, config.access, model_name, open_source)
        self._opened = AsyncExitStack()
        self.urls: list[str] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            await self._open(opened)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._opened.aclose()

    @property
    def num_connections(self) -> int:
        """Open ones, at all ports."""
        return len(self._connections)

    async def _open(self, opened: AsyncExitStack) -> None:
        """What is opened first is closed last: ports are closed, then streams end, then connections."""
        config, limits = self._config, self._hub.limits
        tls = server_tls(config.certificate, config.key) if config.certificate else None
        options = {"access_log": None, "logger": connections_log, "keepalive_timeout": limits.request_s / 10}
        # Who goes away leaves the stream.
        runner = web.AppRunner(self._app, handler_cancellation=True, shutdown_timeout=_CLOSE_S)
        await runner.setup()
        opened.push_async_callback(runner.cleanup)
        opened.push_async_callback(self._hub.stop)
        assert runner.server is not None
        self._connections = make_protocol = BoundedServer(runner.server, self._hub, options)
        for port in (config.port, config.vosk_port):
            if port is None:
                continue
            for listening in open_ports(config.host, port):
                server = await asyncio.get_running_loop().create_server(make_protocol, sock=listening, ssl=tls)
                opened.callback(server.close)
                self.urls.append(_url(listening, "https" if tls else "http"))


async def wait(stop: asyncio.Event, hub: Hub, manager: ServiceManager) -> None:
    """Until it is time to stop; meanwhile the service manager is told that recognition moves, as long as it does."""
    period_s = min(_TELL_EVERY_S, (manager.watchdog_s or _TELL_EVERY_S * 4) / 4)
    while not stop.is_set():
        if hub.stalled_s < STALLED_S:
            manager.works(f"hears {counted(hub.num_streams, 'stream')}")
        with suppress(TimeoutError):
            async with asyncio.timeout(period_s):
                await stop.wait()


def _url(listening: socket.socket, scheme: str) -> str:
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
