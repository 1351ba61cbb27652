"""All measurements of `edgeasr profile`, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeasr.audio import FileSource
from edgeasr.bundle import Bundle, default_bundle
from edgeasr.profile.machine import cached_machine
from edgeasr.profile.model_profile import profile_baselines, profile_model
from edgeasr.profile.report import Measured, profile_report
from edgeasr.profile.run import stream_run
from edgeasr.profile.sensors import Sampler
from edgeasr.recognizer import Recognizer
from edgeasr.recording import DEMO_RECORDING

AUDIO_S, QUICK_AUDIO_S = 120.0, 20.0

Progress = Callable[[str, float], None]
"""Called with what is being measured and the share of all that is done."""

# Shares of the whole, where everything is measured.
_RUN, _MACHINE, _GRAPHS, _BASELINES = (0.0, 0.15), (0.15, 0.6), (0.6, 0.8), (0.8, 1.0)


@dataclass(frozen=True)
class Settings:
    """What is profiled, and how.

    model, backend, decoder, threads: as for Recognizer
    recording: streamed over and over, the bundled clip for None, until audio_s of it were heard
    recurrent: profile LSTM, GRU and TCN of the same size too
    latency_ms: for which a chunk is recommended
    refresh:   measure the machine although it was measured before
    """

    model: str | None = None
    backend: str | None = None
    decoder: str | None = None
    threads: int = 1
    recording: Path | None = None
    audio_s: float | None = None
    real_time: bool = False
    quick: bool = False
    recurrent: bool = True
    latency_ms: float = 200.0
    refresh: bool = False


def profile_machine_and_model(settings: Settings, progress: Progress) -> dict[str, Any]:
    """The report. errors: those of Recognizer, AudioFormatError, ProfileError"""
    recording = settings.recording or DEMO_RECORDING
    with FileSource(recording):
        pass  # a recording that cannot be read is said before anything is measured
    bundle = Bundle.load(settings.model or default_bundle())
    recognizer = Recognizer(bundle, backend=settings.backend, threads=settings.threads, decoder=settings.decoder)
    streaming = _part(progress, _RUN)
    # First, while nothing but the recogniser is in memory.
    with Sampler() as sampler:
        run = stream_run(
            recognizer,
            recording,
            settings.audio_s or (QUICK_AUDIO_S if settings.quick else AUDIO_S),
            real_time=settings.real_time,
            on_progress=lambda share: streaming("streaming", share),
        )
    machine = cached_machine(settings.quick, settings.refresh, _part(progress, _MACHINE))
    profiled = profile_model(
        recognizer.model, bundle, recording, quick=settings.quick, progress=_part(progress, _GRAPHS)
    )
    baselines = []
    if settings.recurrent:
        baselines = profile_baselines(profiled.step, recognizer.model, _part(progress, _BASELINES))
    measured = Measured(profiled, run, sampler.readings, baselines)
    return profile_report(recognizer, machine, measured, settings.latency_ms)


def _part(progress: Progress, bounds: tuple[float, float]) -> Progress:
    """Progress of a part as that of the whole."""
    first, last = bounds
    return lambda what, share: progress(what, first + share * (last - first))
