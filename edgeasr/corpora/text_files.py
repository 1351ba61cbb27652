"""A folder of recordings, each with its text in a file of the same name that ends in .txt."""

from __future__ import annotations

from pathlib import Path

from edgeasr.corpora.source import Found, LeftOut, Source

AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus")


def text_files(folder: Path) -> Source:
    """The recordings in a folder and below, in the order of their names.

    Folders in it are speakers; what lies in the folder itself has none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO)
    for path in found:
        text = path.with_suffix(".txt")
        if not text.is_file():
            yield LeftOut(str(path), "no text for an audio file")
            continue
        try:
            words = text.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            yield LeftOut(str(text), "a text that is not UTF-8")
            continue
        between = path.relative_to(folder).parent.as_posix()
        speaker = "" if between == "." else f"{folder.resolve().name}/{between}"
        yield Found(str(path), path, words, speaker, folder.resolve().name)
    recorded = {path.with_suffix(".txt") for path in found}
    for text in sorted(folder.rglob("*.txt")):
        if text not in recorded:
            yield LeftOut(str(text), "no audio file for a text")
