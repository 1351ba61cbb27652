"""The features of `edgeasr.features`, batched in torch for training."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeasr.config import FeatureConfig
from edgeasr.features import analysis_window, mel_filterbank


def log_mel(waveform: Tensor, config: FeatureConfig) -> Tensor:
    """Log-mel energies, equal to `edgeasr.features.log_mel` row by row.

    waveform: (B, num_samples) float32 in [-1, 1]
    returns:  (B, T, num_mels), one frame per hop_length samples
    """
    if waveform.shape[1] < config.win_length:
        return waveform.new_zeros(waveform.shape[0], 0, config.num_mels)
    window = torch.from_numpy(analysis_window(config)).to(waveform.device)
    filters = torch.from_numpy(mel_filterbank(config)).to(waveform.device)
    frames = waveform.unfold(1, config.win_length, config.hop_length) * window
    # In double precision: torch's single-precision transform is off by more than 1e-4 in quiet bands of loud frames.
    spectrum = torch.fft.rfft(frames.double(), config.fft_length)
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.log(power.float() @ filters + config.floor)
