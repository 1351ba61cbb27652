"""What each operator of a graph reads, writes, multiplies and takes.

ONNX Runtime's own profiler tells which operators run, on what, and for how long. It describes each operator's tensors
while its clock runs, which takes longer than most of our operators do, and what that drives out of the caches the next
operator has to fetch again: what it says of all of them together is more than twice the step. So stretches of a dozen
operators, or of a long one, are timed without it (`stretches.py`), and a stretch's time is only shared out by its.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.onnxruntime import OnnxGraph, session_options
from edgeasr.onnx_reader import GraphNode, Initializer, OnnxContent, read_onnx, with_names
from edgeasr.profile.stretches import Executed, open_session, timed_stretches
from edgeasr.profile.work import VIEWS, Kind, OperatorWork, Tensor, operator_work

Array = NDArray[np.generic]
Described = tuple[str, tuple[int, ...]]  # a tensor in the profiler's words: type and shape

_WARM_UP = 3
# Of the runs with the profiler the calmest are believed, this share.
_CALM_RUNS = 0.25
# An operator that takes so many times its median was interrupted by another program.
_INTERRUPTED = 2.0
_EVENT_SUFFIX = "_kernel_time"
# Of an operator that takes no longer than the profiler itself: it has a part in its stretch, but a small one.
_LEAST_US = 0.1


@dataclass(frozen=True)
class Operator:
    """An operator as the runtime runs it, after its own fusions.

    time_us: in a step, without the profiler
    known:   its work, where more is known of it than its kind and its tensors say
    """

    name: str
    op_type: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    time_us: float
    known: OperatorWork | None = None

    @cached_property
    def work(self) -> OperatorWork:
        """Bytes and multiply-adds."""
        return self.known or operator_work(self.op_type, self.inputs, self.outputs)


@dataclass(frozen=True)
class GraphProfile:
    """A graph on this machine.

    step_us:      time of a run, without the profiler
    profiled_us:  what the profiler says that all operators take, its own work included; None without one
    weight_bytes: of all constants of the file, as its table of them says
    """

    operators: tuple[Operator, ...]
    step_us: float
    profiled_us: float | None
    weight_bytes: int
    state_read_bytes: int
    state_written_bytes: int
    threads: int

    @property
    def operators_us(self) -> float:
        """Of all operators together."""
        return sum(operator.time_us for operator in self.operators)

    @property
    def state_bytes(self) -> int:
        """Of a step: read, and written."""
        return self.state_read_bytes + self.state_written_bytes

    @property
    def read_weight_bytes(self) -> int:
        """Weights once for each operator that reads them: more than there are, where a weight is read again."""
        return sum(operator.work.weight_bytes for operator in self.operators)

    @property
    def activation_bytes(self) -> int:
        return sum(operator.work.activation_bytes for operator in self.operators)

    def macs(self, *, int8: bool) -> int:
        """Multiply-adds of a step in int8, or in floating point."""
        return sum(operator.work.macs for operator in self.operators if operator.work.int8 is int8)


@dataclass(frozen=True)
class Effort:
    """How often a graph is run.

    sessions:  of the runtime with its profiler, which keeps all that it hears in memory until the end of a session
    profiled:  runs in each
    stretches: of equal time by the profiler, whose times are measured
    longest:   operators that are stretches of their own, those that take longest by the profiler
    timed:     runs without the profiler, of the whole and to the end of each stretch, in each of two turns
    """

    sessions: int = 4
    profiled: int = 12
    stretches: int = 24
    longest: int = 8
    timed: int = 60


QUICK = Effort(sessions=2, profiled=8, stretches=12, longest=4, timed=30)


def profile_graph(
    model: Path | bytes, feed: Mapping[str, Array], threads: int = 1, effort: Effort = Effort()
) -> GraphProfile:
    """Run a graph again and again, with and without ONNX Runtime's profiler.

    feed:   the inputs, of which those named `state.` are state, as outputs named `next_state.` are; the same each time.
            What the file makes of some of them beforehand, once in many steps, is no part of a step
    errors: BundleError for a file that ONNX Runtime cannot load
    """
    model = with_names(model)
    content = read_onnx(model)
    feed = OnnxGraph(model, threads).read_from(feed)
    profiled = [_profiled(model, feed, threads, effort.profiled) for _ in range(effort.sessions)]
    run, graph = profiled[0].run, profiled[0].graph
    executed = read_onnx(graph)
    shown_us = _shown_us(np.concatenate([one.durations_us for one in profiled]))
    order, stops = _in_order(run, executed.nodes), _stops(shown_us, effort.stretches, effort.longest)
    timed = timed_stretches(model, Executed(graph, order), stops, feed, threads, effort.timed)
    operators = _operators(run, executed, order, _shared_out(timed.stretches_us, stops, shown_us))
    outputs = {tensor.name: tensor for operator in operators for tensor in operator.outputs}
    written = sum(outputs[name].size_bytes for name in content.outputs if name in outputs and _is_state(name))
    return GraphProfile(
        operators,
        step_us=timed.whole_us,
        profiled_us=float(shown_us.sum()),
        weight_bytes=content.weight_bytes,
        state_read_bytes=sum(array.nbytes for name, array in feed.items() if _is_state(name)),
        state_written_bytes=written,
        threads=threads,
    )


@dataclass(frozen=True)
class _Event:
    """A run of an operator, as the profiler tells it."""

    name: str
    op_type: str
    duration_us: float
    inputs: tuple[Described, ...]
    outputs: tuple[Described, ...]


_Run = list[_Event]


class _Profiled(NamedTuple):
    """What a session told: a run, the durations of all (R, operators), and the graph that was run."""

    run: _Run
    durations_us: NDArray[np.float64]
    graph: bytes


def _profiled(model: bytes, feed: Mapping[str, Array], threads: int, count: int) -> _Profiled:
    """So many runs under the profiler, whose file is read and deleted."""
    with tempfile.TemporaryDirectory(prefix="edgeasr-profile-") as folder:
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        options.optimized_model_filepath = str(Path(folder, "executed.onnx"))
        session = open_session(model, options)
        for _ in range(_WARM_UP + count):
            session.run(None, feed)
        runs = _runs(json.loads(Path(session.end_profiling()).read_bytes()))[_WARM_UP:]
        graph = Path(folder, "executed.onnx").read_bytes()
    return _Profiled(runs[0], np.array([[event.duration_us for event in run] for run in runs]), graph)


def _runs(events: Iterable[Mapping[str, Any]]) -> list[_Run]:
    """The events of operators, run by run: the first operator begins a new one."""
    runs: list[_Run] = []
    for event in sorted((e for e in events if e["name"].endswith(_EVENT_SUFFIX)), key=lambda e: float(e["ts"])):
        name = event["name"].removesuffix(_EVENT_SUFFIX)
        if not runs or name == runs[0][0].name:
            runs.append([])
        arguments = event["args"]
        shapes = _shapes(arguments["input_type_shape"]), _shapes(arguments["output_type_shape"])
        runs[-1].append(_Event(name, arguments["op_name"], float(event["dur"]), *shapes))
    return runs


def _shapes(listed: Iterable[Mapping[str, Sequence[int]]]) -> tuple[Described, ...]:
    return tuple((dtype, tuple(shape)) for one in listed for dtype, shape in one.items())


def _shown_us(durations_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """What operators usually take under the profiler: of runs (R, operators) those that took least in all count.

    An operator that was interrupted counts as what it takes at the median. Of the runs that count the middle half has
    a mean: one would be a median, if the profiler's clock had more than whole microseconds.
    """
    usual = np.median(durations_us, axis=0)
    durations_us = np.where(durations_us > _INTERRUPTED * usual, usual, durations_us)
    calm = np.argsort(durations_us.sum(axis=1), kind="stable")[: max(1, round(_CALM_RUNS * len(durations_us)))]
    ordered, quarter = np.sort(durations_us[calm], axis=0), len(calm) // 4
    # The clock shows nothing of less than a microsecond.
    shown: NDArray[np.float64] = np.maximum(_LEAST_US, ordered[quarter : len(calm) - quarter].mean(axis=0))
    return shown


def _in_order(run: _Run, nodes: Sequence[GraphNode]) -> list[int]:
    """Numbers of the nodes in the order in which they ran; several may have one name."""
    of_name: dict[str, deque[int]] = defaultdict(deque)
    for number, node in enumerate(nodes):
        of_name[node.name].append(number)
    return [of_name[event.name].popleft() for event in run]


def _stops(shown_us: NDArray[np.float64], count: int, longest: int) -> list[int]:
    """Where stretches end: how many operators have run by then, rising, the last one all.

    So many take about the same time by the profiler, but for the longest operators, which are cut out of them.
    """
    share = np.cumsum(shown_us) / shown_us.sum()
    equal = np.searchsorted(share, np.arange(1, count) / count) + 1
    alone = np.argsort(-shown_us, kind="stable")[:longest]
    stops = {int(stop) for stop in (*equal, *alone, *(alone + 1))}
    return sorted({stop for stop in stops if 0 < stop < len(shown_us)} | {len(shown_us)})


def _shared_out(
    stretches_us: NDArray[np.float64], stops: Sequence[int], shown_us: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The time of each stretch over its operators, by what the profiler says beyond the least that it says of any."""
    own_us = np.maximum(_LEAST_US, shown_us - shown_us.min())
    parts = np.split(own_us, stops[:-1])
    shares = [time_us * part / part.sum() for time_us, part in zip(stretches_us, parts, strict=True)]
    return np.concatenate(shares, dtype=np.float64)


