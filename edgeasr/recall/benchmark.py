"""The benchmark: every network is trained on one budget and asked over every distance; a row for each of both."""

from __future__ import annotations

import os
import platform
import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch

from edgeasr.baselines import num_parameters
from edgeasr.config import EncoderConfig
from edgeasr.errors import ConfigError
from edgeasr.recall.cost import cost
from edgeasr.recall.measure import accuracy, gradient_norm
from edgeasr.recall.models import HIERARCHY, MODELS, ModelName, Recaller, build, hops
from edgeasr.recall.task import RecallTask
from edgeasr.recall.training import Budget, Progress, Trained, train

_POLL_S = 0.2

# The rate at which each learnt most on this task, of those in docs/recall.md.
RATES: Mapping[ModelName, float] = {"hierarchy": 4e-3, "lstm": 1e-2, "gru": 1e-2, "tcn": 4e-3}


@dataclass(frozen=True)
class RecallConfig:
    """One run of the benchmark.

    hierarchy: sizes of the encoder, to which the others are fitted
    questions: asked over each distance, at least
    """

    distances: tuple[int, ...] = (100, 1000, 10_000)
    models: tuple[ModelName, ...] = MODELS
    task: RecallTask = field(default_factory=RecallTask)
    budget: Budget = field(default_factory=Budget)
    hierarchy: EncoderConfig = HIERARCHY
    questions: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.distances or min(self.distances) < self.task.spread:
            raise ConfigError(
                f"got distances {', '.join(map(str, self.distances))}: wanted {self.task.spread} vectors or more, "
                "over which the pairs are spread"
            )


@dataclass(frozen=True)
class Row:
    """One network over one distance.

    accuracy:       share of questions answered right, of `questions`
    hops:           layers on the shortest way from the pair to the answer
    gradient_norm:  of the answer's log-odds with respect to the vector of its pair
    ms_per_step, bytes_per_step: for one vector, as in `edgeasr.recall.cost`
    """

    model: ModelName
    distance: int
    accuracy: float
    questions: int
    hops: int
    gradient_norm: float
    ms_per_step: float
    bytes_per_step: int
    parameters: int


class Watched(NamedTuple):
    """Where a run is: what is done for which network, how far it is, and how well that goes."""

    model: ModelName
    what: str
    done: int
    total: int
    detail: str


Watch = Callable[[Watched], None]


class Recalled(NamedTuple):
    """What a trained network did over one distance, as in `Row`."""

    distance: int
    accuracy: float
    questions: int
    gradient_norm: float


Learnt = tuple[Trained, list[Recalled]]


def recall(config: RecallConfig, watch: Watch, processes: int = 1) -> tuple[list[Row], dict[ModelName, Trained]]:
    """Train and ask every network. returns: rows, and what each training took

    processes: in which networks learn side by side, each on one thread; with 1, they learn here, one after another
    """
    learnt = _apart(config, watch, processes) if processes > 1 else _in_turn(config, watch)
    rows: list[Row] = []
    for name, (_, recalled) in learnt.items():
        watch(Watched(name, "is exported", 0, 1, ""))
        rows += _rows(name, config, recalled)
        watch(Watched(name, "is exported", 1, 1, ""))
    return rows, {name: trained for name, (trained, _) in learnt.items()}


def _in_turn(config: RecallConfig, watch: Watch) -> dict[ModelName, Learnt]:
    return {name: _learn(name, config, watch) for name in config.models}


def _apart(config: RecallConfig, watch: Watch, processes: int) -> dict[ModelName, Learnt]:
    context = get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(processes, context, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        shown = manager.Queue()
        tasks = {name: pool.submit(_learn, name, config, shown.put) for name in config.models}
        while not all(task.done() for task in tasks.values()):
            with suppress(queue.Empty):
                watch(shown.get(timeout=_POLL_S))
        while not shown.empty():
            watch(shown.get())
        return {name: task.result() for name, task in tasks.items()}


def _built(name: ModelName, config: RecallConfig) -> Recaller:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build(name, config.task, config.hierarchy, max(config.distances))


def _learn(name: ModelName, config: RecallConfig, watch: Watch) -> Learnt:
    model = _built(name, config)

    def training(progress: Progress) -> None:
        detail = f"{progress.accuracy:.0%} right in {progress.stage.length} vectors"
        watch(Watched(name, "learns", progress.step, config.budget.steps, detail))

    trained = train(model, config.task, config.budget, RATES[name], training)
    return trained, [_recalled(name, model, distance, config, watch) for distance in config.distances]


def _recalled(name: ModelName, model: Recaller, distance: int, config: RecallConfig, watch: Watch) -> Recalled:
    def asking(asked: int) -> None:
        watch(Watched(name, f"recalls {distance}", min(asked, config.questions), config.questions, ""))

    share, asked = accuracy(model, config.task, distance, config.questions, asking)
    return Recalled(distance, round(share, 4), asked, gradient_norm(model, config.task, distance))


def _rows(name: ModelName, config: RecallConfig, recalled: Sequence[Recalled]) -> list[Row]:
    """With what a vector costs, which does not depend on what was learnt."""
    model = _built(name, config)
    spent = cost(model, config.task.input_size)
    return [
        Row(
            model=name,
            distance=one.distance,
            accuracy=one.accuracy,
            questions=one.questions,
            hops=hops(model, one.distance),
            gradient_norm=one.gradient_norm,
            ms_per_step=round(spent.ms_per_step, 4),
            bytes_per_step=spent.bytes_per_step,
            parameters=num_parameters(model),
        )
        for one in recalled
    ]


def recall_report(config: RecallConfig, rows: Sequence[Row], trainings: Mapping[ModelName, Trained]) -> dict[str, Any]:
    """A run as JSON-ready values."""
    return {
        "rows": [asdict(row) for row in rows],
        "chance": config.task.chance,
        "task": asdict(config.task),
        "training": {name: asdict(trained) | {"rate": RATES[name]} for name, trained in trainings.items()},
        "steps_run_as": {
            "device": f"{platform.machine()}, {os.cpu_count()} cores",
            "runtime": "ONNX Runtime",
            "precision": "fp32",
            "threads": 1,
            "vectors_in_a_step": 1,
        },
    }
