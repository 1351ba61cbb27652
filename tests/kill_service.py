"""Kill `edgeasr listen --remember` again and again and start it as a supervisor does. Run by `make soak`.

Measured is the time from each start to the first chunk that was stepped through, as the service manager is told of it.
After each kill the store has to be whole, and of what was printed nothing may be missing but what came in the last
moment, which the open transaction held.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from edgeasr.store.memory_store import MemoryStore

REPOSITORY = Path(__file__).parents[1]
CLIP = REPOSITORY / "edgeasr" / "models" / "demo.flac"
RATE_HZ = 16_000
BLOCK_S = 0.1
PATIENCE_S = 120.0
WORKS = b"STATUS=heard"


@dataclass
class Run:
    """One life of the service. told: finals and when they were read; back_s: None if it was killed before"""

    back_s: float | None = None
    told: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    killed_s: float = 0.0


class Supervisor:
    """Starts the service, feeds it speech, and hears from it over a socket of its own."""

    def __init__(self, folder: Path, pace: float) -> None:
        self.store, self._folder, self._pace = folder / "memory.db", folder, pace
        samples, rate_hz = soundfile.read(CLIP, dtype="int16")
        assert rate_hz == RATE_HZ
        # A second of silence ends the last segment of each pass.
        self._pcm = np.concatenate([samples, np.zeros(RATE_HZ, np.int16)]).tobytes()

    def run_and_kill(self, after_s: float) -> Run:
        """after_s: from the first final on; below 0, from the start on"""
        run, address = Run(), self._folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(address))
            manager.settimeout(0.2)
            began_s = time.monotonic()
            process = self._start(address)
            threads = [
                threading.Thread(target=self._feed, args=(process,), daemon=True),
                threading.Thread(target=_listen, args=(process, run), daemon=True),
            ]
            for thread in threads:
                thread.start()
            try:
                if after_s >= 0:
                    _wait_for_work(manager, process)
                    run.back_s = time.monotonic() - began_s
                    _wait_until(lambda: run.told, process, "said nothing")
                time.sleep(abs(after_s))
            finally:
                run.killed_s = time.monotonic()
                process.send_signal(signal.SIGKILL)
                process.wait(PATIENCE_S)
                for thread in threads:
                    thread.join(PATIENCE_S)
                with suppress(BrokenPipeError):
                    process.stdin.close()
                process.stdout.close()
        address.unlink()
        return run

    def _start(self, address: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "edgeasr.cli.main", "listen", "--source", "-", "--json"]
        return subprocess.Popen(
            [*command, "--remember", "--store", str(self.store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(address),
                "WATCHDOG_USEC": "1000000",
                "XDG_CACHE_HOME": str(self._folder / "cache"),
                "XDG_CONFIG_HOME": str(self._folder / "config"),
            },
        )

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """The clip over and over, so many times faster than it was spoken, until nobody reads."""
        block = round(BLOCK_S * RATE_HZ) * 2
        next_s = time.monotonic()
        with suppress(BrokenPipeError, ValueError):
            while True:
                for first in range(0, len(self._pcm), block):
                    process.stdin.write(self._pcm[first : first + block])
                    process.stdin.flush()
                    next_s = max(next_s + BLOCK_S / self._pace, time.monotonic() - 1)
                    time.sleep(max(0.0, next_s - time.monotonic()))


def _wait_for_work(manager: socket.socket, process: subprocess.Popen[bytes]) -> None:
    def works() -> bool:
        with suppress(TimeoutError):
            return WORKS in manager.recv(4_096)
        return False

    _wait_until(works, process, "did nothing")


def _wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes], otherwise: str) -> None:
    """errors: AssertionError where the service ends instead, or for what it did for long"""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, f"the service ended with exit code {process.poll()}"
        assert time.monotonic() < deadline_s, f"the service {otherwise} within {PATIENCE_S:g} s"
        time.sleep(0.001)


def _listen(process: subprocess.Popen[bytes], run: Run) -> None:
    """What is printed, to the last whole line."""
    for line in process.stdout:
        if line.endswith(b"\n"):
            event = json.loads(line)
            if event["type"] == "final":
                run.told.append((time.monotonic(), event))


def check(store: MemoryStore, run: Run, streams_before: int, open_s: float) -> tuple[int, int]:
    """How many segments of the run are stored, and how many that it printed are not.

    errors: AssertionError for what is missing, doubled or different
    """
    store.check()
    streams = store.streams()
    assert len(streams) in (streams_before, streams_before + 1), "more than one stream of a run"
    stored = store.segments(streams[-1].id, limit=100_000) if len(streams) > streams_before else []
    told = [event for _, event in run.told]
    # A final is handed to the store before it is printed.
    assert len(stored) <= len(told) + 8, f"{len(stored)} are stored, {len(told)} were printed"
    for segment, event in zip(stored, told, strict=False):
        kept = (segment.text, round(segment.start_s, 3), round(segment.end_s, 3))
        assert kept == (event["text"], event["start"], event["end"]), "another segment is stored than was printed"
    missing = run.told[len(stored) :]
    for told_s, event in missing:
        assert run.killed_s - told_s <= open_s, f"segment {event['segment']}, printed long before, is not stored"
    return len(stored), len(missing)


def main() -> None:
    """Print one JSON object; the exit code is 1 where it came back too late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pace", type=float, default=10.0, help="times real time")
    parser.add_argument("--longest-s", type=float, default=4.0, help="from the first final to the kill")
    parser.add_argument("--open-s", type=float, default=1.0, help="printed so shortly before the kill, it may be lost")
    parser.add_argument("--limit-s", type=float, default=2.0, help="within which it has to be back; 0 for any time")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    backs, stored, missing = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        supervisor = Supervisor(Path(folder), options.pace)
        # The first start unpacks the language model.
        first = supervisor.run_and_kill(0.5)
        streams = _streams(supervisor.store)
        for turn in range(options.times):
            # One in five is killed while it starts.
            after_s = -rng.uniform(0, 1) if rng.random() < 0.2 else rng.uniform(0, options.longest_s)
            run = supervisor.run_and_kill(after_s)
            if run.back_s is not None:
                backs.append(run.back_s)
            with MemoryStore.open(supervisor.store, create=True) as store:
                kept, lost = check(store, run, streams, options.open_s)
                streams = len(store.streams())
            stored, missing = stored + kept, missing + lost
            if sys.stderr.isatty():
                print(f"\r{turn + 1} of {options.times} kills", end="", file=sys.stderr)
        with MemoryStore.open(supervisor.store) as store:
            stats = store.stats()
    report = {
        "kills": options.times + 1,
        "first_start_s": round(first.back_s or 0.0, 3),
        "back_s": {"median": round(statistics.median(backs), 3), "worst": round(max(backs), 3)},
        "segments_stored": stored,
        "segments_in_open_transactions": missing,
        "vectors": stats.vectors,
        "store": "whole",
    }
    print(json.dumps(report))
    if options.limit_s and max(backs) > options.limit_s:
        sys.exit(1)


def _streams(path: Path) -> int:
    with MemoryStore.open(path, create=True) as store:
        return len(store.streams())


if __name__ == "__main__":
    main()
