"""What endpoint presets and the gate do to real speech: how soon a segment ends after its last word, and what is lost.

Utterances come one after another with pauses between. Where each one's voice begins and ends is read off its energy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from edgeasr.audio import Waveform
from edgeasr.endpoint import Endpoint
from edgeasr.gate import GateConfig
from edgeasr.manifest import Utterance
from edgeasr.metrics import ErrorCounts, percentiles, word_errors
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer
from edgeasr.recording import read_recording
from edgeasr.transcript import Final

UTTERANCES_A_STREAM = 8
_HOP_S = 0.01
# A voice is what is at most so far below the loud parts of its utterance.
_VOICE_DB = 25.0


class Background(NamedTuple):
    """What goes on behind the speech. samples: repeated; snr_db: of the speech over it, pauses not counted"""

    samples: Waveform
    snr_db: float


class Spoken(NamedTuple):
    """Utterances as one stream. spans: seconds from where each one's voice begins to where it ends"""

    waveform: Waveform
    spans: tuple[tuple[float, float], ...]
    text: str


@dataclass
class Figures:
    """What one preset made of it, with or without the gate.

    segments:   with words
    inside:     segments that ended while their utterance went on
    latency_ms: from the end of an utterance's voice to the endpoint in the pause after it, computing not counted
    missed:     utterances without such an endpoint
    """

    preset: str
    gate: bool
    words: ErrorCounts = field(default_factory=ErrorCounts)
    utterances: int = 0
    segments: int = 0
    inside: int = 0
    missed: int = 0
    latency_ms: list[float] = field(default_factory=list)
    audio_s: float = 0.0
    gated_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, spoken: Spoken, finals: Sequence[Final], endpoints: Sequence[Endpoint]) -> None:
        """What was heard of one stream."""
        self.words += word_errors(spoken.text, " ".join(final.text for final in finals))
        self.utterances += len(spoken.spans)
        self.segments += len(finals)
        ends = [endpoint.time_s for endpoint in endpoints if endpoint.words and endpoint.rule]
        starts = [start_s for start_s, _ in spoken.spans[1:]]
        for (start_s, end_s), next_s in zip(spoken.spans, [*starts, np.inf], strict=True):
            self.inside += sum(start_s < at_s < end_s for at_s in ends)
            after = [at_s for at_s in ends if end_s <= at_s < next_s]
            self.latency_ms += [1000 * (at_s - end_s) for at_s in after[:1]]
            self.missed += not after

    def to_dict(self) -> dict[str, Any]:
        """As `edgeasr bench endpoints --json` prints it."""
        latency = {name: value and round(value) for name, value in percentiles(self.latency_ms, (50, 95)).items()}
        return {
            "endpoint": self.preset,
            "gate": self.gate,
            "wer": round(self.words.rate, 4),
            "segments_per_utterance": round(self.segments / self.utterances, 3),
            "ended_inside": self.inside,
            "missed": self.missed,
            "latency_ms": latency,
            "audio_s": round(self.audio_s, 1),
            "rtf": round(self.cpu_s / self.audio_s, 5),
            "gated": round(self.gated_s / self.audio_s, 4),
        }


def measure(
    model: AcousticModel,
    streams: Sequence[Spoken],
    trials: Sequence[tuple[str, bool]],
    decoder: str | None = None,
    on_stream: Callable[[Figures], None] | None = None,
) -> list[Figures]:
    """Hear all streams under each preset, with the gate or without.

    on_stream: called with the figures after each
    errors:    ExtraMissingError without jiwer, ConfigError for an unknown preset
    """
    return [_measured(model, streams, preset, gate, decoder, on_stream) for preset, gate in trials]


def _measured(
    model: AcousticModel,
    streams: Sequence[Spoken],
    preset: str,
    gate: bool,
    decoder: str | None,
    on_stream: Callable[[Figures], None] | None,
) -> Figures:
    figures, endpoints = Figures(preset, gate), list[Endpoint]()
    recognizer = Recognizer(
        model,
        decoder=decoder,
        endpoint=preset,
        on_endpoint=endpoints.append,
        gate=GateConfig() if gate else None,
    )
    rate_hz = model.config.features.sample_rate_hz
    for spoken in streams:
        recognizer.reset()
        endpoints.clear()
        began_s, finals = time.process_time(), list[Final]()
        recognizer.accept_waveform(spoken.waveform, rate_hz)
        recognizer.input_finished()
        while recognizer.is_ready():
            finals += [event for event in recognizer.step() if isinstance(event, Final)]
        figures.cpu_s += time.process_time() - began_s
        figures.audio_s += len(spoken.waveform) / rate_hz
        figures.gated_s += recognizer.gated_s
        figures.add(spoken, finals, endpoints)
        if on_stream:
            on_stream(figures)
    return figures


def streams_of(
    utterances: Sequence[Utterance], pause_s: float, background: Background | None, rate_hz: int, seed: int = 0
) -> Iterator[Spoken]:
    """Utterances in streams of UTTERANCES_A_STREAM, with a pause before each and after the last.

    Pauses are up to half as long again, so that chunks begin anywhere in a word.
    errors: AudioFormatError for a recording that cannot be read
    """
    rng = np.random.default_rng(seed)
    for first in range(0, len(utterances), UTTERANCES_A_STREAM):
        group = utterances[first : first + UTTERANCES_A_STREAM]
        waveforms = [read_recording(utterance.path, rate_hz) for utterance in group]
        parts: list[Waveform] = []
        spans, at = [], 0
        for waveform in waveforms:
            parts += [np.zeros(round(pause_s * rng.uniform(1.0, 1.5) * rate_hz), np.float32), waveform]
            at += len(parts[-2])
            start_s, end_s = voice_span(waveform, rate_hz)
            spans.append((at / rate_hz + start_s, at / rate_hz + end_s))
            at += len(waveform)
        parts.append(np.zeros(round(pause_s * rate_hz), np.float32))
        whole = np.concatenate(parts)
        if background:
            whole = whole + _behind(background, np.concatenate(waveforms), len(whole))
        yield Spoken(whole, tuple(spans), " ".join(utterance.text for utterance in group))


def voice_span(waveform: Waveform, rate_hz: int) -> tuple[float, float]:
    """Where the voice of an utterance begins and ends, in seconds; all of it where there is nothing to tell."""
    hop = round(_HOP_S * rate_hz)
    frames = waveform[: len(waveform) // hop * hop].reshape(-1, hop)
    if not len(frames):
        return 0.0, len(waveform) / rate_hz
    level_db = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-10)
    voiced = np.flatnonzero(level_db >= np.percentile(level_db, 95) - _VOICE_DB)
    return float(voiced[0] * _HOP_S), float((voiced[-1] + 1) * _HOP_S)


def _behind(background: Background, speech: Waveform, length: int) -> Waveform:
    """The background, repeated and as loud as it is to be."""
    ratio = np.sqrt(np.square(speech).mean() / np.square(background.samples).mean())
    gain = np.float32(ratio * 10 ** (-background.snr_db / 20))
    return np.resize(background.samples, length) * gain
