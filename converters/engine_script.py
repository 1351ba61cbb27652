"""The script in a bundle that builds TensorRT's engines of it on the device: `build_engine.sh`.

Its functions are a file beside this one; what is written behind them is a line an engine: artefact, graph, the graph's
SHA-256, and what trtexec has to be told for its precision in this release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources

from edgeasr.backends.engine_cache import BUILD_SCRIPT
from edgeasr.converters.artefacts import KINDS

_WORKSPACE_MB = 512
_RELEASE_FLAGS = {
    "10": ("--skipInference", f"--memPoolSize=workspace:{_WORKSPACE_MB}", "--stronglyTyped"),
    "8.2": ("--buildOnly", f"--workspace={_WORKSPACE_MB}"),
}
# From 10 on types are those of the graph; before, TensorRT chooses among what it is allowed. fp32 is not TF32.
_PRECISION_FLAGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "10": {"fp32": ("--noTF32",), "fp16": (), "int8": ()},
    "8.2": {"fp32": ("--noTF32",), "fp16": ("--fp16",), "int8": ("--int8",)},
}


def engine_scripts(
    tensorrt: str, artefacts: Mapping[str, Mapping[str, str]], files: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The script by its name; nothing for a bundle without artefacts for TensorRT.

    tensorrt:  the release that they were exported for
    artefacts: kind -> part -> file name
    files:     contents by name
    """
    kinds = [kind for kind in artefacts if kind.startswith("tensorrt-")]
    if not kinds:
        return {}
    lines = [
        f"\n# Written by edgeasr export, for TensorRT {tensorrt}.",
        f'choose "{" ".join(kinds)}" "$@"',
        *(_line(tensorrt, kind, name, files[name]) for kind in kinds for name in artefacts[kind].values()),
    ]
    functions = resources.files("edgeasr.converters").joinpath(BUILD_SCRIPT).read_bytes()
    return {BUILD_SCRIPT: functions + "\n".join(lines).encode() + b"\n"}


def trtexec_flags(tensorrt: str, kind: str) -> tuple[str, ...]:
    """What trtexec has to be told beside the files to read and write."""
    return _RELEASE_FLAGS[tensorrt] + _PRECISION_FLAGS[tensorrt][KINDS[kind].precision]


def _line(tensorrt: str, kind: str, name: str, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    return " ".join(["build", kind, name, sha256, *trtexec_flags(tensorrt, kind)])
