"""Graphs on tflite-runtime, LiteRT's predecessor, whose wheels reach 32-bit Arm; on LiteRT where only that is there.

tflite-runtime 2.14, the last one, takes int8 weights of fully connected layers to have one scale a matrix. Weights with
a scale a channel are computed with the first of them, without a word, so models that have such are refused.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgeasr.backends.interpreter import InterpreterGraph
from edgeasr.errors import BundleError, ExtraMissingError

_PACKAGES = {"tflite_runtime.interpreter": "tflite-runtime", "ai_edge_litert.interpreter": "LiteRT"}


class TfliteGraph(InterpreterGraph):
    """One graph of a bundle whose int8 weights have one scale a matrix. errors: BundleError for other weights too"""

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        super().__init__(*_runtime(), model, threads)
        parameters = [one["quantization_parameters"] for one in self._interpreter.get_tensor_details()]
        # LiteRT repeats one scale for every channel: what is the same needs no telling apart.
        if (scales := max(len(set(one["scales"].tolist())) for one in parameters)) > 1:
            raise BundleError(
                f"{self._name} has int8 weights with {scales} scales a matrix, which tflite-runtime misreads: "
                "export the model with --target tflite-armv7"
            )


def _runtime() -> tuple[Any, str]:
    """The interpreter's class, and what its package is called. errors: ExtraMissingError where there is none"""
    for module, name in _PACKAGES.items():
        # Its wheels were built for numpy 1: numpy 2 prints a page about that and raises.
        if name == "tflite-runtime" and int(np.__version__.split(".")[0]) > 1:
            continue
        try:
            return import_module(module).Interpreter, name
        except ImportError:
            continue
    raise ExtraMissingError(
        f"tflite-runtime is not installed, or not beside numpy {np.__version__}, of which it wants one before 2: "
        "pip install 'edgeasr[tflite]', with Python 3.11 or older"
    )
