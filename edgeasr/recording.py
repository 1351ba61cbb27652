"""Whole recordings at one rate, for what does not have to stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeasr.audio import FileSource, Resampler, Waveform

DEMO_RECORDING = Path(__file__).parent / "models" / "demo.flac"


def resampled(path: Path, sample_rate_hz: int) -> Iterator[Waveform]:
    """A recording piece by piece, at this rate. Errors: AudioFormatError, after the samples before what is amiss"""
    with FileSource(path) as source:
        resampler = Resampler(source.sample_rate_hz, sample_rate_hz)
        for block in source.blocks():
            yield resampler.process(block.samples)
        yield resampler.flush()


def read_recording(path: Path, sample_rate_hz: int) -> Waveform:
    """All of a recording, (num_samples,) float32. Errors: AudioFormatError for one that cannot be read whole"""
    return np.concatenate(list(resampled(path, sample_rate_hz)))
