"""What a model makes of a manifest: accuracy, speed, latency and memory, each utterance as a live stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from edgeasr.audio import FileSource
from edgeasr.manifest import Utterance
from edgeasr.metrics import (
    ErrorCounts,
    LatencyMeter,
    character_errors,
    peak_rss_mb,
    percentiles,
    word_errors,
)
from edgeasr.recognizer import Recognizer
from edgeasr.transcript import Event, Final

BLOCK_MS = 40  # as the microphone gives them


@dataclass
class Tally:
    """Sums over the utterances so far.

    audio_s: length of the audio; cpu_s: processor time of the recogniser in all threads, files not decoded
    step_ms: processing time of each chunk; first_token_latency_ms: of each utterance with words
    """

    words: ErrorCounts = field(default_factory=ErrorCounts)
    characters: ErrorCounts = field(default_factory=ErrorCounts)
    utterances: int = 0
    audio_s: float = 0.0
    cpu_s: float = 0.0
    step_ms: list[float] = field(default_factory=list)
    first_token_latency_ms: list[float] = field(default_factory=list)

    def add_text(self, reference: str, hypothesis: str) -> None:
        self.words += word_errors(reference, hypothesis)
        self.characters += character_errors(reference, hypothesis)
        self.utterances += 1

    def add_timing(self, meter: LatencyMeter) -> None:
        self.step_ms += meter.step_ms
        if meter.first_token_latency_ms is not None:
            self.first_token_latency_ms.append(meter.first_token_latency_ms)


def evaluate(
    recognizer: Recognizer,
    utterances: Iterable[Utterance],
    on_utterance: Callable[[Tally], None] | None = None,
) -> dict[str, Any]:
    """The report of `edgeasr evaluate`, ready for JSON; rtf is cpu_s over audio_s.

    on_utterance: called with the sums after each
    errors:       ExtraMissingError without jiwer, AudioFormatError for a file that cannot be read whole,
                  ManifestError where the references are empty
    """
    tally = Tally()
    for utterance in utterances:
        tally.add_text(utterance.text, _transcribe(recognizer, utterance, tally))
        if on_utterance:
            on_utterance(tally)
    return _report(recognizer, tally)


def _transcribe(recognizer: Recognizer, utterance: Utterance, tally: Tally) -> str:
    """The text of one utterance, whose audio and timing are added to the sums."""
    recognizer.reset()
    meter, texts, stream_s = LatencyMeter(), [], 0.0
    with FileSource(utterance.path, BLOCK_MS) as source:
        for block in source.blocks():
            stream_s = (block.start_sample + len(block.samples)) / source.sample_rate_hz
            began_s = time.process_time()
            recognizer.accept_waveform(block.samples, source.sample_rate_hz)
            texts += _final_texts(_run(recognizer, stream_s, meter))
            tally.cpu_s += time.process_time() - began_s
    began_s = time.process_time()
    recognizer.input_finished()
    texts += _final_texts(_run(recognizer, stream_s, meter))
    tally.cpu_s += time.process_time() - began_s
    tally.audio_s += stream_s
    tally.add_timing(meter)
    return " ".join(texts)


def _run(recognizer: Recognizer, stream_s: float, meter: LatencyMeter) -> list[Event]:
    """Step while there are samples. stream_s: audio that had to arrive for it"""
    heard: list[Event] = []
    while recognizer.is_ready():
        began_s = time.perf_counter()
        events = recognizer.step()
        meter.add(stream_s, time.perf_counter() - began_s, events)
        heard += events
    return heard


def _final_texts(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]


def _report(recognizer: Recognizer, tally: Tally) -> dict[str, Any]:
    model = recognizer.model
    return {
        "wer": round(tally.words.rate, 4),
        "cer": round(tally.characters.rate, 4),
        "utterances": tally.utterances,
        "audio_s": round(tally.audio_s, 3),
        "cpu_s": round(tally.cpu_s, 3),
        "rtf": round(tally.cpu_s / tally.audio_s, 5),
        "chunk_ms": _rounded(percentiles(tally.step_ms, (50, 99))),
        "first_token_latency_ms": _rounded(percentiles(tally.first_token_latency_ms, (50, 95))),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "model": model.name,
        "backend": model.backend,
        "threads": model.threads,
    }


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value if value is None else round(value, 3) for name, value in values.items()}
