"""The store as files that other programs read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeasr.errors import StoreError
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import StoredVector

_PAGE = 256


def export_lines(store: MemoryStore) -> Iterator[str]:
    """JSON lines, of which "type" says what they are: streams, then segments, then vectors without their values."""
    for stream in store.streams():
        yield _line("stream", asdict(stream))
    after = 0
    while segments := store.segments(after=after, limit=_PAGE):
        yield from (_line("segment", asdict(segment)) for segment in segments)
        after = segments[-1].id
    for vector in _all_vectors(store):
        spans = [asdict(span) for span in store.occurrences(vector.id)]
        yield _line("vector", vector_dict(vector) | {"occurrences": spans})


def write_lines(store: MemoryStore, path: Path, progress: Callable[[int], object]) -> None:
    """`export_lines` into a file. errors: StoreError for one that cannot be written"""
    try:
        # As private as the store.
        with open(path, "w", encoding="utf-8", opener=partial(os.open, mode=0o600)) as file:
            for count, line in enumerate(export_lines(store), 1):
                file.write(line)
                progress(count)
    except OSError as error:
        raise StoreError(f"cannot export to {path}: {error.strerror or error}") from error


def export_vectors(store: MemoryStore, folder: Path) -> int:
    """The values of all vectors: ids.npy (N,) int64 and vectors-LEVEL.npy (N, C) float32, a folder a model; how many.

    errors: StoreError for a folder that is a file or cannot be written
    """
    count = 0
    try:
        for fingerprint, width, level in store.kinds():
            target = folder / fingerprint[:16]
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            ids = store.ids(fingerprint, level)
            values = np.lib.format.open_memmap(
                target / f"vectors-{level}.npy", mode="w+", dtype=np.float32, shape=(len(ids), width)
            )
            for i, vector in enumerate(ids):
                values[i] = store.values(vector)
            values.flush()
            np.save(target / f"ids-{level}.npy", np.array(ids, np.int64))
            count += len(ids)
    except OSError as error:
        raise StoreError(f"cannot export to {folder}: {error.strerror or error}") from error
    return count


def vector_dict(vector: StoredVector) -> dict[str, Any]:
    """For JSON, without the values."""
    values = asdict(vector)
    del values["vector"]
    return values


def _all_vectors(store: MemoryStore) -> Iterator[StoredVector]:
    after = 0
    while vectors := store.vectors(after=after, limit=_PAGE):
        yield from vectors
        after = vectors[-1].id


def _line(kind: str, values: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **values}, allow_nan=False) + "\n"
