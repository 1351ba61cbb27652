"""Keeps a recogniser within a budget: it measures, reads sensors, asks the ladder and says what it changed.

governor = Governor(recognizer, Budget(max_rtf=0.5), print)
for event in recognizer.stream(source, lambda block: governor.check()):
    ...
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from edgeasr.ladder import Budget, Change, Ladder, Pace, Reading, rungs_for
from edgeasr.profile.battery import battery_percent, has_battery
from edgeasr.profile.sensors import temperature_c
from edgeasr.profile.throttling import throttle_meter
from edgeasr.recognizer import Recognizer

_READ_EVERY_S = 1.0
# Of audio: the processor time for less of it depends on whether somebody speaks.
_WINDOW_S = 5.0


class Governor:
    """Changes the rung of a recogniser while it hears a stream.

    report: takes a line of text about every change, and first about what cannot be read
    backlog_s: how much audio waits, for a budget that limits it
    root:   below which /sys lies
    clock, cpu_clock: seconds, of time and of the process in all threads
    """

    def __init__(  # noqa: PLR0913 - the last four are for tests
        self,
        recognizer: Recognizer,
        budget: Budget,
        report: Callable[[str], None],
        *,
        backlog_s: Callable[[], float] | None = None,
        pace: Pace | None = None,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._recognizer, self._budget, self._report, self._root = recognizer, budget, report, root
        self.ladder = Ladder(rungs_for(recognizer.model, recognizer.decoder), budget, pace)
        self._backlog_s = backlog_s
        self._throttle = throttle_meter(root) if budget.spares_the_board else None
        self._clock, self._cpu_clock = clock, cpu_clock
        self._load = _Load()
        self._cpu_s, self._heard_s, self._read_s = cpu_clock(), recognizer.heard_s, clock()
        for missing in _missing(budget, root):
            report(missing)

    def check(self) -> None:
        """To be called again and again, after each block say: all that the process did since then is counted."""
        cpu_s, heard_s = self._cpu_clock(), self._recognizer.heard_s
        self._load.add(cpu_s - self._cpu_s, max(0.0, heard_s - self._heard_s))
        self._cpu_s, self._heard_s = cpu_s, heard_s
        if self._clock() - self._read_s >= _READ_EVERY_S:
            self._read_s = self._clock()
            self._follow(self.ladder.read(self._reading()))

    def _follow(self, change: Change | None) -> None:
        if change is None:
            return
        self._report(str(change))
        if change.to != "stay":
            self._recognizer.use(change.rung)
            # What the change itself took is not what the rung takes.
            self._load, self._cpu_s = _Load(), self._cpu_clock()

    def _reading(self) -> Reading:
        throttled: tuple[str, ...] = ()
        if self._throttle:
            self._throttle.sample()
            throttled = self._throttle.seen()
            self._throttle.forget()
        budget = self._budget
        return Reading(
            self._read_s,
            self._load.rtf,
            temperature_c(self._root) if budget.max_temperature_c is not None else None,
            throttled,
            battery_percent(self._root) if budget.min_battery_percent is not None else None,
            self._backlog_s() if self._backlog_s else None,
        )


class _Load:
    """Processor time over time of audio, of late."""

    def __init__(self) -> None:
        self._spans: deque[tuple[float, float]] = deque()
        self._cpu_s = self._audio_s = 0.0

    def add(self, cpu_s: float, audio_s: float) -> None:
        self._spans.append((cpu_s, audio_s))
        self._cpu_s, self._audio_s = self._cpu_s + cpu_s, self._audio_s + audio_s
        while self._audio_s - self._spans[0][1] >= _WINDOW_S:
            old_cpu_s, old_audio_s = self._spans.popleft()
            self._cpu_s, self._audio_s = self._cpu_s - old_cpu_s, self._audio_s - old_audio_s

    @property
    def rtf(self) -> float | None:
        """None until there was enough of it."""
        return max(0.0, self._cpu_s) / self._audio_s if self._audio_s >= _WINDOW_S else None


def _missing(budget: Budget, root: Path) -> list[str]:
    """Limits that mean nothing here, since nothing measures what they limit."""
    missing = []
    if budget.max_temperature_c is not None and temperature_c(root) is None:
        missing.append("nothing here says the temperature: its limit changes nothing")
    if budget.min_battery_percent is not None and not has_battery(root):
        missing.append("there is no battery here: its limit changes nothing")
    return missing
