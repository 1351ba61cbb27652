"""Finals on their way to an action: a bounded queue that recognition never waits for.

What an action cannot take now is tried again, with longer and longer pauses, while the others wait in their order; when
too many wait the oldest is given up. What goes wrong is one line at first and then at most one a minute.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeasr.actions.action import Action
from edgeasr.errors import ActionError

Warn = Callable[[str], None]


@dataclass(frozen=True)
class OutboxLimits:
    """Bounds of an outbox.

    waiting:        events that wait at most
    jobs:           that are delivered at the same time; with more than one they may overtake each other
    first_pause_s:  before an event is tried again; doubles up to longest_pause_s
    report_every_s: between two lines about what goes wrong
    """

    waiting: int = 256
    jobs: int = 1
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    report_every_s: float = 60.0


class Outbox:
    """The way to one action. warn: told what goes wrong, from other threads"""

    def __init__(self, action: Action, warn: Warn, limits: OutboxLimits | None = None) -> None:
        self._action, self._limits = action, limits or OutboxLimits()
        self._complaints = Complaints(action.name, warn, self._limits.report_every_s)
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._in_hand: list[Mapping[str, Any]] = []
        self._changed = threading.Condition()
        self._deadline_s: float | None = None  # once it is closing
        self._threads = [
            threading.Thread(target=self._run, name=f"action-{number}", daemon=True)
            for number in range(self._limits.jobs)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, event: Mapping[str, Any]) -> None:
        """Take an event; never waits."""
        with self._changed:
            if len(self._waiting) >= self._limits.waiting:
                segment = self._waiting.popleft().get("segment")
                self._complaints.lost(f"{self._limits.waiting} wait already: segment {segment} is given up")
            self._waiting.append(event)
            self._changed.notify()

    def begin_to_close(self, deadline_s: float) -> None:
        """Deliver what waits, but only until then, by time.monotonic()."""
        with self._changed:
            self._deadline_s = deadline_s
            self._changed.notify_all()

    def close(self) -> None:
        """After `begin_to_close`: wait until the deadline, then say what was not delivered."""
        assert self._deadline_s is not None
        for thread in self._threads:
            thread.join(max(0.0, self._deadline_s - time.monotonic()))
        with self._changed:
            left = [*self._in_hand, *self._waiting]
            self._waiting.clear()
        self._action.close()
        self._complaints.close(left)

    def _run(self) -> None:
        while (event := self._next()) is not None:
            if self._deliver(event):
                with self._changed:
                    self._in_hand.remove(event)

    def _next(self) -> Mapping[str, Any] | None:
        """The oldest that waits; None when there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._deadline_s is not None)
            if not self._waiting or self._overdue:
                return None
            event = self._waiting.popleft()
            self._in_hand.append(event)
            return event

    @property
    def _overdue(self) -> bool:
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    def _deliver(self, event: Mapping[str, Any]) -> bool:
        """Try until it is taken or refused for good; False where there was no time left for that."""
        pause_s = self._limits.first_pause_s
        while True:
            try:
                self._action.deliver(event)
            except ActionError as error:
                if not error.again:
                    self._complaints.lost(f"{error} (segment {event.get('segment')})")
                    return True
                self._complaints.failed(str(error))
            else:
                self._complaints.worked()
                return True
            if not self._pause(pause_s):
                return False
            pause_s = min(2 * pause_s, self._limits.longest_pause_s)

    def _pause(self, pause_s: float) -> bool:
        """Wait, not for long when it is closing; False where there is no time left to try again."""
        with self._changed:
            self._changed.wait_for(lambda: self._deadline_s is not None, pause_s)
            if self._deadline_s is None:
                return True
            left_s = self._deadline_s - time.monotonic()
        time.sleep(max(0.0, min(self._limits.first_pause_s, left_s)))
        return not self._overdue


class Complaints:
    """What goes wrong with an action, in few lines. clock: seconds"""

    def __init__(self, name: str, warn: Warn, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._warn, self._every_s, self._clock = name, warn, every_s, clock
        self._lock = threading.Lock()
        self._told_s: float | None = None
        self._untold = self._lost = 0
        self._failing = False

    def failed(self, reason: str) -> None:
        """It will be tried again."""
        with self._lock:
            self._failing = True
            self._tell(f"{reason}; it is tried again")

    def lost(self, reason: str) -> None:
        """An event that will not be delivered."""
        with self._lock:
            self._lost += 1
            self._tell(reason)

    def worked(self) -> None:
        with self._lock:
            if self._failing:
                self._failing, self._told_s, self._untold = False, None, 0
                self._warn(f"{self._name}: works again")

    def close(self, left: list[Mapping[str, Any]]) -> None:
        """left: what was not delivered in time"""
        with self._lock:
            self._told_s = math.inf  # what is broken off now is told of here
            if left:
                numbers = ", ".join(str(event.get("segment")) for event in left[:8])
                more = f" and {len(left) - 8} more" if len(left) > 8 else ""
                self._warn(f"{self._name}: not delivered before the end: segment {numbers}{more}")
            if self._lost:
                self._warn(f"{self._name}: {self._lost} finals in all were not delivered")

    def _tell(self, reason: str) -> None:
        now_s = self._clock()
        if self._told_s is not None and now_s - self._told_s < self._every_s:
            self._untold += 1
            return
        times = f" ({self._untold} more since the last report)" if self._untold else ""
        self._told_s, self._untold = now_s, 0
        self._warn(f"{self._name}: {reason}{times}")
