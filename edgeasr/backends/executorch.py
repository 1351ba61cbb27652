"""Graphs on ExecuTorch's runtime, through its Python package, which brings torch along.

On a board programs are for hosts in C++; this runner is what they are checked with.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import BundleError, ExtraMissingError

Arrays = dict[str, NDArray[np.generic]]

NAMES = "names"  # the method of a program that returns the names of inputs and outputs
_FORWARD = "forward"
_BY_NUMBER = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 11: "bool"}  # c10::ScalarType


class ExecutorchGraph:
    """One graph of a bundle. A program has one set of tensors, so streams that share it take turns.

    threads: of XNNPACK's pool, which is one for the process: the last graph that is loaded decides
    errors:  ExtraMissingError without the package, BundleError for what is no program of ours
    """

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        with quiet():
            runtime = _runtime()
            runtime._legacy_module._unsafe_reset_threadpool(threads)
            try:
                # The method needs the program's memory for as long as it lives.
                self._program = runtime.load_program(model)
                names = _names(self._program)
                self._method = self._program.load_method(_FORWARD)
                found = self._program.metadata(_FORWARD)
            except (RuntimeError, ValueError, KeyError) as error:
                name = "the model" if isinstance(model, bytes) else model
                raise BundleError(f"ExecuTorch cannot load {name} ({error}): export the bundle again") from error
        self.inputs = _specs(names["inputs"], found.num_inputs(), found.input_tensor_meta)
        self.outputs = _specs(names["outputs"], found.num_outputs(), found.output_tensor_meta)
        self._turn = Lock()

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name; `inputs` may hold more than the graph reads."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, of arrays that are not to be written to
            given = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.inputs]
        with self._turn:
            made = self._method.execute(given)
        return {name: tensor.numpy() for name, tensor in zip(self.outputs, made, strict=True)}


def _runtime() -> Any:
    try:
        from executorch.runtime import Runtime
    except ImportError as error:
        raise ExtraMissingError(
            f"ExecuTorch is not there ({error}): pip install 'edgeasr[executorch]', or run `make executorch`"
        ) from error
    return Runtime.get()


def _names(program: Any) -> dict[str, list[str]]:
    """errors: ValueError, KeyError for a program without them"""
    (tensor,) = program.load_method(NAMES).execute([])
    found = json.loads(bytes(tensor.numpy()))
    return {side: [str(name) for name in found[side]] for side in ("inputs", "outputs")}


def _specs(names: list[str], count: int, describe: Any) -> dict[str, TensorSpec]:
    found = [describe(i) for i in range(count)]
    if len(names) != count:
        raise BundleError(f"got a program of {count} tensors and {len(names)} names: export the bundle again")
    return {
        name: TensorSpec(tuple(one.sizes()), _BY_NUMBER.get(one.dtype(), str(one.dtype())))
        for name, one in zip(names, found, strict=True)
    }


@contextmanager
def quiet() -> Iterator[None]:
    """The package logs and warns of its own internals, and its library writes to stderr; errors still come through.

    What the library writes can only be kept back for the whole process, for as long as this lasts.
    """
    disabled, stderr = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.ERROR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stderr, 2)
        for descriptor in (nowhere, stderr):
            os.close(descriptor)
        logging.disable(disabled)
