"""Caches that a graph reads as windows on rows of time, and of which it gives the new rows alone.

In the signature of a bundle a step reads a cache and gives it whole again, its rows moved on. Most of that would be
copies: of a megabyte a step, new are the rows of four frames. A graph for ONNX Runtime may therefore have the rows of a
cache in the order of time, one behind the other, and write only the new ones (`edgeasr.converters.windows` makes such).
The next cache is then a window on the same rows, a little further on; the one before it still has all of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgeasr.bundle_manifest import TensorSpec

Array = NDArray[np.generic]
Specs = Mapping[str, TensorSpec]

METADATA = "edgeasr.windows"  # in the file: name of the cache -> the order of its axes in the signature
_READ, _GIVEN = "state.", "next_state."


@dataclass(frozen=True)
class Window:
    """One cache of a graph.

    read, given: names of the input and of the output
    shape:       of what is read, in the file's order of axes
    added:       rows that a step adds, which are as many as it forgets
    axis:        of time, in the file; those before it have one element
    order:       the file's axes as the signature has them
    """

    read: str
    given: str
    shape: tuple[int, ...]
    dtype: str
    added: int
    axis: int
    order: tuple[int, ...]

    @cached_property
    def kept(self) -> int:
        """Rows that are read."""
        return self.shape[self.axis]

    @cached_property
    def spec(self) -> TensorSpec:
        """Input and output, as the signature has them."""
        return TensorSpec(tuple(self.shape[axis] for axis in self.order), self.dtype)

    def rows(self, count: int) -> Array:
        """Room for so many rows."""
        return np.empty((*self.shape[: self.axis], count, *self.shape[self.axis + 1 :]), self.dtype)

    def part(self, rows: Array, first: int, count: int) -> Array:
        """A view of so many rows, from the first on."""
        return rows[(slice(None),) * self.axis + (slice(first, first + count),)]

    def as_signed(self, rows: Array) -> Array:
        """A view in the order of the signature."""
        return rows.transpose(self.order)

    def as_read(self, array: Array) -> Array:
        """A view of what the signature has, in the order of the file."""
        return array.transpose(self._inverse)

    def moved_on(self, before: Array, new: Array) -> Array:
        """The next cache, as the signature has it. before: likewise; new: rows, as the graph gives them"""
        last = self.part(self.as_read(before), self.added, self.kept - self.added)
        return self.as_signed(np.concatenate([last, new], axis=self.axis))

    @cached_property
    def _inverse(self) -> tuple[int, ...]:
        return tuple(int(axis) for axis in np.argsort(self.order))


def windows_of(metadata: Mapping[str, str], inputs: Specs, outputs: Specs) -> tuple[Window, ...]:
    """The windows of a graph, none where the file says nothing of any. metadata: what the file says besides"""
    orders = json.loads(metadata.get(METADATA, "{}"))
    return tuple(
        _window(name, order, inputs[_READ + name], outputs[_GIVEN + name].shape) for name, order in orders.items()
    )


def signed(specs: Specs, windows: Iterable[Window]) -> dict[str, TensorSpec]:
    """What a graph reads or gives, as the signature has it."""
    known = {name: window.spec for window in windows for name in (window.read, window.given)}
    return {name: known.get(name, spec) for name, spec in specs.items()}


def read_by(windows: Iterable[Window], feed: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs in the order in which the file has their axes."""
    return {**feed, **{one.read: np.ascontiguousarray(one.as_read(feed[one.read])) for one in windows}}


def _window(name: str, order: Iterable[int], read: TensorSpec, new: tuple[int, ...]) -> Window:
    axis = next(i for i, (kept, added) in enumerate(zip(read.shape, new, strict=True)) if kept != added)
    return Window(_READ + name, _GIVEN + name, read.shape, read.dtype, new[axis], axis, tuple(order))
