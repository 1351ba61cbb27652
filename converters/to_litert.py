"""Graphs to LiteRT flatbuffers, through litert-torch, and their matrix products to int8.

litert-torch names inputs and outputs by their place. The signature of the file is written again with the names of the
graph, which is what runners read. Needs an environment of its own: litert-torch brings JAX and transformers along.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import flatbuffers
import litert_torch
import numpy as np
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import quantizer, recipe
from numpy.typing import NDArray

from edgeasr.converters.signature import Graph
from edgeasr.errors import BundleError

_ALIGNMENT = 16


def to_litert(graph: Graph) -> bytes:
    """The graph as a LiteRT model whose signature carries its names; whole numbers keep their 64 bits.

    errors: BundleError where an operator cannot be converted
    """
    inputs = graph.example_inputs()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "graph.tflite")
        try:
            litert_torch.convert(graph.eval(), tuple(tensor for _, tensor in inputs), enable_x64=True).export(str(path))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise BundleError(
                f"litert-torch cannot convert the {graph.name} graph ({reason}): export to ONNX"
            ) from error
        model = flatbuffer_utils.read_model(str(path))
    signature = model.signatureDefs[0]
    _rename(signature.inputs, [name for name, _ in inputs])
    _rename(signature.outputs, graph.output_names())
    return _packed(model)


def quantize_litert(model: bytes, *, per_channel: bool = True) -> bytes:
    """Weights of fully connected layers to int8; activations are quantised as they come.

    per_channel: a scale an output channel rather than one a matrix, which tflite-runtime 2.14 would misread
    """
    rules = [{**rule, "operation": "FULLY_CONNECTED"} for rule in recipe.dynamic_wi8_afp32()]
    if not per_channel:
        for rule in rules:
            rule["op_config"]["weight_tensor_config"]["granularity"] = "TENSORWISE"
    with _quiet():
        quantized = quantizer.Quantizer(bytearray(model), rules).quantize()
    return _packed(flatbuffer_utils.read_model_from_bytearray(bytes(quantized.quantized_model)))


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers has no types
    """Constants begin at multiples of 16 bytes, as the format's schema wants; Python's builder leaves that to luck.

    On 32-bit Arm tflite-runtime ends with SIGBUS where they do not.
    """

    def CreateNumpyVector(self, x: NDArray[np.generic]) -> int:  # noqa: N802 - flatbuffers' name
        self.Prep(_ALIGNMENT, x.nbytes)
        return int(super().CreateNumpyVector(x))


def _packed(model: Any) -> bytes:
    """The file of a model. model: with the contents of its buffers in them"""
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(bytes(buffer.data), np.uint8)
    builder = _AlignedBuilder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _rename(tensors: Sequence[Any], names: Sequence[str]) -> None:
    """tensors: entries of a signature, named args_0, args_1, ... or output_0, ... by their place"""
    for tensor in tensors:
        tensor.name = names[int(tensor.name.decode().rsplit("_", 1)[1])]


@contextmanager
def _quiet() -> Iterator[None]:
    """Converter and quantiser report their progress on both streams and warn about their own internals."""
    levels = {name: logging.getLogger(name).level for name in ("", "torch", "jax")}
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            for name in levels:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
