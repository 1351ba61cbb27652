"""What the kernel says of the machine it runs on, read below a root that tests replace."""

from __future__ import annotations

import os
import platform
import re
import struct
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
POINTER_BITS = struct.calcsize("P") * 8

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_CPU = "sys/devices/system/cpu"

# Arm cores say who they are by numbers: implementer 0x41 is Arm's, the part is the core's.
_ARM_PARTS = {
    "0xc07": "Cortex-A7",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0b": "Cortex-A76",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
}


@dataclass(frozen=True)
class Cache:
    """A cache of data. shared_by: cores that share one of it"""

    level: int
    size_bytes: int
    shared_by: int


@dataclass(frozen=True)
class Hardware:
    """A machine as its kernel describes it; what is not said is empty or 0.

    model:          of the board, where the device tree names one
    architecture:   as `uname -m` has it
    cpu:            name of the cores
    features:       instruction set extensions, as in /proc/cpuinfo
    max_clock_hz:   of the fastest core
    """

    model: str
    architecture: str
    cpu: str
    cores: int
    features: tuple[str, ...]
    caches: tuple[Cache, ...]
    memory_bytes: int
    max_clock_hz: float


def read_hardware(root: Path = ROOT, architecture: str | None = None) -> Hardware:
    """The machine whose /proc and /sys lie below `root`. architecture: that of this process unless given"""
    cpuinfo = _text(root / "proc/cpuinfo")
    return Hardware(
        model=_text(root / "proc/device-tree/model").strip("\0 \n"),
        architecture=architecture or platform.machine(),
        cpu=_cpu_name(cpuinfo),
        cores=_cores(root, cpuinfo),
        features=_features(cpuinfo),
        caches=_caches(root),
        memory_bytes=_kilobytes(_after(_text(root / "proc/meminfo"), "MemTotal")),
        max_clock_hz=_max_clock_hz(root, cpuinfo),
    )


def program_architecture(architecture: str | None = None, pointer_bits: int = POINTER_BITS) -> str:
    """What packages are chosen by: a 64-bit kernel says aarch64 to programs of 32 bits too, for which others are made.

    architecture, pointer_bits: of the kernel and of a program; those of this process unless given
    """
    machine = architecture or platform.machine()
    return "armv8l" if pointer_bits == 32 and machine == "aarch64" else machine


def usable_cores() -> int:
    """Cores that this process may run on: fewer than the machine has in many a container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _after(text: str, key: str) -> str:
    """The value of the first line `key : value`, or an empty string."""
    found = re.search(rf"^{key}[ \t]*:[ \t]*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _size(text: str) -> int:
    """Bytes of a size such as "512K"; 0 for what is none."""
    found = re.fullmatch(r"(\d+)\s*([KMG]?)", text.strip())
    return int(found[1]) * _UNITS[found[2]] if found else 0


def _cpu_name(cpuinfo: str) -> str:
    part = _after(cpuinfo, "CPU part").lower()
    return _after(cpuinfo, "model name") or _ARM_PARTS.get(part, f"Arm part {part}" if part else "unknown CPU")


def _features(cpuinfo: str) -> tuple[str, ...]:
    return tuple(sorted(set((_after(cpuinfo, "Features") or _after(cpuinfo, "flags")).split())))


def _cores(root: Path, cpuinfo: str) -> int:
    present = _count(_text(root / _CPU / "present"))
    return present or len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or 1


def _count(ranges: str) -> int:
    """How many CPUs a list such as "0-3,5" holds."""
    total = 0
    for part in filter(None, ranges.strip().split(",")):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


def _caches(root: Path) -> tuple[Cache, ...]:
    found = []
    for folder in sorted((root / _CPU / "cpu0/cache").glob("index*")):
        level, size = _text(folder / "level").strip(), _size(_text(folder / "size"))
        if _text(folder / "type").strip() in ("Data", "Unified") and level.isdigit() and size:
            found.append(Cache(int(level), size, _count(_text(folder / "shared_cpu_list")) or 1))
    return tuple(sorted(found, key=lambda cache: cache.level))


def _max_clock_hz(root: Path, cpuinfo: str) -> float:
    limits = [_text(path).strip() for path in (root / _CPU).glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq")]
    khz = max((float(limit) for limit in limits if limit.isdigit()), default=0.0)
    return khz * 1e3 or float(_after(cpuinfo, "cpu MHz") or 0.0) * 1e6


def available_memory_bytes(root: Path = ROOT) -> int:
    """Memory that is free to use, within the limit of a container; 0 if unknown."""
    free = _kilobytes(_after(_text(root / "proc/meminfo"), "MemAvailable"))
    limit, used = (_text(root / "sys/fs/cgroup" / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdigit() and used.isdigit():
        left = max(0, int(limit) - int(used))
        return min(free, left) if free else left
    return free


def _kilobytes(text: str) -> int:
    """Bytes of a line of /proc such as "1024 kB"; 0 for what is none."""
    number = text.removesuffix("kB").strip()
    return int(number) * 1024 if number.isdigit() else 0
