"""All benchmarks one after the other, each in a process of its own, as its command runs it: every figure of the README.

A part that lacks a package or a program, and one that fails, is noted with its reason, and the others are still run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeasr import __version__

QUICK_UTTERANCES = 4
# A process leaves one line and an exit code that it shares with all bad input. Our lines end with what to do.
_TO_BE_INSTALLED = re.compile(r"\b(pip|apt|apt-get) install\b")


@dataclass(frozen=True)
class Part:
    """A benchmark. arguments: of the program `edgeasr`, without --json"""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a part printed, and why it printed nothing or not all.

    missing: what has to be installed before it can be run
    failed:  any other reason, such as a file that cannot be read
    """

    part: Part
    wall_s: float
    result: Mapping[str, Any] | None
    missing: str | None = None
    failed: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        command = " ".join(["edgeasr", *self.part.arguments])
        return {
            "command": command,
            "wall_s": round(self.wall_s, 1),
            "result": self.result,
            "missing": self.missing,
            "failed": self.failed,
        }


# Figure, part that has it, and the way to it in what the part prints.
_FIGURES = (
    ("word error rate, dev", "evaluate", ("wer",)),
    ("character error rate, dev", "evaluate", ("cer",)),
    ("RTF", "evaluate", ("rtf",)),
    ("chunk, median ms", "evaluate", ("chunk_ms", "p50")),
    ("chunk, 99 % ms", "evaluate", ("chunk_ms", "p99")),
    ("first word, median ms", "evaluate", ("first_token_latency_ms", "p50")),
    ("listen, first words, s", "listen", ("decoders", 0, "first_words_s")),
    ("listen, peak resident memory, MB", "listen", ("decoders", 0, "peak_rss_mb")),
    ("listen, peak resident memory, greedy, MB", "listen", ("decoders", 1, "peak_rss_mb")),
    ("word error rate, dev, greedy", "evaluate greedy", ("wer",)),
    ("RTF, greedy", "evaluate greedy", ("rtf",)),
    ("chunk, greedy, median ms", "evaluate greedy", ("chunk_ms", "p50")),
    ("word error rate, dev_other", "evaluate other", ("wer",)),
    ("word error rate, dev_other, greedy", "evaluate other greedy", ("wer",)),
    ("words an hour of noise", "evaluate other", ("non_speech", "noise", "words_per_hour")),
    ("words an hour of silence", "evaluate other", ("non_speech", "silence", "words_per_hour")),
    ("pocketsphinx: word error rate", "pocketsphinx", ("systems", 1, "wer")),
    ("pocketsphinx: ours on the same", "pocketsphinx", ("systems", 0, "wer")),
    ("pocketsphinx: its processor time over ours", "pocketsphinx", ("cpu_ratio",)),
    ("pocketsphinx, dev_other: word error rate", "pocketsphinx other", ("systems", 1, "wer")),
    ("pocketsphinx, dev_other: ours on the same", "pocketsphinx other", ("systems", 0, "wer")),
    ("pocketsphinx, dev_other: its processor time over ours", "pocketsphinx other", ("cpu_ratio",)),
    ("grammar: commands heard right", "grammar", ("heard", "commands", "share")),
    ("grammar: orders heard right", "grammar", ("heard", "orders", "share")),
    ("grammar: other speech rejected", "grammar", ("heard", "other speech, commands", "share")),
    ("step, µs", "profile", ("step", "time_us")),
    ("step, times its floor", "profile", ("step", "times_floor")),
    ("sum of operators over the step", "profile", ("step", "operators_share")),
    ("bytes from memory a second of audio", "profile", ("baselines", 0, "dram_bytes_per_s")),
    ("the same, LSTM fed every 10 ms", "profile", ("baselines", 1, "dram_bytes_per_s")),
    ("the same, LSTM fed every 40 ms", "profile", ("baselines", 2, "dram_bytes_per_s")),
    ("the same, LSTM in chunks of 4 x 40 ms", "profile", ("baselines", 3, "dram_bytes_per_s")),
    ("the same, LSTM in chunks, weights as read", "profile", ("baselines", 3, "read_bytes_per_s")),
    ("bandwidth over mbw's", "bandwidth", ("agreements", 0, "ratio")),
    ("stored of all summaries, one hour", "dedup", ("hour", "ratio")),
    ("stored of all summaries, sessions", "dedup", ("ratio",)),
)


