"""How much effort goes into recognition, and when it changes: rungs from the best to the cheapest, and a budget.

A `Ladder` depends on the readings that it was given and on nothing else; clocks and sensors are the governor's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

from edgeasr.config import require
from edgeasr.model import AcousticModel

# Of the beam that a bundle was tuned to, on a cheaper rung.
_NARROW_BEAM = 4 / 7
_NARROW_PREFIXES = 1 / 8
# What a rung is taken to cost beside the next cheaper one until it was measured, and at most.
_USUAL_GROWTH = 1.5
_LARGEST_GROWTH = 3.0


@dataclass(frozen=True)
class Rung:
    """What is done with a chunk.

    decoder:            "lm", "greedy" or "grammar"
    chunk_ms, threads:  of the encoder's steps
    beam, max_prefixes: of lm, as in `SearchConfig`; None for what the bundle says
    exit_depth:         blocks of the encoder that run; None for all, which is all that bundles can do so far
    """

    decoder: str
    chunk_ms: int
    threads: int = 1
    beam: float | None = None
    max_prefixes: int | None = None
    exit_depth: int | None = None

    def __str__(self) -> str:
        beam = f", beam {self.beam:g} of {self.max_prefixes} prefixes" if self.beam is not None else ""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.decoder}{beam}, chunks of {self.chunk_ms} ms, {threads}"


def rungs_for(model: AcousticModel, decoder: str) -> tuple[Rung, ...]:
    """Every rung that a model has, the best first: its own threads, then one, longer chunks, a narrower beam, greedy.

    So words are lost last: longer chunks cost a listener time, the others words.

    decoder: of the best rung, "lm" or "greedy"; or "grammar", which has no other rungs than chunks and threads
    """
    graph = model.word_graph if decoder == "lm" else None
    config = graph.config if graph else None
    best = Rung(decoder, model.config.chunk_ms, model.threads)
    if config:
        best = replace(best, beam=config.beam, max_prefixes=config.max_prefixes)
    rungs = [best]
    if best.threads > 1:
        rungs.append(replace(rungs[-1], threads=1))
    rungs += [replace(rungs[-1], chunk_ms=ms) for ms in model.chunk_lengths_ms if ms > best.chunk_ms]
    if config:
        prefixes = math.ceil(config.max_prefixes * _NARROW_PREFIXES)
        rungs.append(replace(rungs[-1], beam=config.beam * _NARROW_BEAM, max_prefixes=prefixes))
    if decoder == "lm":
        rungs.append(replace(rungs[-1], decoder="greedy", beam=None, max_prefixes=None))
    return tuple(rungs)


@dataclass(frozen=True)
class Budget:
    """What may be taken; None: as much as is wanted. Errors: ConfigError for what is no budget.

    max_rtf:             processor time for a second of audio
    max_temperature_c:   of the processor
    min_battery_percent: below it, while nothing charges it
    max_backlog_s:       of audio that was heard and waits
    """

    max_rtf: float | None = None
    max_temperature_c: float | None = None
    min_battery_percent: float | None = None
    max_backlog_s: float | None = None

    def __post_init__(self) -> None:
        given = {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
        require(bool(given), f"got a budget without a limit, wanted one of {', '.join(f.name for f in fields(self))}")
        for name, value in given.items():
            require(0 < value < math.inf, f"got {name} {value}, wanted a number above 0")

    @property
    def spares_the_board(self) -> bool:
        """Whether there is a limit to what the board is to do, and not only to being late."""
        return (self.max_rtf, self.max_temperature_c, self.min_battery_percent) != (None, None, None)


@dataclass(frozen=True)
class Pace:
    """How soon a ladder changes; seconds, or room that there has to be below a limit.

    over_s:    so long over the budget before a step down; none where the processor is throttled or the battery low
    late_s:    so long behind before a step down, and from one to the next
    settle_s:  from one change to a step down; cool_s where heat is the reason, which takes longer to go
    clear_s:   so long with room before a step up; doubled, up to longest_clear_s, each time that a step up was
               taken back within forget_s
    rtf_room:  the RTF to be expected after a step up, times this, is within the budget; backlog_room: the backlog
    """

    over_s: float = 5.0
    late_s: float = 3.0
    settle_s: float = 10.0
    cool_s: float = 60.0
    clear_s: float = 30.0
    longest_clear_s: float = 3600.0
    forget_s: float = 1800.0
    rtf_room: float = 1.2
    temperature_room_c: float = 5.0
    battery_room_percent: float = 5.0
    backlog_room: float = 4.0


class Reading(NamedTuple):
    """What was read at a time; None and empty: not known, or nothing.

    rtf:             of late, since the last change at most
    throttled:       what holds the processor back
    battery_percent: while nothing charges it
    """

    at_s: float
    rtf: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    battery_percent: float | None = None
    backlog_s: float | None = None


class Change(NamedTuple):
    """To another rung, or that there is none that is cheaper."""

    to: Literal["down", "up", "stay"]
    rung: Rung
    reason: str

    def __str__(self) -> str:
        where = f"stays on {self.rung}, nothing is cheaper" if self.to == "stay" else f"{self.to} to {self.rung}"
        return f"{where}: {self.reason}"


class _Excess(NamedTuple):
    """Why it is too much; how long it has to be so, and how long after a change that counts."""

    reason: str
    patience_s: float
    settle_s: float


class Ladder:
    """Which rung to be on, from one reading to the next. It begins with the best.

    A step up that is taken back makes the next one wait longer: so it changes the less often, the less that helps.

    rungs: the best first, each cheaper than the one before
    """

    def __init__(self, rungs: Sequence[Rung], budget: Budget, pace: Pace | None = None) -> None:
        self._rungs, self._budget, self._pace = tuple(rungs), budget, pace or Pace()
        self._at = 0
        self._changed_s = -math.inf
        self._came_up = False
        self._over_since_s: float | None = None
        self._clear_since_s: float | None = None
        self._said = False  # that nothing is cheaper
        self._wait_s = [self._pace.clear_s] * len(self._rungs)  # with room, before a step up to each
        self._growth = [_USUAL_GROWTH] * len(self._rungs)  # cost of each beside the next
        self._recent: deque[Reading] = deque()  # on this rung, with an RTF
        self._last_before: Reading | None = None  # on the rung before, with the mean RTF there

    @property
    def rung(self) -> Rung:
        """The present one."""
        return self._rungs[self._at]

    def read(self, reading: Reading) -> Change | None:
        """What to do now; None for nothing new. Readings come in the order of their times."""
        self._measure(reading)
        excesses = self._excesses(reading)
        if excesses:
            return self._over(reading, excesses)
        self._over_since_s, self._said = None, False
        return self._within(reading)

    def _over(self, reading: Reading, excesses: Sequence[_Excess]) -> Change | None:
        self._clear_since_s = None
        if self._over_since_s is None:
            self._over_since_s = reading.at_s
        over_s = reading.at_s - self._over_since_s
        pressing = [one for one in excesses if over_s >= one.patience_s and not self._settles(reading, one.settle_s)]
        if pressing and self._at < len(self._rungs) - 1:
            return self._down(reading, pressing[0].reason)
        if not pressing or self._said:
            return None
        self._said = True
        return Change("stay", self.rung, pressing[0].reason)

    def _within(self, reading: Reading) -> Change | None:
        if self._at == 0 or not self._has_room(reading):
            self._clear_since_s = None
            return None
        if self._clear_since_s is None:
            self._clear_since_s = reading.at_s
        clear_s, wait_s = reading.at_s - self._clear_since_s, self._wait_s[self._at - 1]
        if clear_s < wait_s or not (self._fits(reading) or clear_s >= self._pace.longest_clear_s):
            return None
        self._go(reading, self._at - 1, came_up=True)
        return Change("up", self.rung, f"room for {clear_s:.0f} s")

    def _down(self, reading: Reading, reason: str) -> Change:
        if self._came_up:
            soon = reading.at_s - self._changed_s < self._pace.forget_s
            longer_s = min(2 * self._wait_s[self._at], self._pace.longest_clear_s)
            self._wait_s[self._at] = longer_s if soon else self._pace.clear_s
        self._go(reading, self._at + 1, came_up=False)
        return Change("down", self.rung, reason)

    def _go(self, reading: Reading, to: int, *, came_up: bool) -> None:
        mean = self._mean_rtf(bool(reading.throttled))
        self._last_before = reading._replace(rtf=mean) if mean else None
        self._recent.clear()
        self._at, self._changed_s, self._came_up = to, reading.at_s, came_up
        self._over_since_s = self._clear_since_s = None

    def _settles(self, reading: Reading, settle_s: float) -> bool:
        return reading.at_s - self._changed_s < settle_s

    def _excesses(self, reading: Reading) -> list[_Excess]:
        """What is over the budget."""
        budget, pace, found = self._budget, self._pace, []
        if reading.throttled:
            found.append(_Excess(", ".join(reading.throttled), 0.0, pace.cool_s))
        if _above(budget.min_battery_percent, reading.battery_percent):
            reason = f"battery at {reading.battery_percent:.0f} %, below {budget.min_battery_percent:g} %"
            found.append(_Excess(reason, 0.0, pace.settle_s))
        if _above(reading.rtf, budget.max_rtf):
            reason = f"RTF {reading.rtf:.3f}, above {budget.max_rtf:g}"
            found.append(_Excess(reason, pace.over_s, pace.settle_s))
        if _above(reading.temperature_c, budget.max_temperature_c):
            reason = f"{reading.temperature_c:.1f} °C, above {budget.max_temperature_c:g} °C"
            found.append(_Excess(reason, pace.over_s, pace.cool_s))
        if _above(reading.backlog_s, budget.max_backlog_s):
            reason = f"{reading.backlog_s:.1f} s behind, more than {budget.max_backlog_s:g} s"
            found.append(_Excess(reason, pace.late_s, pace.late_s))
        return found

    def _has_room(self, reading: Reading) -> bool:
        """Whether it is clearly within the budget here."""
        budget, pace = self._budget, self._pace
        warm = _above(_plus(reading.temperature_c, pace.temperature_room_c), budget.max_temperature_c)
        low = _above(_plus(budget.min_battery_percent, pace.battery_room_percent), reading.battery_percent)
        busy = budget.max_rtf is not None and (reading.rtf is None or reading.rtf * pace.rtf_room > budget.max_rtf)
        backlog_s = None if reading.backlog_s is None else reading.backlog_s * pace.backlog_room
        late = _above(backlog_s, budget.max_backlog_s)
        return not (warm or low or busy or late)

    def _fits(self, reading: Reading) -> bool:
        """Whether it is to be expected that the next better rung is within the budget of processor time."""
        if self._budget.max_rtf is None or reading.rtf is None:
            return True
        expected = max(one.rtf for one in self._recent if one.rtf is not None) * self._growth[self._at - 1]
        return expected * self._pace.rtf_room <= self._budget.max_rtf

    def _measure(self, reading: Reading) -> None:
        """What this rung costs beside the one before the last change, from as long before it as after it.

        A processor that is throttled compares with one that is throttled.
        """
        if reading.rtf is None:
            return
        span_s = self._pace.clear_s
        while self._recent and self._recent[0].at_s < reading.at_s - span_s:
            self._recent.popleft()
        self._recent.append(reading)
        before = self._last_before
        now = self._mean_rtf(bool(before.throttled)) if before else None
        if before and before.rtf and now and self._settles(reading, span_s):
            upper = self._at if self._came_up else self._at - 1
            growth = now / before.rtf if self._came_up else before.rtf / now
            self._growth[upper] = min(max(1.0, growth), _LARGEST_GROWTH)

    def _mean_rtf(self, throttled: bool) -> float | None:
        """Of late on this rung, while the processor was or was not throttled."""
        found = [one.rtf for one in self._recent if one.rtf is not None and bool(one.throttled) == throttled]
        return math.fsum(found) / len(found) if found else None


def _above(value: float | None, limit: float | None) -> bool:
    """Whether both are known, and the value is above the limit."""
    return value is not None and limit is not None and value > limit


def _plus(value: float | None, room: float) -> float | None:
    return None if value is None else value + room
