"""A source heard as a live stream: its text, the processor time it took, and what a listener would wait for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from edgeasr.audio import AudioSource
from edgeasr.metrics import LatencyMeter
from edgeasr.recognizer import Recognizer
from edgeasr.transcript import Event, Final

BLOCK_MS = 40  # as the microphone gives them


@dataclass
class Heard:
    """A source that was heard to its end.

    audio_s: length of the audio; cpu_s: processor time of the recogniser in all threads, files not decoded
    """

    text: str = ""
    audio_s: float = 0.0
    cpu_s: float = 0.0
    meter: LatencyMeter = field(default_factory=LatencyMeter)


def hear(recognizer: Recognizer, source: AudioSource) -> Heard:
    """Run a source as a stream of its own, block by block.

    errors: the source's AudioFormatError, of one that cannot be read whole
    """
    recognizer.reset()
    heard, texts = Heard(), []
    for block in source.blocks():
        heard.audio_s = (block.start_sample + len(block.samples)) / source.sample_rate_hz
        began_s = time.process_time()
        recognizer.accept_waveform(block.samples, source.sample_rate_hz)
        texts += _final_texts(_run(recognizer, heard))
        heard.cpu_s += time.process_time() - began_s
    began_s = time.process_time()
    recognizer.input_finished()
    texts += _final_texts(_run(recognizer, heard))
    heard.cpu_s += time.process_time() - began_s
    heard.text = " ".join(texts)
    return heard


def _run(recognizer: Recognizer, heard: Heard) -> list[Event]:
    """Step while there are samples; the audio that had to arrive for it is `heard.audio_s`."""
    events: list[Event] = []
    while recognizer.is_ready():
        began_s = time.perf_counter()
        step = recognizer.step()
        heard.meter.add(heard.audio_s, time.perf_counter() - began_s, step)
        events += step
    return events


def _final_texts(events: Iterable[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]
