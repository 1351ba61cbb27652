"""C of this package, compiled where it runs: only there does the compiler know the processor's vectors."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgeasr.errors import NativeCodeError

_log = logging.getLogger(__name__)

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC", "-pthread")
# A compiler for Arm may know only the second; any knows none.
_TUNINGS = (("-march=native",), ("-mcpu=native",), ())
_COMPILE_S = 120
_refused: dict[Path, str] = {}  # what could not be compiled in this process, and why
_INSTALL = "apt-get install gcc libc6-dev"


def load_native(name: str, source: str, folder: Path, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The library of a source kept in `folder`, compiled if it is not there; in a temporary folder where it cannot be
    kept.

    name:   of the source, for file names and messages
    flags:  for the compiler, behind the usual ones and the processor's own, which they may switch off
    errors: NativeCodeError without a compiler, or where it cannot compile the source
    """
    compiler = _compiler()
    kept = folder / f"{name}-{_digest(source, compiler, flags)}.so"
    if kept in _refused:  # streams come and go, and a compiler that fails is not run for each
        raise NativeCodeError(_refused[kept], fix=_INSTALL)
    if kept.is_file() and _is_ours(kept):
        try:
            return _loaded(kept)
        except NativeCodeError:
            pass  # of another machine or half written: compiled again below
    _log.warning("edgeasr: compiling %s.c for this processor, once; seconds, on a small board half a minute", name)
    with tempfile.TemporaryDirectory() as made:
        library = Path(made, f"{name}.so")
        if said := _failure(compiler, source, flags, library):
            _refused[kept] = f"{compiler} cannot compile {name}.c ({said})"
            raise NativeCodeError(_refused[kept], fix=_INSTALL)
        try:
            _keep(library, kept)
        except OSError:
            return _loaded(library)
        return _loaded(kept)


def _is_ours(library: Path) -> bool:
    """Whether nobody else but root could have put it there: what is loaded runs as whoever loads it."""
    try:
        found = [path.stat() for path in (library, library.parent)]
    except OSError:
        return False
    return all(one.st_uid in (0, os.getuid()) and not one.st_mode & 0o022 for one in found)


def _loaded(library: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NativeCodeError(f"cannot load {library} ({error}): delete it, it will be compiled again") from error


def _compiler() -> str:
    for name in filter(None, (os.environ.get("CC"), *_COMPILERS)):
        if path := shutil.which(name):
            return path
    raise NativeCodeError(f"found no C compiler ({', '.join(_COMPILERS)})", fix=_INSTALL)


def _digest(source: str, compiler: str, flags: tuple[str, ...]) -> str:
    """Of what the library depends on; the folder may be shared between machines, so the processor is part of it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    made_of = "\0".join((source, compiler, *_FLAGS, *flags, os.uname().machine, features))
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _failure(compiler: str, source: str, flags: tuple[str, ...], library: Path) -> str:
    """Compile; what went wrong, "" for nothing."""
    said = ""
    for tuning in _TUNINGS:
        command = [compiler, *_FLAGS, *tuning, *flags, "-x", "c", "-", "-o", str(library), "-lm"]
        try:
            done = subprocess.run(
                command, input=source, capture_output=True, text=True, timeout=_COMPILE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0:
            return ""
        said = next(iter(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
    return said


def _keep(library: Path, kept: Path) -> None:
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".so", delete=False) as aside:
        aside.write(library.read_bytes())
    Path(aside.name).replace(kept)
