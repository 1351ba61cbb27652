"""Graphs to ONNX, opset 18."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch

from edgeasr.converters.signature import Graph
from edgeasr.errors import BundleError

OPSET = 18


def to_onnx(graph: Graph) -> bytes:
    """The graph as a serialised ONNX model whose inputs and outputs carry the names of the signature.

    errors: BundleError where an operation has no form in ONNX
    """
    inputs = graph.example_inputs()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "graph.onnx")
        try:
            torch.onnx.export(
                graph.eval(),
                tuple(tensor for _, tensor in inputs),
                str(path),
                input_names=[name for name, _ in inputs],
                output_names=graph.output_names(),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = str(error.__cause__ or error).strip().splitlines()
            raise BundleError(
                f"PyTorch cannot export the {graph.name} graph to ONNX ({cause[0] if cause else 'no reason given'}): "
                f"write the model in operations of opset {OPSET}"
            ) from error
        model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    # The exporter's notes on source lines and its own program are half of a small file.
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    serialised: bytes = model.SerializeToString()
    return serialised


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs and warns about its own internals; its errors still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
