"""Two profiles beside each other: what a change, another board or another model does to each figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeasr.errors import ProfileError
from edgeasr.profile.report import FORMAT_VERSION

# Name, and the way to the figure in a report.
_FIGURES = (
    ("step, µs", ("step", "time_us")),
    ("operators", ("step", "operators")),
    ("sum of operators, µs", ("step", "operators_us")),
    ("times the floor", ("step", "times_floor")),
    ("weights, bytes", ("step", "weight_bytes")),
    ("state read, bytes", ("step", "state_read_bytes")),
    ("state written, bytes", ("step", "state_written_bytes")),
    ("between operators, bytes", ("step", "activation_bytes")),
    ("multiply-adds in int8", ("step", "int8_macs")),
    ("multiply-adds in fp32", ("step", "fp32_macs")),
    ("GB/s achieved", ("step", "gb_per_s")),
    ("GOP/s achieved", ("step", "gop_per_s")),
    ("RTF", ("run", "rtf")),
    ("chunk, median ms", ("run", "chunk_ms", "p50")),
    ("chunk, 99 % ms", ("run", "chunk_ms", "p99")),
    ("first word, median ms", ("run", "first_token_latency_ms", "p50")),
    ("end of a segment, median ms", ("run", "endpoint_latency_ms", "p50")),
    ("DRAM, GB/s", ("peaks", "dram_gb_per_s")),
    ("int8 peak, GOP/s", ("peaks", "int8_gops")),
    ("fp32 peak, GFLOP/s", ("peaks", "fp32_gflops")),
)
# Where these differ, the figures compare more than one thing.
_SETTINGS = ("model", "artefact", "backend", "decoder", "threads", "chunk_length_ms")


@dataclass(frozen=True)
class Figure:
    """A figure of both profiles; None where one has it not. ratio: the second over the first"""

    name: str
    first: float | None
    second: float | None

    @property
    def ratio(self) -> float | None:
        return self.second / self.first if self.first and self.second is not None else None


@dataclass(frozen=True)
class Comparison:
    """differing: settings, and what they are in the first and in the second"""

    figures: tuple[Figure, ...]
    differing: tuple[tuple[str, str, str], ...]


def read_report(path: Path) -> dict[str, Any]:
    """A profile that `edgeasr profile --json` wrote. errors: ProfileError for anything else"""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ProfileError(f"cannot read a profile from {path} ({error}): name what `profile --json` wrote") from error
    version = report.get("format_version") if isinstance(report, dict) else None
    if version != FORMAT_VERSION:
        raise ProfileError(
            f"got {path} of format {version!r}, wanted a profile of format {FORMAT_VERSION}: profile again with "
            "this version"
        )
    if lacking := _lacking(report):
        raise ProfileError(f"got {path} without {', '.join(lacking)}, wanted a whole profile: profile again")
    return dict(report)


def _lacking(report: Mapping[str, Any]) -> list[str]:
    """What a profile always has and this one has not, each part once, the keys that lead to it joined by dots."""
    lacking = []
    for way in (*((key,) for key in (*_SETTINGS, "machine")), *(way for _, way in _FIGURES)):
        found: Any = report
        for depth, key in enumerate(way, 1):
            if not isinstance(found, Mapping) or key not in found:
                lacking.append(".".join(way[:depth]))
                break
            found = found[key]
    return list(dict.fromkeys(lacking))


def told_apart(first: Path, second: Path) -> tuple[str, str]:
    """The names of two files, with as many of the folders above them as it takes to differ."""
    for depth in range(1, max(len(first.parts), len(second.parts)) + 1):
        names = tuple(str(Path(*path.parts[-depth:])) for path in (first, second))
        if names[0] != names[1]:
            return names[0], names[1]
    return str(first), str(second)


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Figures that both, or one of them, have."""
    figures = [Figure(name, _figure(first, way), _figure(second, way)) for name, way in _FIGURES]
    settings = [(key, _setting(first, key), _setting(second, key)) for key in (*_SETTINGS, "machine")]
    return Comparison(
        tuple(figure for figure in figures if figure.first is not None or figure.second is not None),
        tuple(setting for setting in settings if setting[1] != setting[2]),
    )


def _figure(report: Mapping[str, Any], way: tuple[str, ...]) -> float | None:
    found: Any = report
    for key in way:
        found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, list):
        return len(found)
    return found if isinstance(found, int | float) else None


def _setting(report: Mapping[str, Any], key: str) -> str:
    value = report.get(key)
    return str(value.get("name") if isinstance(value, Mapping) else value)
