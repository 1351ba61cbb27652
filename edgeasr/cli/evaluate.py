"""`edgeasr evaluate`: accuracy and speed on a manifest."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.options import Model, Threads
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.evaluation import Tally


def evaluate(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="JSON lines with audio_filepath (from its folder), duration and text."),
    ],
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N utterances.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    model: Model = None,
    backend: Annotated[str | None, typer.Option(help="Runtime, or artefact of the bundle, such as onnx-fp32.")] = None,
    threads: Threads = 1,
) -> None:
    """Measure errors, speed, latency and memory, with every utterance as a stream of its own.

    rtf is processor time over audio time. chunk_ms is what a chunk takes. first_token_latency_ms goes from
    the first word's start in the audio to its first partial, as a live listener would see it. Needs
    edgeasr[evaluate].
    """
    from edgeasr.evaluation import evaluate as evaluate_utterances
    from edgeasr.manifest import read_manifest
    from edgeasr.recognizer import Recognizer

    utterances = read_manifest(manifest)[:limit]
    recognizer = Recognizer(model, backend=backend, threads=threads)
    with StatusLine(sys.stderr) as status:

        def show(tally: Tally) -> None:
            status.show(f"{tally.utterances} of {len(utterances)} utterances, {tally.words.errors} word errors")

        report = evaluate_utterances(recognizer, utterances, show)
    write_out(jsonlib.dumps(report, allow_nan=False) + "\n" if json else _table(report))


def _table(report: Mapping[str, Any]) -> str:
    """A line a figure; nested ones with the names of both levels."""
    rows: dict[str, Any] = {}
    for name, value in report.items():
        nested = value.items() if isinstance(value, Mapping) else [(None, value)]
        rows |= {f"{name} {key}" if key else name: "-" if v is None else v for key, v in nested}
    width = max(map(len, rows))
    return "".join(f"{name:<{width}}  {value}\n" for name, value in rows.items())
