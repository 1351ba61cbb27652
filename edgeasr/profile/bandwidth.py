"""Memory bandwidth as a function of the size of what is moved, so that each level of cache shows as a step.

Bytes are counted as STREAM (McCalpin 1995) counts them: each element that a kernel's source reads or writes, once.
Lines that the hardware reads only because they are going to be written (write-allocate) are not counted, so the
bus moves up to 3/2 of what is said for copies. A working set is all arrays of a kernel together.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from threading import Barrier
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import NativeCodeError, ProfileError
from edgeasr.profile.native import KERNELS, native_kernels

Array = NDArray[np.float64]
Progress = Callable[[str, float], None]
"""Called with what is being measured and the share that is done."""

SMALLEST_BYTES, LARGEST_BYTES = 2**14, 2**28
FREE_SHARE = 0.25  # of the free memory, at most, is moved about
_ELEMENT_BYTES = 8
_NUM_ARRAYS = {"read": 1, "copy": 2, "scale": 2, "add": 3, "triad": 3}
# Between arrays, so that the same place in each does not fall into the same set of a cache.
_PAD = 136
_LINE = 8  # elements of a line of the cache, of which _PAD holds whole ones
_FACTOR = 3.0
_OWN_BYTES = 2**18  # working sets up to this have memory of their own


@dataclass(frozen=True)
class BandwidthPoint:
    """The best rate of a kernel on arrays of so many bytes in all. kernel: read, copy, scale, add or triad"""

    kernel: str
    threads: int
    working_set_bytes: int
    gb_per_s: float


@dataclass(frozen=True)
class Sweep:
    """What is measured, and for how long.

    rounds:   how often the whole sweep is run; the best of its rounds counts for each point, so that what disturbs
              the machine for a moment spoils no point
    sample_s: length of a sample at least
    """

    sizes_bytes: tuple[int, ...]
    threads: tuple[int, ...]
    kernels: tuple[str, ...] = KERNELS
    rounds: int = 12
    sample_s: float = 0.002


class Kernels(Protocol):
    """What moves bytes.

    source:         its name in reports
    names:          of the kernels that it has
    smallest_bytes: below such a working set calling it takes longer than moving
    """

    @property
    def source(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def smallest_bytes(self) -> int: ...

    def run(self, kernel: str, arrays: Sequence[Array], threads: int, passes: int) -> float:
        """Seconds that `passes` over the arrays take. arrays: a, b and c, of one size"""


class NumpyKernels:
    """The same loops by numpy, where there is no compiler; a triad is no single loop of numpy's."""

    source = "numpy"
    names = ("read", "copy", "scale", "add")
    smallest_bytes = 2**18

    def run(self, kernel: str, arrays: Sequence[Array], threads: int, passes: int) -> float:
        """Seconds that `passes` over the arrays take. arrays: a, b and c, of one size"""
        step = _NUMPY_STEPS[kernel]
        parts = list(zip(*(np.array_split(array, threads) for array in arrays), strict=True))
        start = Barrier(threads)

        def work(part: tuple[Array, ...]) -> tuple[float, float]:
            start.wait()
            began_s = time.perf_counter()
            for _ in range(passes):
                step(*part)
            return began_s, time.perf_counter()

        if threads == 1:
            spans = [work(parts[0])]
        else:
            with ThreadPoolExecutor(threads) as pool:
                spans = list(pool.map(work, parts))
        return max(ended_s for _, ended_s in spans) - min(began_s for began_s, _ in spans)


def _read(a: Array, b: Array, c: Array) -> None:
    del b, c
    np.add.reduce(a.view(np.int64))


def _copy(a: Array, b: Array, c: Array) -> None:
    del b
    np.copyto(c, a)


def _scale(a: Array, b: Array, c: Array) -> None:
    del a
    np.multiply(c, _FACTOR, out=b)


def _add(a: Array, b: Array, c: Array) -> None:
    np.add(a, b, out=c)


_NUMPY_STEPS = {"read": _read, "copy": _copy, "scale": _scale, "add": _add}


def best_kernels(folder: Path) -> tuple[Kernels, tuple[str, ...]]:
    """The kernels in C where they can be compiled, and what is missing where not. folder: where the library is kept"""
    try:
        return native_kernels(folder), ()
    except NativeCodeError as error:
        smallest = readable_bytes(NumpyKernels.smallest_bytes)
        return NumpyKernels(), (f"triad, and bandwidth below {smallest}: wanted kernels in C, {error}",)


def thread_counts(cores: int) -> tuple[int, ...]:
    """From 1 to all cores: every number up to 4, then powers of two."""
    powers = {2**power for power in range(cores.bit_length())}
    return tuple(sorted({*range(1, min(cores, 4) + 1), *powers, cores}))


def full_sweep(cores: int, free_bytes: int = 0) -> Sweep:
    """Every size and number of threads. free_bytes: memory that is free, 0 if unknown"""
    return Sweep(_sizes(LARGEST_BYTES, free_bytes, factor=2), thread_counts(cores))


