"""`edgeasr bench dedup`: what the memory does not have to store, and what that costs."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.options import DecoderName, Model, Threads
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.evaluation import Tally


def dedup(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Speech, as for `edgeasr evaluate`.")],
    threshold: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Merge above this cosine instead of by the model's own rules."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N utterances.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    decoder: DecoderName = None,
    model: Model = None,
    threads: Threads = 1,
) -> None:
    """Vectors stored and words missed with a deduplicated memory, beside one that stores every summary.

    Heard are sessions of up to ten minutes of one speaker, and all utterances as one recording with pauses: of an hour,
    or of less where otherwise more than half of it would be pauses. Each is heard twice: a minute of speech takes some
    9 s of a processor (x86-64). Needs edgeasr[evaluate].
    """
    from edgeasr.dedup_benchmark import dedup as measure
    from edgeasr.dedup_benchmark import hour_with_pauses, speaker_sessions
    from edgeasr.manifest import read_manifest
    from edgeasr.memory_policies import similarity
    from edgeasr.recognizer import load_model

    utterances = read_manifest(manifest)[:limit]
    loaded = load_model(model, threads=threads)
    policy = None if threshold is None else similarity(threshold)
    recordings = {"sessions": speaker_sessions(utterances), "hour": hour_with_pauses(utterances)}
    found = {}
    with StatusLine(sys.stderr) as status:
        for name, spoken in recordings.items():

            def show(tally: Tally, name: str = name, total: int = len(spoken)) -> None:
                status.show(f"{name}: {len(tally.scored)} of {total}, {tally.words.errors} word errors")

            found[name] = measure(loaded, spoken, policy, decoder, show).to_dict()
    own = loaded.config.encoder.merge_similarity
    report = {"model": loaded.name, "threshold": own if threshold is None else threshold}
    report |= {**found["sessions"], "hour": found["hour"]}
    write_out(jsonlib.dumps(report, allow_nan=False) + "\n" if json else _table(found))


def _table(found: Mapping[str, Mapping[str, Any]]) -> str:
    from edgeasr.cli.columns import columns

    names = {"sessions": "sessions of a speaker", "hour": "one recording with pauses"}
    rows = [("", "minutes", "summaries", "stored", "merged", "skipped", "stored of all", "WER all", "WER")]
    for name, one in found.items():
        counts = (str(one[key]) for key in ("summaries", "stored", "merged", "skipped"))
        rates = (f"{one['ratio']:.1%}", f"{one['wer_all']:.4f}", f"{one['wer_dedup']:.4f}")
        rows.append((names[name], f"{one['audio_s'] / 60:.1f}", *counts, *rates))  # type: ignore[arg-type]
    return "".join(f"{line}\n" for line in columns(rows, "<>>>>>>>>"))
