"""`edgeasr profile`: bytes, arithmetic and time of the model on this machine."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.destinations import require_file, require_folder
from edgeasr.cli.extras import needs_extra
from edgeasr.cli.numbers import finite
from edgeasr.cli.options import Backend, DecoderName, Model, Threads
from edgeasr.cli.terminal import StatusLine, print_note, write_out
from edgeasr.wording import counted

if TYPE_CHECKING:
    from edgeasr.profile.compare import Comparison

_BAR_WIDTH = 30


def profile(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Some seconds instead of a minute or two; less exact.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, for --compare and other programs.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with tables and pictures, which needs nothing else."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the pictures as PNG.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Run nothing; show two profiles beside each other."),
    ] = None,
    latency_ms: Annotated[
        float,
        typer.Option(min=1.0, metavar="MS", callback=finite, help="Recommend the cheapest chunk within this latency."),
    ] = 200.0,
    audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Stream this recording of a second or more, not the clip.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=1.0, metavar="S", callback=finite, help="Stream so much audio: 120 s, or 20 s with --quick."),
    ] = None,
    real_time: Annotated[
        bool, typer.Option("--real-time", help="Stream as a microphone does; it takes as long as the audio.")
    ] = False,
    recurrent: Annotated[
        bool | None,
        typer.Option("--recurrent/--no-recurrent", help="Profile LSTM, GRU and TCN of equal size; not with --quick."),
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure the machine again.")] = False,
    model: Model = None,
    backend: Backend = None,
    decoder: DecoderName = None,
    threads: Threads = 1,
) -> None:
    """Measure what the model asks of this machine, and what the machine can do.

    Memory bandwidth, arithmetic, bytes and time of every operator, the whole chain on real audio, and recurrent
    networks of the same size beside it. docs/profile.md explains every figure. --html and --plot need
    edgeasr[profile].
    """
    if compare:
        _require_alone(context)
        _print_comparison(*compare, json=json)
        return
    _require_pictures(html, plot)
    _tell_of_few_cores(threads)
    import edgeasr.backends.onnxruntime  # noqa: F401, says what to do where ONNX Runtime is not there
    from edgeasr.profile.profiler import Settings, profile_machine_and_model

    settings = Settings(
        model=model,
        backend=backend,
        decoder=decoder,
        threads=threads,
        recording=audio,
        audio_s=seconds,
        real_time=real_time,
        quick=quick,
        recurrent=not quick if recurrent is None else recurrent,
        latency_ms=latency_ms,
        refresh=refresh,
    )
    with StatusLine(sys.stderr) as status:
        report = profile_machine_and_model(settings, lambda what, share: status.show(_bar(what, share)))
    _print(report, json=json)  # first, so that a disk that is full by now costs no measurement
    _write_pictures(report, html, plot)


def _require_pictures(html: Path | None, plot: Path | None) -> None:
    """Whatever would fail after minutes of measuring. errors: ExtraMissingError, a usage error"""
    if html or plot:
        with needs_extra("profile"):
            import matplotlib  # noqa: F401
    if html:
        require_file(html, "--html")
    if plot:
        require_folder(plot, "--plot")


def _write_pictures(report: dict[str, Any], html: Path | None, plot: Path | None) -> None:
    if plot:
        from edgeasr.profile.plots import save_plots

        save_plots(report, plot)
    if html:
        from edgeasr.profile.html import html_page

        html.write_text(html_page(report), encoding="utf-8")


def _tell_of_few_cores(threads: int) -> None:
    from edgeasr.devices.hardware import usable_cores

    if threads > (cores := usable_cores()):
        print_note(
            f"{threads} threads have {counted(cores, 'core')} here and wait for each other: "
            f"--threads {cores} shows what this machine can do"
        )


def _bar(what: str, share: float) -> str:
    return f"[{'#' * round(share * _BAR_WIDTH):.<{_BAR_WIDTH}}] {share:4.0%} {what}"


def _print(report: dict[str, Any], *, json: bool) -> None:
    if json:
        write_out(jsonlib.dumps(report, allow_nan=False) + "\n")
        return
    from edgeasr.cli.profile_table import profile_table
    from edgeasr.profile.tables import sections

    write_out(profile_table(sections(report)), styled=True)


def _require_alone(context: typer.Context) -> None:
    """Errors: a usage error for options beside --compare that would be ignored; what is configured may be"""
    ignored = [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name not in ("compare", "json", "help") and _is_given(context, str(parameter.name))
    ]
    if ignored:
        raise typer.BadParameter(
            f"it runs nothing and takes --json alone, got {', '.join(ignored)} too: leave out what it does not take",
            param_hint="'--compare'",
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _print_comparison(first: Path, second: Path, *, json: bool) -> None:
    from edgeasr.profile.compare import compare, read_report

    found = compare(read_report(first), read_report(second))
    write_out(_comparison_json(found) if json else _comparison_text(found, first, second))


def _comparison_json(found: Comparison) -> str:
    figures = [
        {"name": one.name, "first": one.first, "second": one.second, "ratio": one.ratio} for one in found.figures
    ]
    differing = {key: [first, second] for key, first, second in found.differing}
    return jsonlib.dumps({"figures": figures, "differing": differing}, allow_nan=False) + "\n"


def _comparison_text(found: Comparison, first: Path, second: Path) -> str:
    from edgeasr.cli.columns import columns
    from edgeasr.profile.compare import told_apart

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"

    rows = [("", *told_apart(first, second), "ratio")]
    rows += [(one.name, text(one.first), text(one.second), text(one.ratio)) for one in found.figures]
    lines = [f"They differ in {key}: {one} and {other}." for key, one, other in found.differing]
    return "".join(f"{line}\n" for line in [*columns(rows, "<>>>"), *lines])
