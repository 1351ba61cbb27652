"""Real audio through the whole chain, and what it takes: time, latency and whatever sensors say meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeasr.audio import FileSource, Waveform
from edgeasr.errors import AudioFormatError
from edgeasr.measurement import BLOCK_MS
from edgeasr.metrics import LatencyMeter
from edgeasr.recognizer import Recognizer
from edgeasr.transcript import Event, Final

SHORTEST_S = 1.0
"""Of a recording that is heard over and over: of a few samples, beginning and ending would be all that is measured."""

Progress = Callable[[float], None]
"""Called with the share that is done."""


@dataclass
class StreamRun:
    """A stream that was heard to its end.

    wall_s, cpu_s:        of the recogniser alone, in all threads; reading files is not counted
    chunk_ms:             processing time of each chunk
    first_token_latency_ms: of each pass over the recording that has words, see LatencyMeter
    endpoint_latency_ms:  of each final, from where its last word ends to when it was out; finals that the end of
                          the recording forced are left out
    late_chunks:          those that took longer than the audio of a chunk lasts
    """

    real_time: bool
    audio_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    chunk_ms: list[float] = field(default_factory=list)
    first_token_latency_ms: list[float] = field(default_factory=list)
    endpoint_latency_ms: list[float] = field(default_factory=list)
    late_chunks: int = 0
    words: int = 0

    @property
    def rtf(self) -> float:
        """Processor time for a second of audio."""
        return self.cpu_s / self.audio_s if self.audio_s else 0.0

    @property
    def wall_rtf(self) -> float:
        """Time that passed for a second of audio."""
        return self.wall_s / self.audio_s if self.audio_s else 0.0


def stream_run(
    recognizer: Recognizer,
    recording: Path,
    audio_s: float,
    *,
    real_time: bool = False,
    on_progress: Progress | None = None,
) -> StreamRun:
    """Hear a recording over and over until so much audio was heard, each time as a stream of its own.

    real_time: give blocks when a microphone would, and sleep between them
    errors:    AudioFormatError for what is no audio, or ends before SHORTEST_S
    """
    run = StreamRun(real_time)
    began_s = time.monotonic()
    while run.audio_s < audio_s:
        stream = _Stream(recognizer, run)
        recognizer.reset()
        before_s = run.audio_s
        with FileSource(recording, BLOCK_MS) as source:
            for block in source.blocks():
                heard_s = len(block.samples) / source.sample_rate_hz
                if real_time:
                    time.sleep(max(0.0, began_s + run.audio_s + heard_s - time.monotonic()))
                run.audio_s += heard_s
                stream.accept(block.samples, source.sample_rate_hz, heard_s)
                if on_progress:
                    on_progress(min(1.0, run.audio_s / audio_s))
                if run.audio_s >= audio_s:
                    break
            else:
                _require_length(recording, run.audio_s - before_s)
        stream.finish()
    return run


def _require_length(recording: Path, length_s: float) -> None:
    # To the tenth of a millisecond, since the length is a sum of blocks.
    if round(length_s, 4) < SHORTEST_S:
        raise AudioFormatError(
            f"got {recording} of {length_s:.4g} s, wanted {SHORTEST_S:g} s or more to stream over and over: give a "
            "longer recording"
        )


class _Stream:
    """One pass over the recording, added to a run."""

    def __init__(self, recognizer: Recognizer, run: StreamRun) -> None:
        self._recognizer, self._run = recognizer, run
        self._meter = LatencyMeter()
        self._heard_s = 0.0
        self._done_s = 0.0

    def accept(self, samples: Waveform, sample_rate_hz: int, heard_s: float) -> None:
        self._heard_s += heard_s
        began = time.process_time(), time.perf_counter()
        self._recognizer.accept_waveform(samples, sample_rate_hz)
        for event in self._events():
            if isinstance(event, Final):
                self._run.endpoint_latency_ms.append((self._done_s - event.words[-1].end) * 1000)
                self._run.words += len(event.words)
        self._count(began)

    def finish(self) -> None:
        began = time.process_time(), time.perf_counter()
        self._recognizer.input_finished()
        self._run.words += sum(len(event.words) for event in self._events() if isinstance(event, Final))
        self._count(began)
        if self._meter.first_token_latency_ms is not None:
            self._run.first_token_latency_ms.append(self._meter.first_token_latency_ms)

    def _events(self) -> Iterator[Event]:
        chunk_s = self._recognizer.model.config.chunk_s
        while self._recognizer.is_ready():
            began_s = time.perf_counter()
            events = self._recognizer.step()
            took_s = time.perf_counter() - began_s
            self._meter.add(self._heard_s, took_s, events)
            self._done_s = max(self._done_s, self._heard_s) + took_s
            self._run.chunk_ms.append(took_s * 1000)
            self._run.late_chunks += took_s > chunk_s
            yield from events

    def _count(self, began: tuple[float, float]) -> None:
        self._run.cpu_s += time.process_time() - began[0]
        self._run.wall_s += time.perf_counter() - began[1]
