"""The whole state of a run in one file, from which it goes on after any kill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from torch import Tensor, nn

from edgeasr.config import FrozenConfig
from edgeasr.errors import BundleError, ConfigError
from edgeasr.train.checkpoint import load_tensors, save_tensors
from edgeasr.train.optimizer import Optimizer


@dataclass(frozen=True)
class Standing:
    """How far a run is."""

    step: int
    epoch: int
    position: int  # batches of this epoch already done
    best: float  # lowest word error rate so far


@dataclass(frozen=True)
class RunState:
    """What changes during a run; weights, averages and moments are those of its module, in place."""

    module: nn.Module
    average: Mapping[str, Tensor]
    optimizer: Optimizer
    more: dict[str, Tensor] = field(default_factory=dict)  # what else is to be kept, in any number and of any shape


def save_run(path: Path, run: RunState, standing: Standing, config: FrozenConfig, processes: int) -> None:
    """Write atomically: a kill leaves the old file or the new one. config: what must stay as it is"""
    tensors = {
        **{f"model.{name}": tensor for name, tensor in run.module.state_dict().items()},
        **{f"average.{name}": tensor for name, tensor in run.average.items()},
        **{f"optimizer.{name}": tensor for name, tensor in run.optimizer.tensors().items()},
        **{f"more.{name}": tensor for name, tensor in run.more.items()},
    }
    progress = {**asdict(standing), "processes": processes, "config": config.to_dict()}
    save_tensors(path, tensors, {"progress": json.dumps(progress)})


def restore_run(path: Path, run: RunState, config: FrozenConfig, processes: int) -> Standing:
    """Put a saved state back into the run.

    raises: ConfigError where it was saved with another config or in another number of processes; BundleError for a
        file that is damaged or of another kind
    """
    tensors, metadata = load_tensors(path)
    try:
        progress = json.loads(metadata["progress"])
        standing = Standing(**{field.name: progress[field.name] for field in fields(Standing)})
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} is not the state of a run: {_start_anew(path)}") from error
    saved_processes = progress.get("processes", processes)
    if saved_processes != processes:
        # A position in an epoch counts batches of each process.
        raise ConfigError(
            f"{path} was saved in {saved_processes} processes, this run has {processes}: go on with --processes "
            f"{saved_processes}, or {_start_anew(path)}"
        )
    # The first version had it under another name, or not at all.
    difference = _difference(progress.get("config", progress.get("model", {})), config.to_dict())
    if difference:
        raise ConfigError(f"{path} has {difference}: {_start_anew(path)}")
    try:
        run.module.load_state_dict(_under("model.", tensors))
        for name, tensor in run.average.items():
            tensor.copy_(tensors[f"average.{name}"])
        run.optimizer.restore(_under("optimizer.", tensors))
        run.more.clear()
        run.more.update(_under("more.", tensors))
    except (KeyError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{path} was saved with another model or optimiser than the recipe's: {_start_anew(path)}"
        ) from error
    return standing


def _start_anew(path: Path) -> str:
    return f"take back the change, or delete {path.name} or choose another run.directory to start anew"


def _difference(saved: Mapping[str, object], wanted: Mapping[str, object], prefix: str = "") -> str:
    """The first setting that differs, "" for none; what was not yet a setting when it was saved does not."""
    for name in sorted(saved):
        a, b = saved[name], wanted.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if found := _difference(a, b, f"{prefix}{name}."):
                return found
        elif a != b:
            return f"{prefix}{name} {a}, this run {b}"
    return ""


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
