"""Predictor and joiner on the encoder's output: what the next piece of a word is, given what was said before.

Emissions of CTC are independent given the audio, so pieces of one word need not fit each other. A neural transducer
(Graves 2012, arXiv 1211.3711) asks at every frame for the next piece, or none, given the pieces so far. Here the
encoder stays as it is and everything else is small: a window of frames around the present one, a predictor that knows
the last few pieces and nothing else (stateless, Ghodsi et al. 2020), and a joiner that corrects the emissions:

    frames t - behind ... t + ahead -> projection -> acoustic -+
    last `context` pieces -> embedding -> predictor -----------+-> SiLU -> + feed-forward -> output -+
    emissions of frame t, times a gain --------------------------------------------------------------+-> scores
    a language model of pieces (`piece_model.py`), times another -------------------------------------+

It reads the emissions themselves: as a linear function of the encoder's output they hold all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeasr.features import Floats
from edgeasr.neural import ReadOut, silu
from edgeasr.piece_model import PieceModel
from edgeasr.transducer_file import OF_TEXT, Stored, TransducerFile

_BLANK_ID = 0


class Predicted(NamedTuple):
    """What the pieces so far say of the next one."""

    part: Floats  # (D,), for the joiner
    scores: Floats  # (V,), of the language model, times its gain


class Found(NamedTuple):
    """A piece in one of several frames."""

    row: int
    token_id: int
    log_prob: float


class PieceFinder(Protocol):
    """What decoding needs of a transducer: `Transducer` says more, `NativeTransducer` computes the same in C."""

    @property
    def behind(self) -> int: ...
    @property
    def ahead(self) -> int: ...
    @property
    def absent(self) -> Floats: ...
    @property
    def vocabulary_size(self) -> int: ...
    @property
    def begin(self) -> tuple[int, ...]: ...

    def project(self, log_probs: Floats) -> Floats: ...
    def hear(self, frames: Floats, starts: NDArray[np.intp]) -> Floats: ...
    def predict(self, context: tuple[int, ...]) -> Predicted: ...
    def first_piece(self, heard: Floats, predicted: Predicted, log_probs: Floats) -> Found | None: ...


@dataclass(frozen=True)
class Transducer(ReadOut):
    """The weights, float32; matrices are (inputs, outputs), by which numpy multiplies a few rows fastest.

    behind, ahead: frames of the window before and after the present one
    text:          the language model, which knows as many of the last pieces as any part, `context`
    """

    behind: int
    ahead: int
    projection: Floats  # (V, P)
    projection_bias: Floats  # (P,)
    absent: Floats  # (P,), in the place of a frame that is not there
    acoustic: Floats  # ((behind + 1 + ahead) * P, D)
    embedding: Floats  # (V + 1, E); the last is that of the beginning of a segment
    predictor: Floats  # (K * E, D), of the last K pieces
    bias: Floats  # (D,), of acoustic and predictor together
    gain: float  # of the emissions
    text: PieceModel
    text_gain: float

    @property
    def context(self) -> int:
        """Pieces that count."""
        return self.text.context

    @property
    def vocabulary_size(self) -> int:
        """Pieces, the blank among them; a segment begins after as many "pieces" of this number as there is context."""
        return len(self.output_bias)

    @property
    def begin(self) -> tuple[int, ...]:
        """The context at the beginning of a segment."""
        return (self.vocabulary_size,) * self.context

    def project(self, log_probs: Floats) -> Floats:
        """Emissions (T, V) to what the window is made of, (T, P)."""
        projected: Floats = log_probs @ self.projection + self.projection_bias
        return projected

    def hear(self, frames: Floats, starts: NDArray[np.intp]) -> Floats:
        """Projected frames, (T, P), in n windows of behind + 1 + ahead to the acoustic part, (n, D).

        starts: the first frame of each window, (n,)
        """
        windows = frames[starts[:, None] + np.arange(self.behind + 1 + self.ahead)]
        heard: Floats = windows.reshape(len(windows), -1) @ self.acoustic
        return heard

    def predict(self, context: tuple[int, ...]) -> Predicted:
        """What follows the last `context` pieces."""
        known = len(self.predictor) // self.embedding.shape[1]
        part: Floats = self.embedding[list(context[-known:])].reshape(-1) @ self.predictor + self.bias
        return Predicted(part, self.text_gain * self.text.log_probs(context))

    def join(self, heard: Floats, predicted: Predicted, log_probs: Floats) -> Floats:
        """Scores of the pieces, (n, V): log-probabilities but for a constant.

        heard, log_probs: of n frames, (n, D) and (n, V)
        """
        joined = self.read_out(silu(heard + predicted.part))
        scores: Floats = joined + self.gain * log_probs + predicted.scores
        return scores

    def first_piece(self, heard: Floats, predicted: Predicted, log_probs: Floats) -> Found | None:
        """The first of n frames whose best token is a piece; None where the blank is best in all. Arguments as above"""
        scores = self.join(heard, predicted, log_probs)
        best = scores.argmax(axis=1)
        rows = np.flatnonzero(best != _BLANK_ID)
        if not len(rows):
            return None
        row, token_id = int(rows[0]), int(best[rows[0]])
        return Found(row, token_id, -math.log(np.exp(scores[row] - scores[row, token_id]).sum()))

    def to_file(self) -> TransducerFile:
        """Matrices as 7-bit numbers with a scale an output, the rest in half precision."""
        own = {name: getattr(self, name) for name in _array_names(Transducer)}
        own |= {OF_TEXT + name: getattr(self.text, name) for name in _array_names(PieceModel)}
        arrays = {
            name: Stored(array.astype(np.float16))
            if array.ndim == 1 or name == "projection"
            else Stored.quantized(array)
            for name, array in own.items()
        }
        return TransducerFile(self.behind, self.ahead, self.context, self.gain, self.text_gain, arrays)

    @classmethod
    def of(cls, file: TransducerFile) -> Transducer:
        """What was read from a file."""
        own = {name: file.arrays[name].floats for name in _array_names(Transducer)}
        text = PieceModel(
            file.context, **{name: file.arrays[OF_TEXT + name].floats for name in _array_names(PieceModel)}
        )
        return cls(file.behind, file.ahead, **own, gain=file.gain, text=text, text_gain=file.text_gain)

    def packed(self) -> bytes:
        """The file: a zip of arrays (npz, nothing pickled)."""
        return self.to_file().packed()

    @classmethod
    def unpacked(cls, content: bytes, name: str) -> Transducer:
        """What a file holds. errors: BundleError for one that is damaged or something else; name: what it calls it"""
        return cls.of(TransducerFile.read(content, name))


def _array_names(kind: type[Transducer | PieceModel]) -> list[str]:
    return [field.name for field in fields(kind) if field.type == "Floats"]
