"""The few functions of CUDA's runtime library that carry arrays to a GPU and back, through ctypes.

The library is a part of JetPack, so there is nothing to install that would have to match it; a package such as
cuda-python would be one, for every release of CUDA another. These functions are the same in CUDA 10 to 13.
"""

from __future__ import annotations

import ctypes
from ctypes.util import find_library
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import AcceleratorError

# JetPack 7, 6, 5 and 4, and where the toolkit puts it if the loader was not told.
_NAMES = (
    *("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2"),
    "/usr/local/cuda/lib64/libcudart.so",
)
_TO_DEVICE, _TO_HOST = 1, 2  # enum cudaMemcpyKind
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # enum cudaDeviceAttr
_DEVICE = 0
_SIGNATURES: dict[str, list[Any]] = {
    "cudaMalloc": [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t],
    "cudaFree": [ctypes.c_void_p],
    "cudaStreamCreate": [ctypes.POINTER(ctypes.c_void_p)],
    "cudaStreamDestroy": [ctypes.c_void_p],
    "cudaStreamSynchronize": [ctypes.c_void_p],
    "cudaMemcpyAsync": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p],
    "cudaDeviceGetAttribute": [ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int],
}

Array = NDArray[np.generic]


class CudaRuntime:
    """CUDA's runtime on the first GPU. Addresses and streams are whole numbers, as TensorRT takes them.

    errors: AcceleratorError without the library, and for every call that fails
    """

    def __init__(self) -> None:
        self._library = _load()

    def compute_capability(self) -> str:
        """Of the GPU: 8.7 for an Orin."""
        return f"{self._attribute(_CAPABILITY_MAJOR)}.{self._attribute(_CAPABILITY_MINOR)}"

    def allocate(self, size_bytes: int) -> int:
        """The address of new memory on the device."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), size_bytes)
        return address.value or 0

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cudaFree", address)

    def new_stream(self) -> int:
        """Calls that name the same stream happen one after the other."""
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        """What was asked of it is done first."""
        self._call("cudaStreamDestroy", stream)

    def send(self, array: Array, address: int, stream: int) -> None:
        """Begin to copy an array in C order to the device; it has to live until the stream was waited for."""
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, _TO_DEVICE, stream)

    def fetch(self, address: int, array: Array, stream: int) -> None:
        """Begin to copy from the device into an array in C order; it may be read when the stream was waited for."""
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, _TO_HOST, stream)

    def wait(self, stream: int) -> None:
        """Until all that was asked of a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), number, _DEVICE)
        return value.value

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            said = self._library.cudaGetErrorString(status).decode(errors="replace")
            raise AcceleratorError(
                f"CUDA's {name} fails ({said}): look with tegrastats or nvidia-smi whether the GPU is there and has "
                "memory, or take --backend onnxruntime"
            )


def _load() -> ctypes.CDLL:
    for name in filter(None, (find_library("cudart"), *_NAMES)):
        try:
            return _with_signatures(ctypes.CDLL(name))
        except OSError:
            continue
    raise AcceleratorError(
        "got no libcudart.so, wanted the CUDA runtime of JetPack: apt install cuda-cudart-12-6 or its like, or add "
        "/usr/local/cuda/lib64 to LD_LIBRARY_PATH"
    )


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, types in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, ctypes.c_int
    library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = [ctypes.c_int], ctypes.c_char_p
    return library
