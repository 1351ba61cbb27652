"""Text as pieces, for a language model of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgeasr.ngram_estimation import normal_sentence, read_sentences
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.ctc_alignment import Ints


class PieceText:
    """The pieces of all sentences, each sentence behind a context in which nothing was said."""

    def __init__(self, path: Path, tokenizer: Tokenizer, context: int) -> None:
        """raises: ConfigError for a file that cannot be read"""
        begin, self._context = len(tokenizer), context
        encode = lru_cache(maxsize=None)(tokenizer.encode)  # there are fewer words than sentences
        pieces: list[int] = []
        for line in read_sentences([path]):
            sentence = normal_sentence(line)
            parts = sentence.split() if tokenizer.has_pieces else [sentence]
            pieces.extend([begin] * context)
            pieces.extend(piece for part in parts for piece in encode(part))
        self._pieces = np.array(pieces, np.int16)
        self._places = np.flatnonzero(self._pieces != begin)

    def __len__(self) -> int:
        return len(self._places)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """So many pieces, at random and with replacement. returns: the pieces before each, (B, K), and these, (B,)"""
        return self.at(self._places[rng.integers(0, len(self), count)])

    def at(self, places: Ints) -> tuple[Tensor, Tensor]:
        """Those at places among all pieces and beginnings of sentences."""
        before = places[:, None] + np.arange(-self._context, 0)
        context, pieces = (self._pieces[numbers].astype(np.int64) for numbers in (before, places))
        return torch.from_numpy(context), torch.from_numpy(pieces)
