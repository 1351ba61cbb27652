"""Graphs on LiteRT's interpreter."""

from __future__ import annotations

from pathlib import Path

from edgeasr.backends.interpreter import InterpreterGraph
from edgeasr.errors import ExtraMissingError

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError as error:
    raise ExtraMissingError(
        "LiteRT is not installed: pip install 'edgeasr[litert]', or, on a system of 32 bits, take a model that was "
        "exported with --target tflite-armv7"
    ) from error


class LitertGraph(InterpreterGraph):
    """One graph of a bundle on LiteRT."""

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        super().__init__(Interpreter, "LiteRT", model, threads)
