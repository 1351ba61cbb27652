"""A source of speech written as a manifest: what can be trained on, with what is left out counted by reason."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from edgeasr.corpora.checking import Checked, audio_file, checked
from edgeasr.corpora.source import LeftOut, Source
from edgeasr.errors import ManifestError
from edgeasr.wording import visible

Watch = Callable[["Tally"], None]  # hears after every utterance


@dataclass
class Tally:
    """What became of a source."""

    utterances: int = 0
    duration_s: float = 0.0
    left_out: Counter[str] = field(default_factory=Counter)  # by reason
    examples: dict[str, str] = field(default_factory=dict)  # the first of each reason

    def take(self, duration_s: float) -> None:
        """Count an utterance."""
        self.utterances += 1
        self.duration_s += duration_s

    def leave(self, left: LeftOut, names: TextIO | None) -> None:
        """Count what is left out, and write its reason and name down."""
        self.left_out[left.reason] += 1
        self.examples.setdefault(left.reason, left.name)
        if names:
            names.write(f"{left.reason}\t{visible(left.name)}\n")

    def require_some(self) -> None:
        """raises: ManifestError where nothing was taken"""
        if not self.utterances:
            reasons = "; ".join(f"{count} left out: {reason}" for reason, count in self.left_out.most_common())
            raise ManifestError(
                f"got no utterance that can be trained on ({reasons or 'the source is empty'}), wanted one or more: "
                "check what the source is"
            )


def import_corpus(
    source: Source, manifest: Path, audio: Path, watch: Watch | None = None, left_out: Path | None = None
) -> Tally:
    """Write a manifest of what a source gives.

    audio:    folder for the audio that is no file of its own: parts of recordings, data sets that are streamed
    left_out: file for the reason and the name of all that is left out
    raises:   ManifestError where nothing can be used, and what the source raises; then there is no manifest
    """
    manifest.parent.mkdir(parents=True, exist_ok=True)
    partial = manifest.with_name(manifest.name + ".partial")
    tally = Tally()
    with ExitStack() as files:
        lines = files.enter_context(partial.open("w", encoding="utf-8"))
        files.callback(partial.unlink, missing_ok=True)
        names = files.enter_context(left_out.open("w", encoding="utf-8")) if left_out else None
        for utterance in accepted(source, tally, names):
            row = _row(utterance, manifest, audio / f"{tally.utterances // 1000:05d}" / f"{tally.utterances:08d}")
            if isinstance(row, LeftOut):
                tally.leave(row, names)
                continue
            lines.write(json.dumps(row) + "\n")
            tally.take(utterance.duration_s)
            if watch:
                watch(tally)
        tally.require_some()
        lines.flush()
        os.fsync(lines.fileno())
        partial.replace(manifest)
    return tally


def accepted(source: Source, tally: Tally, names: TextIO | None) -> Iterator[Checked]:
    """What of a source passes the checks; the rest is counted."""
    for found in source:
        utterance = found if isinstance(found, LeftOut) else checked(found)
        if isinstance(utterance, LeftOut):
            tally.leave(utterance, names)
        else:
            yield utterance


def _row(utterance: Checked, manifest: Path, audio: Path) -> dict[str, object] | LeftOut:
    """A line of the manifest; `audio`, without its suffix, is written where there is no file to name."""
    found = utterance.found
    path = found.audio
    if isinstance(path, bytes) or not utterance.is_whole:
        written = audio_file(utterance)
        if isinstance(written, LeftOut):
            return written
        audio.parent.mkdir(parents=True, exist_ok=True)
        path = audio.with_suffix(f".{written[1]}")
        path.write_bytes(written[0])
    row: dict[str, object] = {
        "audio_filepath": _from(manifest.parent, path),
        "duration": round(utterance.duration_s, 4),
        "text": utterance.text,
    }
    return row | {key: value for key, value in (("speaker", found.speaker), ("source", found.source)) if value}


def _from(folder: Path, path: Path) -> str:
    """A path below the folder from there, any other in full."""
    folder, path = folder.resolve(), path.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
