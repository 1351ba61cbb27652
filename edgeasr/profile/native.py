"""The kernels in C, compiled where they run: only there does the compiler know the machine's vectors."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ProfileError

KERNELS = ("read", "copy", "scale", "add", "triad")  # in the order of kernels.c
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC", "-pthread")
# A compiler for Arm may know only the second; any knows none.
_TUNINGS = (("-march=native",), ("-mcpu=native",), ())
_COMPILE_S = 60
_STATUS = {1: "bad arguments", 2: "the system gives no more threads"}


class NativeKernels:
    """kernels.c as a library of this machine."""

    source = "c"
    names = KERNELS
    smallest_bytes = 0

    def __init__(self, library: Path) -> None:
        try:
            self._run = ctypes.CDLL(str(library)).edgeasr_bandwidth_run
        except (OSError, AttributeError) as error:
            raise ProfileError(f"cannot load {library} ({error}): delete it, it will be compiled again") from error
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
    """The library kept in `folder`, compiled if it is not there; in a temporary folder where it cannot be kept.

    errors: ProfileError without a compiler, or where it cannot compile the source
    """
    source = files("edgeasr.profile").joinpath("kernels.c").read_text(encoding="utf-8")
    compiler = _compiler()
    kept = folder / f"kernels-{_digest(source, compiler)}.so"
    if kept.is_file():
        try:
            return NativeKernels(kept)
        except ProfileError:
            pass  # of another machine or half written: compiled again below
    with tempfile.TemporaryDirectory() as made:
        library = Path(made, "kernels.so")
        _compile(compiler, source, library)
        try:
            _keep(library, kept)
        except OSError:
            return NativeKernels(library)
        return NativeKernels(kept)


def _compiler() -> str:
    for name in filter(None, (os.environ.get("CC"), *_COMPILERS)):
        if path := shutil.which(name):
            return path
    raise ProfileError(f"found no C compiler ({', '.join(_COMPILERS)}): apt-get install gcc libc6-dev")


def _digest(source: str, compiler: str) -> str:
    """Of what the library depends on; the folder may be shared between machines, so the processor is part of it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    made_of = "\0".join((source, compiler, *_FLAGS, os.uname().machine, features))
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _compile(compiler: str, source: str, library: Path) -> None:
    said = ""
    for tuning in _TUNINGS:
        command = [compiler, *_FLAGS, *tuning, "-x", "c", "-", "-o", str(library)]
        try:
            done = subprocess.run(
                command, input=source, capture_output=True, text=True, timeout=_COMPILE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProfileError(f"{compiler} does not run ({error})") from error
        if done.returncode == 0:
            return
        said = next(iter(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
    raise ProfileError(f"{compiler} cannot compile kernels.c ({said}): apt-get install gcc libc6-dev")


def _keep(library: Path, kept: Path) -> None:
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".so", delete=False) as aside:
        aside.write(library.read_bytes())
    Path(aside.name).replace(kept)
