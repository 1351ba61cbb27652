"""Programs of a graph, run like a session of ONNX Runtime: inputs and outputs are bound to memory, then it runs."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.native.kernels import NativeLibrary, native_library
from edgeasr.backends.native.plan import planned
from edgeasr.backends.native.program import CONSTANTS, FIRST_OWN, SCRATCH, Plan
from edgeasr.backends.native.tensors import aligned
from edgeasr.backends.output_buffers import is_of
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.onnx_reader import OnnxModel, read_model

Array = NDArray[np.generic]
# Threads that run at once have scratch memory of their own; so much of it is kept.
_SPARE_SCRATCHES = 4


class NativeSession:
    """A graph that is ready to run. Threads may share it.

    most:   the largest values of sizes that vary
    errors: BundleError for what is no model, UnsupportedGraphError for one that `kernels.c` cannot run,
            NativeCodeError where that cannot be compiled
    """

    def __init__(
        self,
        model: Path | bytes | OnnxModel,
        most: Mapping[str, int] | None = None,
        library: NativeLibrary | None = None,
    ) -> None:
        self._library = library or native_library()
        content, constants = model if isinstance(model, OnnxModel) else read_model(model)
        self.plan: Plan = planned(content, constants, self._library.layout, most)
        self.inputs: dict[str, TensorSpec] = {name: content.specs[name] for name in content.inputs}
        self.outputs: dict[str, TensorSpec] = {name: content.specs[name] for name in content.outputs}
        self.numbers = {name: i for i, name in enumerate(self.plan.roots, start=FIRST_OWN)}
        # Of inputs with sizes that vary: the axis, the number of the size, and its largest value.
        self.varying: dict[str, list[tuple[int, int, int]]] = {}
        for name, spec in self.inputs.items():
            for axis, size in enumerate(map(str, spec.shape)):
                if size in self.plan.varying:
                    found = axis, self.plan.varying.index(size), (most or {})[size]
                    self.varying.setdefault(name, []).append(found)
        self._scratches: list[NDArray[np.uint8]] = []

    def io_binding(self) -> Binding:
        """What inputs and outputs are bound to; one that runs at a time."""
        return Binding(self)

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Outputs, in the graph's order, in memory of their own. feed: inputs by name"""
        bound = BoundProgram(self, feed)
        bound.run()
        made = bound.outputs
        for name, cut in self.plan.cuts.items():
            chosen = [slice(None)] * made[name].ndim
            chosen[cut.axis] = slice(0, int(made[cut.until].reshape(-1)[0]))
            made[name] = np.ascontiguousarray(made[name][tuple(chosen)])
        return [made[name] for name in names or self.outputs]

    def run_with_iobinding(self, binding: Binding, times: NDArray[np.int64] | None = None) -> None:
        """Run on what is bound. times: room for the nanoseconds of each instruction"""
        try:
            scratch = self._scratches.pop()
        except IndexError:
            scratch = aligned(self.plan.scratch_bytes)
        binding.roots[SCRATCH] = scratch.ctypes.data
        status = self._library.run(
            binding.program,
            binding.length,
            binding.roots,
            binding.sizes,
            None if times is None else times.ctypes.data,
        )
        if len(self._scratches) < _SPARE_SCRATCHES:
            self._scratches.append(scratch)
        if status:
            raise RuntimeError(f"got a program that the library does not know ({status})")


class BoundProgram:
    """A session that reads the same inputs and writes the same outputs in each run.

    feed:   inputs by name; it may hold more than the graph reads
    errors: ValueError for one of another size
    """

    def __init__(self, session: NativeSession, feed: Mapping[str, Array]) -> None:
        self._session, self._binding = session, session.io_binding()
        self._held = [np.asarray(feed[name], spec.dtype, order="C") for name, spec in session.inputs.items()]
        for (name, spec), array in zip(session.inputs.items(), self._held, strict=True):
            if not is_of(array.shape, spec.shape):
                raise ValueError(f"got {name!r} of {list(array.shape)}, wanted {list(spec.shape)}")
            self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self.outputs: dict[str, Array] = {
            name: np.empty(spec.shape, spec.dtype) for name, spec in session.plan.outputs.items()
        }
        for name, array in self.outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self, times: NDArray[np.int64] | None = None) -> None:
        """times: room for the nanoseconds of each instruction"""
        self._session.run_with_iobinding(self._binding, times)

    def times_us(self, count: int, *, empty: bool = False) -> list[float]:
        """Of so many runs, one after the other. empty: of a program without instructions, which is what a call takes"""
        self._binding.length = 0 if empty else len(self._session.plan.words)
        marks = [time.perf_counter()]
        for _ in range(count):
            self.run()
            marks.append(time.perf_counter())
        self._binding.length = len(self._session.plan.words)
        return [(after - before) * 1e6 for before, after in pairwise(marks)]


class Binding:
    """Where inputs and outputs of a session lie. Whoever binds an array keeps it."""

    def __init__(self, session: NativeSession) -> None:
        plan = session.plan
        self._session = session
        self.program, self.length = plan.words.ctypes.data, len(plan.words)
        self.roots = (ctypes.c_void_p * (FIRST_OWN + len(plan.roots)))()
        self.roots[CONSTANTS] = plan.constants.ctypes.data
        self.sizes = (ctypes.c_int64 * max(1, len(plan.varying)))()

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Sequence[int], place: int) -> None:
        """Read an input there, which is as the graph has it.

        errors: ValueError where a size that varies is none, or too large
        """
        del device, number, dtype
        session = self._session
        for axis, which, most in session.varying.get(name, ()):
            if not 1 <= shape[axis] <= most:
                raise ValueError(f"got {name!r} of {list(shape)}, wanted 1 to {most} along axis {axis}")
            self.sizes[which] = shape[axis]
        self.roots[session.numbers[name]] = place

    def bind_output(self, name: str, device: str, number: int, dtype: Any, shape: Sequence[int], place: int) -> None:
        """Write an output there."""
        del device, number, dtype, shape
        self.roots[self._session.numbers[name]] = place
