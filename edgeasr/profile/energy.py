"""Energy that the machine takes: RAPL's counters on x86, the INA3221 of Jetsons."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from edgeasr.profile.sysfs import read_number, read_text


class EnergyMeter(Protocol):
    """name: what it measures"""

    name: str

    def sample(self) -> None:
        """Read now; to be called again and again, first when the measurement begins."""

    def joules(self) -> float:
        """Between the first and the last sample."""


def energy_meter(root: Path) -> EnergyMeter | None:
    """The meter of this machine; None where it has none that may be read."""
    packages = [
        zone
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if zone.name.count(":") == 1 and read_number(zone / "energy_uj") is not None
    ]
    if packages:
        return RaplMeter(packages)
    power = _jetson_power(root)
    return PowerMeter("the board by its INA3221", power) if power else None


class RaplMeter:
    """Counters of microjoules that begin again at their end. AMD's have the same names."""

    name = "processor packages by RAPL"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._last: dict[Path, float] = {}
        self._microjoules = 0.0

    def sample(self) -> None:
        for zone in self._zones:
            now = read_number(zone / "energy_uj")
            if now is None:
                continue
            used = now - self._last.get(zone, now)
            if used < 0:
                used += read_number(zone / "max_energy_range_uj") or 0.0
            self._microjoules += max(0.0, used)
            self._last[zone] = now

    def joules(self) -> float:
        return self._microjoules / 1e6


class PowerMeter:
    """A power that is read again and again; between two readings it is taken to change evenly.

    power_w: reads it, None where it cannot
    clock:   seconds
    """

    def __init__(
        self, name: str, power_w: Callable[[], float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._power_w, self._clock = power_w, clock
        self._last: tuple[float, float] | None = None
        self._joules = 0.0

    def sample(self) -> None:
        power, now = self._power_w(), self._clock()
        if power is None:
            return
        if self._last:
            before, last_power = self._last
            self._joules += (now - before) * (power + last_power) / 2
        self._last = now, power

    def joules(self) -> float:
        return self._joules


def _jetson_power(root: Path) -> Callable[[], float | None] | None:
    """Watts of the first channel, which is the board's whole supply. Kernels before 5 had a driver of their own."""
    for path in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/in_power0_input")):
        if read_number(path) is not None:
            return partial(_milliwatts, path)
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if read_text(folder / "name") == "ina3221" and read_number(folder / "in1_input") is not None:
            return partial(_millivolts_milliamperes, folder)
    return None


def _milliwatts(path: Path) -> float | None:
    power = read_number(path)
    return None if power is None else power * 1e-3


def _millivolts_milliamperes(folder: Path) -> float | None:
    volts, amperes = read_number(folder / "in1_input"), read_number(folder / "curr1_input")
    return None if volts is None or amperes is None else volts * amperes * 1e-6
