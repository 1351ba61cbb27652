"""Events that wait for one client: a slow reader misses partials, never a final."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from edgeasr.transcript import Event, Partial


class Outbox:
    """Finals in order and the latest partial; put from one thread, taken from another.

    A partial that was not taken makes room for the next event: that tells all that it told. So an outbox holds at
    most one partial, and `max_finals` and what one step adds to them where whoever puts asks `is_full` before.
    """

    def __init__(self, max_finals: int) -> None:
        self._max_finals = max_finals
        self._finals: list[Event] = []
        self._partial: Partial | None = None
        self._lock = Lock()
        self.num_replaced = 0  # partials that nobody took

    def put(self, events: Iterable[Event]) -> None:
        """Add events in order."""
        with self._lock:
            for event in events:
                if self._partial is not None:
                    self.num_replaced += 1
                    self._partial = None
                if isinstance(event, Partial):
                    self._partial = event
                else:
                    self._finals.append(event)

    def take(self) -> list[Event]:
        """All that waits, in order; may be nothing."""
        with self._lock:
            taken, self._finals = self._finals, []
            if self._partial is not None:
                taken.append(self._partial)
                self._partial = None
            return taken

    def __len__(self) -> int:
        return len(self._finals) + (self._partial is not None)

    @property
    def is_full(self) -> bool:
        return len(self._finals) >= self._max_finals
