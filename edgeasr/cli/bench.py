"""`edgeasr bench`: other recognisers beside ours."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.bench_all import bench_all
from edgeasr.cli.bench_bandwidth import bandwidth
from edgeasr.cli.bench_dedup import dedup
from edgeasr.cli.bench_endpoints import endpoints
from edgeasr.cli.bench_grammar import grammar
from edgeasr.cli.bench_listen import listen
from edgeasr.cli.bench_recall import recall
from edgeasr.cli.bench_search import search
from edgeasr.cli.bench_store import store
from edgeasr.cli.extras import needs_extra
from edgeasr.cli.options import DecoderName, Model, Threads
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.benchmark import Benchmark

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Compare with other recognisers.")


@bench.callback()
def _group() -> None:
    """Keeps the names of the commands also where there is one."""


bench.command("all")(bench_all)
bench.command()(recall)
bench.command()(dedup)
bench.command()(grammar)
bench.command()(endpoints)
bench.command()(search)
bench.command()(store)
bench.command()(bandwidth)
bench.command()(listen)


@bench.command()
def pocketsphinx(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Speech, as for `edgeasr evaluate`.")],
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only N utterances, spread evenly over the manifest.")
    ] = None,
    streamed: Annotated[
        bool,
        typer.Option("--streamed", help="Feed pocketsphinx as a microphone would, not whole utterances: it errs more."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    decoder: DecoderName = None,
    model: Model = None,
    threads: Threads = 1,
) -> None:
    """Word errors and processor time of pocketsphinx 5 and of edgeasr on the same utterances, in one run.

    Each has its own models. Files that cannot be read are left out and named at the end; the exit code is
    then 2. Needs edgeasr[benchmarks].
    """
    with needs_extra("benchmarks"):
        from edgeasr.benchmark import benchmark, benchmark_report
        from edgeasr.pocketsphinx_baseline import Pocketsphinx
    from edgeasr.cli.evaluate import exit_code_of
    from edgeasr.manifest import read_manifest
    from edgeasr.recognizer import Recognizer

    listed = read_manifest(manifest)
    count = min(sample or len(listed), len(listed))
    utterances = [listed[i * len(listed) // count] for i in range(count)]
    recognizer, baseline = Recognizer(model, threads=threads, decoder=decoder), Pocketsphinx(streamed=streamed)
    with StatusLine(sys.stderr) as status:

        def show(found: Benchmark) -> None:
            done = len(found.ours.scored) + len(found.unreadable)
            wrong = f"{found.ours.words.errors} and {found.theirs.words.errors} word errors"
            status.show(f"{done} of {count} utterances, {wrong}")

        found = benchmark(recognizer, baseline, utterances, show)
    report = benchmark_report(recognizer, baseline, found)
    write_out(jsonlib.dumps(report, allow_nan=False) + "\n" if json else _table(report))
    raise typer.Exit(exit_code_of(found.unreadable))


def _table(report: Mapping[str, Any]) -> str:
    from edgeasr.cli.columns import columns
    from edgeasr.cli.evaluation_table import bounds, error_rates, method_lines

    systems = report["systems"]
    rates = error_rates([(one["name"], one["wer"], one["wer_interval"], one["word_errors"]) for one in systems])
    times = [("", "CPU s / audio s", "run with")]
    times += [(one["name"], f"{one['rtf']:.4f}", one["details"]) for one in systems]
    amount = f"{report['utterances']} utterances, {report['audio_s'] / 60:.1f} minutes"
    if unreadable := len(report["unreadable"]):
        amount += f"; {unreadable} unreadable files left out"
    ratio = "-" if report["cpu_ratio"] is None else f"{report['cpu_ratio']:.1f}"
    better = "-" if report["ours_better_share"] is None else f"{report['ours_better_share']:.1%}"
    difference = f"{report['wer_difference']:+.3f} ({bounds(report['wer_difference_interval'])})"
    summary = [
        f"Their word error rate less ours: {difference}; ours is lower in {better} of the draws.",
        f"Their processor time over ours: {ratio}.",
    ]
    lines = [amount, "", *rates, "", *columns(times, "<><"), "", *summary, *method_lines(report)]
    return "".join(f"{line}\n" for line in lines)
