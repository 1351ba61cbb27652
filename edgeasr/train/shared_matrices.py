"""Matrices that a checkpoint leaves to the bundle beside it, so that a model's weights lie in one place.

An int8 artefact holds every matrix of a linear layer as whole numbers with a scale for each output. A checkpoint that
is kept beside its bundle names those instead of repeating them. What is read back is what the device computes with:
exporting it again gives the same whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgeasr.bundle import Bundle
from edgeasr.errors import BundleError

ARTEFACT = "onnx-int8"
_QUANTIZED, _SCALE = "_quantized", "_scale"  # suffixes of ONNX Runtime's quantiser
# Rounding moves a weight by half a step at most; the scale itself is rounded to float32.
_HALF_A_STEP = 0.5001


@dataclass(frozen=True)
class Place:
    """Where a matrix lies: a file of the bundle, the SHA-256 of that file, and the initialiser's name."""

    file: str
    sha256: str
    initializer: str


def find_matrices(weights: Mapping[str, Tensor], bundle: Bundle) -> dict[str, Place]:
    """The matrices of a checkpoint that the bundle's int8 artefact holds.

    weights: name -> tensor; a matrix is (outputs, inputs)
    returns: name -> place, of those whose every weight is within rounding of what lies there
    errors:  BundleError for a bundle without that artefact
    """
    held = list(_quantized(bundle))
    return {
        name: place
        for name, tensor in weights.items()
        if tensor.dim() == 2
        for place in [next((place for place, matrix, scale in held if _holds(matrix, scale, tensor.float())), None)]
        if place is not None
    }


def read_matrices(places: Mapping[str, Place], bundle: Bundle) -> dict[str, Tensor]:
    """name -> (outputs, inputs) float32. errors: BundleError where the bundle is not the one that was meant"""
    for place in places.values():
        record = bundle.files.get(place.file)
        if record is None or record.sha256 != place.sha256:
            raise BundleError(
                f"got another {place.file} in {bundle.path} than the checkpoint was written beside: "
                "keep a checkpoint and its bundle together"
            )
    held = {place: matrix * scale[:, None] for place, matrix, scale in _quantized(bundle)}
    return {name: held[place] for name, place in places.items()}


def _holds(matrix: Tensor, scale: Tensor, weights: Tensor) -> bool:
    if matrix.shape != weights.shape:
        return False
    distance = (matrix * scale[:, None] - weights).abs()
    return bool((distance <= _HALF_A_STEP * scale[:, None]).all())


def _quantized(bundle: Bundle) -> Iterator[tuple[Place, Tensor, Tensor]]:
    """Every matrix of the int8 artefact with its place: whole numbers (outputs, inputs), scales (outputs,)."""
    for file in dict.fromkeys(bundle.artefacts.get(ARTEFACT, {}).values()):
        graph = onnx.load_from_string(bundle.content(file)).graph
        scales = {tensor.name: tensor for tensor in graph.initializer if tensor.name.endswith(_SCALE)}
        for matrix in graph.initializer:
            scale = scales.get(matrix.name.removesuffix(_QUANTIZED) + _SCALE)
            if scale is not None and matrix.name.endswith(_QUANTIZED):
                yield Place(file, bundle.files[file].sha256, matrix.name), _tensor(matrix).T, _tensor(scale)
    if ARTEFACT not in bundle.artefacts:
        raise BundleError(f"{bundle.path} has no artefact {ARTEFACT}, which holds the matrices: export it with one")


def _tensor(initializer: Any) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(initializer).copy()).float()
