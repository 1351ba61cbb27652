"""Word errors of the encoder on a dev manifest while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer  # noqa: F401 - that it is missing is found before hours of training
import numpy as np
import torch
from numpy.typing import NDArray

from edgeasr.encoder import Encoder
from edgeasr.manifest import Utterance
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.sessions import PAUSE_S, joined, sessions
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
    session_s: float = 0.0  # above 0: neighbours of one speaker are heard as sessions of up to that

    def rows(self) -> list[list[int]]:
        """What is heard as one recording: indices of utterances."""
        if not self.session_s:
            return [[i] for i in range(len(self.utterances))]
        ends = np.cumsum([len(session.utterances) for session in sessions(self.utterances, self.session_s)]).tolist()
        return [list(range(start, end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def waveform(self, row: Sequence[int]) -> NDArray[np.float32]:
        """The utterances of a row with pauses between."""
        if len(row) == 1:
            return self.cache[row[0]]
        pause = round(PAUSE_S * self.cache.sample_rate_hz)
        return joined([self.cache[i] for i in row], [pause] * (len(row) - 1))


@torch.no_grad()
def word_error_rate(encoder: Encoder, dev: DevSet, tokenizer: Tokenizer, place: Place, bf16: bool) -> float:
    """Greedy, over a share of the manifest in each process; the same in all of them."""
    counts = ErrorCounts()
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    mine = dev.rows()[place.rank :: place.world]
    order = sorted(mine, key=lambda row: sum(dev.utterances[i].duration_s for i in row))
    batch = 1 if dev.session_s else _BATCH
    for group in (order[i : i + batch] for i in range(0, len(order), batch)):
        features, frames = batch_features([dev.waveform(row) for row in group], encoder.config)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            emissions = encoder(features.to(device)).final.cpu()
        for row, log_probs, length in zip(group, emissions, frames.tolist(), strict=True):
            best = torch.unique_consecutive(log_probs[:length].argmax(-1))
            hypothesis = " ".join(tokenizer.decode(best.tolist()).split())
            counts += word_errors(" ".join(dev.utterances[i].text for i in row), hypothesis)
    total = torch.tensor([counts.errors, counts.reference_length], dtype=torch.float64)
    place.sum(total)
    return float(total[0] / total[1])
