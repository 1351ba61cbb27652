"""Byte streams to a device: serial ports, TCP in either direction, pseudo-terminals.

    transport, options = open_transport("tcp://192.168.1.7:9000?codec=adpcm", say=print)
    data = transport.read(timeout_s=0.1)       # b"" where none came in time

The end of a stream, its loss and the want of data are three outcomes: TransportEnded, TransportLostError, b"".
"""

from __future__ import annotations

import errno
import os
import select
import socket
import tty
from collections.abc import Callable
from typing import Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from edgeasr.errors import ConfigError, DeviceError, ExtraMissingError

SCHEMES = ("serial", "tcp", "tcp-listen", "pty")
DEFAULT_BAUD = 921_600
CONNECT_TIMEOUT_S = 5.0
_READ_BYTES = 65_536
_EXAMPLES = "serial:///dev/ttyACM0?baud=921600, tcp://HOST:PORT, tcp-listen://HOST:PORT, pty: or pty:/dev/pts/N"

Say = Callable[[str], None]


class TransportEnded(Exception):  # noqa: N818  # an outcome, not an error
    """The other side closed the stream."""


class TransportLostError(DeviceError):
    """The stream broke: a plug was pulled, a connection reset."""


class TransportResetError(TransportLostError):
    """The other side dropped the connection, as one does that ends while something is sent to it."""


class Transport(Protocol):
    """A stream of bytes in both directions.

    bytes_per_s: that the line carries, None where it sets no limit
    may_return:  whether reopen() may succeed after a loss
    """

    name: str
    bytes_per_s: float | None
    may_return: bool

    def read(self, timeout_s: float) -> bytes:
        """What has come, after waiting for the first byte; b"" where none came in time.

        errors: TransportEnded, TransportLostError
        """

    def write(self, data: bytes, timeout_s: float) -> bool:
        """Whether all of it could be written: a device that does not read is no reason to wait for ever.

        errors: TransportLostError
        """

    def end(self) -> bool:
        """Say that no more is written; the other side may still answer. returns: whether the stream can say it"""

    def reopen(self) -> bool:
        """Try once to have a lost stream back."""

    def close(self) -> None: ...


def is_bridge_url(source: str) -> bool:
    """Whether a source names a device and no file; of another scheme than those known it is still no file."""
    scheme, colon, rest = source.partition(":")
    return bool(colon) and (scheme in SCHEMES or (rest.startswith("//") and scheme.isalnum()))


def open_transport(url: str, say: Say, tcp: str = "tcp") -> tuple[Transport, dict[str, str]]:
    """The transport that a URL names, and what else its query says.

    say:    told where a device can connect
    tcp:    the scheme of addresses at which something else is spoken than to devices
    errors: ConfigError for what is no such URL, DeviceError for what is not there, ExtraMissingError
    """
    parts, options = _split(url, _EXAMPLES if tcp == "tcp" else f"{tcp}://HOST:PORT, {tcp}-listen://HOST:PORT")
    if parts.scheme == "serial":
        return _open_serial(parts.netloc + parts.path, options), options
    if parts.scheme == "pty":
        path = parts.path
        return (TtyTransport(path) if path else PtyTransport(say)), options
    if parts.scheme in (tcp, f"{tcp}-listen"):
        try:
            host, port = parts.hostname or "", parts.port
        except ValueError:
            port = None
        if port is None or (not host and parts.scheme == tcp):
            raise ConfigError(f"got {url}, want a host and a port such as {tcp}://192.168.1.7:9000: add them")
        listener = parts.scheme != tcp
        return (TcpListener(host, port, say, tcp) if listener else TcpClient(host, port, tcp)), options
    raise ConfigError(f"got {url!r}, want one of {_EXAMPLES}")


def options_of(url: str) -> dict[str, str]:
    """What the query of a URL says beside how to open it. errors: ConfigError for what is no URL"""
    parts, options = _split(url)
    return {key: value for key, value in options.items() if (parts.scheme, key) != ("serial", "baud")}


def _split(url: str, examples: str = _EXAMPLES) -> tuple[SplitResult, dict[str, str]]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"got {url!r} ({error}), want one of {examples}") from error
    return parts, dict(parse_qsl(parts.query, keep_blank_values=True))


