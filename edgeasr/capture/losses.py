"""What of a stream was not heard, and why."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable

Say = Callable[[str], None]

BEHIND = "because recognition was behind"
SYSTEM = "in the sound system"
NETWORK = "on the network"
AWAY = "while it was away"

SAY_EVERY_S = 10.0


class Losses:
    """Adds up what is lost, and says so: the first loss for a reason at once, more of them every ten seconds at most.

    name: of the source
    say:  takes a line of text
    """

    def __init__(self, name: str, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._say, self._clock = say, clock
        self._lost_s: defaultdict[str, float] = defaultdict(float)  # by reason
        self._unsaid_s: defaultdict[str, float] = defaultdict(float)
        self._said_at: dict[str, float] = {}

    def add(self, seconds: float, reason: str, *, quietly: bool = False) -> None:
        """quietly: somebody else says it"""
        if seconds > 0:
            self._lost_s[reason] += seconds
            self._unsaid_s[reason] += 0.0 if quietly else seconds

    def say_more(self) -> None:
        """What was not said yet, as far as it is time for it."""
        for reason, seconds in self._unsaid_s.items():
            now = self._clock()
            if seconds and now - self._said_at.get(reason, -math.inf) >= SAY_EVERY_S:
                self._say(f"{self.name}: {spoken_s(seconds)} of audio lost {reason}")
                self._unsaid_s[reason], self._said_at[reason] = 0.0, now

    @property
    def total_s(self) -> float:
        """For all reasons."""
        return sum(self._lost_s.values())

    def report(self) -> str | None:
        """One line; None where nothing was lost."""
        parts = [f"{spoken_s(seconds)} of audio lost {reason}" for reason, seconds in self._lost_s.items()]
        return f"{self.name}: {', '.join(parts)}" if parts else None


def spoken_s(seconds: float) -> str:
    """A duration as a person reads it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
