"""A GPU, CUDA's runtime and TensorRT's Python package, imitated as far as edgeasr uses them.

Names, arguments and what they return are those of TensorRT 10's documentation of its Python API. An engine is a line
with release and compute capability before the ONNX file that it was made of, and is run by ONNX Runtime. The C of the
runtime library is in imitated_gpu.c.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
from abc import ABC, abstractmethod
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime

VERSION, CAPABILITY = "10.3.0", "8.7"  # those of JetPack 6.2 and an Orin
_MAGIC = b"imitated engine "
_CALLBACK = ctypes.CFUNCTYPE(None)


def build_library(folder: Path) -> Path:
    """Compile libcudart.so there."""
    library = folder / "libcudart.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(
        ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", source, "-o", library], check=True
    )
    return library


def engine_of(model: bytes, version: str = VERSION, capability: str = CAPABILITY, narrows: bool = False) -> bytes:
    """An engine as a build on such a device would give it. narrows: hold 64-bit whole numbers in 32, as before 10"""
    head = {"version": version, "capability": capability, "narrows": narrows}
    return _MAGIC + json.dumps(head).encode() + b"\n" + model


class DataType(Enum):
    """tensorrt.DataType, as far as our graphs have it."""

    FLOAT = 0
    HALF = 1
    INT32 = 3
    BOOL = 4
    INT64 = 8


class TensorIOMode(Enum):
    """tensorrt.TensorIOMode."""

    NONE = 0
    INPUT = 1
    OUTPUT = 2


_TYPES = {
    "tensor(float)": (DataType.FLOAT, np.float32),
    "tensor(float16)": (DataType.HALF, np.float16),
    "tensor(int32)": (DataType.INT32, np.int32),
    "tensor(int64)": (DataType.INT64, np.int64),
    "tensor(bool)": (DataType.BOOL, np.bool_),
}


class ILogger(ABC):
    """tensorrt.ILogger."""

    class Severity(Enum):
        """Of a message."""

        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    @abstractmethod
    def log(self, severity, message):
        """A message of the library."""


class Runtime:
    """tensorrt.Runtime, whose release and GPU are given."""

    def __init__(self, version, gpu, logger):
        assert isinstance(logger, ILogger)
        self.version, self.gpu, self.logger = version, gpu, logger

    def deserialize_cuda_engine(self, serialized_engine):
        self.logger.log(ILogger.Severity.WARNING, "Using an engine plan file across different models of devices")
        if not serialized_engine.startswith(_MAGIC):
            self.logger.log(ILogger.Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: magic tag\n")
            return None
        head, _, model = serialized_engine[len(_MAGIC) :].partition(b"\n")
        made = json.loads(head)
        if made["version"] != self.version:
            self.logger.log(ILogger.Severity.ERROR, "The engine plan file is not compatible with this version")
            return None
        return ICudaEngine(self.gpu, model, narrows=made["narrows"])


class ICudaEngine:
    """tensorrt.ICudaEngine."""

    def __init__(self, gpu, model, *, narrows):
        self.gpu = gpu
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.tensors = {**self.inputs, **self.outputs}
        self.narrows = narrows

    @property
    def num_io_tensors(self):
        return len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return tuple(self.tensors[name].shape)

    def get_tensor_dtype(self, name):
        dtype = _TYPES[self.tensors[name].type][0]
        return DataType.INT32 if self.narrows and dtype is DataType.INT64 else dtype

    def create_execution_context(self):
        return IExecutionContext(self)


class IExecutionContext:
    """tensorrt.IExecutionContext."""

    def __init__(self, engine):
        self.engine, self.addresses = engine, {}
        self.launched = _CALLBACK(self.compute)

    def set_tensor_address(self, name, memory):
        self.addresses[name] = memory
        return name in self.engine.tensors

    def execute_async_v3(self, stream_handle):
        assert stream_handle
        return (
            self.addresses.keys() == self.engine.tensors.keys() and self.engine.gpu.imitated_launch(self.launched) == 0
        )

    def compute(self):
        engine = self.engine
        feed = {name: self.read(name) for name in engine.inputs}
        for name, array in zip(engine.outputs, engine.session.run(None, feed), strict=True):
            held = np.ascontiguousarray(array, self.held_type(name))
            assert engine.gpu.imitated_poke(self.addresses[name], held.ctypes.data, held.nbytes) == 0

    def read(self, name):
        array = np.empty(self.engine.tensors[name].shape, self.held_type(name))
        assert self.engine.gpu.imitated_peek(self.addresses[name], array.ctypes.data, array.nbytes) == 0
        return array.astype(_TYPES[self.engine.tensors[name].type][1])

    def held_type(self, name):
        dtype = _TYPES[self.engine.tensors[name].type][1]
        return np.int32 if self.engine.narrows and dtype is np.int64 else dtype


def imitated_tensorrt(library: Path, version: str = VERSION) -> ModuleType:
    """The package, on the GPU of this library."""
    gpu = ctypes.CDLL(str(library))
    gpu.imitated_launch.argtypes = [_CALLBACK]
    for name in ("imitated_peek", "imitated_poke"):
        getattr(gpu, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    package = ModuleType("tensorrt")
    package.__version__ = version
    package.Runtime = partial(Runtime, version, gpu)
    for one in (ICudaEngine, ILogger, DataType, TensorIOMode):
        setattr(package, one.__name__, one)
    return package
