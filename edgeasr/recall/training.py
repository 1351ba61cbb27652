"""Training for recall: the same budget and the same rules for every network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeasr.errors import ConfigError
from edgeasr.recall.models import Hierarchy, Recaller
from edgeasr.recall.task import RecallTask, Streams

_WARMUP_STEPS = 50
_DECAY_SHARE = 0.3  # of the steps, the last, in which the rate falls to nothing
_LARGEST_GRADIENT = 1.0


class Stage(NamedTuple):
    """Streams of `length` vectors, whose pairs are among `window` of them.

    A hierarchy looks back over as many vectors, and summarises as many: in short streams, it learns what it does in
    long ones, since its weights do not depend on the sizes of its windows.
    """

    window: int
    length: int


@dataclass(frozen=True)
class Budget:
    """What every network may spend.

    vectors:  in the streams of one step
    stages:   from short streams to long ones; a network goes on to the next when it has learnt one
    learnt:   accuracy from which a stage is learnt, over the last `judged_steps`
    """

    steps: int = 2200
    vectors: int = 4000
    stages: tuple[Stage, ...] = (
        Stage(4, 16),
        Stage(8, 64),
        Stage(16, 512),
        Stage(100, 1000),
    )
    learnt: float = 0.97
    judged_steps: int = 20

    def __post_init__(self) -> None:
        if self.steps < 1 or self.vectors < 1 or not self.stages:
            raise ConfigError(
                f"got {self.steps} steps of {self.vectors} vectors in {len(self.stages)} stages: wanted 1 or more"
            )


class Progress(NamedTuple):
    """Where a training is."""

    step: int
    stage: Stage
    accuracy: float  # of the last steps


@dataclass(frozen=True)
class Trained:
    """What a training took, and how far it came.

    vectors: of all streams seen; longest: vectors of the streams of its last stage; accuracy: on these, in training
    """

    steps: int
    vectors: int
    wall_s: float
    cpu_s: float
    longest: int
    accuracy: float


def train(model: Recaller, task: RecallTask, budget: Budget, rate: float, watch: Callable[[Progress], None]) -> Trained:
    """Train in place with AdamW; the rate rises, stays, and falls to nothing at the end."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    recent: deque[float] = deque(maxlen=budget.judged_steps)
    stage, vectors = 0, 0
    model.train()
    for step in range(budget.steps):
        window, length = budget.stages[stage]
        staged = model.within(window) if isinstance(model, Hierarchy) else model
        batch = max(1, budget.vectors // length)
        streams = task.anywhere(window, length, batch, generator)
        for group in optimizer.param_groups:
            group["lr"] = rate * _share_of_rate(step, budget.steps)
        recent.append(_update(staged, streams, optimizer))
        vectors += batch * length
        accuracy = sum(recent) / len(recent)
        watch(Progress(step + 1, budget.stages[stage], accuracy))
        if len(recent) == budget.judged_steps and accuracy >= budget.learnt and stage + 1 < len(budget.stages):
            stage += 1
            recent.clear()
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Trained(budget.steps, vectors, wall_s, cpu_s, budget.stages[stage].length, accuracy)


def answers(outputs: Tensor, asked_at: Tensor) -> Tensor:
    """Outputs (B, T, values) at the questions (B, Q) only; (B, Q, values)."""
    return outputs.gather(1, asked_at[..., None].expand(-1, -1, outputs.shape[2]))


def _update(model: Recaller, streams: Streams, optimizer: torch.optim.Optimizer) -> float:
    """One step; returns the accuracy before it."""
    given = answers(model(streams.inputs), streams.asked_at)
    loss = F.cross_entropy(given.flatten(0, 1), streams.answer.flatten())
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
    optimizer.step()
    return (given.argmax(dim=-1) == streams.answer).float().mean().item()


def _share_of_rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / min(_WARMUP_STEPS, steps), (steps - step) / (_DECAY_SHARE * steps))
