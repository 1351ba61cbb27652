"""Graphs on engines of TensorRT, which the bundle's build_engine.sh built on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.cuda_runtime import CudaRuntime
from edgeasr.backends.engine_cache import StoredEngine, require_match, stored_engine
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import AcceleratorError, ExtraMissingError
from edgeasr.onnx_reader import OnnxContent, read_onnx

Arrays = dict[str, NDArray[np.generic]]
Specs = Mapping[str, TensorSpec]

# TensorRT's DataType by its name, and numpy's: trt.nptype needs types that numpy 2 has no more.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
_INT32 = np.iinfo(np.int32)


class TensorrtGraph:
    """One graph of a bundle on the GPU. It has one set of buffers there, so streams that share it take turns.

    model:   the graph in ONNX: names, sizes and types are its, the engine is that with its hash
    threads: of no use here
    errors:  ExtraMissingError without TensorRT's package, AcceleratorError without CUDA, or an engine that was built of
             this graph, by this release of TensorRT, for this GPU
    """

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        del threads
        trt = _tensorrt()
        cuda = CudaRuntime()
        engine = stored_engine(model)
        require_match(engine, trt.__version__, cuda.compute_capability())
        content = read_onnx(model)
        self.inputs = {name: content.specs[name] for name in content.inputs}
        self.outputs = {name: content.specs[name] for name in content.outputs}
        # An engine lives no longer than what loaded it.
        self._runtime, self._engine = _deserialised(trt, engine)
        self._held = _held_tensors(self._engine, trt)
        _check(self._held, content, engine.path)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise AcceleratorError(f"TensorRT has no room to run {engine.path}: end what else uses the GPU")
        self._cuda, self._stream = cuda, cuda.new_stream()
        self._addresses: dict[str, int] = {}
        finalize(self, _give_back, cuda, self._stream, self._addresses)
        for name, (_, spec) in self._held.items():
            self._addresses[name] = cuda.allocate(max(_size_bytes(spec), 1))
            self._context.set_tensor_address(name, self._addresses[name])
        self._turn = Lock()

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name; `inputs` may hold more than the graph reads.

        errors: AcceleratorError for an input of another size or type, and where the GPU fails
        """
        with self._turn:
            given = {name: self._held_form(name, inputs[name]) for name in self.inputs if name in self._held}
            try:
                found = self._computed(given)
            except AcceleratorError:
                # What was begun may still read `given`.
                with suppress(AcceleratorError):
                    self._cuda.wait(self._stream)
                raise
        return {name: array.astype(self.outputs[name].dtype, copy=False) for name, array in found.items()}

    def _computed(self, given: Arrays) -> Arrays:
        for name, array in given.items():
            self._cuda.send(array, self._addresses[name], self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise AcceleratorError("TensorRT does not run the engine: remove it and build it again on this machine")
        found: Arrays = {}
        for name in self.outputs:
            spec = self._held[name][1]
            found[name] = np.empty(spec.shape, spec.dtype)
            self._cuda.fetch(self._addresses[name], found[name], self._stream)
        self._cuda.wait(self._stream)
        return found

    def _held_form(self, name: str, array: NDArray[np.generic]) -> NDArray[np.generic]:
        """An input as the engine holds it. errors: AcceleratorError for another size or type"""
        wanted, held = self.inputs[name], self._held[name][1]
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            raise AcceleratorError(
                f"got {name} as {array.dtype} {list(array.shape)}, wanted {wanted.dtype} {list(wanted.shape)}"
            )
        if held.dtype != wanted.dtype and not _fits_32_bits(array):
            raise AcceleratorError(f"{name} is beyond the 32 bits in which this release of TensorRT counts: start anew")
        return np.ascontiguousarray(array, held.dtype)


def _tensorrt() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise ExtraMissingError(
            f"TensorRT's package is not there for this Python ({error}): it is a part of JetPack, docs/jetson.md has "
            "the ways to it, or take --backend onnxruntime"
        ) from error
    if not hasattr(tensorrt.ICudaEngine, "num_io_tensors"):
        raise AcceleratorError(
            f"got TensorRT {tensorrt.__version__}, wanted 8.5 or newer, which knows tensors by name: take --backend "
            "onnxruntime"
        )
    return tensorrt


def _deserialised(trt: Any, engine: StoredEngine) -> tuple[Any, Any]:
    """A runtime and the engine. errors: AcceleratorError with what TensorRT says of it"""
    said: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                said.append(message.strip())

    runtime = trt.Runtime(Logger())
    loaded = runtime.deserialize_cuda_engine(engine.content)
    if loaded is None:
        why = " ".join(said[-1].split()) if said else "no reason given"
        raise AcceleratorError(
            f"TensorRT {trt.__version__} cannot load {engine.path} ({why}): remove it and build it again here"
        )
    return runtime, loaded


def _held_tensors(engine: Any, trt: Any) -> dict[str, tuple[bool, TensorSpec]]:
    """What an engine reads and gives: whether it is an input, and its size and type there."""
    found = {}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        dtype = engine.get_tensor_dtype(name).name
        spec = TensorSpec(tuple(engine.get_tensor_shape(name)), _DTYPES.get(dtype, dtype))
        found[name] = (engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT, spec)
    return found


def _check(held: Mapping[str, tuple[bool, TensorSpec]], content: OnnxContent, path: Path) -> None:
    """errors: AcceleratorError for an engine that reads or gives something else than the graph"""
    read = {name for node in content.nodes for name in node.inputs}
    for name in sorted(held.keys() | content.specs.keys()):
        if name not in held and name in content.inputs and name not in read:
            continue  # nothing in the graph reads it, so the engine need not
        wanted = (name in content.inputs, content.specs[name]) if name in content.specs else None
        if not _fits(held.get(name), wanted):
            raise AcceleratorError(
                f"{path} has {_plain(held.get(name))} for {name!r}, its graph {_plain(wanted)}: remove it and build it "
                "again"
            )


def _fits(held: tuple[bool, TensorSpec] | None, wanted: tuple[bool, TensorSpec] | None) -> bool:
    """Before TensorRT 10, whole numbers of 64 bits are held in 32."""
    if held is None or wanted is None or held == wanted:
        return held == wanted
    narrowed = TensorSpec(wanted[1].shape, "int32") if wanted[1].dtype == "int64" else wanted[1]
    return held == (wanted[0], narrowed)


def _fits_32_bits(array: NDArray[Any]) -> bool:
    return array.size == 0 or bool(array.min() >= _INT32.min and array.max() <= _INT32.max)


def _plain(tensor: tuple[bool, TensorSpec] | None) -> str:
    if tensor is None:
        return "nothing"
    is_input, spec = tensor
    return f"{'an input' if is_input else 'an output'} of {spec.dtype} {list(spec.shape)}"


def _size_bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize


def _give_back(cuda: CudaRuntime, stream: int, addresses: dict[str, int]) -> None:
    for address in addresses.values():
        cuda.free(address)
    cuda.destroy_stream(stream)
