"""Graphs of a bundle on sessions that run what is bound to memory, with inputs and outputs as the bundle has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.output_buffers import OutputBuffers
from edgeasr.backends.preparation import Preparation
from edgeasr.backends.windows import read_by, signed, windows_of
from edgeasr.bundle_manifest import TensorSpec

Arrays = dict[str, NDArray[np.generic]]


class SessionGraph:
    """One graph of a bundle; it holds weights and no stream's state, so streams share it.

    session:     has `run`, `io_binding` and `run_with_iobinding` of an onnxruntime.InferenceSession
    read, given: what the file reads and gives
    metadata:    what the file says besides
    preparation: the graph that the file has for what seldom changes, if it has one
    buffered:    whether outputs are written into arrays that are used again
    """

    def __init__(
        self,
        session: Any,
        read: Mapping[str, TensorSpec],
        given: Mapping[str, TensorSpec],
        metadata: Mapping[str, str],
        preparation: Preparation | None,
        *,
        buffered: bool = True,
    ) -> None:
        self._session, self._read, self._preparation = session, read, preparation
        self._windows = windows_of(metadata, read, given)
        signed_inputs = signed(read, self._windows)
        self.inputs = preparation.signed(signed_inputs) if preparation else signed_inputs
        self.outputs = signed(given, self._windows)
        self._buffers = OutputBuffers(session, read, given, self._windows) if buffered else None

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """Outputs by name, not to be written to; `inputs` may hold more than the graph reads."""
        if self._preparation:
            inputs = {**inputs, **self._preparation.made_of(inputs)}
        outputs = self._buffers.run(inputs) if self._buffers else None
        if outputs is not None:
            return outputs
        given = dict(zip(self.outputs, self._session.run(None, self._in_order(inputs)), strict=True))
        moved = {one.given: one.moved_on(inputs[one.read], given[one.given]) for one in self._windows}
        return {**given, **moved}

    def read_from(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """What the file reads where the graph is given these: for whoever runs the file itself."""
        return self._in_order({**inputs, **(self._preparation.made_of(inputs) if self._preparation else {})})

    def _in_order(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        return read_by(self._windows, {name: inputs[name] for name in self._read})
