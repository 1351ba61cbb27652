"""`edgeasr evaluate`: accuracy and speed on a manifest."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.endpoint_options import EndpointRules, Explain, GateSwitch, listening
from edgeasr.cli.options import Backend, DecoderName, Model, Threads
from edgeasr.cli.own_word_options import DictionaryFile, GrammarFile, GrammarThreshold, HotwordFile, own_words
from edgeasr.cli.terminal import StatusLine, print_error, write_out

if TYPE_CHECKING:
    from edgeasr.evaluation import Tally, Unreadable
    from edgeasr.manifest import Utterance
    from edgeasr.sessions import Session


def evaluate(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="JSON lines with audio_filepath (from its folder), duration and text."),
    ],
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N utterances.")] = None,
    session_s: Annotated[
        float | None,
        typer.Option(
            "--sessions",
            min=1,
            metavar="SECONDS",
            help="Join consecutive utterances of a speaker to recordings of up to so long, as the memory meets them.",
        ),
    ] = None,
    noise: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST|FOLDER",
            help="Recordings without speech: count the words heard in them, and in generated silence.",
        ),
    ] = None,
    chunk_ms: Annotated[
        int | None, typer.Option(min=1, metavar="MS", help="Refuse a model whose graph has other chunks.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    model: Model = None,
    backend: Backend = None,
    decoder: DecoderName = None,
    threads: Threads = 1,
    grammar: GrammarFile = None,
    grammar_threshold: GrammarThreshold = None,
    hotwords: HotwordFile = None,
    dictionary: DictionaryFile = None,
    endpoint: EndpointRules = "normal",
    explain: Explain = False,
    gate: GateSwitch = True,
) -> None:
    """Measure errors, speed, latency and memory, with every utterance (or session) as a stream of its own.

    Error rates come with 95 % intervals, by speaker and by source (the key "source" of the manifest, or the
    folder), with the most frequent edits and the ten worst utterances. Files that cannot be read are left
    out and named at the end; the exit code is then 2. docs/evaluation.md explains every figure. Needs
    edgeasr[evaluate].
    """
    from edgeasr.evaluation import evaluate as evaluate_utterances
    from edgeasr.evaluation import require_chunk
    from edgeasr.evaluation_report import evaluation_report
    from edgeasr.nonspeech import hear_nonspeech, recordings_of
    from edgeasr.recognizer import Recognizer

    utterances = _utterances(manifest, limit, session_s)
    recordings = recordings_of(noise) if noise else None
    hearing = listening(endpoint, gate=gate, explain=explain)
    own = own_words(grammar, grammar_threshold, hotwords, dictionary)
    recognizer = Recognizer(model, backend=backend, threads=threads, decoder=decoder, **own, **hearing)
    if chunk_ms:
        require_chunk(recognizer, chunk_ms)
    with StatusLine(sys.stderr) as status:

        def show(tally: Tally) -> None:
            done = len(tally.scored) + len(tally.unreadable)
            status.show(f"{done} of {len(utterances)} utterances, {tally.words.errors} word errors")

        tally = evaluate_utterances(recognizer, utterances, show)
        non_speech = hear_nonspeech(recognizer, recordings, status.show) if recordings else None
    report = evaluation_report(recognizer, tally, non_speech)
    _print(report, json=json)
    raise typer.Exit(exit_code_of([*tally.unreadable, *(non_speech.unreadable if non_speech else ())]))


def _utterances(manifest: Path, limit: int | None, session_s: float | None) -> list[Utterance] | list[Session]:
    from edgeasr.manifest import read_manifest
    from edgeasr.sessions import sessions

    utterances = read_manifest(manifest)[:limit]
    return sessions(utterances, session_s) if session_s else utterances


def _print(report: dict[str, Any], *, json: bool) -> None:
    if json:
        write_out(jsonlib.dumps(report, allow_nan=False) + "\n")
        return
    from edgeasr.cli.evaluation_table import evaluation_table

    write_out(evaluation_table(report))


def exit_code_of(unreadable: Iterable[Unreadable]) -> int:
    """Name the files that were left out, a line each; 0 for none."""
    exit_code = 0
    for one in unreadable:
        print_error(f"left out: {one.error}")
        exit_code = max(exit_code, one.error.exit_code)
    return exit_code
