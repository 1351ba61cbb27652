"""Word errors of the encoder on a dev manifest while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer  # noqa: F401 - that it is missing is found before hours of training
import torch

from edgeasr.encoder import Encoder
from edgeasr.manifest import Utterance
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.data import WaveformCache, batch_features
from edgeasr.train.processes import Place

_BATCH = 8


@dataclass(frozen=True)
class DevSet:
    """A dev manifest, decoded."""

    name: str
    utterances: Sequence[Utterance]
    cache: WaveformCache


@torch.no_grad()
def word_error_rate(encoder: Encoder, dev: DevSet, tokenizer: Tokenizer, place: Place, bf16: bool) -> float:
    """Greedy, over a share of the manifest in each process; the same in all of them."""
    counts = ErrorCounts()
    rows = range(place.rank, len(dev.utterances), place.world)
    order = sorted(rows, key=lambda i: dev.utterances[i].duration_s)
    for group in (order[i : i + _BATCH] for i in range(0, len(order), _BATCH)):
        features, frames = batch_features([dev.cache[i] for i in group], encoder.config)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            emissions = encoder(features).final
        for i, row, length in zip(group, emissions, frames.tolist(), strict=True):
            best = torch.unique_consecutive(row[:length].argmax(-1))
            hypothesis = " ".join(tokenizer.decode(best.tolist()).split())
            counts += word_errors(dev.utterances[i].text, hypothesis)
    total = torch.tensor([counts.errors, counts.reference_length], dtype=torch.float64)
    place.sum(total)
    return float(total[0] / total[1])
