"""Connectionist temporal classification over the final and the lower emissions, and agreement of two views.

The final phones may be trained as sequences too, see `edgeasr.train.crf`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeasr.encoder import Emissions
from edgeasr.train.crf import Denominator, crf_loss
from edgeasr.train.data import Batch


@dataclass(frozen=True)
class SequenceCriterion:
    """What takes a share of the loss of the final output's phones from CTC. weight: that share, in [0, 1]"""

    denominator: Denominator
    weight: float


def ctc_loss(log_probs: Tensor, frames: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """Negative log-likelihood (Graves et al. 2006), summed over the batch; rows without a path count 0.

    log_probs: (B, T, V) float32; frames: (B,); targets: (B, U); target_lengths: (B,)
    returns: ()
    """
    return F.ctc_loss(log_probs.transpose(0, 1), targets, frames, target_lengths, reduction="sum", zero_infinity=True)


def training_loss(
    emissions: Emissions,
    batch: Batch,
    lower_weight: float,
    phone_weight: float,
    sequence: SequenceCriterion | None = None,
) -> Tensor:
    """Final and intermediate CTC (Lee and Watanabe 2021, arXiv 2102.03216), summed over the batch.

    A model with phones learns them from its lower output, and beside characters from its final one
    (hierarchical multitask learning, arXiv 1807.06234).
    """
    characters = batch.frames, batch.targets, batch.target_lengths
    final = ctc_loss(emissions.final, *characters)
    if emissions.phones is None:
        return (1 - lower_weight) * final + lower_weight * ctc_loss(emissions.lower, *characters)
    phones = batch.frames, batch.phones, batch.phone_lengths
    final = (1 - phone_weight) * final + phone_weight * _phone_loss(emissions.phones, batch, sequence)
    return (1 - lower_weight) * final + lower_weight * ctc_loss(emissions.lower, *phones)


def _phone_loss(log_probs: Tensor, batch: Batch, sequence: SequenceCriterion | None) -> Tensor:
    phones = batch.frames, batch.phones, batch.phone_lengths
    loss = ctc_loss(log_probs, *phones)
    if sequence is None:
        return loss
    return (1 - sequence.weight) * loss + sequence.weight * crf_loss(log_probs, *phones, sequence.denominator)


def twice(batch: Batch) -> Batch:
    """Every utterance two times: rows i and B + i are views of the same."""
    return Batch(*(torch.cat([part, part]) for part in batch))


def views_loss(emissions: Emissions, frames: Tensor, phone_weight: float) -> Tensor:
    """`consistency_loss` of what the model says at its end; the arguments are as there and in `training_loss`."""
    loss = consistency_loss(emissions.final, frames)
    if emissions.phones is None:
        return loss
    return (1 - phone_weight) * loss + phone_weight * consistency_loss(emissions.phones, frames)


def consistency_loss(log_probs: Tensor, frames: Tensor) -> Tensor:
    """How far the two views of each utterance disagree (CR-CTC, arXiv 2410.05101), summed over frames and views.

    Each view is drawn to the other, which is held fixed, by the Kullback-Leibler divergence.

    log_probs: (2 B, T, V) float32, as `twice` orders them; frames: (2 B,)
    returns: ()
    """
    other = log_probs.detach().roll(len(log_probs) // 2, dims=0)
    divergence = (other.exp() * (other - log_probs)).sum(-1)
    valid = torch.arange(log_probs.shape[1], device=frames.device) < frames[:, None]
    return (divergence * valid).sum()
