"""Where engines of TensorRT lie, and which of them may be loaded.

An engine is a program for one GPU and one release of TensorRT. It is built where it runs, from a graph of a bundle, and
is named by the SHA-256 of that graph:

    engines/HASH.engine   what trtexec wrote
    engines/HASH.json     of what graph, by which release, for which GPU: written last, by the bundle's build_engine.sh
    engines/HASH.ort/     what ONNX Runtime keeps of the same graph, by its own rules

Loading an engine runs what is in it: it is only taken from the user's own cache folder, where nobody else can write.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from edgeasr.errors import AcceleratorError
from edgeasr.user_cache import cache_folder

BUILD_SCRIPT = "build_engine.sh"  # of a bundle

_BUILD_AGAIN = f"remove it and run {BUILD_SCRIPT} of the bundle again, on this machine"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")
_CAPABILITY = re.compile(r"[0-9]+\.[0-9]+")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class EngineRecord:
    """What is known of an engine. tensorrt, compute_capability: "" where trtexec did not say"""

    onnx_sha256: str
    engine_sha256: str
    tensorrt: str
    compute_capability: str


@dataclass(frozen=True)
class StoredEngine:
    """An engine that may be loaded, and its record."""

    path: Path
    content: bytes
    record: EngineRecord


def engine_folder() -> Path:
    """In the user's cache folder."""
    return cache_folder() / "engines"


def graph_sha256(model: Path | bytes) -> str:
    """The name of all that is made of a graph."""
    return hashlib.sha256(model if isinstance(model, bytes) else model.read_bytes()).hexdigest()


def runtime_folder(sha256: str) -> Path:
    """Made where it is missing: for what ONNX Runtime keeps of a graph.

    errors: AcceleratorError where it cannot be made, or others can write to it
    """
    folder = engine_folder() / f"{sha256}.ort"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise AcceleratorError(
            f"the folder {folder} for engines cannot be made ({error.strerror}): set XDG_CACHE_HOME to one that can"
        ) from error
    for one in (folder.parent, folder):
        _require_own(one)
    return folder


def stored_engine(model: Path | bytes) -> StoredEngine:
    """The engine that was built of a graph.

    errors: AcceleratorError where there is none, others can write to it, or it is not what its record says
    """
    sha256 = graph_sha256(model)
    path = engine_folder() / f"{sha256}.engine"
    described = path.with_suffix(".json")
    if not path.is_file() or not described.is_file():
        where = "the bundle" if isinstance(model, bytes) else model.parent
        raise AcceleratorError(
            f"got no engine of {_name(model)} (SHA-256 {sha256[:12]}…) in {path.parent}: build it on this machine with "
            f"{BUILD_SCRIPT} of {where}, or take --backend onnxruntime"
        )
    for one in (path.parent, path, described):
        _require_own(one)
    record, content = _read_record(described), path.read_bytes()
    if record.onnx_sha256 != sha256:
        raise AcceleratorError(
            f"{path} was made of a graph with SHA-256 {record.onnx_sha256[:12]}…, wanted {sha256[:12]}…: {_BUILD_AGAIN}"
        )
    if hashlib.sha256(content).hexdigest() != record.engine_sha256:
        raise AcceleratorError(f"{path} is not what was built, by its record beside it: {_BUILD_AGAIN}")
    return StoredEngine(path, content, record)


def require_match(engine: StoredEngine, tensorrt: str, compute_capability: str) -> None:
    """errors: AcceleratorError for an engine of another release of TensorRT or for another GPU than these

    tensorrt: as the package has it, 10.3.0 or 10.3.0.26
    """
    found = _VERSION.match(tensorrt)
    for what, made_for, here in (
        ("TensorRT", engine.record.tensorrt, found[0] if found else ""),
        ("a GPU of compute capability", engine.record.compute_capability, compute_capability),
    ):
        if made_for and here and made_for != here:
            raise AcceleratorError(f"{engine.path} is for {what} {made_for}, here is {here}: {_BUILD_AGAIN}")


def _name(model: Path | bytes) -> str:
    return "the graph" if isinstance(model, bytes) else model.name


def _require_own(path: Path) -> None:
    found = path.stat()
    if found.st_uid != os.getuid() or found.st_mode & _OTHERS_WRITE:
        raise AcceleratorError(
            f"{path} belongs to another user, or others can write to it, and what is in it is run: remove it, or "
            f"chmod go-w {path}"
        )


def _read_record(path: Path) -> EngineRecord:
    wanted = {
        "onnx_sha256": _SHA256,
        "engine_sha256": _SHA256,
        "tensorrt": re.compile(rf"|{_VERSION.pattern}"),
        "compute_capability": re.compile(rf"|{_CAPABILITY.pattern}"),
    }
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise AcceleratorError(f"{path} is no JSON ({error}): {_BUILD_AGAIN}") from error
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        raise AcceleratorError(f"{path} is no record of an engine, wanted {', '.join(wanted)}: {_BUILD_AGAIN}")
    for key, pattern in wanted.items():
        if not isinstance(found[key], str) or not pattern.fullmatch(found[key]):
            raise AcceleratorError(f"{path} has {found[key]!r} for {key}: {_BUILD_AGAIN}")
    return EngineRecord(**found)
