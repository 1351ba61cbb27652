"""Graphs on ONNX Runtime, on the processor unless a GPU is asked for."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.execution_providers import CPU, Device, providers_for, require_provider
from edgeasr.backends.output_buffers import OutputBuffers
from edgeasr.backends.preparation import METADATA, Preparation
from edgeasr.backends.windows import read_by, signed, windows_of
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import BundleError, ExtraMissingError

try:
    import onnxruntime
except ImportError as error:
    raise ExtraMissingError(
        f"ONNX Runtime is not there ({error}): pip install onnxruntime, or, on a system of 32 bits, take a model that "
        "was exported with --target tflite-armv7"
    ) from error

Arrays = dict[str, NDArray[np.generic]]

# ONNX Runtime names types as C++ does; where numpy has another name, that is given here.
_DTYPES = {"float": "float32", "double": "float64"}


class OnnxGraph:
    """One graph of a bundle; it holds weights and no stream's state, so streams share it.

    seldom: it runs so seldom that what it works in is given back after each run
    errors: BundleError for a file that cannot be loaded; with a GPU also ExtraMissingError where this build of ONNX
            Runtime does not use it, and AcceleratorError
    """

    def __init__(self, model: Path | bytes, threads: int = 1, device: Device = "cpu", *, seldom: bool = False) -> None:
        options = session_options(threads, seldom=seldom)
        source = model if isinstance(model, bytes) else str(model)
        providers = providers_for(device, model, onnxruntime.get_available_providers())
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=providers)
        except Exception as error:
            name = "the model" if isinstance(model, bytes) else model
            raise BundleError(f"ONNX Runtime cannot load {name} ({error}): export the bundle again") from error
        require_provider(device, self._session.get_providers())
        read, given = _specs(self._session.get_inputs()), _specs(self._session.get_outputs())
        self._read = read
        self._windows = windows_of(self._session, read, given)
        self._preparation = _preparation(self._session)
        signed_inputs = signed(read, self._windows)
        self.inputs = self._preparation.signed(signed_inputs) if self._preparation else signed_inputs
        self.outputs = signed(given, self._windows)
        self._buffers = OutputBuffers(self._session, read, given, self._windows) if device == "cpu" else None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name, not to be written to; `inputs` may hold more than the graph reads."""
        if self._preparation:
            inputs = {**inputs, **self._preparation.made_of(inputs)}
        outputs = self._buffers.run(inputs) if self._buffers else None
        if outputs is not None:
            return outputs
        given = dict(zip(self.outputs, self._session.run(None, self._in_order(inputs)), strict=True))
        moved = {one.given: one.moved_on(inputs[one.read], given[one.given]) for one in self._windows}
        return {**given, **moved}

    def read_from(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """What the file reads where the graph is given these: for whoever runs the file itself."""
        return self._in_order({**inputs, **(self._preparation.made_of(inputs) if self._preparation else {})})

    def _in_order(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        return read_by(self._windows, {name: inputs[name] for name in self._read})


def session_options(threads: int = 1, *, seldom: bool = False) -> Any:
    """Of a session as streams have it; seldom: as `OnnxGraph`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = not seldom
    return options


def _preparation(session: Any) -> Preparation | None:
    """The graph that the file has for what seldom changes, if it has one."""
    held = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if held is None:
        return None
    made = onnxruntime.InferenceSession(base64.b64decode(held), session_options(seldom=True), providers=[CPU])
    return Preparation(made, _specs(made.get_inputs()), [value.name for value in made.get_outputs()])


def _specs(values: Iterable[Any]) -> dict[str, TensorSpec]:
    """Sizes that vary are names in the file; no bundle has such, so they match no signature."""
    return {value.name: TensorSpec(tuple(value.shape), _dtype(value.type)) for value in values}


def _dtype(name: str) -> str:
    inner = name.removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(inner, inner)
