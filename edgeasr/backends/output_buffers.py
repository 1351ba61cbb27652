"""Memory for the outputs of a graph that is used again once nobody holds them any more.

A step gives many arrays of state. Left to itself, ONNX Runtime allocates them, copies them into arrays of numpy and
frees them, step by step. Here it writes into arrays that are there already, where the next step reads them.

Where the graph has windows (`edgeasr.backends.windows`), a step writes its new rows right behind those that it reads,
in a reel with room for several steps. At the end of a reel the last window is copied to the start of another. What was
given stays as it is: rows are only ever added, and a second step from the same state gets a reel of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import partial
from threading import Lock
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.preparation import PREPARED
from edgeasr.backends.windows import Window
from edgeasr.bundle_manifest import TensorSpec

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]

# Streams that run at once hold one reel each, and one more is written; whoever keeps more outputs gets them allocated.
MAX_REELS = 16
# What streams that have ended leave behind goes, but for so many.
SPARE_REELS = 2
# Of a graph with windows: more are fewer copies from reel to reel and more memory.
STEPS_OF_A_REEL = 8
# An input that is given anew, as features are, is copied where it is so small: telling where it lies takes longer.
COPIED_BYTES = 8192


class OutputBuffers:
    """Reels of output arrays of one session, each free as soon as its arrays are held nowhere else.

    session: an onnxruntime.InferenceSession on the CPU
    inputs, outputs: as the file has them
    """

    def __init__(
        self,
        session: Any,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        windows: Sequence[Window] = (),
    ) -> None:
        self._session, self._outputs, self._windows = session, outputs, windows
        read = {window.read for window in windows}
        self._inputs = {name: spec for name, spec in inputs.items() if name not in read}
        written = [*outputs.values(), *(inputs[name] for name in read)]
        self._fixed = all(isinstance(size, int) for spec in written for size in spec.shape)
        self._reels: list[_Reel] = []
        self._own: set[int] = set()  # ids of all arrays of all reels, which live as long as this
        self._places: dict[int, tuple[_Reel, int]] = {}  # of the first window of a step, by its id
        self._lock = Lock()

    def run(self, feed: Arrays) -> dict[str, Array] | None:
        """Outputs by name, as the signature has them; None where no reel is free, or an input or a size does not fit.

        feed: inputs, as the signature has them
        """
        claimed = self._claim(feed) if self._fixed else None
        if claimed is None:
            return None
        reel, step = claimed
        turn = reel.turns[step]
        try:
            if step == 0 and not reel.begin(feed):
                return None
            for name in turn.unbound(feed, self._inputs):
                if not turn.bind(name, feed[name], self._inputs[name], self._own):
                    return None
            self._session.run_with_iobinding(turn.binding)
            return dict(turn.arrays)
        finally:
            turn.claimed = False

    def _claim(self, feed: Arrays) -> tuple[_Reel, int] | None:
        """A step of a reel that may be written: the one behind the step whose windows are read, or a first one."""
        with self._lock:
            reel, step = self._following(feed)
            if reel is None:
                reel, step = self._free() or self._another(), 0
            if reel is None:
                return None
            reel.written = step + 1
            reel.turns[step].claimed = True
            return reel, step

    def _following(self, feed: Arrays) -> tuple[_Reel | None, int]:
        if not self._windows:
            return None, 0
        reel, step = self._places.get(id(feed[self._windows[0].read]), (None, 0))
        if reel is None or step + 1 == len(reel.turns) or not reel.turns[step].gave(feed, self._windows):
            return None, 0
        free = reel.written == step + 1 or reel.is_free(step + 1)
        return (reel, step + 1) if free else (None, 0)

    def _free(self) -> _Reel | None:
        """One of the reels that nobody holds; all but a few of them are given up."""
        free = [reel for reel in self._reels if reel.is_free()]
        for reel in free[SPARE_REELS:]:
            self._give_up(reel)
        return free[0] if free else None

    def _give_up(self, reel: _Reel) -> None:
        self._reels.remove(reel)
        gone = {id(array) for turn in reel.turns for array in turn.arrays.values()}
        self._own -= gone
        self._places = {key: place for key, place in self._places.items() if key not in gone}
        for other in self._reels:
            for turn in other.turns:
                turn.forget(gone)

    def _another(self) -> _Reel | None:
        if len(self._reels) == MAX_REELS:
            return None
        reel = _Reel(self._session, self._outputs, self._windows)
        self._reels.append(reel)
        for step, turn in enumerate(reel.turns):
            self._own |= {id(array) for array in turn.arrays.values()}
            if self._windows:
                self._places[id(turn.arrays[self._windows[0].given])] = reel, step
        return reel


class _Reel:
    """Rows of every window for several steps, and what each step of them writes.

    written: steps that were written since the reel was begun; those behind them are free
    """

    def __init__(self, session: Any, outputs: Mapping[str, TensorSpec], windows: Sequence[Window]) -> None:
        self.written = 0
        self._windows = windows
        steps = STEPS_OF_A_REEL if windows else 1
        self._rows = [window.rows(window.kept + steps * window.added) for window in windows]
        self.turns = [_Turn(session.io_binding(), outputs, windows, self._rows, step) for step in range(steps)]
        # What the first step reads, as the signature has it.
        self._first = [
            window.as_signed(window.part(rows, 0, window.kept))
            for window, rows in zip(windows, self._rows, strict=True)
        ]
        self._references = self._count()

    def is_free(self, first: int = 0) -> bool:
        """Whether nobody else holds an array of these steps, or a view of one."""
        return all(turn.is_free() for turn in self.turns[first:]) and self._count() == self._references

    def begin(self, feed: Arrays) -> bool:
        """Copy what the first step reads. returns: whether it can be read"""
        reads = [feed[window.read] for window in self._windows]
        if any(
            array.shape != first.shape or array.dtype != first.dtype
            for array, first in zip(reads, self._first, strict=True)
        ):
            return False
        for array, first in zip(reads, self._first, strict=True):
            first[...] = array
        return True

    def _count(self) -> list[int]:
        return [sys.getrefcount(rows) for rows in self._rows]


class _Turn:
    """What one step writes, and what the inputs are bound to when it does.

    arrays: outputs by name, as the signature has them
    """

    def __init__(
        self,
        binding: Any,
        outputs: Mapping[str, TensorSpec],
        windows: Sequence[Window],
        rows: Sequence[Array],
        step: int,
    ) -> None:
        self.binding = binding
        self.claimed = False
        self.arrays: dict[str, Array] = {}
        self._bound: dict[str, int] = {}  # ids
        self._foreign: dict[str, ReferenceType[Array]] = {}  # to bound arrays of no reel
        self._copies: dict[str, Array] = {}  # of small ones
        for window, written in zip(windows, rows, strict=True):
            first = step * window.added
            self._bind_input(window.read, window.part(written, first, window.kept))
            self._bind_output(window.given, window.part(written, first + window.kept, window.added))
            self.arrays[window.given] = window.as_signed(window.part(written, first + window.added, window.kept))
        for name, spec in outputs.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty(spec.shape, spec.dtype)
                self._bind_output(name, self.arrays[name])
        self._references = self._count()

    def is_free(self) -> bool:
        """Whether nobody else holds one of the arrays."""
        return not self.claimed and self._count() == self._references

    def gave(self, feed: Arrays, windows: Iterable[Window]) -> bool:
        """Whether all windows are those that this step gave."""
        return all(feed[window.read] is self.arrays[window.given] for window in windows)

    def unbound(self, feed: Arrays, names: Iterable[str]) -> list[str]:
        """Inputs that are not read from these arrays yet."""
        bound = self._bound
        return [name for name in names if bound.get(name) != id(feed[name])]

    def bind(self, name: str, array: Array, spec: TensorSpec, own: Set[int]) -> bool:
        """Read an input where this array lies. own: ids of arrays that live anyway. returns: whether it can be"""
        if not is_of(array.shape, spec.shape) or array.dtype != spec.dtype or not array.flags.c_contiguous:
            return False
        if array.nbytes <= COPIED_BYTES and id(array) not in own and not name.startswith(PREPARED):
            self._copy(name, array)
            return True
        self._bind_input(name, array)
        self._bound[name] = id(array)
        self._foreign.pop(name, None)
        if id(array) not in own:
            # Held here, what a stream's memory was before it changed would stay for as long as this is not used.
            self._foreign[name] = ref(array, partial(_forget, self._bound, name))
        return True

    def _copy(self, name: str, array: Array) -> None:
        """Read an input from a copy, which stays where it is."""
        copy = self._copies.get(name)
        if copy is None or copy.shape != array.shape:
            copy = self._copies[name] = np.empty_like(array)
        if self._bound.get(name) != id(copy):
            self._bind_input(name, copy)
            self._bound[name] = id(copy)
            self._foreign.pop(name, None)
        copy[...] = array

    def forget(self, gone: Set[int]) -> None:
        """Other arrays may get the ids of these, which are gone."""
        for name, key in list(self._bound.items()):
            if key in gone:
                self._bound.pop(name, None)

    def _bind_input(self, name: str, array: Array) -> None:
        self.binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _bind_output(self, name: str, array: Array) -> None:
        self.binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _count(self) -> list[int]:
        return [sys.getrefcount(array) for array in self.arrays.values()]


def is_of(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether sizes are those wanted; one that varies is a name in the file."""
    return shape == wanted or (
        len(shape) == len(wanted)
        and all(size == other or isinstance(other, str) for size, other in zip(shape, wanted, strict=True))
    )


def _forget(bound: dict[str, int], name: str, gone: object) -> None:
    """Another array may get the id of one that is gone."""
    del gone
    bound.pop(name, None)
