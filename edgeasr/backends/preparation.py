"""What a graph reads that is made of inputs which seldom change: made when they do, and kept until then.

A step reads the memory in every chunk, and the memory changes once in many. What is the same in between is a graph of
its own inside the file (`edgeasr.converters.preparation`), and its outputs are inputs of the step.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from edgeasr.bundle_manifest import TensorSpec

Array = NDArray[np.generic]

METADATA = "edgeasr.preparation"  # in the file: the graph, in base64
PREPARED = "state.prepared."  # and a number: what it gives and the step reads


def prepared_graph(metadata: Mapping[str, str]) -> bytes | None:
    """The graph of a file's metadata, if there is one."""
    held = metadata.get(METADATA)
    return None if held is None else base64.b64decode(held)


class Preparation:
    """The graph of a file that runs before the step where its inputs are others than before; streams share it.

    session: an onnxruntime.InferenceSession
    inputs, outputs: of it
    """

    def __init__(self, session: Any, inputs: Mapping[str, TensorSpec], outputs: Sequence[str]) -> None:
        self.inputs, self._outputs = inputs, outputs
        self._session = session
        self._made: dict[int, _Made] = {}  # by the id of the first input

    def made_of(self, feed: Mapping[str, Array]) -> Mapping[str, Array]:
        """What the step reads. feed: inputs, which nobody changes in place"""
        given = [feed[name] for name in self.inputs]
        found = self._made.get(id(given[0]))
        if found is None or not found.is_of(given):
            outputs = self._session.run(None, dict(zip(self.inputs, given, strict=True)))
            key = id(given[0])
            found = _Made(given, dict(zip(self._outputs, outputs, strict=True)), partial(_forget, self._made, key))
            self._made[key] = found
        return found.arrays

    def signed(self, inputs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        """What a step reads, with the inputs of this in the place of its outputs."""
        names = list(inputs)
        at = next(i for i, name in enumerate(names) if name.startswith(PREPARED))
        both = {**dict.fromkeys(names[:at]), **self.inputs, **dict.fromkeys(names[at:])}
        known = {**inputs, **self.inputs}
        return {name: known[name] for name in both if name not in self._outputs}


class _Made:
    """Outputs, as long as the first of the inputs that they were made of is there."""

    def __init__(self, given: Sequence[Array], arrays: Mapping[str, Array], forget: Callable[[object], None]) -> None:
        self.arrays = arrays
        self._given: list[ReferenceType[Array]] = [ref(given[0], forget), *(ref(array) for array in given[1:])]

    def is_of(self, given: Sequence[Array]) -> bool:
        """Whether they were made of these."""
        return all(one() is array for one, array in zip(self._given, given, strict=True))


def _forget(made: dict[int, _Made], key: int, gone: object) -> None:
    """Another array may get the id of one that is gone."""
    del gone
    made.pop(key, None)
