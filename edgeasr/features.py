"""Log-mel features: one definition of window and filterbank, and the incremental front end of the device.

The batched version used in training (`edgeasr.train.features`) takes `analysis_window` and `mel_filterbank` from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from edgeasr.config import FeatureConfig

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FeatureBlock:
    """Consecutive frames of log-mel from a source that computes them itself.

    features:     (T, num_mels) float32, never empty
    start_sample: of the first frame's window, at the rate of the source's audio, counted over gaps too
    gap_samples:  lost just before this block
    """

    features: Floats
    start_sample: int
    gap_samples: int = 0


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above."""
    return np.where(hz < 1000.0, hz * 3 / 200, 15.0 + 27.0 * np.log(np.maximum(hz, 1e-9) / 1000.0) / np.log(6.4))


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of `hz_to_mel`."""
    return np.where(mel < 15.0, mel * 200 / 3, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


def mel_edges_hz(config: FeatureConfig) -> NDArray[np.float64]:
    """Where bands begin, peak and end: band b at elements b, b + 1 and b + 2. returns: (num_mels + 2,)"""
    ends = hz_to_mel(np.array([config.low_hz, config.high_hz]))
    return mel_to_hz(np.linspace(ends[0], ends[1], config.num_mels + 2))


@lru_cache
def mel_filterbank(config: FeatureConfig) -> Floats:
    """Triangular filters of unit area, spaced evenly on the mel scale.

    returns: (num_bins, num_mels)
    """
    bins = np.linspace(0, config.sample_rate_hz / 2, config.num_bins)
    edges = mel_edges_hz(config)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (right - left))
    return filters.astype(np.float32)


@lru_cache
def analysis_window(config: FeatureConfig) -> Floats:
    """Periodic Hann window. returns: (win_length,)"""
    phase = 2 * np.pi * np.arange(config.win_length) / config.win_length
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


def num_frames(num_samples: int, config: FeatureConfig) -> int:
    """Whole feature frames in `num_samples` samples: frame t covers samples t * hop to t * hop + win_length."""
    return max(0, (num_samples - config.win_length) // config.hop_length + 1)


def log_mel(waveform: Floats, config: FeatureConfig) -> Floats:
    """Log-mel energies (Davis and Mermelstein 1980) of every whole window.

    waveform: (num_samples,) float32 in [-1, 1]
    returns:  (T, num_mels), T = num_frames(num_samples)
    """
    count = num_frames(len(waveform), config)
    if count == 0:
        return np.zeros((0, config.num_mels), np.float32)
    (stride,) = waveform.strides
    # A view; numpy's sliding_window_view gives the same, and takes longer than the product with the window.
    frames = as_strided(waveform, (count, config.win_length), (config.hop_length * stride, stride), writeable=False)
    spectrum = np.fft.rfft(frames * analysis_window(config), config.fft_length)
    power = spectrum.real**2 + spectrum.imag**2
    energies = power.astype(np.float32, copy=False) @ mel_filterbank(config)
    log_energies: Floats = np.log(energies + np.float32(config.floor))
    return log_energies


class LogMel:
    """Incremental `log_mel`: samples in, whole frames out; the frames are those of the whole waveform.

    In C where that can be compiled, which gives the same but for rounding.
    """

    def __init__(self, config: FeatureConfig) -> None:
        from edgeasr.log_mel_native import fastest_log_mel

        self.config, self._log_mel = config, fastest_log_mel(config)
        self.reset()

    def reset(self) -> None:
        """Forget the samples that wait for a whole window."""
        self._pending: Floats = np.zeros(0, np.float32)

    def accept_waveform(self, waveform: Floats) -> Floats:
        """Frames completed by these samples.

        waveform: (num_samples,) float32 in [-1, 1], any length
        returns:  (T, num_mels), T may be 0
        """
        samples = np.concatenate([self._pending, waveform])
        frames = self._log_mel(samples)
        self._pending = samples[len(frames) * self.config.hop_length :]
        return frames
