"""How loud a microphone is, and whether something is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgeasr.audio import Waveform
from edgeasr.capture.losses import Say

_LEAST = 1e-10  # -100 dBFS, as a mean square
_FULL_SCALE = 0.999
_BAR = "▏▎▍▌▋▊▉█"
_BAR_DB = (-60.0, 0.0)


class Level(NamedTuple):
    """Of some samples: dBFS, and shares of full scale or of the samples.

    rms_db:  without the offset
    clipped: share of samples at full scale
    """

    rms_db: float
    peak_db: float
    clipped: float
    offset: float

    @classmethod
    def of(cls, samples: Waveform) -> Level:
        """(num_samples,) float32, not empty."""
        offset = float(samples.mean())
        magnitude = np.abs(samples)
        centred = samples - np.float32(offset)
        power = max(float(centred @ centred) / len(samples), _LEAST)
        peak = max(float(magnitude.max()), math.sqrt(_LEAST))
        clipped = np.count_nonzero(magnitude >= _FULL_SCALE) / len(samples)
        return cls(10 * math.log10(power), 20 * math.log10(peak), clipped, offset)

    def bar(self, width: int = 10) -> str:
        """From -60 dBFS to full scale in so many characters, and the number; ! where samples are at full scale."""
        low, high = _BAR_DB
        eighths = round(8 * width * min(max((self.rms_db - low) / (high - low), 0), 1))
        full, rest = divmod(eighths, 8)
        bar = (_BAR[-1] * full + (_BAR[rest - 1] if rest else "")).ljust(width)
        return f"▕{bar}▏{self.rms_db:4.0f} dB{'!' if self.clipped else ' '}"


class _Fault:
    """One thing that can be wrong: said once it was so for some time, and again after a minute without it."""

    def __init__(self, message: str, after_s: float, again_s: float = 60.0) -> None:
        self.message = message
        self._after_s, self._again_s = after_s, again_s
        self._lasted_s = 0.0
        self._without_s = again_s
        self._is_said = False

    def lasts(self, seconds: float, *, is_so: bool) -> bool:
        """Whether it is to be said now."""
        self._lasted_s = self._lasted_s + seconds if is_so else 0.0
        self._without_s = 0.0 if is_so else self._without_s + seconds
        if self._without_s >= self._again_s:
            self._is_said = False
        if self._is_said or self._lasted_s < self._after_s:
            return False
        self._is_said = True
        return True


class LevelWatch:
    """Listens for a microphone that is dead or muted, too loud, or off zero, and says so in a line, rarely.

    name: of the source
    say:  takes a line of text
    """

    WINDOW_S = 1.0
    MUTED_DB = -84.0  # two steps of 16 bits: no room is so quiet, no amplifier so free of noise
    CLIPPED = 1e-3
    OFFSET = 0.05

    def __init__(self, name: Callable[[], str], say: Say) -> None:
        self._name, self._say = name, say
        self._levels: list[tuple[float, Level]] = []
        self._muted = _Fault(
            "gives no sound at all: is it muted, or its gain at zero? See alsamixer or pavucontrol", 10.0
        )
        self._clipped = _Fault("is too loud, its samples reach full scale: turn its gain down, see alsamixer", 3.0)
        self._offset = _Fault("has an offset, which is taken out but leaves less room for loud voices", 5.0)

    def accept(self, level: Level, seconds: float) -> None:
        """The level of the next so many seconds."""
        self._levels.append((seconds, level))
        total_s = math.fsum(seconds for seconds, _ in self._levels)
        if total_s < self.WINDOW_S:
            return
        levels, self._levels = self._levels, []
        muted = all(level.peak_db < self.MUTED_DB or level.rms_db <= -99 for _, level in levels)
        clipped = math.fsum(seconds * level.clipped for seconds, level in levels) / total_s > self.CLIPPED
        offset = math.fsum(seconds * level.offset for seconds, level in levels) / total_s
        for fault, is_so in (
            (self._muted, muted),
            (self._clipped, clipped),
            (self._offset, abs(offset) > self.OFFSET and not muted),
        ):
            if fault.lasts(total_s, is_so=is_so):
                self._say(f"{self._name()} {fault.message}")
