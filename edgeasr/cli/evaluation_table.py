"""The report of an evaluation for a terminal: details first, so that the figures stand last on the screen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from edgeasr.alignment import AlignedWord, aligned_lines
from edgeasr.cli.columns import columns

USUAL_WIDTH = 100
MAX_ROWS = 20  # of speakers, and of sources
_MAX_EDITS = 10

Report = Mapping[str, Any]


def evaluation_table(report: Report) -> str:
    """The report in sections; what has nothing to say is left out."""
    width = get_terminal_size().columns - 1 if sys.stdout.isatty() else USUAL_WIDTH
    sections = [
        _worst(report["worst"], width),
        _edits(report["edits"], report["word_errors"]),
        _groups(report["by_speaker"], "speaker"),
        _groups(report["by_source"], "source"),
        _non_speech(report["non_speech"], width),
        _speed(report),
        _errors(report),
    ]
    return "\n".join("".join(f"{line}\n" for line in section) for section in sections if section)


def error_rates(rows: Iterable[tuple[str, float, object, Mapping[str, int]]]) -> list[str]:
    """rows: name, rate, interval or None, then the counts of error_dict"""
    header = ("", "rate", "95 % interval", "errors", "of", "substituted", "deleted", "inserted")
    lines: list[tuple[object, ...]] = [header]
    for name, rate, interval, counts in rows:
        kinds = [counts[kind] for kind in ("errors", "reference", "substitutions", "deletions", "insertions")]
        lines.append((name, f"{rate:.3f}", bounds(interval), *kinds))
    return columns(lines, "<>>>>>>>")


def bounds(interval: object) -> str:
    """An interval of the report, or a dash for none."""
    return f"{interval['low']:.3f} to {interval['high']:.3f}" if isinstance(interval, Mapping) else "-"


def method_lines(report: Report) -> list[str]:
    """What the rates rest on."""
    how = report["interval_method"]
    drawn = f"{how['method']}, {how['units']} {how['drawn']}s drawn {how['samples']} times, seed {how['seed']}"
    return [
        f"Interval: {drawn}." if how["units"] > 1 else f"Interval: none, of one {how['drawn']}.",
        f"Scored by {report['scoring']} on normalised texts: lower case, accents dropped, only a-z and apostrophe.",
    ]


def _worst(worst: Sequence[Report], width: int) -> list[str]:
    if not worst:
        return []
    lines = ["The worst utterances: capitals differ, stars are missing words"]
    for one in worst:
        rate = "-" if one["wer"] is None else f"{one['wer']:.2f}"
        lines += ["", f"  WER {rate} ({one['errors']} of {one['words']})  {one['audio']}"]
        for reference, hypothesis in aligned_lines((AlignedWord(*pair) for pair in one["alignment"]), width - 9):
            lines += [f"    ref  {reference}", f"    hyp  {hypothesis}"]
    return lines


def _edits(edits: Report, totals: Report) -> list[str]:
    if not totals["errors"]:
        return []
    cells = [
        [(f"{row['reference']} > {row['hypothesis']}", row["count"]) for row in edits["substitutions"]],
        [(row["word"], row["count"]) for row in edits["deletions"]],
        [(row["word"], row["count"]) for row in edits["insertions"]],
    ]
    names = [f"{totals[kind]} {kind}" for kind in ("substitutions", "deletions", "insertions")]
    header = [part for name in names for part in (name, "times")]
    rows = [
        [part for column in cells for part in (column[i] if i < len(column) else ("", ""))]
        for i in range(min(_MAX_EDITS, max(map(len, cells))))
    ]
    return ["The most frequent edits", *columns([header, *rows], "<><><>")]


def _groups(rows: Sequence[Report], name: str) -> list[str]:
    """A table where there is something to compare."""
    if len(rows) < 2:
        return []
    shown = rows[:MAX_ROWS]
    cells: list[tuple[object, ...]] = [(name, "WER", "CER", "words", "utterances", "seconds")]
    for row in shown:
        rates = ("-" if row[rate] is None else f"{row[rate]:.3f}" for rate in ("wer", "cer"))
        seconds = f"{row['audio_s']:.0f}"
        cells.append((row[name] or "(not given)", *rates, row["words"], row["utterances"], seconds))
    left_out = f", the worst {len(shown)} of {len(rows)} (--json has all)" if len(shown) < len(rows) else ""
    return [f"By {name}{left_out}", *columns(cells, "<>>>>>")]


def _non_speech(found: Report | None, width: int) -> list[str]:
    """Recordings with the words that were heard in them, cut to the width."""
    if found is None:
        return []
    cells: list[tuple[object, ...]] = [("words per hour", "words", "seconds", "recording", "heard")]
    for kind in ("noise", "silence"):
        for one in found[kind]["recordings"]:
            seconds, name = one["audio_s"], Path(one["audio"]).name
            cells.append((f"{one['words'] * 3600 / seconds:.0f}", one["words"], f"{seconds:.0f}", name, one["text"]))
        rate, words, hours = (found[kind][key] for key in ("words_per_hour", "words", "hours"))
        cells.append((f"{rate:.0f}", words, f"{hours * 3600:.0f}", f"all {kind}", ""))
    lines = columns(cells, ">>><<")
    return ["Words where nobody speaks", *(f"{line[: width - 3]}..." if len(line) > width else line for line in lines)]


def _speed(report: Report) -> list[str]:
    chunk, first = report["chunk_ms"], report["first_token_latency_ms"]
    rows = [
        ("processor seconds a second of audio", f"{report['rtf']:.4f}"),
        ("a chunk takes, median and 99 %", f"{_ms(chunk['p50'])} and {_ms(chunk['p99'])}"),
        ("first word after it began, median and 95 %", f"{_ms(first['p50'])} and {_ms(first['p95'])}"),
        ("peak memory", f"{report['peak_rss_mb']:.0f} MB"),
    ]
    return ["Speed", *columns(rows, "<<")]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _errors(report: Report) -> list[str]:
    rows = [
        ("words", report["wer"], report["wer_interval"], report["word_errors"]),
        ("characters", report["cer"], report["cer_interval"], report["character_errors"]),
    ]
    heading = (
        f"{report['model']}: {report['artefact']} on {report['backend']}, {report['threads']} thread"
        f"{'s' if report['threads'] > 1 else ''}, chunks of {report['chunk_length_ms']} ms, decoder {report['decoder']}"
    )
    amount = f"{report['utterances']} utterances, {report['audio_s'] / 60:.1f} minutes"
    if unreadable := len(report["unreadable"]):
        amount += f"; {unreadable} unreadable files left out"
    return [heading, amount, "", *error_rates(rows), "", *method_lines(report)]
