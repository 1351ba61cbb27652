"""What small networks in numpy are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeasr.features import Floats

_EPSILON = 1e-5  # of torch's LayerNorm


@dataclass(frozen=True, kw_only=True)
class ReadOut:
    """A feed-forward layer beside its input, then scores of tokens. Matrices are (inputs, outputs), by which numpy
    multiplies a few rows fastest, with scale and shift of the layer norm before them.
    """

    expand: Floats  # (D, F)
    expand_bias: Floats  # (F,)
    contract: Floats  # (F, D)
    contract_bias: Floats  # (D,)
    output: Floats  # (D, V)
    output_bias: Floats  # (V,)

    def read_out(self, x: Floats) -> Floats:
        """(..., D) to scores, (..., V)."""
        x = x + silu(_normal(x) @ self.expand + self.expand_bias) @ self.contract + self.contract_bias
        scores: Floats = _normal(x) @ self.output + self.output_bias
        return scores


def silu(x: Floats) -> Floats:
    """x * sigmoid(x), by tanh, which cannot overflow."""
    result: Floats = x * (0.5 + 0.5 * np.tanh(0.5 * x))
    return result


def _normal(x: Floats) -> Floats:
    """Mean 0 and variance 1 over the last axis."""
    size = x.shape[-1]
    # For a few short rows x.mean() costs more than all the rest.
    centred = x - np.add.reduce(x, axis=-1, keepdims=True) / size
    variance = np.add.reduce(centred * centred, axis=-1, keepdims=True) / size
    normal: Floats = centred / np.sqrt(variance + _EPSILON)
    return normal
