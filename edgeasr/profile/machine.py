"""What this machine can do: measured once, and kept in the user's cache folder under the machine's fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from edgeasr.backends.native.kernels import native_library
from edgeasr.devices.hardware import Hardware, available_memory_bytes, read_hardware, usable_cores
from edgeasr.errors import NativeCodeError, ProfileError
from edgeasr.profile.bandwidth import BandwidthPoint, Progress, best_kernels, full_sweep, measure_bandwidth, quick_sweep
from edgeasr.user_cache import cache_folder

__all__ = ["BandwidthPoint", "CacheLevel", "Costs", "Machine", "cached_machine", "measure_machine"]

# Goes up when figures are measured in another way: older files are then measured again.
_METHOD = 4
_BANDWIDTH_SHARE = 0.85  # of the whole time


@dataclass(frozen=True)
class CacheLevel:
    """A cache of data.

    shared_by:         cores that share one of it
    measured_gb_per_s: one thread's best at the largest measured working set that fits; None where none was measured
                       that fits and is larger than the level below
    """

    level: int
    size_bytes: int
    shared_by: int
    measured_gb_per_s: float | None


@dataclass(frozen=True)
class Costs:
    """What operators take in a runtime, on one thread.

    operator_us:       one on a few hundred numbers, the mean of the usual kinds: mostly the runtime's own time.
                       Between them run products, whose weights push all else out of the first caches
    tensor_us:         handing a small tensor to the runtime, or taking one from it
    product_us:        a product in dynamic int8 with a few thousand weights
    few_rows_gops:     of int8 products with few rows, as a chunk has, whose weights do not stay in the first caches;
                       beyond product_us
    operator_gb_per_s: what an operator on larger tensors reads and writes in the time that it takes beyond operator_us
    """

    operator_us: float
    tensor_us: float
    product_us: float
    few_rows_gops: float
    operator_gb_per_s: float


@dataclass(frozen=True)
class Machine:
    """A machine as measured. Rates by number of threads; GFLOPS and GOPS count a multiply-add as two.

    costs:         of each runtime that runs here, by its backend
    kernel_source: "c" or "numpy", what moved the bytes
    quick:         whether it was measured quickly, at few working sets
    missing:       what could not be measured, and why
    """

    name: str
    fingerprint: str
    cpu: str
    cores: int
    caches: tuple[CacheLevel, ...]
    memory_bytes: int
    features: tuple[str, ...]
    bandwidth: tuple[BandwidthPoint, ...]
    fp32_gflops: Mapping[int, float]
    int8_gops: Mapping[int, float]
    costs: Mapping[str, Costs]
    kernel_source: str
    quick: bool = False
    missing: tuple[str, ...] = ()

    def dram_gb_per_s(self, threads: int = 1, kernel: str | None = None) -> float:
        """The rate at the largest working set. threads, kernel: as of `gb_per_s`"""
        return self.gb_per_s(max(point.working_set_bytes for point in self.bandwidth), threads, kernel)

    def gb_per_s(self, working_set_bytes: float, threads: int = 1, kernel: str | None = None) -> float:
        """The rate at a working set; between measured ones by the logarithm of the size.

        threads: the next lower number that was measured
        kernel:  one of those measured; unless given, the best at each size, which is the roof
        """
        rates = self._rates(threads, kernel)
        sizes = sorted(rates)
        wanted = min(max(working_set_bytes, sizes[0]), sizes[-1])
        upper = next(size for size in sizes if size >= wanted)
        lower = max((size for size in sizes if size <= wanted), default=upper)
        if upper == lower:
            return rates[upper]
        share = math.log(wanted / lower) / math.log(upper / lower)
        return rates[lower] + share * (rates[upper] - rates[lower])

    def _rates(self, threads: int, kernel: str | None) -> dict[int, float]:
        """Best rate by working set. errors: ProfileError for a kernel that was not measured"""
        points = [point for point in self.bandwidth if kernel in (None, point.kernel)]
        if not points:
            measured = ", ".join(sorted({point.kernel for point in self.bandwidth}))
            raise ProfileError(f"got kernel {kernel!r}, measured were {measured or 'none'}: choose one of them")
        count = nearest_below(threads, (point.threads for point in points))
        rates: dict[int, float] = {}
        for point in points:
            if point.threads == count:
                rates[point.working_set_bytes] = max(rates.get(point.working_set_bytes, 0.0), point.gb_per_s)
        return rates

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Of what `to_dict` gave, also by way of JSON. errors: ProfileError for anything else"""
        wanted = {field.name for field in fields(cls)}
        if set(values) != wanted:
            odd = ", ".join(sorted(wanted ^ set(values)))
            raise ProfileError(f"no machine as this version writes it (keys missing or unknown: {odd}): measure again")
        try:
            return cls(
                **{
                    **values,
                    "caches": tuple(CacheLevel(**cache) for cache in values["caches"]),
                    "features": tuple(values["features"]),
                    "bandwidth": tuple(BandwidthPoint(**point) for point in values["bandwidth"]),
                    "fp32_gflops": _by_threads(values["fp32_gflops"]),
                    "int8_gops": _by_threads(values["int8_gops"]),
                    "costs": {runtime: Costs(**costs) for runtime, costs in values["costs"].items()},
                    "missing": tuple(values["missing"]),
                }
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise ProfileError(f"no machine as this version writes it ({error}): measure again") from error


def nearest_below(threads: int, measured: Iterable[int]) -> int:
    """The largest measured number of threads that is not above `threads`, or the smallest of all."""
    counts = sorted(set(measured))
    return max((count for count in counts if count <= threads), default=counts[0])


def measure_machine(quick: bool = False, progress: Progress | None = None, folder: Path | None = None) -> Machine:
    """Measure everything: less than a minute on a small board; if `quick` some seconds, less exactly.

    folder: where compiled kernels are kept, `cache_folder()` unless given
    """
    from edgeasr.profile.arithmetic import QUICK, Effort, measure_arithmetic

    hardware, cores = read_hardware(), usable_cores()
    kernels, missing = best_kernels((folder or cache_folder()) / "native")
    last_cache_bytes = max((cache.size_bytes for cache in hardware.caches), default=0)
    free_bytes = available_memory_bytes()
    plan = quick_sweep(cores, last_cache_bytes, free_bytes) if quick else full_sweep(cores, free_bytes)
    points = measure_bandwidth(kernels, plan, _part_of(progress, 0.0, _BANDWIDTH_SHARE))
    effort = QUICK if quick else Effort()
    arithmetic = measure_arithmetic(plan.threads, effort, _part_of(progress, _BANDWIDTH_SHARE, 1.0))
    if not hardware.caches:
        missing += ("sizes of caches: the kernel names none in /sys/devices/system/cpu/cpu0/cache",)
    return Machine(
        name=hardware.model or f"{hardware.cpu}, {cores} core{'s' * (cores > 1)}",
        fingerprint=fingerprint(hardware, cores),
        cpu=hardware.cpu,
        cores=cores,
        caches=_cache_levels(hardware, points),
        memory_bytes=hardware.memory_bytes,
        features=hardware.features,
        bandwidth=points,
        fp32_gflops=arithmetic.fp32_gflops,
        int8_gops=arithmetic.int8_gops,
        costs=arithmetic.costs,
        kernel_source=kernels.source,
        quick=quick,
        missing=missing,
    )


def cached_machine(
    quick: bool = False, refresh: bool = False, progress: Progress | None = None, folder: Path | None = None
) -> Machine:
    """The machine as measured before, or measured now and kept.

    quick:   what was measured quickly is good enough
    refresh: measure again
    folder:  `cache_folder()` unless given; one that cannot be written keeps nothing
    """
    folder = folder or cache_folder()
    path = folder / f"machine-{fingerprint(read_hardware(), usable_cores())}.json"
    kept = None if refresh else _kept(path)
    if kept and (quick or not kept.quick):
        return kept
    machine = measure_machine(quick, progress, folder)
    _keep(path, machine)
    return machine


def fingerprint(hardware: Hardware, cores: int) -> str:
    """Of what figures depend on: the hardware, the cores of this process, the runtimes and how they are measured."""
    from importlib.metadata import version

    try:
        native = native_library().sha256
    except NativeCodeError:
        native = "none"
    runtimes = ("onnxruntime", version("onnxruntime")), ("native", native)
    made_of = [*asdict(hardware).items(), ("usable", cores), *runtimes, _METHOD]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def _by_threads(rates: Mapping[Any, Any]) -> dict[int, float]:
    """JSON has texts for keys."""
    return {int(threads): float(rate) for threads, rate in rates.items()}


def _part_of(progress: Progress | None, first: float, last: float) -> Callable[[str, float], None] | None:
    """Progress of a part of the work as that of the whole."""
    if progress is None:
        return None
    return lambda what, share: progress(what, first + share * (last - first))


def _cache_levels(hardware: Hardware, points: tuple[BandwidthPoint, ...]) -> tuple[CacheLevel, ...]:
    levels, below_bytes = [], 0
    for cache in hardware.caches:
        # What fills a cache to its edge has in part left it for what else the machine does.
        inside = [
            point
            for point in points
            if point.threads == 1 and below_bytes < point.working_set_bytes <= cache.size_bytes // 2
        ]
        largest = max((point.working_set_bytes for point in inside), default=0)
        best = max((point.gb_per_s for point in inside if point.working_set_bytes == largest), default=None)
        levels.append(CacheLevel(cache.level, cache.size_bytes, cache.shared_by, best))
        below_bytes = cache.size_bytes
    return tuple(levels)


def _kept(path: Path) -> Machine | None:
    """What was measured before, unless there is nothing that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Machine.from_dict(values) if isinstance(values, dict) else None
    except (OSError, ValueError, ProfileError):
        return None


def _keep(path: Path, machine: Machine) -> None:
    """Write aside, then rename, so that nobody reads half; a folder that cannot be written is no failure."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".json", delete=False) as aside:
            json.dump(machine.to_dict(), aside)
        Path(aside.name).replace(path)
    except OSError:
        return
