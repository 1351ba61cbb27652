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

import io
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from edgeasr.array_files import Arrays, read_arrays
from edgeasr.features import Floats
from edgeasr.neural import ReadOut, silu
from edgeasr.piece_model import PieceModel

FORMAT_VERSION = 2

_TRAIN_AGAIN = "make it again with `python -m edgeasr.train.transducer`"
# A tenth smaller than with 8 bits, once it is compressed, and as good.
_LARGEST = 63
_OF_TEXT = "text."  # before the names of the language model's arrays


class Predicted(NamedTuple):
    """What the pieces so far say of the next one."""

    part: Floats  # (D,), for the joiner
    scores: Floats  # (V,), of the language model, times its gain


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

    def hear(self, windows: Floats) -> Floats:
        """Projected frames of n windows, (n, behind + 1 + ahead, P), to the acoustic part, (n, D)."""
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

    def packed(self) -> bytes:
        """The file: a zip of arrays (npz, nothing pickled), matrices as 7-bit numbers with a scale an output."""
        arrays: dict[str, Any] = {
            "format": np.array([FORMAT_VERSION, self.behind, self.ahead, self.context], np.int64),
            "gain": np.array(self.gain, np.float32),
            "text_gain": np.array(self.text_gain, np.float32),
        }
        for name, array in self._named_arrays().items():
            if array.ndim == 1 or name == "projection":
                arrays[name] = array.astype(np.float16)
            else:
                scale = np.abs(array).max(axis=0) / _LARGEST
                arrays[name] = np.rint(array / np.maximum(scale, 1e-12)).astype(np.int8)
                arrays[f"{name}.scale"] = scale.astype(np.float32)
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()

    def _named_arrays(self) -> dict[str, Floats]:
        own = {name: getattr(self, name) for name in _array_names(Transducer)}
        return own | {_OF_TEXT + name: getattr(self.text, name) for name in _array_names(PieceModel)}

    @classmethod
    def unpacked(cls, content: bytes, name: str) -> Transducer:
        """What a file holds. errors: BundleError for one that is damaged or something else; name: what it calls it"""
        return read_arrays(content, _checked, name=f"transducer {name}", writer="training", mend=_TRAIN_AGAIN)


def _array_names(kind: type[Transducer | PieceModel]) -> list[str]:
    return [field.name for field in fields(kind) if field.type == "Floats"]


def _checked(arrays: Arrays) -> Transducer:
    """errors: LookupError or ValueError for arrays that are no transducer"""
    version, behind, ahead, context = (int(value) for value in arrays["format"])
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, wanted {FORMAT_VERSION}")
    if min(behind, ahead) < 0 or context < 1:
        raise ValueError(f"got a window from -{behind} to {ahead} and a context of {context}")
    own = {name: _floats(arrays, name) for name in _array_names(Transducer)}
    of_text = {name: _floats(arrays, _OF_TEXT + name) for name in _array_names(PieceModel)}
    gain, text_gain = float(_floats(arrays, "gain")), float(_floats(arrays, "text_gain"))
    text = PieceModel(context, **of_text)
    transducer = Transducer(behind, ahead, **own, gain=gain, text=text, text_gain=text_gain)
    _check_shapes(own, _shapes(transducer), "")
    _check_shapes(of_text, text.shapes(transducer.vocabulary_size), _OF_TEXT)
    return transducer


def _floats(arrays: Arrays, name: str) -> Floats:
    """errors: LookupError for an array that is not there, ValueError for one that holds no numbers"""
    array = arrays[name].astype(np.float32)
    scale = arrays.get(f"{name}.scale")
    if scale is not None and scale.shape != array.shape[1:]:
        raise ValueError(f"the scale of {name} has the shape {scale.shape}, wanted {array.shape[1:]}")
    found: Floats = array if scale is None else array * scale.astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"{name} has values that are no numbers")
    return found


def _shapes(t: Transducer) -> dict[str, tuple[int, ...]]:
    """What the arrays have to be like."""
    width, tokens = t.output.shape
    frame, piece = t.projection.shape[1], t.embedding.shape[1]
    known = min(t.context, max(1, len(t.predictor) // piece))
    own = {
        "projection": (tokens, frame),
        "projection_bias": (frame,),
        "absent": (frame,),
        "acoustic": ((t.behind + 1 + t.ahead) * frame, width),
        "embedding": (tokens + 1, piece),
        "predictor": (known * piece, width),
        "bias": (width,),
    }
    return own | t.read_out_shapes(tokens)


def _check_shapes(arrays: Arrays, wanted: dict[str, tuple[int, ...]], prefix: str) -> None:
    """errors: ValueError for matrices that do not fit each other"""
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{prefix}{name} has the shape {arrays[name].shape}, wanted {shape}")
