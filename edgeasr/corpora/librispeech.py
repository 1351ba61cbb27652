"""LibriSpeech as it is unpacked: SPEAKER/CHAPTER/*.flac beside a *.trans.txt with the texts of the chapter."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgeasr.corpora.source import Found, LeftOut, Source
from edgeasr.errors import ManifestError

TRANSCRIPTS = "*.trans.txt"


def librispeech(folder: Path) -> Source:
    """The utterances of all chapters below a folder, such as LibriSpeech/train-clean-100, in the order of their names.

    raises: ManifestError for a file of texts that is not UTF-8
    """
    for transcripts in sorted(folder.rglob(TRANSCRIPTS)):
        yield from _chapter(transcripts)


def _chapter(transcripts: Path) -> Iterable[Found | LeftOut]:
    chapter = transcripts.parent
    try:
        lines = transcripts.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError(f"cannot read {transcripts}: {error}: give UTF-8") from error
    texts = dict(line.strip().partition(" ")[::2] for line in lines if line.strip())
    recordings = {path.stem: path for path in sorted(chapter.glob("*.flac"))}
    for name, text in texts.items():
        if name in recordings:
            # SUBSET/SPEAKER/CHAPTER
            subset, speaker = chapter.parent.parent.name, chapter.parent.name
            yield Found(str(recordings[name]), recordings[name], text, f"librispeech/{speaker}", subset)
        else:
            yield LeftOut(str(chapter / f"{name}.flac"), "no audio file for a text")
    for name in recordings.keys() - texts.keys():
        yield LeftOut(str(recordings[name]), "no text for an audio file")