def _operators(
    run: _Run, executed: OnnxContent, nodes: Sequence[int], times_us: NDArray[np.float64]
) -> tuple[Operator, ...]:
    """Operators in the order in which they run, with their tensors' names from the executed graph."""
    states = {name: "state" for name in (*executed.inputs, *executed.outputs) if _is_state(name)}
    kinds = cast(dict[str, Kind], states)
    operators = []
    for event, number, time_us in zip(run, nodes, times_us, strict=True):
        node = executed.nodes[number]
        inputs = _inputs(event.inputs, node.inputs, executed.initializers, kinds)
        outputs = _outputs(event.outputs, node.outputs, kinds)
        if event.op_type in VIEWS and inputs:
            outputs = tuple(replace(tensor, kind=inputs[0].kind) for tensor in outputs)
            kinds |= {tensor.name: tensor.kind for tensor in outputs}
        operators.append(Operator(event.name, event.op_type, inputs, outputs, float(time_us)))
    return tuple(operators)


def _inputs(
    described: Sequence[Described],
    names: Sequence[str],
    constants: Mapping[str, Initializer],
    kinds: Mapping[str, Kind],
) -> tuple[Tensor, ...]:
    """Constants are taken from the graph: of those that the runtime has packed the profiler knows nothing."""
    left = list(described)
    tensors = []
    for i, name in enumerate(names):
        constant = constants.get(name)
        if constant is not None:
            tensors.append(Tensor(name, constant.dtype, constant.shape, "weight"))
            variables = sum(other not in constants and other != "" for other in names[i + 1 :])
            if len(left) > variables and left[0][1] == constant.shape:
                left.pop(0)
        elif name and left:
            tensors.append(Tensor(name, *left.pop(0), kinds.get(name, "activation")))
    return tuple(tensors)


def _outputs(described: Sequence[Described], names: Sequence[str], kinds: Mapping[str, Kind]) -> tuple[Tensor, ...]:
    given = [name for name in names if name]
    return tuple(Tensor(name, *one, kinds.get(name, "activation")) for one, name in zip(described, given, strict=False))


def _is_state(name: str) -> bool:
    return name.startswith(("state.", "next_state."))
