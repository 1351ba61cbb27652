"""Which profile fits the machine: by what its kernel says, its features and caches, never by a name alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeasr.devices.hardware import ROOT, Cache, Hardware, read_hardware
from edgeasr.devices.profile import DeviceProfile, device_profile, device_profiles

# The least that a cache moves, where no profile says it of a level.
_BYTES_PER_CYCLE = 8.0
_GENERIC = {"x86_64": "generic-x86-64", "amd64": "generic-x86-64"}
_OTHERWISE = "generic-aarch64"
# 32-bit kernels have another name for the vectors of the same core.
_ALSO_CALLED = {"neon": "asimd"}


@dataclass(frozen=True)
class Detected:
    """The profile of a machine.

    profile: of a board; or the nearest generic one, with what the kernel says of this machine in it
    known:   whether it is a board's
    notes:   what was assumed, for a reader
    """

    profile: DeviceProfile
    known: bool
    hardware: Hardware
    notes: tuple[str, ...]


def detect(root: Path = ROOT, architecture: str | None = None) -> Detected:
    """The machine whose /proc and /sys lie below `root`. architecture: that of this process unless given"""
    hardware = read_hardware(root, architecture)
    board = next((one for one in device_profiles() if hardware.model.startswith(one.models or ("\0",))), None)
    notes = _system_notes(hardware)
    if board is None:
        called = f"the board {hardware.model!r} has" if hardware.model else "a machine without a device tree has"
        return _nearest(hardware, (*notes, f"{called} no profile of its own"))
    absent = _absent(board, hardware)
    if absent:
        return _nearest(hardware, (*notes, f"it is called {hardware.model!r}, but {absent}"))
    return Detected(board, True, hardware, notes)


def _absent(board: DeviceProfile, hardware: Hardware) -> str:
    """What of a board's profile this machine has not; empty if it has all."""
    has = {_ALSO_CALLED.get(feature, feature) for feature in hardware.features}
    lacking = [feature for feature in board.features if feature not in has]
    if lacking:
        return f"its cores lack {', '.join(lacking)}"
    if hardware.cores > board.cores:
        return f"it has {hardware.cores} cores, not {board.cores}"
    return ""


def _system_notes(hardware: Hardware) -> tuple[str, ...]:
    if hardware.architecture.startswith("arm"):
        return ("the system is 32-bit: figures are those of a 64-bit one",)
    return ()


def _nearest(hardware: Hardware, notes: tuple[str, ...]) -> Detected:
    """The generic profile of the architecture, with what is known of this machine in the place of what it assumes."""
    generic = device_profile(_GENERIC.get(hardware.architecture, _OTHERWISE))
    caches = hardware.caches or generic.caches
    found = replace(
        generic,
        title=hardware.model or hardware.cpu,
        core=hardware.cpu,
        cores=hardware.cores,
        clock_hz=hardware.max_clock_hz or generic.clock_hz,
        memory_bytes=(hardware.memory_bytes,) if hardware.memory_bytes else generic.memory_bytes,
        features=hardware.features or generic.features,
        caches=caches,
        bytes_per_cycle=tuple(_bytes_per_cycle(generic, cache) for cache in caches),
        sources=replace(generic.sources, caches="sizes: the kernel; bytes a cycle: assumed")
        if hardware.caches
        else generic.sources,
    )
    assumed = f"taken for the nearest, {generic.name}: bandwidth and arithmetic are assumed, `edgeasr profile` measures"
    return Detected(found, False, hardware, (*notes, assumed))


def _bytes_per_cycle(generic: DeviceProfile, cache: Cache) -> float:
    levels = zip(generic.caches, generic.bytes_per_cycle, strict=True)
    return next((rate for known, rate in levels if known.level == cache.level), _BYTES_PER_CYCLE)
