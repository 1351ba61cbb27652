"""Wyoming's servers of events, over TCP or a Unix socket; what is said there is in wyoming_conversation.py."""

from __future__ import annotations

import asyncio
import errno
import logging
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from edgeasr.errors import ServeError, UnavailableError
from edgeasr.serve.hub import Hub
from edgeasr.serve.listener import open_ports
from edgeasr.serve.security import is_loopback
from edgeasr.serve.wyoming_conversation import WyomingConversation, WyomingModel
from edgeasr.serve.wyoming_events import MAX_HEADER_BYTES

_SOCKET_MODE = 0o660  # whoever may write to the socket may be heard: its owner and group

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WyomingAddress:
    """Where to listen: a host and a port (0 for any), or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Of tcp://HOST:PORT or unix:///PATH. errors: ServeError for anything else"""
        try:
            parts = urlsplit(uri)
            if parts.scheme == "tcp" and parts.hostname and parts.port is not None and not parts.path.strip("/"):
                return cls(parts.hostname, parts.port)
            if parts.scheme == "unix" and not parts.netloc and parts.path.strip("/"):
                return cls(path=Path(parts.path))
        except ValueError:
            pass
        raise ServeError(f"got {uri!r}, want tcp://HOST:PORT or unix:///PATH, such as tcp://127.0.0.1:10300")

    def check(self, *, allow_remote: bool) -> None:
        """errors: ServeError for an address that others can reach, where that was not allowed"""
        if self.path is None and not allow_remote and not is_loopback(self.host):
            raise ServeError(
                f"got the address {self.host}, and Wyoming has no tokens, so anybody in the network could use this "
                "server: give --wyoming-allow-remote where all of them may, or take the address 127.0.0.1"
            )


class WyomingServer:
    """Listens inside `async with`; leaving it waits until every client has its last words, so stop the hub before.

    bound: "tcp://HOST:PORT" or "unix:///PATH", once it listens
    errors: ServeError where it cannot listen there
    """

    def __init__(self, hub: Hub, address: WyomingAddress, model: WyomingModel) -> None:
        self._hub, self._address, self._model = hub, address, model
        self._clients: set[asyncio.Task[None]] = set()
        self.bound = ""

    async def __aenter__(self) -> Self:
        path = self._address.path
        self._servers = await (self._listen_at_ports() if path is None else self._listen_at_path(path))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for server in self._servers:
            server.close()
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=self._hub.limits.stop_s)
            for client in late:
                client.cancel()
        if self._address.path is not None:
            self._address.path.unlink(missing_ok=True)

    async def _listen_at_ports(self) -> list[asyncio.Server]:
        ports = open_ports(self._address.host, self._address.port)
        host, port = ports[0].getsockname()[:2]
        self.bound = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        return [await asyncio.start_server(self._accept, sock=one, limit=MAX_HEADER_BYTES) for one in ports]

    async def _listen_at_path(self, path: Path) -> list[asyncio.Server]:
        try:
            await _remove_stale(path)
            server = await asyncio.start_unix_server(self._accept, path, limit=MAX_HEADER_BYTES)
            path.chmod(_SOCKET_MODE)
        except OSError as error:
            kind = UnavailableError if error.errno == errno.EADDRINUSE else ServeError
            raise kind(f"cannot listen at {path} ({error.strerror or error}): choose another path") from error
        self.bound = f"unix://{path}"
        return [server]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        self._clients.add(client)
        try:
            conversation = WyomingConversation(self._hub, self._model, reader, writer)
            if len(self._clients) > self._hub.limits.max_connections:
                self._hub.metrics.refused.labels("connections").inc()
                await conversation.refuse("full", "too many connections: try again later")
            else:
                await conversation.run()
        except Exception:  # noqa: BLE001 - a fault of ours ends one conversation, not the server
            _log.exception("a Wyoming client was left by a fault of the program")
        finally:
            self._clients.remove(client)
            await self._close(writer)

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        """What was said last is sent, if the client takes it."""
        writer.close()
        try:
            async with asyncio.timeout(self._hub.limits.unread_s):
                await writer.wait_closed()
        except TimeoutError:
            writer.transport.abort()
        except OSError:
            pass  # it went away


async def _remove_stale(path: Path) -> None:
    """asyncio takes a socket's place even where somebody listens. errors: OSError where that, or no socket, is there"""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(errno.EEXIST, "a file is there")
    with suppress(ConnectionRefusedError):
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        await writer.wait_closed()
        raise OSError(errno.EADDRINUSE, "another server listens there")
