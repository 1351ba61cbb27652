"""Speech on which artefacts are compared with torch, and the words that were said in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeasr.errors import ManifestError
from edgeasr.manifest import Utterance, read_manifest

UTTERANCES = 20  # taken of a manifest where nothing else is said


@dataclass(frozen=True)
class Sample:
    """name: what it was taken from. recordings: in the order in which they are heard. utterances: with their words"""

    name: str
    recordings: Sequence[Path]
    utterances: Sequence[Utterance] = ()

    @classmethod
    def of(cls, path: Path, limit: int = UTTERANCES) -> Sample:
        """Of a recording, all; of a manifest, so many utterances at even distances. errors: ManifestError"""
        if not _is_manifest(path):
            if path.suffix in (".json", ".jsonl"):
                raise ManifestError(f"got {path}, wanted a manifest: JSON objects, a line each, or a recording")
            return cls(path.name, (path,))
        listed = read_manifest(path)
        count = min(limit, len(listed))
        taken = [listed[i * len(listed) // count] for i in range(count)]
        if not any(one.text.strip() for one in taken):
            raise ManifestError(f"{path} has no words in the {count} utterances taken: name one with texts")
        return cls(path.name, [one.path for one in taken], taken)


def _is_manifest(path: Path) -> bool:
    """A manifest begins with an object of JSON; no recording does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
