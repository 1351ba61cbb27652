"""`edgeasr bench endpoints`: how soon segments end, what that costs in words, and what the gate saves."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.options import DecoderName, Model, Threads
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.endpoint_benchmark import Figures


def endpoints(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Speech, as for `edgeasr evaluate`.")],
    pause_s: Annotated[
        float, typer.Option("--pause", min=0.1, metavar="SECONDS", help="Between utterances, at least.")
    ] = 2.0,
    endpoint: Annotated[
        list[str] | None,
        typer.Option("--endpoint", metavar="NAME|FILE", help="Rules to try, may be given again; all presets."),
    ] = None,
    background: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Audio that goes on behind the speech and in the pauses.")
    ] = None,
    snr_db: Annotated[float, typer.Option("--snr", metavar="DB", help="Of the speech over the background.")] = 15.0,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only N utterances, spread evenly over the manifest.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    decoder: DecoderName = None,
    model: Model = None,
    threads: Threads = 1,
) -> None:
    """Utterances with pauses between them, heard under every preset, without the gate and with it.

    Latency is from where an utterance's voice ends, by its energy, to the endpoint in the pause after it; computing
    comes on top. Needs edgeasr[evaluate].
    """
    from edgeasr.endpoint import PRESETS, endpoint_config
    from edgeasr.endpoint_benchmark import Background, measure, streams_of
    from edgeasr.manifest import read_manifest
    from edgeasr.recognizer import load_model
    from edgeasr.recording import read_recording

    names = endpoint or list(PRESETS)
    for name in names:
        endpoint_config(name)
    utterances = read_manifest(manifest)
    if sample and sample < len(utterances):
        utterances = [utterances[i * len(utterances) // sample] for i in range(sample)]
    loaded = load_model(model, threads=threads)
    rate_hz = loaded.config.features.sample_rate_hz
    behind = Background(read_recording(background, rate_hz), snr_db) if background else None
    streams = list(streams_of(utterances, pause_s, behind, rate_hz))
    trials = [(name, gate) for name in names for gate in (False, True)]
    with StatusLine(sys.stderr) as status:

        def show(figures: Figures) -> None:
            gate = "gate" if figures.gate else "no gate"
            status.show(f"{figures.preset}, {gate}: {figures.utterances} of {len(utterances)} utterances")

        found = [figures.to_dict() for figures in measure(loaded, streams, trials, decoder, show)]
    report = {"model": loaded.name, "pause_s": pause_s, "background": background and str(background)}
    report |= {"snr_db": snr_db if background else None, "utterances": len(utterances), "trials": found}
    write_out(jsonlib.dumps(report, allow_nan=False) + "\n" if json else _table(found))


def _table(found: Sequence[dict[str, Any]]) -> str:
    from edgeasr.cli.columns import columns

    rows: list[tuple[object, ...]] = [
        ("endpoint", "gate", "WER", "segments", "ended inside", "missed", "latency ms, 50 / 95 %", "RTF", "held back")
    ]
    for one in found:
        latency = " / ".join("-" if value is None else str(value) for value in one["latency_ms"].values())
        counts = (f"{one['segments_per_utterance']:.2f}", one["ended_inside"], one["missed"])
        costs = (f"{one['rtf']:.4f}", f"{one['gated']:.1%}")
        gate = "yes" if one["gate"] else "no"
        rows.append((one["endpoint"], gate, f"{one['wer']:.4f}", *counts, latency, *costs))
    return "".join(f"{line}\n" for line in columns(rows, "<<>>>>>>>"))
