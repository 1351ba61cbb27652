"""How near operators and steps come to what the machine can do (Williams et al. 2009, "Roofline").

An operator can be no faster than its bytes take from where they lie, nor than its multiply-adds take. Weights and state
come from the level of cache (or memory) that holds all of a step's, since each step goes through all of them; what an
operator gets from the one before it, from the level that holds that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeasr.profile.machine import CacheLevel, Machine, nearest_below
from edgeasr.profile.operators import GraphProfile, Operator

Bound = Literal["memory", "compute"]


@dataclass(frozen=True)
class Placement:
    """A time beside its floors. gb_per_s, gop_per_s: achieved; a multiply-add is two operations"""

    time_us: float
    memory_floor_us: float
    compute_floor_us: float
    moved_bytes: int
    macs: int

    @property
    def floor_us(self) -> float:
        return max(self.memory_floor_us, self.compute_floor_us)

    @property
    def bound(self) -> Bound:
        return "memory" if self.memory_floor_us >= self.compute_floor_us else "compute"

    @property
    def roof_share(self) -> float:
        """1 at the roof. Clocks are not exact, so a short operator may stand above it."""
        return self.floor_us / self.time_us if self.time_us > 0 else 1.0

    @property
    def times_floor(self) -> float:
        """Times the floor, as what one could save."""
        return self.time_us / self.floor_us if self.floor_us > 0 else 0.0

    @property
    def gb_per_s(self) -> float:
        return self.moved_bytes / self.time_us / 1e3 if self.time_us > 0 else 0.0

    @property
    def gop_per_s(self) -> float:
        return 2 * self.macs / self.time_us / 1e3 if self.time_us > 0 else 0.0

    @property
    def intensity(self) -> float:
        return 2 * self.macs / self.moved_bytes if self.moved_bytes else 0.0


def working_set_bytes(profile: GraphProfile) -> int:
    """What every step goes through again: all weights, and the state as it is read and as it is written."""
    return profile.weight_bytes + profile.state_bytes


def place_operator(operator: Operator, profile: GraphProfile, machine: Machine) -> Placement:
    """An operator of a profile on a machine."""
    work = operator.work
    far = machine.gb_per_s(working_set_bytes(profile), profile.threads)
    near = machine.gb_per_s(max(1, work.activation_bytes), profile.threads)
    return Placement(
        operator.time_us,
        memory_floor_us=(work.weight_bytes + work.state_bytes) / far / 1e3 + work.activation_bytes / near / 1e3,
        compute_floor_us=_compute_us(machine, profile.threads, work.macs, int8=work.int8),
        moved_bytes=work.moved_bytes,
        macs=work.macs,
    )


def place_step(profile: GraphProfile, machine: Machine) -> Placement:
    """A whole step: each weight and each byte of state once. What operators hand each other is no part of the floor,
    for a perfect program would keep it in registers.
    """
    moved = working_set_bytes(profile)
    threads = profile.threads
    return Placement(
        profile.step_us,
        memory_floor_us=moved / machine.gb_per_s(moved, threads) / 1e3,
        compute_floor_us=sum(
            _compute_us(machine, threads, profile.macs(int8=int8), int8=int8) for int8 in (False, True)
        ),
        moved_bytes=moved,
        macs=profile.macs(int8=False) + profile.macs(int8=True),
    )


def holding_cache(size_bytes: int, machine: Machine) -> CacheLevel | None:
    """The smallest cache that holds so much; None where only memory does."""
    fitting = [cache for cache in machine.caches if cache.size_bytes >= size_bytes]
    return min(fitting, key=lambda cache: cache.size_bytes, default=None)


def peak_gops(machine: Machine, threads: int, *, int8: bool) -> float:
    """Operations a second in 10^9, as measured with so many threads or the next lower number."""
    peaks = machine.int8_gops if int8 else machine.fp32_gflops
    return peaks[nearest_below(threads, peaks)]


def _compute_us(machine: Machine, threads: int, macs: int, *, int8: bool) -> float:
    return 2 * macs / peak_gops(machine, threads, int8=int8) / 1e3 if macs else 0.0
