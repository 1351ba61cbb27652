"""A release of Mozilla's Common Voice: clips/ beside train.tsv, dev.tsv, test.tsv, validated.tsv and others."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from edgeasr.corpora.source import Found, LeftOut, Source
from edgeasr.errors import ManifestError

_WANTED = ("client_id", "path", "sentence")
_SPEAKER_DIGITS = 16  # of 128: enough to tell millions apart


def common_voice(table: Path, votes: int = 1) -> Source:
    """The clips of one table.

    votes: how many more people have to have voted for a clip than against it
    raises: ManifestError for a table that lacks a column or is not UTF-8
    """
    clips = table.parent / "clips"
    if not clips.is_dir():
        raise ManifestError(f"got no folder {clips} beside {table.name}, wanted the clips: unpack the whole release")
    try:
        with table.open(encoding="utf-8", newline="") as file:
            # A quotation mark is a part of the sentence.
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if missing := [name for name in _WANTED if name not in (rows.fieldnames or ())]:
                raise ManifestError(f"{table} has no column {missing[0]!r}: give a table of a Common Voice release")
            for row in rows:
                yield _clip(row, clips, votes, f"{table}, line {rows.line_num}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"cannot read {table}: {error}: give UTF-8 with tabs between columns") from error


def _clip(row: Mapping[str, str | None], clips: Path, votes: int, where: str) -> Found | LeftOut:
    client, name, sentence = (row[column] for column in _WANTED)
    if not name or sentence is None or client is None:
        return LeftOut(where, "a line without all columns")
    up, down = row.get("up_votes") or "0", row.get("down_votes") or "0"
    if not (up.isdecimal() and down.isdecimal()):
        return LeftOut(name, "votes that are no numbers")
    if int(up) - int(down) < votes:
        return LeftOut(name, "too few votes")
    speaker = f"common-voice/{client[:_SPEAKER_DIGITS]}"
    # Before release 5 the names had no .mp3.
    path = clips / name if Path(name).suffix else clips / f"{name}.mp3"
    return Found(str(path), path, sentence, speaker, "common-voice")