def _open_serial(port: str, options: dict[str, str]) -> Transport:
    baud = options.pop("baud", str(DEFAULT_BAUD))
    if not port.startswith("/") or not (baud.isdecimal() and int(baud) > 0):
        raise ConfigError(
            f"got serial port {port!r} with baud {baud!r}, want serial:///dev/ttyACM0?baud={DEFAULT_BAUD}"
        )
    try:
        from edgeasr.firmware_bridge.serial_port import SerialTransport
    except ModuleNotFoundError as error:
        raise ExtraMissingError(
            f"got no package {error.name}, wanted what edgeasr[bridge] brings: pip install 'edgeasr[bridge]'"
        ) from error
    return SerialTransport(port, int(baud))


class _FileTransport(Transport):
    """A stream on a file descriptor that never blocks."""

    bytes_per_s = None
    may_return = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._fd = -1

    def read(self, timeout_s: float) -> bytes:
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return b""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal whose other side is closed
                raise TransportEnded from None
            raise self._lost(error) from error
        if not data:
            raise TransportEnded
        return data

    def write(self, data: bytes, timeout_s: float) -> bool:
        view = memoryview(data)
        while view:
            if not select.select([], [self._fd], [], timeout_s)[1]:
                return False
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._lost(error) from error
        return True

    def end(self) -> bool:
        return False

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lost(self, error: OSError) -> TransportLostError:
        is_reset = error.errno in (errno.ECONNRESET, errno.EPIPE)
        kind = TransportResetError if is_reset else TransportLostError
        return kind(f"{self.name} broke off ({error.strerror}), want a steady stream: check the device")


class PtyTransport(_FileTransport):
    """A new pseudo-terminal; a device, such as an emulator, opens the path that is said."""

    def __init__(self, say: Say) -> None:
        control, terminal = os.openpty()
        super().__init__(f"pty:{os.ttyname(terminal)}")
        tty.setraw(terminal)
        os.set_blocking(control, False)
        self._fd = control
        # Without anybody at the terminal reading fails: this side stays there until a device has come.
        self._terminal = terminal
        say(f"connect the device to {os.ttyname(terminal)}")

    def read(self, timeout_s: float) -> bytes:
        data = super().read(timeout_s)
        if data:
            self._leave_terminal()
        return data

    def close(self) -> None:
        self._leave_terminal()
        super().close()

    def _leave_terminal(self) -> None:
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1


class TtyTransport(_FileTransport):
    """A terminal that is there: the other side of a pseudo-terminal, or a port whose speed others have set."""

    def __init__(self, path: str) -> None:
        super().__init__(f"pty:{path}")
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            raise DeviceError(f"cannot open {path} ({error.strerror}), want a terminal: check the path") from error
        if not os.isatty(self._fd):
            self.close()
            raise DeviceError(f"{path} is no terminal, want one such as /dev/pts/3: check the path")
        tty.setraw(self._fd)


class _SocketTransport(_FileTransport):
    """A TCP connection, once there is one."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._connection: socket.socket | None = None

    def end(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._lost(error) from error
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection, self._fd = None, -1

    def _connected(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self._connection, self._fd = connection, connection.fileno()


class TcpClient(_SocketTransport):
    """A connection to a device that listens. scheme: of its name"""

    def __init__(self, host: str, port: int, scheme: str = "tcp") -> None:
        super().__init__(f"{scheme}://{host}:{port}")
        try:
            self._connected(socket.create_connection((host, port), CONNECT_TIMEOUT_S))
        except OSError as error:
            raise DeviceError(
                f"cannot connect to {self.name} ({error.strerror or error}), want a device that listens there: "
                "check address and port"
            ) from error


class TcpListener(_SocketTransport):
    """A connection that a device makes to here; the first one is taken.

    port:   0 for any that is free
    scheme: of its name, before -listen
    """

    def __init__(self, host: str, port: int, say: Say, scheme: str = "tcp") -> None:
        try:
            self._listener: socket.socket | None = socket.create_server((host, port), backlog=1)
        except OSError as error:
            raise DeviceError(
                f"cannot listen at {host}:{port} ({error.strerror or error}), want a free port: choose another"
            ) from error
        self.port: int = self._listener.getsockname()[1]
        super().__init__(f"{scheme}-listen://{host}:{self.port}")
        say(f"waiting for a connection to {host or 'any address'}, port {self.port}")

    def read(self, timeout_s: float) -> bytes:
        return super().read(timeout_s) if self._accepted(timeout_s) else b""

    def write(self, data: bytes, timeout_s: float) -> bool:
        return self._accepted(timeout_s) and super().write(data, timeout_s)

    def close(self) -> None:
        self._stop_listening()
        super().close()

    def _accepted(self, timeout_s: float) -> bool:
        if self._listener is not None and select.select([self._listener], [], [], timeout_s)[0]:
            self._connected(self._listener.accept()[0])
            self._stop_listening()
        return self._connection is not None

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
