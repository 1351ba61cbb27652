"""The transducer in C, on weights as its file has them: a quarter of the bytes that numpy keeps and reads.

    frames -> project (numpy) -> hear --+
    context -> predict -----------------+-> first piece

What it computes is in `transducer.py`, how in `transducer_kernels.c`; both give the same but for rounding.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import NativeCodeError
from edgeasr.features import Floats
from edgeasr.native_code import packaged_library
from edgeasr.transducer import Found, PieceFinder, Predicted, Transducer
from edgeasr.transducer_file import OF_TEXT, Stored, TransducerFile

# So that loops with roots and conversions become vectors; neither lets a sum change its order.
_FLAGS = ("-fno-math-errno", "-fno-trapping-math")
_READ_OUT = ("expand", "contract", "output")
_EMBEDDINGS = ("embedding", f"{OF_TEXT}embedding")
# Layers, and what is added to each; to the acoustic part nothing, since the predictor's has it.
_BIASES = {"acoustic": None, "predictor": "bias", f"{OF_TEXT}input": f"{OF_TEXT}input_bias"} | {
    prefix + name: f"{prefix}{name}_bias" for prefix in ("", OF_TEXT) for name in _READ_OUT
}

_pointer, _size = ctypes.c_void_p, ctypes.c_size_t


class _Layer(ctypes.Structure):
    _fields_ = (("weights", _pointer), ("scale", _pointer), ("bias", _pointer), ("inputs", _size), ("outputs", _size))


class _Embedding(ctypes.Structure):
    _fields_ = (("values", _pointer), ("scale", _pointer), ("pieces", _size), ("width", _size))


class _ReadOut(ctypes.Structure):
    _fields_ = tuple((name, _Layer) for name in _READ_OUT)


class _Model(ctypes.Structure):
    _fields_ = (
        ("acoustic", _Layer),
        ("embedding", _Embedding),
        ("predictor", _Layer),
        ("joiner", _ReadOut),
        ("text_embedding", _Embedding),
        ("text_input", _Layer),
        ("text", _ReadOut),
        ("context", _size),
        ("gain", ctypes.c_float),
        ("text_gain", ctypes.c_float),
    )


class _Piece(ctypes.Structure):
    _fields_ = (("token_id", _size), ("log_prob", ctypes.c_float))


def fastest_transducer(content: bytes, name: str) -> PieceFinder:
    """What a file holds, in C where that can be compiled, in numpy elsewhere.

    errors: BundleError for a file that is damaged or something else; name: what it calls it
    """
    file = TransducerFile.read(content, name)
    if all(file.arrays[name].is_quantized for name in (*_BIASES, *_EMBEDDINGS)):
        with suppress(NativeCodeError):
            return NativeTransducer(file)
    return Transducer.of(file)


class NativeTransducer:
    """As `Transducer`, which says what goes in and comes out, of arrays that may be written to, though none is.

    Streams share one, in any threads: nothing of it changes, and every call has its own memory to work in.

    file:   whose matrices are all quantised
    errors: NativeCodeError where the library cannot be compiled; of the methods IndexError for windows and pieces
            that there are none of, and ValueError for frames that do not fit each other
    """

    def __init__(self, file: TransducerFile) -> None:
        self.behind, self.ahead, self.context = file.behind, file.ahead, file.context
        self.absent = file.arrays["absent"].floats
        self._projection, self._projection_bias = (file.arrays[n].floats for n in ("projection", "projection_bias"))
        self._library = transducer_library()
        self._kept: list[NDArray[Any]] = []  # what the model points to
        self._model = self._model_of(file)
        self._scratch_size = int(self._library.edgeasr_transducer_scratch(ctypes.byref(self._model)))

    @property
    def vocabulary_size(self) -> int:
        return int(self._model.joiner.output.outputs)

    @property
    def begin(self) -> tuple[int, ...]:
        return (self.vocabulary_size,) * self.context

    def project(self, log_probs: Floats) -> Floats:
        projected: Floats = log_probs @ self._projection + self._projection_bias
        return projected

    def hear(self, frames: Floats, starts: NDArray[np.intp]) -> Floats:
        frames, starts = _in_row(frames), np.ascontiguousarray(starts, np.intp)
        heard = np.empty((len(starts), self._model.acoustic.outputs), np.float32)
        model, count = ctypes.byref(self._model), len(starts)
        status = self._library.edgeasr_transducer_hear(
            model, _at(frames), *frames.shape, _at(starts), count, _at(heard)
        )
        if status:
            raise IndexError(f"got windows from {starts} in {len(frames)} frames, wanted them all within")
        return heard

    def predict(self, context: tuple[int, ...]) -> Predicted:
        part = np.empty(self._model.predictor.outputs, np.float32)
        scores, scratch = np.empty(self.vocabulary_size, np.float32), self._scratch()
        pieces = (ctypes.c_ssize_t * self.context)(*context)
        status = self._library.edgeasr_transducer_predict(
            ctypes.byref(self._model), pieces, _at(part), _at(scores), _at(scratch)
        )
        if status:
            raise IndexError(f"got the pieces {context}, wanted numbers up to {self.vocabulary_size}")
        return Predicted(part, scores)

    def first_piece(self, heard: Floats, predicted: Predicted, log_probs: Floats) -> Found | None:
        heard, log_probs = _in_row(heard), _in_row(log_probs)
        if log_probs.shape != (len(heard), self.vocabulary_size):
            raise ValueError(f"got emissions of shape {log_probs.shape}, wanted {(len(heard), self.vocabulary_size)}")
        if heard.shape[1] != self._model.acoustic.outputs:
            raise ValueError(f"got acoustic parts of {heard.shape[1]} numbers, wanted those of `hear`")
        scratch, piece = self._scratch(), _Piece()
        row = self._library.edgeasr_transducer_find(
            ctypes.byref(self._model),
            *(_at(heard), _at(predicted.part), _at(predicted.scores), _at(log_probs)),
            *(len(heard), _at(scratch), ctypes.byref(piece)),
        )
        return Found(row, piece.token_id, piece.log_prob) if row < len(heard) else None

    def _scratch(self) -> Floats:
        return np.empty(self._scratch_size, np.float32)

    def _model_of(self, file: TransducerFile) -> _Model:
        layers = {name: self._layer(file, name) for name in _BIASES}
        embedding, text_embedding = (self._embedding(file.arrays[name]) for name in _EMBEDDINGS)
        return _Model(
            acoustic=layers["acoustic"],
            embedding=embedding,
            predictor=layers["predictor"],
            joiner=_ReadOut(*(layers[name] for name in _READ_OUT)),
            text_embedding=text_embedding,
            text_input=layers[f"{OF_TEXT}input"],
            text=_ReadOut(*(layers[OF_TEXT + name] for name in _READ_OUT)),
            context=file.context,
            gain=file.gain,
            text_gain=file.text_gain,
        )

    def _layer(self, file: TransducerFile, name: str) -> _Layer:
        values, scale = file.arrays[name]
        inputs, outputs = values.shape
        of_bias = _BIASES[name]
        bias = np.zeros(outputs, np.float32) if of_bias is None else file.arrays[of_bias].floats
        lanes = ctypes.c_size_t.in_dll(self._library, "edgeasr_transducer_lanes").value
        return _Layer(self._keep(_tiled(values, lanes)), self._keep(scale), self._keep(bias), inputs, outputs)

    def _embedding(self, stored: Stored) -> _Embedding:
        return _Embedding(self._keep(stored.values), self._keep(stored.scale), *stored.values.shape)

    def _keep(self, array: NDArray[Any] | None) -> int:
        """Where an array is, and stays as long as the model."""
        assert array is not None
        self._kept.append(np.ascontiguousarray(array))
        return _at(self._kept[-1])


@cache
def transducer_library() -> ctypes.CDLL:
    """errors: NativeCodeError"""
    library = packaged_library("edgeasr", "transducer_kernels.c", "edgeasr_transducer_find", _FLAGS)
    library.edgeasr_transducer_scratch.restype = library.edgeasr_transducer_find.restype = _size
    model = ctypes.POINTER(_Model)
    library.edgeasr_transducer_scratch.argtypes = [model]
    library.edgeasr_transducer_hear.argtypes = [model, _pointer, _size, _size, _pointer, _size, _pointer]
    library.edgeasr_transducer_predict.argtypes = [model, *[_pointer] * 4]
    library.edgeasr_transducer_find.argtypes = [model, *[_pointer] * 4, _size, _pointer, ctypes.POINTER(_Piece)]
    return library


def _tiled(matrix: NDArray[np.int8], lanes: int) -> NDArray[np.int32]:
    """(inputs, outputs) to (tiles of 4 x lanes outputs, inputs, lanes), four weights a number, as the C has them."""
    inputs, outputs = matrix.shape
    tiles = -(-outputs // (4 * lanes))
    padded = np.zeros((inputs, tiles * 4 * lanes), np.int8)
    padded[:, :outputs] = matrix
    first, second, third, fourth = padded.reshape(inputs, tiles, 4, lanes).transpose(2, 1, 0, 3)
    numbers = fourth.astype(np.int32, order="C")
    for weights in (third, second, first):
        numbers <<= 8
        numbers += weights
    return numbers


def _in_row(array: Floats) -> Floats:
    return np.ascontiguousarray(array, np.float32)


def _at(array: NDArray[Any]) -> int:
    """Where an array is that may be written to and holds something: `array.ctypes.data` takes four times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array.data))
