"""Graphs on ONNX Runtime, on the processor unless a GPU is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgeasr.backends.execution_providers import CPU, Device, providers_for, require_provider
from edgeasr.backends.preparation import Preparation, prepared_graph
from edgeasr.backends.session_graph import SessionGraph
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import BundleError, ExtraMissingError

try:
    import onnxruntime
except ImportError as error:
    raise ExtraMissingError(
        f"ONNX Runtime is not there ({error}): pip install onnxruntime, or, on a system of 32 bits, take a model that "
        "was exported with --target tflite-armv7"
    ) from error

# ONNX Runtime names types as C++ does; where numpy has another name, that is given here.
_DTYPES = {"float": "float32", "double": "float64"}


class OnnxGraph(SessionGraph):
    """One graph of a bundle on ONNX Runtime.

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
        metadata = self._session.get_modelmeta().custom_metadata_map
        super().__init__(self._session, read, given, metadata, _preparation(metadata), buffered=device == "cpu")


def session_options(threads: int = 1, *, seldom: bool = False) -> Any:
    """Of a session as streams have it; seldom: as `OnnxGraph`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = not seldom
    return options


def _preparation(metadata: Mapping[str, str]) -> Preparation | None:
    held = prepared_graph(metadata)
    if held is None:
        return None
    made = onnxruntime.InferenceSession(held, session_options(seldom=True), providers=[CPU])
    return Preparation(made, _specs(made.get_inputs()), [value.name for value in made.get_outputs()])


def _specs(values: Iterable[Any]) -> dict[str, TensorSpec]:
    """Sizes that vary are names in the file; no bundle has such, so they match no signature."""
    return {value.name: TensorSpec(tuple(value.shape), _dtype(value.type)) for value in values}


def _dtype(name: str) -> str:
    inner = name.removeprefix("tensor(").removesuffix(")")
    return _DTYPES.get(inner, inner)
