"""A language model of pieces of words: the next one, given the last few (feed-forward, Bengio et al. 2003).

A transducer learns its text from sentences that were said, or put together as though they were, and these are few. Of
plain text there is more than can be said, so what comes next by text alone is learned of it apart, and the transducer
adds it to its scores (shallow fusion, inside of the training: Sriram et al. 2018, arXiv 1708.06426).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeasr.features import Floats
from edgeasr.neural import ReadOut, silu

_BLANK_ID = 0


@dataclass(frozen=True)
class PieceModel(ReadOut):
    """The weights, float32; matrices are (inputs, outputs).

    pieces (context) -> embedding -> input -> SiLU -> read-out -> log-probabilities
    """

    context: int  # pieces that it knows
    embedding: Floats  # (V + 1, E); the last is that of the beginning of a sentence
    input: Floats  # (context * E, D)
    input_bias: Floats  # (D,)

    def log_probs(self, context: tuple[int, ...]) -> Floats:
        """The last pieces to log-probabilities of the next one, (V,); 0 for the blank, which no text has."""
        scores = self.read_out(silu(self.embedding[list(context)].reshape(-1) @ self.input + self.input_bias))
        scores -= scores.max()
        scores -= np.log(np.exp(scores).sum())
        scores[_BLANK_ID] = 0.0
        return scores
