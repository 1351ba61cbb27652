"""Speech manifests in NeMo's form: one JSON object a line with audio_filepath, duration and text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgeasr.errors import ManifestError

_LONGEST_S = 1e6


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest."""

    path: Path  # absolute, or relative to the working directory
    duration_s: float
    text: str  # as it stands in the manifest
    speaker: str = ""
    source: str = ""  # where it comes from: the key "source" if there is one, else the folder in audio_filepath


def read_manifest(path: Path) -> list[Utterance]:
    """The utterances of a manifest; audio paths are relative to its folder.

    raises: ManifestError for a missing file, a malformed line or an empty manifest; it names the line
    """
    try:
        # Not splitlines(): JSON strings may hold line separators of Unicode.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
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
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ManifestError(f"{where}: not a JSON object ({reason}): write one object a line") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: got {type(row).__name__}, wanted a JSON object: write one object a line")
    if missing := [key for key in ("audio_filepath", "duration", "text") if key not in row]:
        raise ManifestError(f"{where}: the key {missing[0]!r} is missing: add it or leave the line out")
    duration, text, audio = row["duration"], row["text"], row["audio_filepath"]
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not 0 < duration <= _LONGEST_S:
        raise ManifestError(f"{where}: duration is {duration!r}, wanted seconds above 0: mend it")
    if not isinstance(text, str) or not isinstance(audio, str) or not audio:
        raise ManifestError(f"{where}: audio_filepath is {audio!r} and text {text!r}, wanted strings: mend the line")
    speaker = str(row.get("speaker") or "")
    source = str(row.get("source") or "") or audio.rpartition("/")[0]
    return Utterance(path.parent / audio, float(duration), text, speaker, source)
