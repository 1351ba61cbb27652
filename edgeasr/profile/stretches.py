"""How long stretches of a graph take, without a profiler: what a graph takes more that ends at a later operator.

Inputs and outputs stay where they are from run to run, as those of a stream do (`edgeasr.backends.output_buffers`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeasr.backends.onnxruntime import session_options
from edgeasr.errors import BundleError
from edgeasr.onnx_reader import up_to

Array = NDArray[np.generic]

# Other programs only ever make a run longer, so of all runs the calmest are believed, this share.
CALM_TIMES = 0.1
# A disturbance may outlast all runs of a graph, so every graph is timed again when all have been.
_TURNS = 2


def open_session(model: bytes, options: Any) -> Any:
    """errors: BundleError for a file that ONNX Runtime cannot load"""
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"ONNX Runtime cannot load the model ({error}): export the bundle again") from error


class Executed(NamedTuple):
    """A graph as the runtime runs it, after its own fusions. order: numbers of its operators, in which they run"""

    graph: bytes
    order: Sequence[int]


class BoundGraph:
    """A session that reads the same inputs and writes the same outputs in each run.

    feed: inputs by name; it may hold more than the graph reads
    """

    def __init__(self, session: Any, feed: Mapping[str, Array]) -> None:
        self._session, self._binding = session, session.io_binding()
        values = {
            value.name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(feed[value.name]))
            for value in session.get_inputs()
        }
        for name, value in values.items():
            self._binding.bind_ortvalue_input(name, value)
        outputs = session.run_with_ort_values(None, values)
        for given, value in zip(session.get_outputs(), outputs, strict=True):
            self._binding.bind_ortvalue_output(given.name, value)
        self._held = (values, outputs)  # what is bound lives as long as this

    def times_us(self, count: int) -> list[float]:
        """Of so many runs, one after the other."""
        marks = [time.perf_counter()]
        for _ in range(count):
            self._session.run_with_iobinding(self._binding)
            marks.append(time.perf_counter())
        return [(after - before) * 1e6 for before, after in pairwise(marks)]


class Timed(NamedTuple):
    """whole_us: of a run of the graph as its file has it; stretches_us: (S,), 0 or more, of each stretch"""

    whole_us: float
    stretches_us: NDArray[np.float64]


def timed_stretches(
    model: bytes, executed: Executed, stops: Sequence[int], feed: Mapping[str, Array], threads: int, runs: int
) -> Timed:
    """What a graph takes, and each of its stretches; what a run costs before any operator is part of the first.

    stops: how many operators have run where each stretch ends, rising
    runs:  of each graph in each turn
    """
    options = session_options(threads)
    as_it_is = session_options(threads)
    as_it_is.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    ends_us, whole_us = np.full(len(stops), np.inf), np.inf
    for _ in range(_TURNS):
        for i, stop in enumerate(stops):
            session = open_session(up_to(executed.graph, executed.order[:stop]), as_it_is)
            ends_us[i] = min(ends_us[i], _time_us(session, feed, runs))
        whole_us = min(whole_us, _time_us(open_session(model, options), feed, runs))
    # A graph that goes on takes no less: what seems to was disturbed at its earlier end.
    rising = np.minimum.accumulate(ends_us[::-1])[::-1]
    return Timed(whole_us, np.diff(rising, prepend=0.0))


def _time_us(session: Any, feed: Mapping[str, Array], runs: int) -> float:
    return calm_mean(BoundGraph(session, feed).times_us(runs))


def calm_mean(times_us: Sequence[float]) -> float:
    """Of the shortest tenth, or of the shortest."""
    return float(np.mean(sorted(times_us)[: max(1, round(CALM_TIMES * len(times_us)))]))
