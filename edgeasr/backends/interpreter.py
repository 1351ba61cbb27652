"""Graphs on an interpreter of TensorFlow Lite's kind, which LiteRT and tflite-runtime have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import BundleError

Arrays = dict[str, NDArray[np.generic]]


class InterpreterGraph:
    """One graph of a bundle. An interpreter has one set of tensors, so streams that share it take turns.

    interpreter: the class of that name of a package
    runtime:     what the package is called in messages
    errors:      BundleError for what is no model, or none that this runtime can run
    """

    def __init__(self, interpreter: Callable[..., Any], runtime: str, model: Path | bytes, threads: int = 1) -> None:
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        self._name = "the model" if isinstance(model, bytes) else str(model)
        try:
            self._interpreter = interpreter(num_threads=threads, **source)
            self._interpreter.allocate_tensors()
            runner = self._interpreter.get_signature_runner()
        except (RuntimeError, ValueError) as error:
            raise BundleError(f"{runtime} cannot load {self._name} ({error}): export the bundle again") from error
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        self.inputs, self.outputs = _specs(inputs), _specs(outputs)
        self._read = {name: int(found["index"]) for name, found in inputs.items()}
        self._written = {name: int(found["index"]) for name, found in outputs.items()}
        self._turn = Lock()

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name; `inputs` may hold more than the graph reads."""
        with self._turn:
            for name, index in self._read.items():
                self._interpreter.set_tensor(index, inputs[name])
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._written.items()}


def _specs(tensors: Mapping[str, Mapping[str, Any]]) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(tuple(int(size) for size in found["shape"]), np.dtype(found["dtype"]).name)
        for name, found in tensors.items()
    }
