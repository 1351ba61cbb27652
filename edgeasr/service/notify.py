"""What a service manager is told of this process (sd_notify(3)): that it is ready, that it still works, what it does.

A message is a datagram of lines; this is all there is to it, so it needs no library.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

from edgeasr.wording import visible

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """Whoever started this process and listens; without one, nothing is sent and nothing fails.

    address:    of its socket: a path, or @NAME in the abstract namespace; others, such as vsock:, are not supported
    watchdog_s: within which it wants to hear that we work; None where it does not
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._listens = address.startswith(("/", "@"))
        self.watchdog_s = watchdog_s if self._listens else None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The one that the environment names; a watchdog only where it waits for this very process."""
        given = os.environ if environment is None else environment
        period, process = given.get("WATCHDOG_USEC", ""), given.get("WATCHDOG_PID", "")
        ours = process in ("", str(os.getpid()))
        watched = ours and period.isdecimal() and int(period) > 0
        return cls(given.get("NOTIFY_SOCKET", ""), int(period) / 1e6 if watched else None)

    def ready(self, status: str) -> None:
        """The start is over. status: a line about what it does"""
        self._send("READY=1", f"STATUS={_line(status)}")

    def works(self, status: str = "") -> None:
        """It did something since the last time."""
        self._send("WATCHDOG=1", *([f"STATUS={_line(status)}"] if status else []))

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._listens:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            # A manager that does not read must not stop recognition.
            told.setblocking(False)
            told.sendto("\n".join(lines).encode(), self._address)


def _line(text: str) -> str:
    return visible(" ".join(text.split()))
