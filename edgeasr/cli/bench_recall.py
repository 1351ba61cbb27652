"""`edgeasr bench recall`: what is remembered over 100, 1,000 and 10,000 vectors."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.extras import needs_extra
from edgeasr.cli.terminal import write_out

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edgeasr.recall.benchmark import Watched


def recall(
    distances: Annotated[
        str, typer.Option(metavar="N,N,...", help="Vectors between a pair and the question for it, 100 or more.")
    ] = "100,1000,10000",
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Steps for which every network is trained.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Networks that learn side by side; as many as cores.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw accuracy and gradient over distance (PNG or SVG).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Pairs of keys and values among distractors, and long after, a key: which networks still know its value?

    The hierarchical encoder, an LSTM, a GRU and a temporal convolutional network of equal size are trained on equal
    budgets in this run. Needs edgeasr[train], and edgeasr[benchmarks] to draw.
    """
    with needs_extra("train"):
        import dataclasses

        from edgeasr.recall import benchmark
    if plot is not None:
        with needs_extra("benchmarks"):
            from edgeasr.recall.plot import plot as draw
    config = benchmark.RecallConfig(distances=_numbers(distances))
    if steps is not None:
        config = dataclasses.replace(config, budget=dataclasses.replace(config.budget, steps=steps))
    with _Bars() as bars:
        rows, trainings = benchmark.recall(config, bars.show, processes or min(len(config.models), os.cpu_count() or 1))
    report = benchmark.recall_report(config, rows, trainings)
    if plot is not None:
        draw(report, plot)
    write_out(jsonlib.dumps(report, allow_nan=False) + "\n" if json else _table(report))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        message = f"got {text!r}, wanted numbers with commas between them"
        raise typer.BadParameter(message, param_hint="--distances") from None


def _table(report: Mapping[str, Any]) -> str:
    from edgeasr.cli.columns import columns

    head = ("", "distance", "right", "hops", "gradient", "ms a vector", "bytes a vector", "parameters")
    cells = [
        (
            row["model"],
            f"{row['distance']:,}",
            f"{row['accuracy']:.1%}",
            f"{row['hops']:,}",
            f"{row['gradient_norm']:.1e}",
            f"{row['ms_per_step']:.3f}",
            f"{row['bytes_per_step']:,}",
            f"{row['parameters']:,}",
        )
        for row in report["rows"]
    ]
    trainings = [
        f"{name}: {one['steps']:,} steps, {one['vectors'] / 1e6:.1f} M vectors, {one['cpu_s']:.0f} s of processor "
        f"time; came to streams of {one['longest']:,} vectors, {one['accuracy']:.0%} right there"
        for name, one in report["training"].items()
    ]
    run = report["steps_run_as"]
    notes = [
        f"Chance: {report['chance']:.1%}. Questions a row: {report['rows'][0]['questions']}.",
        "Hops: layers on the way from the pair to the answer. Gradient: of the answer's log-odds at the pair's vector.",
        f"One vector a step on {run['runtime']}, {run['precision']}, {run['threads']} thread, {run['device']};",
        "bytes: weights, and state read and written.",
    ]
    lines = [*columns([head, *cells], "<>>>>>>>"), "", *trainings, "", *notes]
    return "".join(f"{line}\n" for line in lines)


class _Bars:
    """A bar for each thing that is done, on standard error; nothing where that is no terminal. A context manager."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._lively = sys.stderr.isatty()
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[detail]}"))
        self.bars = Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True))
        self._of: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        if self._lively:
            self.bars.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._lively:
            self.bars.stop()

    def show(self, watched: Watched) -> None:
        """How far the run is."""
        if not self._lively:
            return
        name = f"{watched.model} {watched.what}"
        if name not in self._of:
            self._of[name] = self.bars.add_task(name, total=watched.total, detail="")
        self.bars.update(self._of[name], completed=watched.done, total=watched.total, detail=watched.detail)
