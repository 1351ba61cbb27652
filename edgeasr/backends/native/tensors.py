"""Tensors of a program: where they lie, and other looks at what lies there."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import UnsupportedGraphError

MAX_DIMS = 6  # of kernels.c
ALIGNMENT = 64  # bytes, of a line of the cache


@dataclass(eq=False)
class Buffer:
    """Memory of one tensor. first, last: instructions between which it holds what is read"""

    root: int
    size_bytes: int
    offset: int = 0
    first: int = -1
    last: int = -1


@dataclass(frozen=True)
class View:
    """A tensor in a buffer.

    shape:   a size that varies is a name; strides are unknown then
    strides: in elements
    offset:  in bytes
    """

    buffer: Buffer
    dtype: str
    shape: tuple[Any, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def item_bytes(self) -> int:
        """Of an element."""
        return np.dtype(self.dtype).itemsize

    @property
    def is_dense(self) -> bool:
        """Whether its elements lie one after the other, in their order."""
        return all(
            size == 1 or stride == wanted
            for size, stride, wanted in zip(self.shape, self.strides, dense_strides(self.shape), strict=True)
        )


def are_known(shape: Sequence[Any]) -> bool:
    """Whether there is something, and always as much."""
    return all(isinstance(size, int) and size > 0 for size in shape)


def dense_strides(shape: Sequence[Any]) -> tuple[int, ...]:
    """Strides of elements in their order."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size if isinstance(size, int) else 0
    return tuple(reversed(strides))


def bits(value: float) -> int:
    """A double in a word."""
    word: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return word


def broadcast(view: View, shape: Sequence[int]) -> View:
    """The same elements again and again where a size is 1, or missing."""
    missing = len(shape) - len(view.shape)
    sizes, strides = (1,) * missing + view.shape, (0,) * missing + view.strides
    if any(size not in (1, wanted) for size, wanted in zip(sizes, shape, strict=True)):
        raise UnsupportedGraphError(f"got {list(view.shape)} where {list(shape)} is wanted")
    strides = tuple(0 if size == 1 else stride for size, stride in zip(sizes, strides, strict=True))
    return replace(view, shape=tuple(shape), strides=strides)


def merged(shape: Sequence[int], views: Sequence[View]) -> tuple[list[int], list[list[int]]]:
    """Sizes and strides of the same elements in as few dimensions as can be, one at least."""
    sizes: list[int] = []
    strides: list[list[int]] = [[] for _ in views]
    for d, size in enumerate(shape):
        if size == 1:
            continue
        steps = [view.strides[d] for view in views]
        if sizes and all(own[-1] == step * size for own, step in zip(strides, steps, strict=True)):
            sizes[-1] *= size
            for own, step in zip(strides, steps, strict=True):
                own[-1] = step
            continue
        sizes.append(size)
        for own, step in zip(strides, steps, strict=True):
            own.append(step)
    if not sizes:
        sizes, strides = [1], [[0] for _ in views]
    if len(sizes) > MAX_DIMS:
        raise UnsupportedGraphError(f"got {len(sizes)} dimensions, wanted {MAX_DIMS} at most")
    return sizes, strides


def padded(values: Sequence[int]) -> list[int]:
    """Up to as many dimensions as kernels.c has."""
    return [*values, *[0] * (MAX_DIMS - len(values))]


def aligned(size: int) -> NDArray[np.uint8]:
    """Bytes that begin at a line of the cache."""
    block = np.zeros(size + ALIGNMENT, np.uint8)
    first = -block.ctypes.data % ALIGNMENT
    return block[first : first + size]
