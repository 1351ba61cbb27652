"""How the time of a search grows with the store, and how much of an exact search it finds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeasr.errors import ConfigError
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import Floats, ModelKey, Span, Summary

NEAREST = 10
WIDTH = 192
NOISE = 0.2  # of what comes again, of what they differ by
_A_TRANSACTION = 1_000
_SPAN_S = 4.0


@dataclass(frozen=True)
class StoreRow:
    """A store of one size.

    query_ms, query_ms_p99:   a search for the 10 nearest, median and 99th percentile
    exact_ms:                 the same by reading every vector, median
    recall_at_10:             share of the exact 10 nearest that a search finds, for vectors never stored
    found_again:              share of stored vectors that a search finds first when they come again with noise
    read:                     vectors that a search reads, on average
    insert_ms:                to store one vector, of those since the size before
    """

    vectors: int
    query_ms: float
    query_ms_p99: float
    exact_ms: float
    recall_at_10: float
    found_again: float
    read: float
    cells: int
    insert_ms: float
    bytes: int


def like_summaries(count: int, rng: np.random.Generator) -> Floats:
    """Vectors (count, WIDTH) of which the variances are those of the shipped model's summaries of an hour of speech.

    They have no clusters as speech has, which makes them harder to find by cells.
    """
    rank = np.arange(1, WIDTH + 1)
    deviation = np.sqrt(rank**-1.1 * np.exp(-rank / 80))
    return np.asarray(deviation * rng.standard_normal((count, WIDTH)), np.float32)


def measure(
    path: Path,
    sizes: Sequence[int],
    queries: int,
    progress: Callable[[str], object],
) -> Iterator[StoreRow]:
    """One store that grows from size to size, measured at each.

    path:   of a new file, of 1.5 GB for a million vectors of 192 values
    errors: ConfigError for sizes that do not rise; StoreError
    """
    if list(sizes) != sorted(set(sizes)) or not sizes or sizes[0] < NEAREST:
        raise ConfigError(f"got the sizes {list(sizes)}, wanted rising ones from {NEAREST}: put them in order")
    rng = np.random.default_rng(0)
    model = ModelKey("benchmark", WIDTH)
    unseen = like_summaries(queries, rng)
    with MemoryStore.open(path, create=True) as store:
        with store.transaction():
            stream = store.begin_stream("benchmark", model)
        there = 0
        for size in sizes:
            began_s, before = time.perf_counter(), there
            kept = np.zeros((0, WIDTH), np.float32)
            while there < size:
                kept = like_summaries(min(_A_TRANSACTION, size - there), rng)
                _store(store, stream, there, kept)
                there += len(kept)
                progress(f"{there:,} of {sizes[-1]:,} vectors stored")
            insert_ms = 1e3 * (time.perf_counter() - began_s) / (size - before)
            progress(f"searching {size:,} vectors")
            again = kept[-queries:] + NOISE * like_summaries(len(kept[-queries:]), rng)
            yield _row(store, model, unseen, (again, size), insert_ms)


def _store(store: MemoryStore, stream: int, first: int, vectors: Floats) -> None:
    with store.transaction():
        for i, vector in enumerate(vectors, first):
            store.add_vector(stream, Summary(2, i, Span(i * _SPAN_S, (i + 1) * _SPAN_S), vector))


def _row(store: MemoryStore, model: ModelKey, unseen: Floats, again: tuple[Floats, int], insert_ms: float) -> StoreRow:
    """again: vectors like the last ones stored, and the id of the last"""
    times, exact_times, found, read = [], [], 0, 0
    for query in unseen:
        began_s = time.perf_counter()
        nearest = store.nearest(query, NEAREST, model)
        found_s = time.perf_counter()
        exact = store.nearest(query, NEAREST, model, effort=math.inf)
        times.append(found_s - began_s)
        exact_times.append(time.perf_counter() - found_s)
        found += len({one.id for one in nearest} & {one.id for one in exact})
        read += store.num_read(query, model)
    vectors, last = again
    firsts = [store.nearest(vector, 1, model)[0].id for vector in vectors]
    return StoreRow(
        vectors=last,
        query_ms=1e3 * float(np.median(times)),
        query_ms_p99=1e3 * float(np.quantile(times, 0.99)),
        exact_ms=1e3 * float(np.median(exact_times)),
        recall_at_10=found / (NEAREST * len(unseen)),
        found_again=float(np.mean([first == last - len(vectors) + 1 + i for i, first in enumerate(firsts)])),
        read=read / len(unseen),
        cells=store.stats().cells,
        insert_ms=insert_ms,
        bytes=store.size_bytes(),
    )
