"""The file of a transducer: a zip of arrays (npz, nothing pickled), matrices as 7-bit numbers, a scale an output."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.array_files import Arrays, read_arrays
from edgeasr.features import Floats

FORMAT_VERSION = 2
OF_TEXT = "text."  # before the names of the language model's arrays

_TRAIN_AGAIN = "make it again with `python -m edgeasr.train.transducer`"
# A tenth smaller than with 8 bits, once it is compressed, and as good.
_LARGEST = 63
_LARGEST_SCALE = 1e36  # of which 128 are a number in float32, too
_NUMBERS = ("format", "gain", "text_gain")
_SCALE = ".scale"


class Stored(NamedTuple):
    """An array as the file has it."""

    values: NDArray[Any]  # int8 with a scale, float16 without
    scale: Floats | None = None  # (outputs,)

    @property
    def is_quantized(self) -> bool:
        """Whether it is integers from -127 to 127 with a scale an output."""
        return self.scale is not None and self.values.dtype == np.int8 and int(self.values.min()) > -128

    @property
    def is_finite(self) -> bool:
        if self.scale is None or self.values.dtype != np.int8:
            return bool(np.isfinite(self.floats).all())
        return bool((np.abs(self.scale) < _LARGEST_SCALE).all())

    @property
    def floats(self) -> Floats:
        values = self.values.astype(np.float32)
        return values if self.scale is None else values * self.scale

    @classmethod
    def quantized(cls, matrix: Floats) -> Stored:
        """A matrix as integers."""
        scale = np.abs(matrix).max(axis=0) / _LARGEST
        return cls(np.rint(matrix / np.maximum(scale, 1e-12)).astype(np.int8), scale.astype(np.float32))


@dataclass(frozen=True)
class TransducerFile:
    """What a file holds, as in `edgeasr.transducer`.

    arrays: by the names of the fields of `Transducer`, and after "text." by those of `PieceModel`
    """

    behind: int
    ahead: int
    context: int
    gain: float
    text_gain: float
    arrays: Mapping[str, Stored]

    def packed(self) -> bytes:
        """Its content."""
        arrays: dict[str, NDArray[Any]] = {
            "format": np.array([FORMAT_VERSION, self.behind, self.ahead, self.context], np.int64),
            "gain": np.array(self.gain, np.float32),
            "text_gain": np.array(self.text_gain, np.float32),
        }
        for name, stored in self.arrays.items():
            arrays[name] = stored.values
            if stored.scale is not None:
                arrays[name + _SCALE] = stored.scale
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        return stream.getvalue()

    @classmethod
    def read(cls, content: bytes, name: str) -> TransducerFile:
        """errors: BundleError for a file that is damaged or something else; name: what it calls it"""
        return read_arrays(content, _checked, name=f"transducer {name}", writer="training", mend=_TRAIN_AGAIN)


def _checked(arrays: Arrays) -> TransducerFile:
    """errors: LookupError or ValueError for arrays that are no transducer"""
    version, behind, ahead, context = (int(value) for value in arrays["format"])
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, wanted {FORMAT_VERSION}")
    if min(behind, ahead) < 0 or context < 1:
        raise ValueError(f"got a window from -{behind} to {ahead} and a context of {context}")
    gain, text_gain = (float(_stored(arrays, name).floats) for name in ("gain", "text_gain"))
    names = [name for name in arrays if name not in _NUMBERS and not name.endswith(_SCALE)]
    file = TransducerFile(behind, ahead, context, gain, text_gain, {name: _stored(arrays, name) for name in names})
    for name, shape in _shapes(file).items():
        found = file.arrays[name].values.shape
        if found != shape or 0 in found:
            raise ValueError(f"{name} has the shape {found}, wanted {shape}, none of it 0")
    return file


def _stored(arrays: Arrays, name: str) -> Stored:
    """errors: LookupError for an array that is not there, ValueError for one that holds no numbers"""
    stored = Stored(arrays[name])
    if (scale := arrays.get(name + _SCALE)) is not None:
        if scale.shape != stored.values.shape[1:]:
            raise ValueError(f"the scale of {name} has the shape {scale.shape}, wanted {stored.values.shape[1:]}")
        stored = Stored(stored.values, scale.astype(np.float32))
    if not stored.is_finite:
        raise ValueError(f"{name} has values that are no numbers")
    return stored


def _shapes(file: TransducerFile) -> dict[str, tuple[int, ...]]:
    """What the arrays have to be like. errors: LookupError, ValueError"""
    shape = {name: stored.values.shape for name, stored in file.arrays.items()}
    width, tokens = shape["output"]
    frame, piece = shape["projection"][1], shape["embedding"][1]
    known = min(file.context, max(1, shape["predictor"][0] // piece))
    own = {
        "projection": (tokens, frame),
        "projection_bias": (frame,),
        "absent": (frame,),
        "acoustic": ((file.behind + 1 + file.ahead) * frame, width),
        "embedding": (tokens + 1, piece),
        "predictor": (known * piece, width),
        "bias": (width,),
    }
    text_width, text_piece = shape[f"{OF_TEXT}output"][0], shape[f"{OF_TEXT}embedding"][1]
    text = {
        "embedding": (tokens + 1, text_piece),
        "input": (file.context * text_piece, text_width),
        "input_bias": (text_width,),
    }
    own |= _read_out_shapes(width, shape["expand"][1], tokens)
    text |= _read_out_shapes(text_width, shape[f"{OF_TEXT}expand"][1], tokens)
    return own | {OF_TEXT + name: wanted for name, wanted in text.items()}


def _read_out_shapes(width: int, inner: int, tokens: int) -> dict[str, tuple[int, ...]]:
    """Of `ReadOut`."""
    return {
        "expand": (width, inner),
        "expand_bias": (inner,),
        "contract": (inner, width),
        "contract_bias": (width,),
        "output": (width, tokens),
        "output_bias": (tokens,),
    }
