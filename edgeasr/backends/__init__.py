"""Runtimes for the graphs of a bundle, each imported only when a bundle or a user asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import BundleError

Array = NDArray[np.generic]


# Packages that run graphs, by the names under which they are imported.
_RUNTIMES = ("onnxruntime", "ai_edge_litert", "tflite_runtime")
# What can be asked for; choice.py has which artefacts each of them runs.
_KNOWN = (
    "native",
    "onnxruntime",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "tensorrt",
    "litert",
    "tflite",
    "executorch",
    "torch",
)


class Graph(Protocol):
    """A loaded graph: named arrays in, named arrays out, nothing kept."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What the graph reads, as the file has it."""

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """What the graph gives, as the file has it."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name; `inputs` may hold more than the graph reads."""


def installed_runtimes() -> tuple[str, ...]:
    """Those of the packages that are there, which is not to say that they can be imported."""
    return tuple(name for name in _RUNTIMES if find_spec(name) is not None)


def load_graph(backend: str, model: Path | bytes, threads: int, part: str = "step") -> Graph:
    """A graph on the named backend.

    part:   which one, where a file holds all of them
    raises: BundleError for an unknown backend or a file it cannot load, ExtraMissingError for one not installed,
            AcceleratorError for a GPU that cannot be used
    """
    if backend == "native":
        from edgeasr.backends.native.graph import NativeGraph

        return NativeGraph(model, threads)
    if backend in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        from edgeasr.backends.onnxruntime import OnnxGraph

        return OnnxGraph(model, threads, "cuda" if backend == "onnxruntime-cuda" else "tensorrt")
    if backend == "tensorrt":
        from edgeasr.backends.tensorrt import TensorrtGraph

        return TensorrtGraph(model, threads)
    if backend == "onnxruntime":
        from edgeasr.backends.onnxruntime import OnnxGraph

        return OnnxGraph(model, threads, seldom=part == "memory")
    if backend == "litert":
        from edgeasr.backends.litert import LitertGraph

        return LitertGraph(model, threads)
    if backend == "tflite":
        from edgeasr.backends.tflite import TfliteGraph

        return TfliteGraph(model, threads)
    if backend == "executorch":
        from edgeasr.backends.executorch import ExecutorchGraph

        return ExecutorchGraph(model, threads)
    if backend == "torch":
        from edgeasr.backends.torch import TorchGraph

        return TorchGraph(model, threads, part)
    raise BundleError(f"unknown backend {backend!r}: known backends are {', '.join(_KNOWN)}")