def quick_sweep(cores: int, last_cache_bytes: int, free_bytes: int = 0) -> Sweep:
    """Few sizes, up to one that leaves the last cache (0: its size is not known); one thread and all.

    free_bytes: as of `full_sweep`
    """
    beyond = 4 * last_cache_bytes or LARGEST_BYTES
    largest = min(LARGEST_BYTES, max(LARGEST_BYTES // 8, beyond))
    sizes = _sizes(largest, free_bytes, factor=4)
    return Sweep(sizes, tuple(sorted({1, cores})), ("read", "copy", "triad"), rounds=6)


def _sizes(largest_bytes: int, free_bytes: int, factor: int) -> tuple[int, ...]:
    limit = min(largest_bytes, int(free_bytes * FREE_SHARE)) if free_bytes else largest_bytes
    sizes = [SMALLEST_BYTES]
    while sizes[-1] * factor <= limit:
        sizes.append(sizes[-1] * factor)
    return tuple(sizes)


def measure_bandwidth(kernels: Kernels, plan: Sweep, progress: Progress | None = None) -> tuple[BandwidthPoint, ...]:
    """The best rate at each point of the sweep.

    errors: ProfileError where memory for the largest working set cannot be had
    """
    sizes = [size for size in plan.sizes_bytes if size >= kernels.smallest_bytes]
    if not sizes:
        raise ProfileError(f"too little memory is free to move {readable_bytes(kernels.smallest_bytes)}: free some")
    shared = _memory(max(sizes) // _ELEMENT_BYTES + len(_NUM_ARRAYS) * _PAD)
    # Beginnings of something large lie where they halve the rate of the first cache, in one process and not in another.
    memory = {
        size: shared if size > _OWN_BYTES else _memory(size // _ELEMENT_BYTES + len(_NUM_ARRAYS) * _PAD)
        for size in sizes
    }
    points = [
        _Point(kernel, threads, size, _arrays(memory[size], kernel, size))
        for size, threads, kernel in product(sizes, plan.threads, plan.kernels)
        if kernel in kernels.names
    ]
    for done in range(plan.rounds):
        for i, point in enumerate(points):
            if progress:
                progress(point.title, (done + i / len(points)) / plan.rounds)
            point.sample(kernels, plan.sample_s)
    return tuple(point.best() for point in points)


def readable_bytes(size: int) -> str:
    """In KB or MB of 1024 and 1024 x 1024."""
    return f"{size / 2**20:g} MB" if size >= 2**20 else f"{size / 2**10:g} KB"


@dataclass
class _Point:
    """A point of the sweep, and the best time of a pass so far."""

    kernel: str
    threads: int
    size_bytes: int
    arrays: tuple[Array, Array, Array]
    pass_s: float = math.inf

    @property
    def title(self) -> str:
        return f"{self.kernel}, {readable_bytes(self.size_bytes)}, {self.threads} thread{'s' * (self.threads > 1)}"

    def sample(self, kernels: Kernels, sample_s: float) -> None:
        """As many passes as fit into the time, by what is known of them."""
        passes = max(1, math.ceil(sample_s / self.pass_s))
        self.pass_s = min(self.pass_s, max(kernels.run(self.kernel, self.arrays, self.threads, passes), 1e-9) / passes)

    def best(self) -> BandwidthPoint:
        moved = len(self.arrays[0]) * _NUM_ARRAYS[self.kernel] * _ELEMENT_BYTES
        return BandwidthPoint(self.kernel, self.threads, self.size_bytes, moved / self.pass_s / 1e9)


def _memory(num_elements: int) -> Array:
    """Of ones, in pages of the usual size, as the weights of models are; numpy would ask for huge ones."""
    try:
        pages = mmap.mmap(-1, num_elements * _ELEMENT_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        size = readable_bytes(num_elements * _ELEMENT_BYTES)
        raise ProfileError(f"got no {size} of memory to move ({error}): free some") from error
    memory = np.frombuffer(pages, np.float64)
    memory[:] = 1.0
    return memory


# Which of its arrays a kernel knows as a, b and c; those that it does not use are another of them.
_ROLES = {"read": (0, 0, 0), "copy": (0, 0, 1), "scale": (1, 0, 1), "add": (0, 1, 2), "triad": (0, 1, 2)}


def _arrays(memory: Array, kernel: str, size: int) -> tuple[Array, Array, Array]:
    """a, b and c of a working set of `size` bytes."""
    n = size // _ELEMENT_BYTES // _NUM_ARRAYS[kernel]
    n -= n % _LINE  # in the first cache vectors that cross lines halve the rate
    used = [memory[i * (n + _PAD) : i * (n + _PAD) + n] for i in range(_NUM_ARRAYS[kernel])]
    a, b, c = _ROLES[kernel]
    return used[a], used[b], used[c]
