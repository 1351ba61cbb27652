"""The machine: its system, memory, disk and heat."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from edgeasr.backends import installed_runtimes
from edgeasr.devices.detect import detect
from edgeasr.devices.doctor.examination import Check, Circumstances, Finding
from edgeasr.devices.hardware import POINTER_BITS, available_memory_bytes
from edgeasr.profile.sensors import temperature_c
from edgeasr.profile.throttling import throttle_meter
from edgeasr.store.paths import default_path
from edgeasr.user_cache import cache_folder

GROUP = "machine"
_MB = 1 << 20
# `listen` takes some 110 MB; a store may grow to 256 MB, and the tables of a language model take 19 MB.
_MEMORY_MB = (128, 256)
_DISK_MB = (48, 320)
_HOT_C = 80.0
_OLDEST_PYTHON = (3, 11)


def checks(given: Circumstances) -> list[Check]:
    """Those of this file."""
    return [
        Check(GROUP, "python", python),
        Check(GROUP, "system", lambda: system(given.root)),
        Check(GROUP, "board", lambda: board(given.root)),
        Check(GROUP, "memory", lambda: memory(given.root)),
        Check(GROUP, "disk", lambda: disk(given.store)),
        Check(GROUP, "throttling", lambda: throttling(given.root)),
    ]


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """The interpreter that runs this."""
    text = ".".join(map(str, version))
    if version[:2] < _OLDEST_PYTHON:
        return Finding("fail", f"Python {text}", "install Python 3.11 or newer")
    return Finding("ok", f"Python {text} at {sys.executable}")


def system(
    root: Path,
    architecture: str | None = None,
    pointer_bits: int = POINTER_BITS,
    runtimes: Collection[str] | None = None,
) -> Finding:
    """A 64-bit kernel with 32-bit programs is not rare on Raspberry Pis. runtimes: as found here unless given"""
    machine = architecture or platform.machine()
    release = _lines(root / "etc/os-release")
    names = (line.partition("=")[2].strip('"') for line in release if line.startswith("PRETTY_NAME="))
    name = next(names, platform.system())
    text = f"{name}, kernel {platform.release()}, {machine}, {pointer_bits}-bit"
    if pointer_bits == 32:
        there = installed_runtimes() if runtimes is None else runtimes
        if there:
            return Finding("ok", f"{text}: models run on {' and '.join(there)}")
        fix = (
            "install a 64-bit system, or pip install 'edgeasr[tflite]' and take a model exported for tflite-armv7; "
            "Trixie has python3-onnxruntime"
        )
        return Finding("fail", f"{text}: nothing there runs models", fix)
    if machine not in ("aarch64", "arm64", "x86_64", "AMD64"):
        return Finding("warn", text, "packages of ONNX Runtime are known for aarch64 and x86_64")
    return Finding("ok", text)


def board(root: Path) -> Finding:
    """Which one it is taken for."""
    found = detect(root)
    text = f"{found.profile.title}, {found.profile.cores} x {found.profile.core}"
    if not found.known:
        return Finding("ok", f"{text}, no board that is known: counted as {found.profile.name}")
    return Finding("ok", f"{text}; {'; '.join(found.notes)}" if found.notes else text)


def memory(root: Path) -> Finding:
    """What is free, within the limits of a container."""
    free_mb = available_memory_bytes(root) / _MB
    if not free_mb:
        return Finding("skipped", "the kernel does not say how much memory is free")
    least, enough = _MEMORY_MB
    if free_mb >= enough:
        return Finding("ok", f"{free_mb:.0f} MB are free")
    fix = f"close other programs: listening takes some 110 MB, have {enough} MB free"
    return Finding("fail" if free_mb < least else "warn", f"{free_mb:.0f} MB are free", fix)


def disk(store: Path | None) -> Finding:
    """Where the store and the cache lie, or would."""
    worst: Finding | None = None
    texts = []
    for what, folder in (("store", (store or default_path()).parent), ("cache", cache_folder())):
        there = next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))
        free_mb = shutil.disk_usage(there).free / _MB
        texts.append(f"{free_mb:.0f} MB free for the {what} in {folder}")
        if not os.access(there, os.W_OK):
            worst = Finding("warn", f"{there} cannot be written, where the {what} would be", f"chown or mount {there}")
        elif free_mb < _DISK_MB[1] and worst is None:
            fix = f"make room on the disk of {there}: a store may take {256} MB"
            worst = Finding("fail" if free_mb < _DISK_MB[0] else "warn", texts[-1], fix)
    return worst or Finding("ok", "; ".join(texts))


def throttling(root: Path) -> Finding:
    """Now, and since the machine was started where it remembers."""
    heat_c, meter = temperature_c(root), throttle_meter(root)
    heat = "no sensor of temperature" if heat_c is None else f"{heat_c:.0f} C"
    if meter is None:
        if heat_c is None:
            return Finding("skipped", "nothing here says the temperature, nor whether the processor is throttled")
        seen: tuple[str, ...] = ()
    else:
        meter.sample()
        seen = meter.seen() or tuple(f"{what}, earlier" for what in meter.since_start())
    if seen:
        voltage = any("voltage" in what for what in seen)
        fix = "use the board's own power supply and a short cable" if voltage else "cool the board: a heat sink, a fan"
        return Finding("warn", f"{', '.join(seen)}; {heat}", fix)
    if heat_c is not None and heat_c >= _HOT_C:
        return Finding("warn", heat, "cool the board: a heat sink, a fan")
    return Finding("ok", f"{heat}, not throttled" if meter else heat)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
