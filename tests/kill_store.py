"""Kill a process that writes to a memory store, at random instants, and look at what is left. Run by `make soak`."""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

# Before numpy starts threads, which would not survive a fork.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import ModelKey, Span, SpokenWord, Summary
from edgeasr.store.retention import Limits, enforce

MODEL = ModelKey("killed", 32)
LIMITS = Limits(max_bytes=2 << 20)
LONGEST_S = 0.3
VECTORS = 16  # a transaction
TURN = struct.Struct("<q")


def write_until_killed(path: Path, pipe: int, seed: int) -> None:
    """Some vectors, a merge and a segment a transaction; the number of each goes into the pipe once it is stored."""
    rng = np.random.default_rng(seed)
    with MemoryStore.open(path, create=True) as store:
        with store.transaction():
            stream = store.begin_stream(f"stream {seed}", MODEL)
        for turn in range(1, 1_000_000):
            with store.transaction():
                span = Span(turn, turn + 1.0, f"turn {turn}")
                for vector in rng.standard_normal((VECTORS, 32)).astype(np.float32):
                    store.add_vector(stream, Summary(2, turn, span, vector))
                store.merge(stream, turn, Summary(2, turn, span, vector))
                store.add_segment(
                    stream, span, [SpokenWord("turn", turn, turn + 0.5), SpokenWord(str(turn), turn + 0.5, turn + 1)]
                )
            os.write(pipe, TURN.pack(turn))
            if turn % 8 == 1:
                enforce(store, LIMITS, stream)


def kill_once(path: Path, seed: int, after_s: float) -> int:
    """How many transactions were told of as stored.

    after_s: from the first transaction on; below 0, from the start of the process on
    errors:  AssertionError for a transaction that is lost, or half there
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            write_until_killed(path, write, seed)
        finally:
            os._exit(1)
    os.close(write)
    if after_s >= 0:
        select.select([read], [], [])  # it is at work, or dead
    time.sleep(abs(after_s))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    last = TURN.unpack(told[-TURN.size :])[0] if told else 0
    with MemoryStore.open(path, create=True) as store:
        store.check()
        found = store.rows("SELECT id FROM streams WHERE name = ?", f"stream {seed}")
        assert found or not last, f"run {seed}: the stream of {last} transactions is gone"
        if found:
            _check_stream(store, found[0][0], last)
    return last


def _check_stream(store: MemoryStore, stream: int, told: int) -> None:
    """The newest that was told of is there, with all that was stored with it, and at most one that was not told of."""
    found = store.rows("SELECT number, count(*) FROM vectors WHERE stream = ? GROUP BY 1 ORDER BY 1", stream)
    turns = [turn for turn, _ in found]
    # Forgetting by age may end in the midst of a transaction's vectors, the oldest ones.
    assert all(count == VECTORS for _, count in found[1:]), "half a transaction"
    newest = turns[-1] if turns else 0
    assert newest in (told, told + 1), f"{told} transactions were told of, the newest there is {newest}"
    assert turns == list(range(newest - len(turns) + 1, newest + 1)), "there are gaps"
    merged = store.rows(
        "SELECT o.number FROM occurrences o JOIN vectors v ON v.id = o.vector WHERE v.stream = ?", stream
    )
    said = store.rows("SELECT text FROM segments WHERE stream = ?", stream)
    assert sorted(row[0] for row in merged) == turns
    assert {row[0] for row in said} >= {f"turn {turn}" for turn in turns}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "memory.db")
        told = []
        for turn in range(options.times):
            told.append(kill_once(path, turn, rng.uniform(-LONGEST_S, LONGEST_S)))
            if sys.stderr.isatty():
                print(f"\r{turn + 1} of {options.times} kills", end="", file=sys.stderr)
        with MemoryStore.open(path) as store:
            stats = store.stats()
    report = {
        "kills": options.times,
        "transactions": sum(told),
        "lost": 0,
        "vectors": stats.vectors,
        "bytes": stats.size_bytes,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
