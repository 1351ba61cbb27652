"""What is installed: packages, their compiled parts, the model, configuration."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib import metadata
from typing import Any, NamedTuple

from edgeasr.backends import installed_runtimes
from edgeasr.backends.native.kernels import native_library
from edgeasr.bundle import Bundle, default_bundle
from edgeasr.devices.doctor.examination import Check, Circumstances, Finding
from edgeasr.devices.hardware import POINTER_BITS, program_architecture
from edgeasr.errors import ConfigError, NativeCodeError
from edgeasr.settings import is_open_to_others, read_files

GROUP = "installation"
# sounddevice is looked at with the sound system, which it loads.
_COMPILED = ("numpy", "onnxruntime", "soundfile", "soxr")
# No wheels of these are for 32 bits: another runtime is there, and the system's library instead of soxr.
_NOT_FOR_32_BITS = ("onnxruntime", "soxr")
_EXTRAS = ("bridge", "corpora", "evaluate", "litert", "memory", "mqtt", "profile", "serve")
_PATIENCE_S = 60


def checks(given: Circumstances) -> list[Check]:
    """Those of this file."""
    return [
        Check(GROUP, "packages", packages),
        Check(GROUP, "wheels", wheels, limit_s=_PATIENCE_S + 5),
        Check(GROUP, "compiler", compiler, limit_s=150),
        Check(GROUP, "model", lambda: model(given.model), limit_s=60),
        Check(GROUP, "configuration", lambda: configuration(given), limit_s=30),
    ]


def packages(name: str = "edgeasr") -> Finding:
    """Installed versions beside those that are wanted; extras where at least one of their packages is there."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(text) for text in metadata.requires(name) or ()]
    except (ImportError, metadata.PackageNotFoundError) as error:
        return Finding("skipped", f"nothing says what is wanted ({error}): edgeasr was not installed by pip")
    here = {"platform_machine": program_architecture()}
    base = [one for one in wanted if one.marker is None or one.marker.evaluate(here | {"extra": ""})]
    found = _compared(base)
    wrong, extras = found.missing + found.other, []
    for extra in _EXTRAS:
        named = here | {"extra": extra}
        compared = _compared([one for one in wanted if one not in base and one.marker and one.marker.evaluate(named)])
        # Of extras nothing is missed; what is there has to be right.
        wrong += [one for one in compared.other if one not in wrong]
        extras += [extra] if compared.there and not compared.missing else []
    if wrong:
        return Finding("fail", "; ".join(wrong), f"pip install --upgrade {name}, in the environment of {sys.prefix}")
    return Finding("ok", f"{', '.join(found.there)}; extras: {', '.join(extras) or 'none'}")


class _Compared(NamedTuple):
    """Texts: of packages that are there, that are not, and that are there in another version than is wanted."""

    there: list[str]
    missing: list[str]
    other: list[str]


def _compared(wanted: list[Any]) -> _Compared:
    """wanted: requirements as `packaging` has them"""
    compared = _Compared([], [], [])
    for one in wanted:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            compared.missing.append(f"{one.name} is not there")
            continue
        compared.there.append(f"{one.name} {version}")
        if not one.specifier.contains(version, prereleases=True):
            compared.other.append(f"{one.name} is {version}, wanted {one.specifier}")
    return compared


def wheels(modules: tuple[str, ...] | None = None) -> Finding:
    """Compiled packages of another processor end a program that imports them: so it is one of its own."""
    modules = _compiled() if modules is None else modules
    change_rates = "; from edgeasr.soxr_stream import soxr_stream; soxr_stream(48_000, 16_000)"
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(modules)}{change_rates}"],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    tags = ", ".join(f"{name} {tag}" for name in ("numpy", "onnxruntime", "tflite-runtime") if (tag := _tag(name)))
    if done.returncode < 0:
        reason = f"importing {', '.join(modules)} ends with {signal.Signals(-done.returncode).name} ({tags})"
        return Finding("fail", reason, "the packages are of another processor: install those of this one")
    if done.returncode:
        reason = next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        return Finding(
            "fail", f"{reason} ({tags})", "pip install --force-reinstall edgeasr, or the library that is named"
        )
    return Finding("ok", f"{', '.join(modules)} can be imported: {tags or 'no wheels'}")


def _compiled(pointer_bits: int = POINTER_BITS) -> tuple[str, ...]:
    """What has to be there of compiled packages."""
    if pointer_bits > 32:
        return _COMPILED
    return tuple(name for name in _COMPILED if name not in _NOT_FOR_32_BITS) + installed_runtimes()


def _tag(name: str) -> str:
    """The platform that a wheel was built for."""
    try:
        lines = (metadata.distribution(name).read_text("WHEEL") or "").splitlines()
    except metadata.PackageNotFoundError:
        return ""
    return next((line.removeprefix("Tag: ").strip() for line in lines if line.startswith("Tag: ")), "")


def compiler() -> Finding:
    """Whether C of this package can be compiled, or was."""
    try:
        native_library()
    except NativeCodeError as error:
        reason = str(error).removesuffix(f": {error.fix}")
        return Finding("warn", f"{reason}, so ONNX Runtime and numpy do what C would in less time", error.fix or "")
    return Finding("ok", "C of this package is compiled for this processor")


def model(path: str | None) -> Finding:
    """Every hash of the bundle. errors: BundleError for what is not as its manifest says"""
    bundle = Bundle.load(path or default_bundle())
    size_mb = sum(record.size_bytes for record in bundle.files.values()) / 1e6
    return Finding("ok", f"{bundle.name}: {len(bundle.files)} files of {size_mb:.1f} MB, all hashes right")


def configuration(given: Circumstances) -> Finding:
    """The first thing that is wrong. errors: ConfigError where the message says what to do"""
    try:
        given.configuration()
    except ConfigError as error:
        if error.fix != "":
            raise
        return Finding("fail", str(error), "correct it there")
    for file in read_files(given.config):
        if "token" in file.section(("serve",)) and is_open_to_others(file.path):
            return Finding("warn", f"others can read the token in {file.path}", f"chmod 600 {file.path}")
    return Finding("ok", "configuration files and variables are right")
