"""Graphs of a bundle in C of our own."""

from __future__ import annotations

from pathlib import Path

from edgeasr.backends.native.kernels import NativeLibrary
from edgeasr.backends.native.session import NativeSession
from edgeasr.backends.preparation import Preparation, prepared_graph
from edgeasr.backends.session_graph import SessionGraph
from edgeasr.errors import ConfigError
from edgeasr.onnx_reader import read_model


class NativeGraph(SessionGraph):
    """One graph of a bundle, on one thread.

    errors: BundleError for a file that cannot be loaded, UnsupportedGraphError for one with operators that it does not
            have, NativeCodeError where nothing compiles C, ConfigError for more threads than one
    """

    def __init__(self, model: Path | bytes, threads: int = 1, library: NativeLibrary | None = None) -> None:
        if threads != 1:
            raise ConfigError(f"got {threads} threads for the native backend, which has one: take onnxruntime for more")
        read = read_model(model)  # once: it is some megabytes
        metadata = read.content.metadata
        held = prepared_graph(metadata)
        prepared = None if held is None else NativeSession(held, library=library)
        most: dict[str, int] = {}
        if prepared is not None:
            for name, cut in prepared.plan.cuts.items():
                most[str(prepared.outputs[name].shape[cut.axis])] = int(prepared.plan.outputs[name].shape[cut.axis])
        self.session = NativeSession(read, most, library)
        preparation = None if prepared is None else Preparation(prepared, prepared.inputs, list(prepared.outputs))
        super().__init__(self.session, self.session.inputs, self.session.outputs, metadata, preparation)
