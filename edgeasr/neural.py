"""What small networks in numpy are made of."""

from __future__ import annotations

import numpy as np

from edgeasr.features import Floats

_EPSILON = 1e-5  # of torch's LayerNorm


def normal(x: Floats) -> Floats:
    """Mean 0 and variance 1 over the last axis; scale and shift of the layer norm are in the matrix that follows."""
    size = x.shape[-1]
    # For a few short rows x.mean() costs more than all the rest.
    centred = x - np.add.reduce(x, axis=-1, keepdims=True) / size
    variance = np.add.reduce(centred * centred, axis=-1, keepdims=True) / size
    scaled: Floats = centred / np.sqrt(variance + _EPSILON)
    return scaled


def silu(x: Floats) -> Floats:
    """x * sigmoid(x), by tanh, which cannot overflow."""
    result: Floats = x * (0.5 + 0.5 * np.tanh(0.5 * x))
    return result
