"""What sensors say while something runs: the process by /proc, the machine by /sys. None of them is everywhere."""

from __future__ import annotations

import math
import resource
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeasr.profile.energy import EnergyMeter, energy_meter
from edgeasr.profile.sysfs import read_number, read_text
from edgeasr.profile.throttling import ThrottleMeter, throttle_meter

ROOT = Path("/")
PERIOD_S = 0.5
_CPU = "sys/devices/system/cpu"
# What thermal zones of processors call themselves; where none does, the hottest counts.
_CPU_ZONES = ("cpu", "soc", "x86_pkg", "tj")
_MEMORY_PARTS = {"anonymous": "RssAnon", "file": "RssFile", "shared": "RssShmem"}


@dataclass(frozen=True)
class Span:
    """Of what was read several times."""

    lowest: float
    mean: float
    highest: float


@dataclass(frozen=True)
class Readings:
    """What a run took, and how the machine fared. None: it could not be read, `missing` says why.

    cpu_s:            of the process, in all threads
    rss_bytes:        resident memory at the end; peak_rss_bytes: at most, since the process began
    memory_parts:     of the resident memory: anonymous, file, shared
    minor_faults, major_faults, voluntary_switches, involuntary_switches: of the process during the run
    throttled:        what held the processor back during the run; empty for nothing
    energy_j:         of what energy_of names, the whole machine's
    """

    duration_s: float
    cpu_s: float
    rss_bytes: int | None
    peak_rss_bytes: int
    memory_parts: Mapping[str, int]
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int
    temperature_c: Span | None
    clock_hz: Span | None
    throttled: tuple[str, ...] | None
    energy_j: float | None
    energy_of: str
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass
class _Series:
    """Numbers that are read again and again; those that cannot be read are left out."""

    values: list[float] = field(default_factory=list)

    def add(self, value: float | None) -> None:
        if value is not None:
            self.values.append(value)

    def span(self) -> Span | None:
        if not self.values:
            return None
        return Span(min(self.values), math.fsum(self.values) / len(self.values), max(self.values))


class Sampler:
    """Reads sensors from `start` to `stop`, or around a with block; then `readings` is what they said.

    root: below which /proc and /sys lie
    """

    readings: Readings  # once it has stopped

    def __init__(self, root: Path = ROOT, period_s: float = PERIOD_S) -> None:
        self._root, self._period_s = root, period_s
        self._temperatures, self._clocks = _Series(), _Series()
        self._throttle: ThrottleMeter | None = throttle_meter(root)
        self._energy: EnergyMeter | None = energy_meter(root)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample_all, name="sensors", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to read."""
        self._began_s, self._began_cpu_s = time.monotonic(), time.process_time()
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._sample()
        self._thread.start()

    def stop(self) -> Readings:
        """Read a last time."""
        cpu_s, duration_s = time.process_time() - self._began_cpu_s, time.monotonic() - self._began_s
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._stopped.set()
        self._thread.join()
        self._sample()
        memory = _memory(self._root)
        self.readings = Readings(
            duration_s=duration_s,
            cpu_s=cpu_s,
            rss_bytes=sum(memory.values()) if memory else None,
            # The kernel counts the peak in portions, and may be some pages behind what it lists.
            peak_rss_bytes=max(usage.ru_maxrss * 1024, sum(memory.values())),
            memory_parts=memory,
            minor_faults=usage.ru_minflt - self._usage.ru_minflt,
            major_faults=usage.ru_majflt - self._usage.ru_majflt,
            voluntary_switches=usage.ru_nvcsw - self._usage.ru_nvcsw,
            involuntary_switches=usage.ru_nivcsw - self._usage.ru_nivcsw,
            temperature_c=self._temperatures.span(),
            clock_hz=self._clocks.span(),
            throttled=self._throttle.seen() if self._throttle else None,
            energy_j=self._energy.joules() if self._energy else None,
            energy_of=self._energy.name if self._energy else "",
            missing=self._missing(memory),
        )
        return self.readings

    def _sample_all(self) -> None:
        while not self._stopped.wait(self._period_s):
            self._sample()

    def _sample(self) -> None:
        self._temperatures.add(temperature_c(self._root))
        self._clocks.add(clock_hz(self._root))
        for meter in (self._throttle, self._energy):
            if meter:
                meter.sample()

    def _missing(self, memory: Mapping[str, int]) -> tuple[str, ...]:
        reasons = {
            "parts of the memory: no RssAnon in /proc/self/status": not memory,
            "temperature: no sensor in /sys/class/thermal and /sys/class/hwmon": not self._temperatures.values,
            f"clock: no cpufreq in /{_CPU}": not self._clocks.values,
            "throttling: neither get_throttled nor thermal_throttle, as Raspberry Pis and x86 have": not self._throttle,
            "energy: no RAPL counter that may be read (root may), and no INA3221": not self._energy,
        }
        return tuple(reason for reason, is_missing in reasons.items() if is_missing)


def temperature_c(root: Path = ROOT) -> float | None:
    """The processor's, or the hottest that there is; None without a sensor."""
    zones = {
        folder: value
        for folder in (root / "sys/class/thermal").glob("thermal_zone*")
        if (value := read_number(folder / "temp")) is not None
    }
    of_cpu = [value for folder, value in zones.items() if read_text(folder / "type").lower().startswith(_CPU_ZONES)]
    others = [read_number(path) for path in (root / "sys/class/hwmon").glob("hwmon*/temp*_input")]
    found = of_cpu or list(zones.values()) or [value for value in others if value is not None]
    return max(found) / 1000 if found else None


def clock_hz(root: Path = ROOT) -> float | None:
    """Of the fastest core now; None where the kernel does not say."""
    clocks = [read_number(path) for path in (root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return max((clock * 1e3 for clock in clocks if clock is not None), default=None)


def _memory(root: Path) -> dict[str, int]:
    """Parts of the resident memory in bytes; empty where the kernel does not say."""
    lines = dict(line.split(":", 1) for line in read_text(root / "proc/self/status").splitlines() if ":" in line)
    if not all(key in lines for key in _MEMORY_PARTS.values()):
        return {}
    return {part: int(lines[key].split()[0]) * 1024 for part, key in _MEMORY_PARTS.items()}
