"""The optimiser of a run: Muon for matrices inside the encoder where the recipe asks for it, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeasr.train.recipe import OptimizerConfig

# Rows of these are tokens or heads, not features: AdamW's.
_NOT_MUON = ("emission", "score")


class Optimizer:
    """One or two optimisers of torch behind one set of verbs.

    Muon (Jordan et al. 2024) makes each update of a matrix orthogonal; scaled to AdamW's size (arXiv 2502.16982), it
    takes the same rates.
    """

    def __init__(self, module: nn.Module, config: OptimizerConfig) -> None:
        muon, matrices, vectors = _groups(module, config.muon)
        decay = config.weight_decay
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))]
        if muon:
            self._parts.append(torch.optim.Muon(muon, lr=0.0, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float) -> None:
        """Move the parameters at this learning rate."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def tensors(self) -> dict[str, Tensor]:
        """The moments, named by part, number of the parameter and field."""
        return {
            f"{i}.{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
            for i, part in enumerate(self._parts)
            for index, values in part.state_dict()["state"].items()
            for name, value in values.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the moments of `tensors` back. raises: ValueError where they are another optimiser's"""
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self._parts]
        for key, tensor in tensors.items():
            number, index, name = key.split(".", 2)
            if int(number) >= len(states):
                raise ValueError(f"there is no optimiser {number}")
            states[int(number)].setdefault(int(index), {})[name] = tensor
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _groups(module: nn.Module, muon: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Parameters for Muon, matrices for AdamW, and the rest (biases, norms), which is not decayed."""
    groups: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for name, parameter in module.named_parameters():
        inner = parameter.dim() == 2 and not any(part in name for part in _NOT_MUON)
        groups[0 if muon and inner else 1 if parameter.dim() > 1 else 2].append(parameter)
    return groups
