"""`edgeasr bench all`: every figure of the README in one run."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeasr.cli.terminal import StatusLine, write_out


def bench_all(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Speech, as for `edgeasr evaluate`.")],
    other: Annotated[
        Path | None, typer.Option(metavar="MANIFEST", help="A second set of speech, such as other speakers.")
    ] = None,
    noise: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Recordings without speech; evaluated with --other.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few utterances and a quick profile; no hours of audio, no training.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object with all that the parts print.")] = False,
) -> None:
    """Errors, speed beside pocketsphinx, memory bandwidth beside an LSTM, recall and deduplication, in turn.

    What lacks a package or a program is named at the end with what to install; what fails is named too, and the
    exit code is then 1. The whole takes an hour or so, most of it `bench recall`, which trains networks.
    """
    from edgeasr.benchmark_suite import run_suite, suite, suite_report

    _require_speech(manifest, other, noise)
    parts = suite(manifest, other, noise, quick=quick)
    with StatusLine(sys.stderr) as status:
        report = suite_report(
            run_suite(parts, lambda part: status.show(f"{parts.index(part) + 1} of {len(parts)}: {part.name}")),
            quick=quick,
        )
    write_out(jsonlib.dumps(report, allow_nan=False) + "\n" if json else _table(report))
    raise typer.Exit(1 if report["failed"] else 0)


def _require_speech(manifest: Path, other: Path | None, noise: Path | None) -> None:
    """Errors: ManifestError for what the parts could not read, an hour later"""
    from edgeasr.manifest import read_manifest
    from edgeasr.nonspeech import recordings_of

    read_manifest(manifest)
    if other:
        read_manifest(other)
    if noise:
        recordings_of(noise)


def _table(report: Mapping[str, Any]) -> str:
    from edgeasr.cli.columns import columns

    rows = [(name, f"{value:,.0f}" if value >= 10_000 else f"{value:.4g}") for name, value in report["figures"].items()]
    lines = columns(rows, "<>") if rows else []
    if report["utterances"]:
        lines.append("utterances: " + ", ".join(f"{name} {count}" for name, count in report["utterances"].items()))
    if report["quick"]:
        lines.append("--quick: of few utterances and a quick profile, so no figures to quote")
    lines += [f"{kind}: {name}: {reason}" for kind in ("missing", "failed") for name, reason in report[kind].items()]
    return "".join(f"{line}\n" for line in lines)
