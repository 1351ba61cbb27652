"""Which kind of source something is: told by what lies there, not by a guess."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeasr.corpora.common_voice import common_voice
from edgeasr.corpora.hugging_face import PREFIX, hugging_face
from edgeasr.corpora.lhotse_cuts import lhotse_cuts
from edgeasr.corpora.librispeech import TRANSCRIPTS, librispeech
from edgeasr.corpora.source import Found, Source
from edgeasr.corpora.text_files import text_files
from edgeasr.errors import ManifestError
from edgeasr.manifest import read_manifest

_KINDS = (
    "a folder of LibriSpeech or of audio files with .txt files beside them, a .tsv table of Common Voice, "
    "a .jsonl or .jsonl.gz file of Lhotse cuts or a manifest, or hf:NAME:SPLIT"
)


@dataclass(frozen=True)
class Reading:
    """How sources are read, each setting for one kind of them."""

    votes: int = 1  # Common Voice: how many more have to be for a clip than against it
    text_column: str | None = None  # Hugging Face: where the text is; None looks for the usual names


def open_source(source: str, reading: Reading = Reading()) -> Source:
    """The utterances of a source.

    raises: ManifestError for what is none
    """
    if source.startswith(PREFIX):
        return hugging_face(source, reading.text_column)
    path = Path(source)
    if path.is_dir():
        return librispeech(path) if any(path.rglob(TRANSCRIPTS)) else text_files(path)
    if not path.is_file():
        raise ManifestError(f"got {source}, where nothing is, wanted {_KINDS}")
    if path.suffix == ".tsv":
        return common_voice(path, reading.votes)
    if path.name.endswith((".jsonl", ".jsonl.gz", ".json")):
        return lhotse_cuts(path) if _is_cuts(path) else _manifest(path)
    raise ManifestError(f"got the file {source}, wanted {_KINDS}")


def open_sources(sources: Iterable[str], reading: Reading) -> Source:
    """One source after another."""
    for source in sources:
        yield from open_source(source, reading)


def shuffled(sources: Sequence[str], reading: Reading, seed: int) -> Source:
    """What files and folders list, in an order that is a function of the seed; then what is streamed, as it comes."""
    listed = [source for source in sources if not source.startswith(PREFIX)]
    streamed = [source for source in sources if source.startswith(PREFIX)]
    found = list(open_sources(listed, reading))
    for i in np.random.default_rng(seed).permutation(len(found)).tolist():
        yield found[i]
    yield from open_sources(streamed, reading)


def _is_cuts(path: Path) -> bool:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            first = json.loads(next((line for line in file if line.strip()), "{}"))
    except (EOFError, UnicodeDecodeError, ValueError, gzip.BadGzipFile):
        return path.suffix == ".gz"  # which says what is wrong
    return isinstance(first, dict) and "audio_filepath" not in first and "type" in first


def _manifest(path: Path) -> Source:
    for utterance in read_manifest(path):
        yield Found(
            str(utterance.path),
            utterance.path,
            utterance.text,
            utterance.speaker,
            utterance.source,
            recording_s=utterance.duration_s,
        )
