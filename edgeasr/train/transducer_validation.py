"""Word errors of a transducer on a dev manifest that the encoder has heard once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeasr.features import Floats
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.data import batch_features
from edgeasr.train.processes import Place
from edgeasr.train.unit_selection import Listener
from edgeasr.train.validation import DevSet
from edgeasr.transducer import Transducer
from edgeasr.transducer_decoder import TransducerDecoder


@dataclass(frozen=True)
class HeardDev:
    """A dev manifest as the encoder hears it."""

    name: str
    texts: Sequence[str]
    outputs: Sequence[Tensor]  # (T, C) each
    chunk_frames: int

    @classmethod
    def of(cls, dev: DevSet, listener: Listener, place: Place) -> HeardDev:
        """This process's share of a dev set."""
        texts, outputs = [], []
        for row in dev.rows()[place.rank :: place.world]:
            features, frames = batch_features([dev.waveform(row)], listener.config)
            outputs.append(listener.above(listener.lower(features)).outputs[0, : int(frames[0])])
            texts.append(" ".join(dev.utterances[i].text for i in row))
        return cls(dev.name, texts, outputs, listener.config.encoder.chunk_frames)

    def word_error_rate(
        self, transducer: Transducer, log_probs: Callable[[Tensor], Tensor], tokenizer: Tokenizer, place: Place
    ) -> float:
        """As the device decodes; the same in all processes. log_probs: output of the encoder to emissions"""
        counts = ErrorCounts()
        for text, outputs in zip(self.texts, self.outputs, strict=True):
            decoder = TransducerDecoder(transducer, tokenizer, frame_s=1.0)  # times do not count
            emissions: Floats = log_probs(outputs).numpy()
            for start in range(0, len(emissions), self.chunk_frames):
                decoder.accept(emissions[start : start + self.chunk_frames])
            counts += word_errors(text, decoder.text)
        total = torch.tensor([counts.errors, counts.reference_length], dtype=torch.float64)
        place.sum(total)
        return float(total[0] / total[1])
