"""What holds the processor back: a Raspberry Pi's firmware says it in bits, x86 counts how often."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from edgeasr.profile.sysfs import read_number, read_text

# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled: now; 16 bits higher, since it was started.
_BITS = {0: "supply voltage too low", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
_PI_FILES = "sys/devices/platform/soc/*/get_throttled"
_COUNTS = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"
_VCGENCMD_S = 2


class ThrottleMeter(Protocol):
    """Sampled during a run."""

    def sample(self) -> None:
        """Read now; first when the run begins."""

    def seen(self) -> tuple[str, ...]:
        """What held the processor back at or between samples."""

    def since_start(self) -> tuple[str, ...]:
        """What held the processor back at any time since the machine was started, as of the last sample."""

    def forget(self) -> None:
        """Forget what was seen; the next sample goes on from the last."""


def throttle_meter(root: Path) -> ThrottleMeter | None:
    """The meter of this machine; None where nothing says it."""
    for path in sorted(root.glob(_PI_FILES)):
        if _bits_of(path) is not None:
            return FirmwareMeter(partial(_bits_of, path))
    program = shutil.which("vcgencmd") if root == Path("/") else None
    if program and _ask(program) is not None:
        return FirmwareMeter(partial(_ask, program))
    counts = sorted(root.glob(_COUNTS))
    return CountMeter(counts) if counts else None


class FirmwareMeter:
    """Bits of a Raspberry Pi. read: None where they cannot be read"""

    def __init__(self, read: Callable[[], int | None]) -> None:
        self._read = read
        self._seen = 0

    def sample(self) -> None:
        self._seen |= self._read() or 0

    def seen(self) -> tuple[str, ...]:
        return _named(self._seen)

    def since_start(self) -> tuple[str, ...]:
        return _named(self._seen >> 16)

    def forget(self) -> None:
        self._seen = 0


class CountMeter:
    """x86's count of how often a core was throttled."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._first: float | None = None
        self._last = 0.0

    def sample(self) -> None:
        self._last = sum(read_number(path) or 0.0 for path in self._paths)
        if self._first is None:
            self._first = self._last

    def seen(self) -> tuple[str, ...]:
        return _counted(round(self._last - (self._first or 0.0)))

    def since_start(self) -> tuple[str, ...]:
        return _counted(round(self._last))

    def forget(self) -> None:
        self._first = self._last if self._first is not None else None


def _named(bits: int) -> tuple[str, ...]:
    return tuple(what for bit, what in _BITS.items() if bits >> bit & 1)


def _counted(times: int) -> tuple[str, ...]:
    return (f"throttled {times} time{'s' * (times > 1)}",) if times > 0 else ()


def _bits(text: str) -> int | None:
    """Of "50005", which is hexadecimal without saying so, or "throttled=0x50005"."""
    try:
        return int(text.rpartition("=")[2], 16)
    except ValueError:
        return None


def _bits_of(path: Path) -> int | None:
    return _bits(read_text(path))


def _ask(program: str) -> int | None:
    try:
        done = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=_VCGENCMD_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _bits(done.stdout.strip())
