"""Graphs on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeasr.errors import BundleError

Arrays = dict[str, NDArray[np.generic]]


class OnnxGraph:
    """One graph of a bundle; it holds weights and no stream's state, so streams share it."""

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            name = "the model" if isinstance(model, bytes) else model
            raise BundleError(f"ONNX Runtime cannot load {name}: {error}: export the bundle again") from error
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]

    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs as the file has them."""
        return {value.name: tuple(value.shape) for value in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name; `inputs` may hold more than the graph reads."""
        feed = {name: inputs[name] for name in self.input_names}
        return dict(zip(self.output_names, self._session.run(None, feed), strict=True))
