"""All summaries of a model and level, a page at a time: what they take in memory does not grow with the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgeasr.store.records import Floats
from edgeasr.store.store_file import StoreFile

_PAGE = 64
_OF_VECTORS = """
    SELECT v.id, 1, v.vector FROM vectors v JOIN cells c ON c.id = v.cell
    WHERE v.id > ? AND c.model = ? AND c.level = ? ORDER BY v.id LIMIT ?"""
_OF_OCCURRENCES = """
    SELECT o.id, o.scale, o.packed FROM occurrences o JOIN cells c ON c.id = o.cell
    WHERE o.id > ? AND c.model = ? AND c.level = ? ORDER BY o.id LIMIT ?"""


def vector_pages(store: StoreFile, model: int, level: int, width: int) -> Iterator[tuple[list[int], Floats]]:
    """Entries of the index, as in `vector_index`, and their values (N, width); rows may change between two pages."""
    for sql, sign in ((_OF_VECTORS, 1), (_OF_OCCURRENCES, -1)):
        after = 0
        while rows := store.rows(sql, after, model, level, _PAGE):
            yield [sign * row[0] for row in rows], np.stack([values_of(row[1:], width) for row in rows])
            after = rows[-1][0]


def floats(blob: bytes) -> Floats:
    """(C,) as a vector's row has it."""
    return np.frombuffer(blob, np.float32)


def values_of(row: Sequence[Any], width: int) -> Floats:
    """(width,) of a vector, or of an occurrence: its scale and what was packed."""
    scale, blob = row
    return floats(blob) if len(blob) == 4 * width else np.float32(scale) * np.frombuffer(blob, np.int8)
