"""The kernels in C that move memory, compiled where they run."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ProfileError
from edgeasr.native_code import load_native

KERNELS = ("read", "copy", "scale", "add", "triad")  # in the order of bandwidth.c
_FLAGS = ("-fno-tree-loop-distribute-patterns",)  # copies are loops, as STREAM's are, and no calls of memcpy
_STATUS = {1: "bad arguments", 2: "the system gives no more threads"}


class NativeKernels:
    """bandwidth.c as a library of this machine."""

    source = "c"
    names = KERNELS
    smallest_bytes = 0

    def __init__(self, library: ctypes.CDLL) -> None:
        self._run = library.edgeasr_bandwidth_run
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._run.argtypes = [
            ctypes.c_int,
            *(pointer, pointer, pointer, size),
            ctypes.c_int,
            size,
            ctypes.POINTER(ctypes.c_double),
        ]

    def run(self, kernel: str, arrays: Sequence[NDArray[np.float64]], threads: int, passes: int) -> float:
        """Seconds that `passes` over the arrays take. arrays: a, b and c, of one size"""
        seconds = ctypes.c_double()
        pointers = [array.ctypes.data for array in arrays]
        status = self._run(KERNELS.index(kernel), *pointers, len(arrays[0]), threads, passes, ctypes.byref(seconds))
        if status:
            raise ProfileError(f"got {threads} threads for {kernel}: {_STATUS.get(status, status)}")
        return seconds.value


def native_kernels(folder: Path) -> NativeKernels:
    """The library kept in `folder`, see `load_native`. errors: as there"""
    source = files("edgeasr.profile").joinpath("bandwidth.c").read_text(encoding="utf-8")
    return NativeKernels(load_native("bandwidth", source, folder, "edgeasr_bandwidth_run", _FLAGS))
