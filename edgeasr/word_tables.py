"""The words of a bundle ready for decoding: unpacked once, kept in the user's cache folder, and mapped from there.

Unpacking a language model takes most of a second, and its tables most of the memory of a program that listens. Mapped
they need no unpacking, several programs share them, and the system may drop what is not in use. A file is named by the
SHA-256 of what it was made of, written beside its place and moved there, and holds a checksum: what is damaged or of
another layout is made again, and where nothing can be written the tables are made in memory.

    magic, which names the layout | CRC-32 of the rest | length of the list | list, JSON: name, type, shape, offset
    the arrays, each at a multiple of 64 bytes from their first
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeasr.language_model import LanguageModel, Pronunciations, Words
from edgeasr.lexicon import Lexicon
from edgeasr.lexicon_search import SearchConfig, WordGraph, lexicon_of
from edgeasr.ngram_tables import NgramTables
from edgeasr.user_cache import cache_folder

# To be counted on with every change of the tables.
_MAGIC = b"edgeasr words 2\n"
_SUMS = struct.Struct("<II")
_ALIGNMENT = 64
_PART_BYTES = 1 << 18
_MAX_KEPT = 3  # files of other models

_KINDS = {"words": Words, "pronunciations": Pronunciations, "ngrams": NgramTables, "lexicon": Lexicon}

Arrays = Mapping[str, NDArray[Any]]


def word_graph(
    content: Callable[[], bytes], sha256: str, name: str, search: SearchConfig, folder: Path | None = None
) -> WordGraph:
    """The graph of a language model's file, from the tables that were kept of it, if they were.

    content, sha256: gives the file, called only where tables have to be made; its hash
    name:            what errors call it
    folder:          where tables are kept; None for the user's cache folder
    errors:          BundleError for a file that is damaged
    """
    path = _path(sha256, folder)
    kept = _mapped(path)
    if kept is None:
        made = _made(content, name)
        kept = (_mapped(path) if _keep(path, made) else None) or made
    parts = {part: kind(**_fields_under(part, kept)) for part, kind in _KINDS.items()}
    lexicon = parts.pop("lexicon")
    return WordGraph(LanguageModel(**parts), search, lexicon)


def keep_tables(content: Callable[[], bytes], sha256: str, name: str, folder: Path | None = None) -> None:
    """Make the tables of a language model's file, unless they are kept or cannot be; all as for `word_graph`.

    For a moment it takes half of the memory of a program that listens: best before anything else is loaded.
    """
    path = _path(sha256, folder)
    if not _are_kept(path) and _can_keep(path):
        _keep(path, _made(content, name))


def _path(sha256: str, folder: Path | None) -> Path:
    return (folder or cache_folder()) / f"words-{sha256}.tables"


def _are_kept(path: Path) -> bool:
    """Whether there are tables of this layout; they may be damaged."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _made(content: Callable[[], bytes], name: str) -> Arrays:
    model = LanguageModel.from_bytes(content(), name)
    return _arrays({**_fields(model), "lexicon": lexicon_of(model)})


def _fields(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _arrays(parts: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {f"{part}.{name}": array for part in parts for name, array in _fields(parts[part]).items()}


def _fields_under(part: str, arrays: Arrays) -> dict[str, Any]:
    return {field.name: arrays[f"{part}.{field.name}"] for field in fields(_KINDS[part])}


def _mapped(path: Path) -> Arrays | None:
    """The arrays of a file, or None where it is missing, damaged or of another layout."""
    try:
        with path.open("rb") as file:
            listed, start = _read_list(file)
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return {
            name: np.frombuffer(content, dtype, math.prod(shape), start + offset).reshape(shape)
            for name, dtype, shape, offset in listed
        }
    except (OSError, ValueError):
        return None


def _read_list(file: BinaryIO) -> tuple[list[Any], int]:
    """What a file says of its arrays, and where these begin. Errors: ValueError for one that is not as it was written

    It is read, not mapped, for the checksum, so that only what decoding touches takes memory.
    """
    head = file.read(len(_MAGIC) + _SUMS.size)
    if len(head) < len(_MAGIC) + _SUMS.size or not head.startswith(_MAGIC):
        raise ValueError("no tables of this layout")
    wanted, length = _SUMS.unpack_from(head, len(_MAGIC))
    text = file.read(length)
    found = zlib.crc32(text)
    while part := file.read(_PART_BYTES):
        found = zlib.crc32(part, found)
    if found != wanted:
        raise ValueError("damaged tables")
    return json.loads(text), len(head) + length


def _can_keep(path: Path) -> bool:
    """Whether the folder of a file is there, or can be made, and may be written to."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(path.parent, os.W_OK)


def _keep(path: Path, arrays: Arrays) -> bool:
    """Write arrays in the place of what is there. returns: whether it could be done"""
    import tempfile

    if not _can_keep(path):
        return False
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".words-", delete=False) as file:
            try:
                _write(file, arrays)
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        _drop_oldest(path)
    except OSError:
        return False
    return True


def _write(file: Any, arrays: Arrays) -> None:
    listed, offset = [], 0
    for name, array in arrays.items():
        listed.append((name, array.dtype.str, array.shape, offset))
        offset += array.nbytes + -array.nbytes % _ALIGNMENT
    text = json.dumps(listed).encode()
    # The arrays begin at a multiple too: spaces may stand behind JSON.
    text += b" " * (-(len(_MAGIC) + _SUMS.size + len(text)) % _ALIGNMENT)
    found = zlib.crc32(text)
    for part in _padded(arrays):
        found = zlib.crc32(part, found)
    file.write(_MAGIC + _SUMS.pack(found, len(text)) + text)
    for part in _padded(arrays):
        file.write(part)


def _padded(arrays: Arrays) -> Iterator[bytes | memoryview]:
    for array in arrays.values():
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        yield bytes(-array.nbytes % _ALIGNMENT)


def _drop_oldest(path: Path) -> None:
    others = [other for other in path.parent.glob("words-*.tables") if other != path]
    for other in sorted(others, key=lambda other: other.stat().st_mtime)[: -_MAX_KEPT or None]:
        other.unlink(missing_ok=True)
