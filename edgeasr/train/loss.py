"""Connectionist temporal classification over the final and the lower emissions."""

from __future__ import annotations

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
