"""What happens to an utterance before training: speed, rooms, noise, codecs, band limits, gain; then masks.

A model hears the channel before it hears the words; these keep it from learning the channel.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import fftconvolve
from torch import Tensor

from edgeasr.config import FeatureConfig
from edgeasr.errors import AudioFormatError, ConfigError
from edgeasr.features import hz_to_mel, mel_to_hz
from edgeasr.nonspeech import AUDIO_SUFFIXES
from edgeasr.train.recipe import AugmentConfig

Floats = NDArray[np.float32]
Generator = np.random.Generator

CODECS: tuple[tuple[str, str], ...] = (
    ("MP3", "MPEG_LAYER_III"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("WAV", "ULAW"),
    ("WAV", "GSM610"),
)


def load_noise(folders: Sequence[Path], sample_rate_hz: int) -> list[Floats]:
    """Every recording of the folders, resampled.

    raises: ConfigError for a folder without any; AudioFormatError for one that cannot be read or holds no sound
    """
    recordings = []
    for folder in folders:
        paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
        if not paths:
            wanted = ", ".join(sorted(AUDIO_SUFFIXES))
            raise ConfigError(f"got no recordings in the noise folder {folder}, wanted {wanted}: check data.noise")
        recordings += [_noise_recording(path, sample_rate_hz) for path in paths]
    return recordings


def _noise_recording(path: Path, sample_rate_hz: int) -> Floats:
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioFormatError(f"cannot read the noise {path}: {error}: mend the file or take it out") from error
    recording: Floats = soxr.resample(samples.mean(axis=1), rate, sample_rate_hz)
    if not len(recording) or not np.isfinite(recording).all():
        raise AudioFormatError(f"the noise {path} is empty or has samples that are no numbers: take it out")
    return recording


class WaveformAugmenter:
    """Random changes to a waveform; all randomness comes from the generator that is passed in."""

    def __init__(self, config: AugmentConfig, noise: Sequence[Floats], sample_rate_hz: int) -> None:
        self.config, self.noise, self.sample_rate_hz = config, noise, sample_rate_hz

    def __call__(self, waveform: Floats, rng: Generator) -> Floats:
        """waveform: (num_samples,) float32. returns: another length where the speed changed"""
        config = self.config
        waveform = change_speed(waveform, rng.uniform(*config.speed))
        if rng.random() < config.reverb:
            waveform = reverberate(waveform, rng.uniform(*config.reverb_s), self.sample_rate_hz, rng)
        if rng.random() < config.noise:
            waveform = add_noise(waveform, self._noise(len(waveform), rng), rng.uniform(*config.noise_snr_db))
        if rng.random() < config.equalizer:
            waveform = equalize(waveform, self.sample_rate_hz, rng)
        if rng.random() < config.band_limit:
            waveform = limit_band(waveform, rng.uniform(*config.band_limit_hz), self.sample_rate_hz)
        waveform = scale_to(waveform, rng.uniform(*config.gain_db))
        if rng.random() < config.codec:
            waveform = transcode(waveform, self.sample_rate_hz, rng)
        return waveform

    def _noise(self, length: int, rng: Generator) -> Floats:
        return some_noise(self.noise, 0.3, length, self.sample_rate_hz, rng)


def some_noise(
    recordings: Sequence[Floats], coloured: float, length: int, sample_rate_hz: int, rng: Generator
) -> Floats:
    """A stretch of a recording or, by the chance `coloured`, noise with a slope between white and brown."""
    if not recordings or rng.random() < coloured:
        return coloured_noise(length, rng.uniform(0.0, 2.0), sample_rate_hz, rng)
    recording = recordings[int(rng.integers(len(recordings)))]
    start = rng.integers(len(recording))
    return np.take(recording, np.arange(start, start + length), mode="wrap")


def change_speed(waveform: Floats, factor: float) -> Floats:
    """Faster (and higher) for factors above 1."""
    rate = 16000.0
    changed: Floats = soxr.resample(waveform, rate * factor, rate, quality="LQ")
    return changed


def reverberate(waveform: Floats, decay_s: float, sample_rate_hz: int, rng: Generator) -> Floats:
    """A room as exponentially decaying noise (Polack's model); `decay_s` is the time to fall by 60 dB."""
    length = int(decay_s * sample_rate_hz)
    tail = rng.standard_normal(length, dtype=np.float32)
    tail *= np.exp(-6.9 * np.arange(length, dtype=np.float32) / length)
    tail[: int(0.002 * sample_rate_hz)] = 0
    tail *= np.sqrt(rng.uniform(0.05, 1.0) / np.square(tail).sum())
    tail[0] = 1.0
    wet: Floats = fftconvolve(waveform, tail)[: len(waveform)].astype(np.float32)
    return wet


def add_noise(waveform: Floats, noise: Floats, snr_db: float) -> Floats:
    """Mix at a signal-to-noise ratio of mean powers."""
    signal, background = np.square(waveform).mean(), np.square(noise).mean()
    scale = np.sqrt(signal / max(float(background), 1e-12) / 10 ** (snr_db / 10))
    return (waveform + np.float32(scale) * noise).astype(np.float32)


def filtered(waveform: Floats, response: Callable[[Floats], NDArray[np.floating]], sample_rate_hz: int) -> Floats:
    """Multiply the spectrum by `response`, a function of the frequencies in Hz."""
    length = next_fast_len(len(waveform), real=True)
    hz = np.linspace(0, sample_rate_hz / 2, length // 2 + 1, dtype=np.float32)
    spectrum = rfft(waveform, length) * response(hz).astype(np.float32)
    shaped: Floats = irfft(spectrum, length)[: len(waveform)]
    return shaped


def coloured_noise(length: int, slope: float, sample_rate_hz: int, rng: Generator) -> Floats:
    """Gaussian noise with power falling as frequency ** -slope (above 20 Hz)."""
    white = rng.standard_normal(length, dtype=np.float32)
    return filtered(white, lambda hz: np.maximum(hz, 20) ** np.float32(-slope / 2), sample_rate_hz)


def equalize(waveform: Floats, sample_rate_hz: int, rng: Generator) -> Floats:
    """A smooth random frequency response of up to 9 dB either way: another microphone."""
    knots_hz = np.array([0, 150, 500, 1500, 3000, 5000, 8000])
    gains_db = rng.uniform(-9, 9, len(knots_hz))
    return filtered(
        waveform, lambda hz: 10 ** (np.interp(hz, knots_hz, gains_db).astype(np.float32) / 20), sample_rate_hz
    )


def limit_band(waveform: Floats, cutoff_hz: float, sample_rate_hz: int) -> Floats:
    """A steep low-pass, as narrow-band links and MP3 encoders have."""
    transition_hz = 200
    return filtered(
        waveform, lambda hz: np.clip((cutoff_hz + transition_hz - hz) / transition_hz, 0, 1), sample_rate_hz
    )


def scale_to(waveform: Floats, peak_db: float) -> Floats:
    """Peak at `peak_db` relative to full scale; above 0 the waveform is clipped."""
    peak = max(float(np.abs(waveform).max()), 1e-4)
    scaled: Floats = np.clip(waveform * np.float32(10 ** (peak_db / 20) / peak), -1, 1)
    return scaled


def transcode(waveform: Floats, sample_rate_hz: int, rng: Generator) -> Floats:
    """Through a lossy codec and back."""
    container, subtype = CODECS[rng.integers(len(CODECS))]
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sample_rate_hz, format=container, subtype=subtype)
    buffer.seek(0)
    decoded: Floats = soundfile.read(buffer, dtype="float32")[0]
    return decoded[: len(waveform)]


def warp_bands(features: Tensor, factors: Tensor, config: FeatureConfig) -> Tensor:
    """Stretch the frequency axis, as a vocal tract of another length does (VTLP, Jaitly and Hinton 2013).

    features: (B, T, M) log-mel; factors: (B,), above 1 for formants that are higher by that factor
    """
    mels = hz_to_mel(np.array([config.low_hz, config.high_hz]))
    centres = np.linspace(mels[0], mels[1], config.num_mels + 2)[1:-1]
    sources = hz_to_mel(mel_to_hz(centres) / factors.numpy()[:, None])
    place = torch.from_numpy((sources - centres[0]) / (centres[1] - centres[0])).clamp(0, config.num_mels - 1)
    bands = torch.arange(config.num_mels)
    weights = (1 - (place[:, None, :] - bands[:, None]).abs()).clamp_min(0)  # (B, M from, M to): linear interpolation
    return features @ weights.to(features.dtype)


def mask_spectrogram(features: Tensor, lengths: Tensor, config: AugmentConfig, fill: Tensor) -> Tensor:
    """Time and frequency masks (SpecAugment, Park et al. 2019, arXiv 1904.08779), filled with the mean features.

    features: (B, T, M) log-mel; lengths: (B,) frames; fill: (M,)
    """
    batch, frames, bands = features.shape
    time, band = torch.arange(frames), torch.arange(bands)
    masked = torch.zeros(batch, frames, bands, dtype=torch.bool)
    for _ in range(config.frequency_masks):
        width = torch.randint(0, config.frequency_mask_bands + 1, (batch, 1))
        start = (torch.rand(batch, 1) * (bands - width)).long()
        masked |= ((band >= start) & (band < start + width))[:, None]
    for i in range(config.time_masks):
        enough = lengths[:, None] > config.time_mask_every_frames * i
        width = torch.randint(0, config.time_mask_frames + 1, (batch, 1)) * enough
        start = (torch.rand(batch, 1) * (lengths[:, None] - width).clamp_min(1)).long()
        masked |= ((time >= start) & (time < start + width))[:, :, None]
    return torch.where(masked, fill, features)
