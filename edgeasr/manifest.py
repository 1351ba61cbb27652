"""Speech manifests in NeMo's form: one JSON object a line with audio_filepath, duration and text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgeasr.errors import ManifestError


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest."""

    path: Path  # absolute, or relative to the working directory
    duration_s: float
    text: str  # as it stands in the manifest
    speaker: str = ""


def read_manifest(path: Path) -> list[Utterance]:
    """The utterances of a manifest; audio paths are relative to its folder.

    raises: ManifestError for a missing file, a malformed line or an empty manifest; it names the line
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read the manifest {path}: {error}: give a UTF-8 JSON-lines file") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ManifestError(f"the manifest {path} is empty: wanted one JSON object a line")
    return [_utterance(line, path, number) for number, line in numbered]


def _utterance(line: str, path: Path, number: int) -> Utterance:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where}: not a JSON object ({error.msg})") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: got {type(row).__name__}, wanted a JSON object")
    missing = [key for key in ("audio_filepath", "duration", "text") if key not in row]
    if missing:
        raise ManifestError(f"{where}: the key {missing[0]!r} is missing")
    duration = row["duration"]
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not duration > 0:
        raise ManifestError(f"{where}: duration is {duration!r}, wanted seconds above 0")
    if not isinstance(row["text"], str) or not isinstance(row["audio_filepath"], str):
        raise ManifestError(f"{where}: audio_filepath and text must be strings")
    audio = path.parent / row["audio_filepath"]
    return Utterance(audio, float(duration), row["text"], str(row.get("speaker", "")))
