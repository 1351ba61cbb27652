"""Checkpoints as safetensors: a model with what is needed to use it. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeasr.bundle import Bundle, default_bundle
from edgeasr.config import ModelConfig
from edgeasr.encoder import Encoder
from edgeasr.errors import BundleError, ConfigError
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.shared_matrices import Place, find_matrices, read_matrices

FORMAT = "edgeasr-checkpoint-1"
_SCALE = ".scale"
_TRAIN_AGAIN = "give a checkpoint that this version of edgeasr train wrote"


@dataclass(frozen=True)
class Checkpoint:
    """Weights with what is needed to use them: configuration, tokens, and how they were trained.

    beside: the bundle that its matrices were read from; None where it has them itself
    """

    config: ModelConfig
    tokens: tuple[str, ...]
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any]  # step, data sources and licences, word error rates
    beside: Path | None = None

    def encoder(self) -> Encoder:
        """The encoder with these weights, in evaluation mode. raises: BundleError unless they are its weights"""
        encoder = Encoder(self.config)
        try:
            encoder.load_state_dict({name: tensor.float() for name, tensor in self.weights.items()})
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise BundleError(f"the weights are not those of the config ({reason}): {_TRAIN_AGAIN}") from error
        return encoder.eval()

    def save(self, path: Path, *, compact: bool = False, bundle: Bundle | None = None) -> None:
        """Write atomically: a kill leaves the old file or the new one.

        compact: matrices as 8-bit numbers with a scale a row, the rest in half precision: a quarter of the size
        bundle:  what was exported from these weights, a folder beside `path`: the matrices of its int8 artefact are
            named instead of written again, and the rest is in half precision
        raises:  BundleError for a bundle that lies elsewhere
        """
        metadata = {
            "format": FORMAT,
            "config": json.dumps(self.config.to_dict()),
            "tokens": json.dumps(self.tokens),
            "training": json.dumps(self.training),
        }
        weights = self.weights
        if bundle is not None:
            places = find_matrices(weights, _beside(path, bundle))
            weights = {name: tensor for name, tensor in weights.items() if name not in places}
            named = {name: astuple(place) for name, place in places.items()}
            metadata["matrices"] = json.dumps({"bundle": bundle.path.name, "places": named})
            weights = _halved(weights)
        save_tensors(path, _packed(weights) if compact else weights, metadata)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint. raises: BundleError for a file that is missing, damaged or of another kind"""
        weights, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise BundleError(f"{path} says format {metadata.get('format')!r}, wanted {FORMAT!r}: {_TRAIN_AGAIN}")
        try:
            config = ModelConfig.from_dict(json.loads(metadata["config"]))
            tokens = Tokenizer(tuple(json.loads(metadata["tokens"]))).tokens
            training = dict(json.loads(metadata["training"]))
            matrices = json.loads(metadata.get("matrices", "{}"))
            places = {name: Place(*place) for name, place in matrices.get("places", {}).items()}
            beside = path.with_name(matrices["bundle"]) if places else None
        except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path} has a damaged description ({error}): {_TRAIN_AGAIN}") from error
        weights = _unpacked(weights)
        if beside is not None:
            weights |= _matrices(path, beside, places)
        return cls(config, tokens, weights, training, beside)


def default_checkpoint() -> Path:
    """What the bundled model was exported from. Errors: BundleError in an installation without it"""
    bundle = default_bundle()
    path = bundle.with_name(f"{bundle.name}.safetensors")
    if not path.is_file():
        raise BundleError(f"got no {path}, wanted what the bundled model was exported from: name a checkpoint")
    return path


def _beside(path: Path, bundle: Bundle) -> Bundle:
    if not bundle.path.is_dir() or bundle.path.resolve().parent != path.parent.resolve():
        raise BundleError(f"got {path} and the bundle {bundle.path}, wanted a folder beside it: put both in one folder")
    return bundle


def _matrices(path: Path, bundle: Path, places: Mapping[str, Place]) -> dict[str, Tensor]:
    try:
        return read_matrices(places, Bundle.load(bundle))
    except BundleError as error:
        raise BundleError(f"{path} has matrices in a bundle beside it: {error}") from error


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def _packed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Symmetric 8-bit weights, per first index, for what has two dimensions or more."""
    packed = _halved(weights)
    for name, tensor in weights.items():
        if tensor.dim() < 2 or not tensor.is_floating_point():
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(dim=1).clamp_min(1e-12) / 127
        packed[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(tensor.shape)
        packed[name + _SCALE] = scale
    return packed


def _unpacked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    scales = {name.removesuffix(_SCALE): tensor for name, tensor in weights.items() if name.endswith(_SCALE)}
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith(_SCALE)}
    return {
        name: tensor.float() * scales[name].reshape(-1, *[1] * (tensor.dim() - 1)) if name in scales else tensor
        for name, tensor in plain.items()
    }


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write safetensors beside `path`, then move into place. raises: OSError"""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, dict(metadata))
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    partial.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. raises: BundleError"""
    if not path.is_file():
        raise BundleError(f"got {path}, where no file is, wanted a safetensors file: check the path")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BundleError(f"cannot read {path}: {error}: give a safetensors file that is whole") from error
