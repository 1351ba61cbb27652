"""Threads that run the steps of all streams, a turn each, in the order in which they asked."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Protocol


class Job(Protocol):
    """Something that is done in short turns, one at a time, each on whichever thread is free."""

    def turn(self) -> bool:
        """Do a part. returns: whether there is more to do now. Must not raise."""


class Workers:
    """A job that has more to do goes to the end of the line: with N jobs each gets every Nth turn.

    num_threads: turns that run at once; a job's own turns never do
    """

    def __init__(self, num_threads: int = 1) -> None:
        self._line: deque[Job] = deque()
        self._in_line: set[Job] = set()
        self._running: dict[Job, bool] = {}  # and whether it was woken meanwhile
        self._changed = threading.Condition()
        self._closing = False
        self._turned_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._run, name=f"recognition-{n}", daemon=True) for n in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self, job: Job) -> None:
        """There is something to do for this job; from any thread."""
        with self._changed:
            if job in self._running:
                self._running[job] = True
            elif job not in self._in_line and not self._closing:
                self._enqueue(job)

    def close(self) -> None:
        """Let the turns that run end, and no other begin."""
        with self._changed:
            self._closing = True
            self._line.clear()
            self._in_line.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def stalled_s(self) -> float:
        """For how long something has been to do while no turn ended; 0 where nothing is to do."""
        with self._changed:
            busy = bool(self._line or self._running)
            return time.monotonic() - self._turned_s if busy else 0.0

    def _enqueue(self, job: Job) -> None:
        if not self._line and not self._running:
            self._turned_s = time.monotonic()
        self._line.append(job)
        self._in_line.add(job)
        self._changed.notify()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            more = job.turn()
            with self._changed:
                self._turned_s = time.monotonic()
                woken = self._running.pop(job)
                if (more or woken) and not self._closing:
                    self._enqueue(job)
            del job  # or it would be kept until the next one comes

    def _next(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._line or self._closing)
            if self._closing:
                return None
            job = self._line.popleft()
            self._in_line.remove(job)
            self._running[job] = False
            return job
