"""The space in which vectors are compared: centred, and made equally wide in all directions.

A summary is trained to help recognition. Most of its variance is in a few directions that all speech shares, so that
the cosines of any two are alike; less their mean and divided by the square root of their covariance (all-but-the-top
and whitening, e.g. Su et al. 2021, arXiv 2103.15316) they differ by what was said. Estimated from the store itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeasr.store.records import Floats

DIMENSIONS = 128
# The estimate is repeated when a store has grown fourfold, until more vectors would not change it.
FIT_AT = (32, 128, 512, 2_048, 8_192)
_SHRINKAGE = 0.1


@dataclass(frozen=True)
class Projection:
    """From vectors of a model to points of unit length.

    mean:  (C,)
    basis: (C, R)
    """

    mean: Floats
    basis: Floats

    @classmethod
    def plain(cls, width: int) -> Projection:
        """Of a store with too few vectors for more."""
        return cls(np.zeros(width, np.float32), np.eye(width, dtype=np.float32))

    @classmethod
    def fitted(cls, pages: Iterable[Floats]) -> Projection:
        """pages: (N, C) each, one at least, of which the covariance is estimated; one is held at a time"""
        count, total, products = 0, np.zeros(0), np.zeros((0, 0))
        for page in pages:
            vectors = page.astype(np.float64)
            if not count:
                total, products = np.zeros(vectors.shape[1]), np.zeros((vectors.shape[1],) * 2)
            count += len(vectors)
            total += vectors.sum(axis=0)
            products += vectors.T @ vectors
        mean = total / count
        variance, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
        kept = slice(max(0, len(variance) - DIMENSIONS), None)
        # Rounding may leave a direction without variance a little below 0.
        scale = 1 / np.sqrt(variance[kept].clip(0) + _SHRINKAGE * variance.mean() + 1e-12)
        return cls(mean.astype(np.float32), (directions[:, kept] * scale).astype(np.float32))

    def points(self, vectors: Floats) -> Floats:
        """(N, C) to (N, R), of unit length; a vector at the mean, which has no direction, takes the first"""
        points = (vectors - self.mean) @ self.basis
        length = np.linalg.norm(points, axis=1, keepdims=True)
        points[length[:, 0] == 0, 0] = 1
        return np.asarray(points / np.where(length > 0, length, 1), np.float32)


def scale_of(values: Floats) -> float:
    """What 1 stands for in `packed`."""
    return float(np.abs(values).max()) / 127 or 1.0


def packed(values: Floats) -> bytes:
    """In 8 bits a value, the largest as 127: a cosine does not depend on the scale."""
    return bytes(np.round(values / scale_of(values)).astype(np.int8).data)


def unpacked(points: Sequence[bytes]) -> Floats:
    """(N, R), of unit length."""
    values = np.stack([np.frombuffer(point, np.int8) for point in points]).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)
