"""The last seconds of a stream between the thread that hears and the one that recognises; neither waits."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from edgeasr.audio import Waveform

MAX_MARKS = 256  # places between samples where some are missing, that have not been read yet


class Piece(NamedTuple):
    """Consecutive samples.

    start_sample: of samples[0] in the stream, missing ones counted
    skipped:      samples missing just before, by skip()
    dropped:      samples just before that were overwritten before they were read
    """

    samples: Waveform
    start_sample: int
    skipped: int
    dropped: int


class Ring:
    """A bounded queue of samples from one writing thread to one reading thread, allocated once.

    A writer that overtakes the reader overwrites what is oldest. The reader notices, also in the middle of its copy,
    and goes on at a distance from the writer, so that one long gap comes of it and not many short ones.

    capacity: samples
    position: samples that the stream had before
    """

    def __init__(self, capacity: int, position: int = 0) -> None:
        self.capacity = capacity
        self._samples = np.zeros(capacity, np.float32)
        self._slack = capacity // 4
        self._marks: deque[tuple[int, int]] = deque()  # what is missing before a written sample
        # Of the writer: samples written, and those that are being written too.
        self._written = self._claimed = 0
        self._unmarked = 0
        # Of the reader: samples passed, missing ones since the last piece, and before all of them.
        self._passed = 0
        self._skipped = self._dropped = 0
        self._before = position

    @property
    def waiting(self) -> int:
        """Samples that can be read, at most."""
        return min(self._written - self._passed, self.capacity)

    @property
    def room(self) -> int:
        """Samples that can be written before some that were not read are overwritten."""
        return self.capacity - self.waiting

    @property
    def position(self) -> int:
        """Of the next sample to be read, known for sure once everything was."""
        return self._before + self._passed

    def write(self, samples: Waveform) -> None:
        """(num_samples,) float32, copied."""
        for start in range(0, len(samples), self._slack):
            self._write(samples[start : start + self._slack])

    def skip(self, num_samples: int) -> None:
        """Say that so many are missing before the next one that is written."""
        self._unmarked += num_samples

    def read(self, most: int) -> Piece | None:
        """The oldest samples without a gap between them, `most` at most; None where there are none."""
        while True:
            self._pass_overwritten()
            start = self._passed
            end = min(self._written, start + most, self._marks[0][0] if self._marks else start + most)
            if end <= start:
                return None
            samples = self._copy(start, end)
            if self._claimed - self.capacity <= start:
                break
        self._passed = end
        piece = Piece(samples, self._before + start, self._skipped, self._dropped)
        self._skipped = self._dropped = 0
        return piece

    def _write(self, samples: Waveform) -> None:
        if self._unmarked and len(self._marks) < MAX_MARKS:
            self._marks.append((self._written, self._unmarked))
            self._unmarked = 0
        self._claimed = self._written + len(samples)
        at = self._written % self.capacity
        whole = min(len(samples), self.capacity - at)
        self._samples[at : at + whole] = samples[:whole]
        self._samples[: len(samples) - whole] = samples[whole:]
        self._written = self._claimed

    def _pass_overwritten(self) -> None:
        """Leave out what is lost, and the gaps before what is left."""
        oldest = self._claimed - self.capacity
        if oldest > self._passed:
            resumed = min(oldest + self._slack, self._written)
            self._dropped += resumed - self._passed
            self._passed = resumed
        while self._marks and self._marks[0][0] <= self._passed:
            _, skipped = self._marks.popleft()
            self._skipped += skipped
            self._before += skipped

    def _copy(self, start: int, end: int) -> Waveform:
        at, length = start % self.capacity, end - start
        whole = min(length, self.capacity - at)
        samples = np.empty(length, np.float32)
        samples[:whole] = self._samples[at : at + whole]
        samples[whole:] = self._samples[: length - whole]
        return samples
