"""What numpy does to whole numbers on some boards alone: set bits, and indices as wide as a pointer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.unsignedinteger[Any]]

_IN_A_BYTE = np.array([byte.bit_count() for byte in range(256)], np.uint8)


def as_index(numbers: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """For `take`, which on a system of 32 bits refuses wider numbers; where they are as wide as that, no copy."""
    return np.asarray(numbers, np.intp)


def bits_by_bytes(numbers: Bits) -> NDArray[np.uint8]:
    """As `bit_count`, with any numpy."""
    each = np.ascontiguousarray(numbers).reshape(*numbers.shape, 1).view(np.uint8)
    counts: NDArray[np.uint8] = _IN_A_BYTE[each].sum(axis=-1, dtype=np.uint8)
    return counts


# numpy before 2.0, which is all that Debian Bookworm has, cannot count them.
bit_count: Callable[[Bits], NDArray[np.uint8]] = getattr(np, "bitwise_count", bits_by_bytes)
