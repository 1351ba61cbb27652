"""Memory for the outputs of a graph that is used again once nobody holds them any more.

A step gives more than a megabyte of state. Left to itself, ONNX Runtime allocates it, copies it into arrays and frees
it, step by step. Here it writes into arrays that are there already, where the next step reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Set
from functools import partial
from threading import Lock
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from edgeasr.bundle_manifest import TensorSpec

Arrays = Mapping[str, NDArray[np.generic]]

# Streams that run at once hold one set each, and one more is written; whoever keeps more outputs gets them allocated.
MAX_SETS = 16


class OutputBuffers:
    """Sets of output arrays of one session, each free as soon as its arrays are held nowhere else.

    session: an onnxruntime.InferenceSession on the CPU
    """

    def __init__(self, session: Any, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> None:
        self._session, self._inputs, self._outputs = session, inputs, outputs
        self._fixed = all(
            isinstance(size, int) for spec in [*inputs.values(), *outputs.values()] for size in spec.shape
        )
        self._sets: list[_BufferSet] = []
        self._own: set[int] = set()  # ids of all arrays of all sets, which live as long as this
        self._lock = Lock()

    def run(self, feed: Arrays) -> dict[str, NDArray[np.generic]] | None:
        """Outputs by name; None where no set is free, or an input or a size is not known to fit."""
        free = self._claim() if self._fixed else None
        if free is None:
            return None
        try:
            for name in free.unbound(feed, self._inputs):
                if not free.bind(name, feed[name], self._inputs[name], self._own):
                    return None
            self._session.run_with_iobinding(free.binding)
            return dict(free.arrays)
        finally:
            free.claimed = False

    def _claim(self) -> _BufferSet | None:
        with self._lock:
            found = next((one for one in self._sets if one.is_free()), None)
            if found is None and len(self._sets) < MAX_SETS:
                found = _BufferSet(self._session.io_binding(), self._outputs)
                self._sets.append(found)
                self._own |= {id(array) for array in found.arrays.values()}
            if found is not None:
                found.claimed = True
            return found


class _BufferSet:
    """One array an output, and what the inputs are bound to when these are written."""

    def __init__(self, binding: Any, outputs: Mapping[str, TensorSpec]) -> None:
        self.binding = binding
        self.arrays = {name: np.empty(spec.shape, spec.dtype) for name, spec in outputs.items()}
        self.claimed = False
        self._bound: dict[str, int] = {}  # ids
        self._foreign: dict[str, ReferenceType[NDArray[np.generic]]] = {}  # to bound arrays of no set
        self._bind_outputs()
        self._references = self._count()

    def is_free(self) -> bool:
        """Whether nobody else holds one of the arrays, or a view of one."""
        return not self.claimed and self._count() == self._references

    def unbound(self, feed: Arrays, names: Iterable[str]) -> list[str]:
        """Inputs that are not read from these arrays yet."""
        bound = self._bound
        return [name for name in names if bound.get(name) != id(feed[name])]

    def bind(self, name: str, array: NDArray[np.generic], spec: TensorSpec, own: Set[int]) -> bool:
        """Read an input where this array lies. own: ids of arrays that live anyway. returns: whether it can be"""
        if array.shape != spec.shape or array.dtype != spec.dtype or not array.flags.c_contiguous:
            return False
        self.binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._bound[name] = id(array)
        self._foreign.pop(name, None)
        if id(array) not in own:
            # Held here, what a stream's memory was before it changed would stay for as long as this set is not used.
            self._foreign[name] = ref(array, partial(_forget, self._bound, name))
        return True

    def _bind_outputs(self) -> None:
        for name, array in self.arrays.items():
            self.binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _count(self) -> list[int]:
        return [sys.getrefcount(array) for array in self.arrays.values()]


def _forget(bound: dict[str, int], name: str, gone: object) -> None:
    """Another array may get the id of one that is gone."""
    del gone
    bound.pop(name, None)
