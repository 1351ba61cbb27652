"""Cuts of Lhotse, as `CutSet.to_file` writes them: a JSON object a line, plain or gzip.

Read here and not by the package lhotse: of it only these few fields are wanted, and what its lazy transforms would do
to the audio (speed, mixing, padding) has no place in a manifest. Such cuts are left out and counted.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgeasr.corpora.source import Found, LeftOut, Source
from edgeasr.errors import ManifestError

_SLACK_S = 0.01  # what rounding leaves of a supervision outside of its cut


def lhotse_cuts(path: Path) -> Source:
    """An utterance for every supervision with a text; paths of recordings start from the working directory.

    raises: ManifestError for a line that is no JSON object, and a file that cannot be read
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield from _utterances(_object(line, f"{path}, line {number}"), f"{path}, line {number}")
    except (EOFError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise ManifestError(f"cannot read {path}: {error}: give a whole file") from error


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        cut = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: not a JSON object ({error}): give cuts, one a line") from error
    if not isinstance(cut, dict):
        raise ManifestError(f"{where}: got {type(cut).__name__}, wanted a JSON object: give cuts, one a line")
    return cut


def _utterances(cut: Mapping[str, Any], where: str) -> Iterable[Found | LeftOut]:
    name = str(cut.get("id") or where)
    try:
        if reason := _unfit(cut):
            yield LeftOut(name, reason)
            return
        supervisions = cut.get("supervisions") or []
        spoken = [s for s in supervisions if s.get("text")]
        if not spoken:
            yield LeftOut(name, "a cut without text")
        for supervision in spoken:
            yield _utterance(cut, supervision, name, alone=len(supervisions) == 1)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        yield LeftOut(name, "a cut with fields missing or of a wrong kind")


def _unfit(cut: Mapping[str, Any]) -> str:
    """Why a cut is not a part of a recording as it lies there, or nothing."""
    if cut.get("type") not in ("MonoCut", "MultiCut"):
        return f"a cut of the type {cut.get('type')}"
    recording = cut.get("recording")
    if recording is None:
        return "a cut without a recording"
    if recording.get("transforms"):
        return "a recording with transforms"
    sources = recording["sources"]
    if len(sources) != 1:
        return "a recording in several files"
    return "" if sources[0]["type"] == "file" else f"a recording whose source is a {sources[0]['type']}"


def _utterance(cut: Mapping[str, Any], supervision: Mapping[str, Any], name: str, *, alone: bool) -> Found | LeftOut:
    """The part of the cut in which a supervision speaks: all of it where the supervision is the only one."""
    start_s, duration_s = float(cut["start"]), float(cut["duration"])
    if not alone:
        # Relative to the cut; what lies outside of it is not heard.
        begin_s = max(0.0, float(supervision["start"]))
        end_s = min(duration_s, float(supervision["start"]) + float(supervision["duration"]))
        if end_s - begin_s < float(supervision["duration"]) - _SLACK_S:
            return LeftOut(name, "a supervision that its cut does not hold whole")
        start_s, duration_s = start_s + begin_s, end_s - begin_s
        name = str(supervision.get("id") or name)
    recording = cut["recording"]
    channels = recording["sources"][0]["channels"]
    wanted = supervision.get("channel", cut.get("channel", 0))
    if isinstance(wanted, list):
        wanted = wanted[0]
    return Found(
        name,
        Path(recording["sources"][0]["source"]),
        str(supervision["text"]),
        str(supervision.get("speaker") or ""),
        "",
        start_s,
        duration_s,
        channels.index(wanted) if len(channels) > 1 else None,
        float(recording["duration"]),
    )
