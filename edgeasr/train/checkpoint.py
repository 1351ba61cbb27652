"""Checkpoints as safetensors: a model for export, and the whole state of a run for resuming. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from edgeasr.config import ModelConfig
from edgeasr.encoder import Encoder
from edgeasr.errors import BundleError

FORMAT = "edgeasr-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """Weights with what is needed to use them: configuration, tokens, and how they were trained."""

    config: ModelConfig
    tokens: tuple[str, ...]
    weights: Mapping[str, Tensor]
    training: Mapping[str, Any]  # recipe, step, data sources and licences, word error rates

    def encoder(self) -> Encoder:
        """The encoder with these weights, in evaluation mode."""
        encoder = Encoder(self.config)
        encoder.load_state_dict({name: tensor.float() for name, tensor in self.weights.items()})
        return encoder.eval()

    def save(self, path: Path) -> None:
        """Write atomically: a kill leaves the old file or the new one."""
        metadata = {
            "format": FORMAT,
            "config": json.dumps(self.config.to_dict()),
            "tokens": json.dumps(self.tokens),
            "training": json.dumps(self.training),
        }
        save_tensors(path, self.weights, metadata)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint. raises: BundleError for a file that is missing, damaged or of another kind"""
        weights, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise BundleError(
                f"{path} says format {metadata.get('format')!r}, wanted {FORMAT!r}: give a checkpoint of edgeasr train"
            )
        config = ModelConfig.from_dict(json.loads(metadata["config"]))
        return cls(config, tuple(json.loads(metadata["tokens"])), weights, json.loads(metadata["training"]))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write safetensors beside `path`, then move into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, dict(metadata))
    partial.replace(path)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. raises: BundleError"""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BundleError(f"cannot read {path}: {error}: give a safetensors file that is whole") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments, named by parameter number."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the moments of `optimizer_tensors` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
