"""C of this package, compiled where it runs: only there does the compiler know the processor's vectors."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from edgeasr.errors import NativeCodeError
from edgeasr.user_cache import cache_folder

_log = logging.getLogger(__name__)

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=gnu11", "-O3", "-shared", "-fPIC", "-pthread")
# A compiler for Arm may know only the second; any knows none.
_TUNINGS = (("-march=native",), ("-mcpu=native",), ())
_COMPILE_S = 120
_INSTALL = "apt-get install gcc libc6-dev"
_MAX_KEPT = 4  # of one source
_DIGEST_BYTES = 32  # of SHA-256, behind a library that is kept
# What became of each library in this process: streams come and go, and none of them compiles again.
_known: dict[Path, ctypes.CDLL | NativeCodeError] = {}


def packaged_library(package: str, file: str, symbol: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The library of a C file of this package, kept in the user's cache folder. The rest is as of load_native."""
    source = files(package).joinpath(file).read_text(encoding="utf-8")
    return load_native(file.removesuffix(".c"), source, cache_folder() / "native", symbol, flags)


def load_native(name: str, source: str, folder: Path, symbol: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The library of a source kept in `folder`, compiled if it is not there, not whole, or not ours alone; where it
    cannot be kept it is compiled by each process.

    name:   of the source, for file names and messages
    symbol: a function that it has
    flags:  for the compiler, behind the usual ones and the processor's own, which they may switch off
    errors: NativeCodeError without a compiler, or where it cannot compile the source or that cannot be loaded
    """
    kept = folder / f"{name}-{_digest(source, flags)}.so"
    if kept not in _known:
        try:
            _known[kept] = _kept(kept, symbol) or _compiled(name, source, flags, kept, symbol)
        except NativeCodeError as error:
            _known[kept] = error
    found = _known[kept]
    if isinstance(found, NativeCodeError):
        raise NativeCodeError(str(found).removesuffix(f": {found.fix}"), fix=found.fix)
    return found


def _digest(source: str, flags: tuple[str, ...]) -> str:
    """Of what the library depends on; the folder may be shared between machines, so the processor is part of it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    features = next((line for line in lines if line.lower().startswith(("flags", "features", "isa"))), "")
    made_of = "\0".join((source, *_FLAGS, *flags, os.uname().machine, features))
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _kept(library: Path, symbol: str) -> ctypes.CDLL | None:
    """One that was compiled before; None where there is none that is whole and that nobody else could have written.

    A program that runs what half of a file holds ends without a word, so the file says what all of it is.
    """
    try:
        if not all(_is_ours(path) for path in (library, library.parent)):
            return None
        content = library.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
        return None
    try:
        return _loaded(library, symbol)
    except NativeCodeError:
        return None  # of a folder from which nothing may run: compiled again below


def _is_ours(path: Path) -> bool:
    """Whether nobody else but root could have written it: what is loaded runs as whoever loads it."""
    found = path.stat()
    return found.st_uid in (0, os.getuid()) and not found.st_mode & 0o022


def _loaded(library: Path, symbol: str) -> ctypes.CDLL:
    try:
        found = ctypes.CDLL(str(library))
        getattr(found, symbol)
    except (OSError, AttributeError) as error:
        raise NativeCodeError(
            f"cannot load {library} ({error})", fix="see that programs may run from that folder"
        ) from error
    return found


def _compiled(name: str, source: str, flags: tuple[str, ...], kept: Path, symbol: str) -> ctypes.CDLL:
    """Compile, and keep it where that is possible."""
    compiler = _compiler()
    _log.warning("edgeasr: compiling %s.c for this processor, once; seconds, on a small board half a minute", name)
    try:
        with tempfile.TemporaryDirectory() as made:
            library = Path(made, f"{name}.so")
            if said := _failure(compiler, source, flags, library):
                _log.warning("edgeasr: that failed (%s), so it is done without, in more time", said)
                raise NativeCodeError(f"{compiler[0]} cannot compile {name}.c ({said})", fix=_INSTALL)
            try:
                _keep(library.read_bytes(), kept)
                return _loaded(kept, symbol)
            except (OSError, NativeCodeError) as error:
                _log.warning("edgeasr: it cannot be kept (%s), so the next start compiles again", error)
                return _loaded(library, symbol)
    except OSError as error:
        raise NativeCodeError(
            f"cannot compile {name}.c ({error})", fix="free a temporary folder, or set TMPDIR"
        ) from error


def _compiler() -> list[str]:
    """Its words: CC may name options as well."""
    for name in filter(None, (os.environ.get("CC"), *_COMPILERS)):
        first, *options = shlex.split(name)
        if path := shutil.which(first):
            return [path, *options]
    raise NativeCodeError(f"found no C compiler ({', '.join(_COMPILERS)})", fix=_INSTALL)


def _failure(compiler: list[str], source: str, flags: tuple[str, ...], library: Path) -> str:
    """Compile; what went wrong, "" for nothing."""
    said = ""
    for tuning in _TUNINGS:
        command = [*compiler, *_FLAGS, *tuning, *flags, "-x", "c", "-", "-o", str(library), "-lm"]
        try:
            done = subprocess.run(
                command, input=source, capture_output=True, text=True, timeout=_COMPILE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode == 0:
            return "" if library.is_file() else "it wrote nothing"
        said = next(iter(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
    return said


def _keep(content: bytes, kept: Path) -> None:
    """Written aside, then renamed, so that nobody reads half. errors: OSError where it cannot be"""
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(kept.parent):
        raise PermissionError(f"others may write to {kept.parent}")
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=".so", delete=False) as aside:
        try:
            aside.write(content + hashlib.sha256(content).digest())
            aside.flush()
            os.fsync(aside.fileno())
            Path(aside.name).replace(kept)
        except OSError:
            with suppress(OSError):
                Path(aside.name).unlink()
            raise
    _drop_old(kept)


def _drop_old(kept: Path) -> None:
    """What earlier versions left, but for a few: machines that share a home have one each."""
    name = kept.name.rpartition("-")[0]
    with suppress(OSError):
        for old in sorted(kept.parent.glob(f"{name}-*.so"), key=lambda path: path.stat().st_mtime)[:-_MAX_KEPT]:
            old.unlink()
