"""`kernels.c` as a library of this machine."""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from importlib.resources import files

from edgeasr.backends.native.program import Layout
from edgeasr.native_code import packaged_library

# Vectors of roundings and square roots, which nothing here asks about their errors.
_FLAGS = ("-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")


class NativeLibrary:
    """What runs programs.

    flags:   for the compiler, beyond the usual ones
    sha256:  of the source
    is_fast: whether it has instructions for products in int8; without them ONNX Runtime is faster
    errors: NativeCodeError where the library cannot be compiled
    """

    def __init__(self, flags: tuple[str, ...] = ()) -> None:
        package, file = "edgeasr.backends.native", "kernels.c"
        self.sha256 = hashlib.sha256(files(package).joinpath(file).read_bytes()).hexdigest()
        library = packaged_library(package, file, "edgeasr_native_run", (*_FLAGS, *flags))
        self.run = library.edgeasr_native_run
        pointer = ctypes.c_void_p
        self.run.argtypes = [pointer, ctypes.c_int64, pointer, pointer, pointer]
        self.run.restype = ctypes.c_int
        lanes, channels, eight_bits, fast = (ctypes.c_int64() for _ in range(4))
        library.edgeasr_native_layout(*map(ctypes.byref, (lanes, channels, eight_bits, fast)))
        self.layout, self.is_fast = Layout(lanes.value, channels.value, bool(eight_bits.value)), bool(fast.value)


@cache
def native_library() -> NativeLibrary:
    """The library of this process. errors: as of NativeLibrary"""
    return NativeLibrary()
