"""Connectionist temporal classification over the final and the lower emissions, and agreement of two views."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeasr.encoder import Emissions
from edgeasr.train.data import Batch


def ctc_loss(log_probs: Tensor, batch: Batch) -> Tensor:
    """Negative log-likelihood (Graves et al. 2006), summed over the batch; rows without a path count 0.

    log_probs: (B, T, V) float32
    returns: ()
    """
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        batch.targets,
        batch.frames,
        batch.target_lengths,
        reduction="sum",
        zero_infinity=True,
    )


def training_loss(emissions: Emissions, batch: Batch, lower_weight: float) -> Tensor:
    """Final and intermediate CTC (Lee and Watanabe 2021, arXiv 2102.03216), summed over the batch."""
    final, lower = ctc_loss(emissions.final, batch), ctc_loss(emissions.lower, batch)
    return (1 - lower_weight) * final + lower_weight * lower


def twice(batch: Batch) -> Batch:
    """Every utterance two times: rows i and B + i are views of the same."""
    return Batch(*(torch.cat([part, part]) for part in batch))


def consistency_loss(log_probs: Tensor, frames: Tensor) -> Tensor:
    """How far the two views of each utterance disagree (CR-CTC, arXiv 2410.05101), summed over frames and views.

    Each view is drawn to the other, which is held fixed, by the Kullback-Leibler divergence.

    log_probs: (2 B, T, V) float32, as `twice` orders them; frames: (2 B,)
    returns: ()
    """
    other = log_probs.detach().roll(len(log_probs) // 2, dims=0)
    divergence = (other.exp() * (other - log_probs)).sum(-1)
    valid = torch.arange(log_probs.shape[1]) < frames[:, None]
    return (divergence * valid).sum()
