"""`edgeasr train`: a model from a recipe."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.extras import needs_extra
from edgeasr.cli.signals import StopSignals
from edgeasr.cli.terminal import write_out

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from edgeasr.train.processes import Outcome, Progress
    from edgeasr.train.recipe import Recipe


def train(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE.toml", help="Data, model and schedule; paths start from the working directory."),
    ],
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that train together, instead of the recipe's.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT", help="Start a new run from these weights, of the same model."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Steps instead of the recipe's; the warm-up is half of them at most."),
    ] = None,
) -> None:
    """Train a model.

    Everything that a run writes is in the recipe's run.directory: best.safetensors for `edgeasr export`, logs for
    TensorBoard, and the state from which the same command goes on after any end. Ctrl-C saves it and ends.
    Needs edgeasr[train].
    """
    with needs_extra("train"):
        from edgeasr.train.loop import RESUME
        from edgeasr.train.loop import train as train_recipe
        from edgeasr.train.recipe import Recipe

    chosen = Recipe.load(recipe).with_options(processes=processes, steps=steps)
    # Of the processes that torchrun started, one speaks.
    leads = os.environ.get("RANK", "0") == "0"
    going_on = (chosen.directory / RESUME).exists()
    if leads:
        write_out(f"{'Going on with' if going_on else 'Writing to'} {chosen.directory}\n")
    display = _Display()
    with StopSignals(_announce_stop) as stop:
        try:
            with display:
                outcome = train_recipe(chosen, display.report, init, display.watch, lambda: stop.requested)
        except KeyboardInterrupt:
            outcome = None
    if leads:
        _conclude(chosen, outcome, display.saved_step)
    if outcome is None or not outcome.finished:
        raise typer.Exit(128 + (stop.number or signal.SIGINT))


def _announce_stop() -> None:
    print("Stopping after this step; once more to stop at once", file=sys.stderr)


def _conclude(recipe: Recipe, outcome: Outcome | None, saved_step: int | None) -> None:
    from edgeasr.train.loop import BEST, LAST, RESUME

    if outcome and outcome.finished:
        best = recipe.directory / BEST
        checkpoint = best if best.exists() else recipe.directory / LAST
        write_out(f"Trained to step {outcome.step}; next: edgeasr export {checkpoint} --output BUNDLE\n")
    elif saved_step is not None:
        write_out(f"Stopped, saved at step {saved_step}: the same command goes on from there\n")
    elif (recipe.directory / RESUME).exists():
        write_out("Stopped: the same command goes on from the last save\n")
    else:
        write_out("Stopped before anything was saved: the same command starts anew\n")


class _Display:
    """Lines; on a terminal, bars below them. A context manager, to end the bars.

    console: None is standard output
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self.saved_step: int | None = None
        console = console or Console()
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[detail]}"))
        self._bars = Bars(TextColumn("{task.description}"), *columns, console=console)
        self._lively = console.is_terminal
        self._of: dict[str, TaskID] = {}  # bars by what they show

    def __enter__(self) -> _Display:
        if self._lively:
            self._bars.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._lively:
            self._bars.stop()

    def report(self, line: str) -> None:
        """A line of text."""
        if self._lively:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            write_out(f"{line}\n")

    def watch(self, progress: Progress) -> None:
        """How far the run is."""
        if progress.what == "saved":
            self.saved_step = progress.done
        elif self._lively:
            bar = self._of.get(progress.what)
            if bar is None:
                bar = self._of[progress.what] = self._bars.add_task(
                    progress.what, total=progress.total, completed=progress.done, detail=""
                )
            self._bars.update(bar, completed=progress.done, total=progress.total, detail=progress.detail)
