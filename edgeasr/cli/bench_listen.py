"""`edgeasr bench listen`: from the start of the program to its first words, and its memory."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.options import Model
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.listen_benchmark import Listening


def listen(
    recording: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="What is heard; the bundled clip of 8 s.", show_default=False),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Runs with each decoder; the least counts.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    model: Model = None,
) -> None:
    """How long `edgeasr listen` takes from its start to its first words, and how much memory it holds at most.

    The recording is given as fast as it is read, so the time is that of starting, and of hearing up to the first word.
    """
    from edgeasr.bundle import Bundle, default_bundle
    from edgeasr.listen_benchmark import listen_to
    from edgeasr.recording import DEMO_RECORDING

    heard = recording or DEMO_RECORDING
    decoders = ("lm", "greedy") if Bundle.load(model or default_bundle()).language_model else ("greedy",)
    bundle = ("--model", model) if model else ()
    found: dict[str, list[Listening]] = {decoder: [] for decoder in decoders}
    with StatusLine(sys.stderr) as status:
        for number in range(1, rounds + 1):
            for decoder, runs in found.items():
                status.show(f"round {number} of {rounds}: {decoder}")
                runs.append(listen_to(heard, "--decoder", decoder, *bundle))
    rows = [_least(decoder, runs) for decoder, runs in found.items()]
    write_out(jsonlib.dumps({"recording": str(heard), "decoders": rows}) + "\n" if json else _table(rows))


def _least(decoder: str, runs: list[Listening]) -> dict[str, Any]:
    peaks = [run.peak_rss_mb for run in runs if run.peak_rss_mb is not None]
    return {
        "decoder": decoder,
        "first_words_s": round(min(run.first_words_s for run in runs), 3),
        "wall_s": round(min(run.wall_s for run in runs), 3),
        "peak_rss_mb": round(min(peaks), 1) if peaks else None,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    from edgeasr.cli.columns import columns

    cells = [("decoder", "first words, s", "whole, s", "peak memory, MB")]
    cells += [(one["decoder"], one["first_words_s"], one["wall_s"], one["peak_rss_mb"] or "?") for one in rows]
    return "".join(f"{line}\n" for line in columns(cells, "<>>>"))
