"""Tells the service manager that recognition goes on; when it no longer does, the manager ends the process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from edgeasr.service.notify import ServiceManager

_TELL_EVERY_S = 10.0  # where nobody asked for more


class Watchdog:
    """Says that the process works, but only while it does.

    heard_s: how much was stepped through: no message goes out unless it grew, so that a hang is noticed, and so is a
             loop that turns without getting on
    clock:   seconds
    """

    def __init__(
        self, manager: ServiceManager, heard_s: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._manager, self._heard_s, self._clock = manager, heard_s, clock
        self._period_s = min(_TELL_EVERY_S, (manager.watchdog_s or math.inf) / 4)
        self._told_s = -math.inf
        self._last_heard_s = 0.0

    def check(self) -> None:
        """To be called again and again, after each block say."""
        now_s = self._clock()
        if now_s - self._told_s < self._period_s:
            return
        heard_s = self._heard_s()
        if heard_s != self._last_heard_s:
            self._told_s, self._last_heard_s = now_s, heard_s
            self._manager.works(f"heard {_duration(heard_s)}")

    def waits(self, reason: str) -> None:
        """It waits for something that may take long, such as a microphone that was unplugged: that is no hang."""
        now_s = self._clock()
        if now_s - self._told_s >= self._period_s:
            self._told_s = now_s
            self._manager.works(reason)


def watched(watchdog: Watchdog, check: Callable[[], None]) -> Callable[[], None]:
    """What is called after each block, and the watchdog's own check after it."""

    def both() -> None:
        check()
        watchdog.check()

    return both


def _duration(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s" if minutes else f"{s} s"