def suite(manifest: Path, other: Path | None = None, noise: Path | None = None, *, quick: bool = False) -> list[Part]:
    """The benchmarks behind the README.

    manifest: speech as for `edgeasr evaluate`; other: a second set; noise: recordings without speech
    quick:    a few utterances, a quick profile, and neither hours of audio nor what trains
    """
    limit = ("--limit", str(QUICK_UTTERANCES)) if quick else ()
    sample = str(QUICK_UTTERANCES if quick else 40)
    parts = [
        Part("evaluate", ("evaluate", str(manifest), *limit)),
        Part("evaluate greedy", ("evaluate", str(manifest), "--decoder", "greedy", *limit)),
        Part("pocketsphinx", ("bench", "pocketsphinx", str(manifest), "--sample", sample)),
        Part("profile", ("profile", *(("--quick",) if quick else ()), "--recurrent")),
        Part("bandwidth", ("bench", "bandwidth")),
        Part("listen", ("bench", "listen", *(("--rounds", "1") if quick else ()))),
    ]
    if other:
        heard = ("--noise", str(noise)) if noise else ()
        parts.append(Part("evaluate other", ("evaluate", str(other), *limit, *heard)))
        parts.append(Part("evaluate other greedy", ("evaluate", str(other), "--decoder", "greedy", *limit)))
        parts.append(Part("pocketsphinx other", ("bench", "pocketsphinx", str(other), "--sample", sample)))
    if not quick:
        parts.append(Part("grammar", ("bench", "grammar", str(other or manifest), "--per-voice", "8")))
        parts.append(Part("dedup", ("bench", "dedup", str(manifest))))
        parts += [Part("store", ("bench", "store")), Part("recall", ("bench", "recall"))]
    return parts


def run_suite(parts: Iterable[Part], on_part: Callable[[Part], None] | None = None) -> list[Outcome]:
    """Run the parts in order. on_part: called with each before it begins"""
    outcomes = []
    for part in parts:
        if on_part:
            on_part(part)
        outcomes.append(_run(part))
    return outcomes


def _run(part: Part) -> Outcome:
    began_s = time.monotonic()
    command = [sys.executable, "-m", "edgeasr.cli.main", *part.arguments, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wall_s = time.monotonic() - began_s
    result = _printed(done.stdout)
    if result is not None and done.returncode == 0:
        return Outcome(part, wall_s, result)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    reason = said[-1].removeprefix("edgeasr: error: ") if said else f"exit code {done.returncode}, nothing said"
    if result is None and _TO_BE_INSTALLED.search(reason):
        return Outcome(part, wall_s, None, missing=reason)
    return Outcome(part, wall_s, result, failed=reason)


def _printed(text: str) -> Mapping[str, Any] | None:
    try:
        result = json.loads(text)
    except ValueError:
        return None
    return result if isinstance(result, Mapping) else None


def suite_report(outcomes: Iterable[Outcome], *, quick: bool = False) -> dict[str, Any]:
    """What all parts printed, the figures among it that the README has, and of how many utterances they are.

    quick: as for `suite`
    """
    by_name = {outcome.part.name: outcome for outcome in outcomes}
    return {
        "edgeasr": __version__,
        "quick": quick,
        "utterances": {name: count for name, outcome in by_name.items() if (count := _utterances(outcome)) is not None},
        "figures": _figures(by_name) | _recall_figures(by_name.get("recall")),
        "missing": {name: outcome.missing for name, outcome in by_name.items() if outcome.missing},
        "failed": {name: outcome.failed for name, outcome in by_name.items() if outcome.failed},
        "parts": {name: outcome.to_dict() for name, outcome in by_name.items()},
    }


def _utterances(outcome: Outcome) -> int | None:
    count = (outcome.result or {}).get("utterances")
    return count if isinstance(count, int) else None


def _figures(by_name: Mapping[str, Outcome]) -> dict[str, float]:
    found = {}
    for figure, name, way in _FIGURES:
        value: Any = by_name[name].result if name in by_name else None
        for key in way:
            value = _under(value, key)
        if isinstance(value, int | float):
            found[figure] = value
    return found


def _under(value: Any, key: str | int) -> Any:
    if isinstance(key, int):
        return value[key] if isinstance(value, list) and key < len(value) else None
    return value.get(key) if isinstance(value, Mapping) else None


def _recall_figures(recall: Outcome | None) -> dict[str, float]:
    rows = (recall.result or {}).get("rows", []) if recall else []
    return {f"recall over {row['distance']:,} vectors, {row['model']}": row["accuracy"] for row in rows}
