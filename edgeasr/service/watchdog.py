"""Tells the service manager that recognition goes on; when it no longer does, the manager ends the process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from edgeasr.service.notify import ServiceManager

_TELL_EVERY_S = 10.0  # where nobody asked for more
_WAITING_S = 1.0  # without a block, from which on a source is waiting for one


class Watchdog:
    """Says that the process works, but only while it does. clock: seconds"""

    def __init__(self, manager: ServiceManager, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager, self._clock = manager, clock
        self._period_s = min(_TELL_EVERY_S, (manager.watchdog_s or math.inf) / 4)
        self._told_s = -math.inf
        self._block_s: float | None = None  # since when there was none
        self._heard_s = 0.0

    def heard(self, heard_s: float) -> None:
        """A block was dealt with.

        heard_s: how much was stepped through: no message goes out unless it grew, so that a hang is noticed, and so is
                 a loop that turns without getting on
        """
        self._block_s = self._clock()
        if heard_s != self._heard_s and self._is_due():
            self._heard_s = heard_s
            self._tell(f"heard {_duration(heard_s)}")

    def waits(self) -> None:
        """The source is asked for a block; for a device that was unplugged, say, that may take days and is no hang."""
        if self._block_s is None:
            self._block_s = self._clock()
        if self._clock() - self._block_s >= _WAITING_S and self._is_due():
            self._tell("waiting for sound")

    def _is_due(self) -> bool:
        return self._clock() - self._told_s >= self._period_s

    def _tell(self, status: str) -> None:
        self._told_s = self._clock()
        self._manager.works(status)


class WatchedStop:
    """A request to stop, as it is given to a source, which asks for it again and again while it waits."""

    def __init__(self, stop: StopRequest, watchdog: Watchdog) -> None:
        self._stop, self._watchdog = stop, watchdog

    @property
    def requested(self) -> bool:
        self._watchdog.waits()
        return self._stop.requested


class StopRequest(Protocol):
    """Whether it is time to stop."""

    @property
    def requested(self) -> bool: ...


def _duration(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s" if minutes else f"{s} s"
