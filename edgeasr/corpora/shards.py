"""Shards: tar files of samples in WebDataset's form, NAME.flac beside NAME.json, and an index of what is in them.

The index has what a run plans by without reading a shard: lengths, sizes of texts, the words, and the hash of each
file. Written and read with the tarfile of Python: a shard is a plain tar, and the order in which a run reads it must be
a function of the index that a resumed run can compute, which the pipelines of webdataset and lhotse do not offer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from edgeasr.errors import ManifestError

INDEX = "index.json"
FORMAT = "edgeasr-shards-1"
AUDIO = ("flac", "wav", "opus", "ogg", "mp3")
_DAMAGED = "copy it again, or make it anew and index it"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class Sample:
    """What is in a shard for one utterance."""

    name: str
    audio: bytes  # what stands in an audio file
    text: str
    speaker: str = ""
    source: str = ""


@dataclass(frozen=True)
class Shard:
    """A shard as its index describes it."""

    path: Path
    bytes: int
    sha256: str
    durations_s: tuple[float, ...]  # of the samples, in their order
    text_bytes: tuple[int, ...]  # of their texts as they stand in the shard

    def samples(self) -> Iterator[Sample]:
        """The samples, read from start to end as a stream.

        raises: ManifestError that names the shard where it is damaged or not the one that was indexed
        """
        with open_shard(self.path) as file:
            hashing = _Hashing(file)
            count = 0
            for sample in read_samples(hashing, self.path):
                if count >= len(self.durations_s) or len(sample.text.encode()) != self.text_bytes[count]:
                    raise ManifestError(f"the shard {self.path} has other samples than its index says: {_DAMAGED}")
                count += 1
                yield sample
            hashing.finish()
        if count < len(self.durations_s) or hashing.hexdigest() != self.sha256:
            raise ManifestError(f"the shard {self.path} is not what was indexed (SHA-256 differs): {_DAMAGED}")


@dataclass(frozen=True)
class ShardList:
    """Shards to train from, and the words of their texts."""

    shards: tuple[Shard, ...]
    words: frozenset[str]


class _Hashing(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._hash.update(content)
        return content

    def finish(self) -> None:
        """Read what is behind the end of the archive."""
        while self.read(1 << 20):
            pass

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def open_shard(path: Path) -> IO[bytes]:
    """A shard to read. raises: ManifestError"""
    try:
        return path.open("rb")
    except OSError as error:
        raise ManifestError(f"cannot read the shard {path}: {error.strerror}: check data.shards") from error


def read_samples(file: Any, path: Path) -> Iterator[Sample]:
    """The samples of a stream. raises: ManifestError"""
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            files = ((member.name, archive.extractfile(member)) for member in archive if member.isfile())
            parts = ((*_parted(name), content.read()) for name, content in files if content)
            for name, group in groupby(parts, key=lambda part: part[0]):
                yield _sample(name, {suffix: content for _, suffix, content in group}, path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ManifestError(f"the shard {path} is damaged ({error}): {_DAMAGED}") from error


def _parted(name: str) -> tuple[str, str]:
    """The name of a sample and the suffix: what is behind the first dot of the last part, as WebDataset has it."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def _sample(name: str, parts: Mapping[str, bytes], path: Path) -> Sample:
    where = f"the sample {name} of the shard {path}"
    audio = next((parts[suffix] for suffix in AUDIO if suffix in parts), None)
    if audio is None:
        raise ManifestError(f"{where} has no {', '.join(AUDIO)} among {', '.join(parts)}: make the shard anew")
    try:
        if "json" not in parts:
            return Sample(name, audio, parts["txt"].decode())
        said = json.loads(parts["json"])
        text = said["text"]
        if not isinstance(text, str):
            raise TypeError("text is not a string")
        return Sample(name, audio, text, str(said.get("speaker") or ""), str(said.get("source") or ""))
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{where} has no text in .json or .txt ({error!r}): make the shard anew") from error


def write_index(folder: Path, shards: Sequence[Shard], words: Iterable[str]) -> None:
    """Write the index of shards that lie in a folder, whole or not at all."""
    rows = [{**asdict(shard), "path": shard.path.name} for shard in shards]
    partial = folder / f"{INDEX}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump({"format": FORMAT, "words": sorted(words), "shards": rows}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / INDEX)


def find_shards(patterns: Iterable[str], root: Path) -> ShardList:
    """The shards that a recipe names: paths with ranges such as shard-{000000..000119}.tar, folders that have an index,
    or files ending in .txt with one of these a line; relative ones start from `root`.

    raises: ManifestError for what is not there, not in the index beside it, or of another size than that says
    """
    paths: list[Path] = []
    for pattern in patterns:
        paths += _expanded(root / pattern, root)
    indexes: dict[Path, tuple[dict[str, Shard], list[str]]] = {}
    shards, words = [], set()
    for path in paths:
        if path.parent not in indexes:
            indexes[path.parent] = read_index(path.parent)
            words.update(indexes[path.parent][1])
        shard = indexes[path.parent][0].get(path.name)
        if shard is None:
            raise ManifestError(f"{path} is not in {path.parent / INDEX}: index it with edgeasr corpus index")
        _require_size(shard)
        shards.append(shard)
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ManifestError(f"data.shards names {twice} more than once: name each shard once")
    return ShardList(tuple(shards), frozenset(words))


def _require_size(shard: Shard) -> None:
    try:
        size = shard.path.stat().st_size
    except OSError as error:
        raise ManifestError(f"cannot read the shard {shard.path}: {error.strerror}: check data.shards") from error
    if size != shard.bytes:
        raise ManifestError(f"the shard {shard.path} has {size} bytes, its index says {shard.bytes}: {_DAMAGED}")


def _expanded(path: Path, root: Path) -> list[Path]:
    if path.is_dir():
        return [path / name for name in read_index(path)[0]]
    if path.suffix == ".txt":
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"cannot read the list of shards {path}: {error}: check data.shards") from error
        return [shard for line in lines if line for shard in _expanded(root / line, root)]
    found = _RANGE.search(str(path))
    if found is None:
        return [path]
    first, last = found.groups()
    if int(first) > int(last) or len(first) > len(last):
        raise ManifestError(f"got the range {found[0]} in {path}, wanted the lower number first: turn it round")
    names = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [s for name in names for s in _expanded(Path(str(path).replace(found[0], name, 1)), root)]


def read_index(folder: Path) -> tuple[dict[str, Shard], list[str]]:
    """The shards of a folder by the names of their files, and the words. raises: ManifestError"""
    path = folder / INDEX
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ManifestError(f"got no {path}, wanted an index of the shards: edgeasr corpus index {folder}") from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot read {path}: {error}: make it anew with edgeasr corpus index") from error
    try:
        if held["format"] != FORMAT:
            raise ValueError(f"format {held['format']!r}")
        shards = {
            row["path"]: Shard(
                folder / row["path"],
                int(row["bytes"]),
                str(row["sha256"]),
                tuple(map(float, row["durations_s"])),
                tuple(map(int, row["text_bytes"])),
            )
            for row in held["shards"]
        }
        words = [str(word) for word in held["words"]]
        if any(len(s.durations_s) != len(s.text_bytes) or not s.durations_s for s in shards.values()):
            raise ValueError("durations and texts do not match")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{path} is not an index ({error!r}): make it anew with edgeasr corpus index") from error
    return shards, words
