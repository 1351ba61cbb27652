"""What is known of a board before one is at hand: a TOML file each, with the source of its figures."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Self

from edgeasr.config import FrozenConfig, require
from edgeasr.devices.hardware import Cache
from edgeasr.errors import ConfigError

_MEGABYTE = 2**20


@dataclass(frozen=True)
class Bandwidth(FrozenConfig):
    """Of DRAM, by one thread.

    theoretical_gb_per_s: of the bus
    memcpy_mb_per_s:      copied bytes, counted once
    memset_mb_per_s:      written bytes
    """

    theoretical_gb_per_s: float
    memcpy_mb_per_s: float
    memset_mb_per_s: float


@dataclass(frozen=True)
class Arithmetic(FrozenConfig):
    """Of one core. A multiply-add is two operations.

    single_thread_mips: 7-zip's rating, for what is neither memory nor products
    """

    fp32_flops_per_cycle: int
    int8_ops_per_cycle: int
    single_thread_mips: int


@dataclass(frozen=True)
class Recommendation(FrozenConfig):
    """How a recogniser is best set up. preset: the size of model"""

    backend: str
    precision: str
    threads: int
    chunk_ms: int
    preset: str


@dataclass(frozen=True)
class Sources(FrozenConfig):
    """Where the figures come from; "unverified", "computed" or "assumed" where they were not measured."""

    caches: str
    bandwidth: str
    arithmetic: str
    recommended: str


@dataclass(frozen=True)
class DeviceProfile:
    """A board.

    name:         as the commands know it
    models:       what device trees call it, at the beginning of their `model`
    core:         the name of its fastest cores
    clock_hz:     of these
    memory_bytes: the sizes it is sold with
    features:     instruction set extensions that matter here, as in /proc/cpuinfo
    caches:       of data, from the first level; bytes_per_cycle: what one core gets from each level
    """

    name: str
    title: str
    soc: str
    architecture: str
    models: tuple[str, ...]
    core: str
    cores: int
    clock_hz: float
    memory_bytes: tuple[int, ...]
    features: tuple[str, ...]
    caches: tuple[Cache, ...]
    bytes_per_cycle: tuple[float, ...]
    bandwidth: Bandwidth
    arithmetic: Arithmetic
    recommended: Recommendation
    power: str
    sources: Sources

    def __post_init__(self) -> None:
        require(self.cores > 0 and self.clock_hz > 0, f"{self.name}: cores and clock must be positive")
        require(bool(self.memory_bytes and self.caches), f"{self.name}: wanted sizes of memory, and caches")
        require(
            len(self.caches) == len(self.bytes_per_cycle), f"{self.name}: wanted bytes_per_cycle for each of the caches"
        )

    @property
    def generic(self) -> bool:
        """Whether it stands for boards that have no profile of their own."""
        return self.name.startswith("generic-")

    @property
    def dram_gb_per_s(self) -> float:
        """Of one thread; copying reads and writes, so twice what memcpy copies."""
        return 2 * self.bandwidth.memcpy_mb_per_s / 1e3

    def gb_per_s(self, working_set_bytes: float) -> float:
        """What one thread gets from the smallest cache that holds the working set, or from DRAM."""
        for level, bytes_per_cycle in zip(self.caches, self.bytes_per_cycle, strict=True):
            if working_set_bytes <= level.size_bytes:
                return bytes_per_cycle * self.clock_hz / 1e9
        return self.dram_gb_per_s

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Of the tables of a TOML file. errors: ConfigError for an unknown or missing key, or an impossible value"""
        given = dict(values)
        try:
            caches = given.pop("caches")
            profile = cls(
                memory_bytes=tuple(size * _MEGABYTE for size in given.pop("memory_mb")),
                clock_hz=given.pop("clock_mhz") * 1e6,
                models=tuple(given.pop("models")),
                features=tuple(given.pop("features")),
                caches=tuple(
                    Cache(level["level"], round(level["size_kb"] * 1024), level["shared_by"]) for level in caches
                ),
                bytes_per_cycle=tuple(level["bytes_per_cycle"] for level in caches),
                bandwidth=Bandwidth.from_dict(given.pop("bandwidth")),
                arithmetic=Arithmetic.from_dict(given.pop("arithmetic")),
                recommended=Recommendation.from_dict(given.pop("recommended")),
                sources=Sources.from_dict(given.pop("sources")),
                **given,
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(f"device profile {values.get('name', 'without a name')!r}: {error}") from error
        return profile


@cache
def device_profiles() -> tuple[DeviceProfile, ...]:
    """All that are installed, boards before generic ones, each from the slowest."""
    paths = [path for path in files("edgeasr.devices").iterdir() if path.name.endswith(".toml")]
    found = [DeviceProfile.from_dict(tomllib.loads(path.read_text(encoding="utf-8"))) for path in paths]
    return tuple(sorted(found, key=lambda one: (one.generic, one.soc.split()[0], one.arithmetic.single_thread_mips)))


def device_profile(name: str) -> DeviceProfile:
    """The profile of that name. errors: ConfigError that lists the known ones"""
    known = {profile.name: profile for profile in device_profiles()}
    if name not in known:
        raise ConfigError(f"got device {name!r}, wanted one of {', '.join(known)}")
    return known[name]
