"""What one stream costs, and how long its listener waits."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter

from edgeasr.serve.metrics import Metrics
from edgeasr.transcript import Event, Final

# Pieces of audio whose arrival is remembered: more than a segment has, and no event speaks of what is before its own.
_MAX_PIECES = 512


class StreamMeter:
    """Used by the thread that has the stream's turn.

    chunk_latency_s: from the arrival of the last chunk's audio to its events; None before the first
    cpu_s, audio_s:  processor time of the steps, and the audio that they heard
    """

    def __init__(self, protocol: str, metrics: Metrics) -> None:
        self._protocol, self._metrics = protocol, metrics
        self.chunk_latency_s: float | None = None
        self.cpu_s = self.audio_s = 0.0
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=_MAX_PIECES)
        self._segment_with_words = -1

    def arrived(self, until_s: float, moment_s: float) -> None:
        """Audio until this time of the stream, which is taken in now, arrived at this moment of time.monotonic()."""
        self._arrivals.append((until_s, moment_s))

    @contextmanager
    def step(self, chunk_s: float) -> Iterator[None]:
        """Around the step of a chunk of this length."""
        began_s, cpu_began_s = time.perf_counter(), time.thread_time()
        yield
        cpu_s = time.thread_time() - cpu_began_s
        self._metrics.step_s.observe(time.perf_counter() - began_s)
        self._metrics.cpu_s.inc(cpu_s)
        self._metrics.audio_s.labels(self._protocol).inc(chunk_s)
        self.cpu_s += cpu_s
        self.audio_s += chunk_s

    def told(self, events: Iterable[Event]) -> None:
        """These came of the step."""
        now_s, metrics = time.monotonic(), self._metrics
        self.chunk_latency_s = now_s - self._arrivals[-1][1]
        metrics.chunk_s.labels(self._protocol).observe(self.chunk_latency_s)
        for event in events:
            if not event.words:
                continue
            if event.segment != self._segment_with_words:
                self._segment_with_words = event.segment
                metrics.first_token_s.labels(self._protocol).observe(now_s - self._arrival(event.words[0].start))
            if isinstance(event, Final):
                metrics.words.inc(len(event.words))
                metrics.final_s.labels(self._protocol).observe(now_s - self._arrival(event.words[-1].end))

    def since_arrival_s(self, stream_s: float) -> float:
        """How long ago audio of this time of the stream arrived; from any thread, once there was a step."""
        return time.monotonic() - self._arrival(stream_s)

    def _arrival(self, stream_s: float) -> float:
        index = bisect_left(self._arrivals, stream_s, key=itemgetter(0))
        return self._arrivals[min(index, len(self._arrivals) - 1)][1]
