"""What each operator of a graph reads, writes, multiplies and takes, from ONNX Runtime's own profiler.

The profiler describes each operator's tensors while its clock runs. That takes longer than most of our operators do, so
what it costs is measured and taken off: operators that only rename memory take next to no time, and whatever the
profiler says that they take, beyond what such an operator takes without it, is the profiler's own. Nothing is scaled to
make the sum come out: the step's time is measured apart, without the profiler, and the two are compared.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeasr.backends.onnxruntime import OnnxGraph
from edgeasr.errors import BundleError
from edgeasr.profile import onnx_writer
from edgeasr.profile.onnx_reader import Initializer, OnnxContent, read_onnx, with_names
from edgeasr.profile.work import VIEWS, Kind, OperatorWork, Tensor, operator_work

Array = NDArray[np.generic]
Described = tuple[str, tuple[int, ...]]  # a tensor in the profiler's words: type and shape

WARM_UP = 3
# Other programs only ever make a run longer, so the calmest are believed: of the runs with the profiler this share, and
# of the more runs without it a smaller one.
CALM_RUNS, CALM_TIMES = 0.25, 0.1
# An operator that takes so many times its median was interrupted by another program.
_INTERRUPTED = 2.0
_EVENT_SUFFIX = "_kernel_time"
_CHAIN_LENGTH, _CHAIN_RUNS = 200, 50
_FEW_VIEWS = 5


@dataclass(frozen=True)
class Operator:
    """An operator as the runtime runs it, after its own fusions. time_us: a step, less what profiling costs"""

    name: str
    op_type: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    time_us: float

    @cached_property
    def work(self) -> OperatorWork:
        """Bytes and multiply-adds."""
        return operator_work(self.op_type, self.inputs, self.outputs)


@dataclass(frozen=True)
class GraphProfile:
    """A graph on this machine.

    step_us:      time of a run without the profiler, in the same minutes
    profiler_us:  what the profiler added to each operator, taken off from all
    weight_bytes: of all constants of the file, as its table of them says
    """

    operators: tuple[Operator, ...]
    step_us: float
    profiler_us: float
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

    sessions: of the runtime with its profiler, which keeps all it hears in memory until the end of a session
    profiled: runs in each
    timed:    runs without the profiler between every two of these
    """

    sessions: int = 4
    profiled: int = 12
    timed: int = 4


QUICK = Effort(sessions=2, profiled=8, timed=3)


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
    runs: list[_Run] = []
    times_us: list[float] = []
    plain = _session(model, threads)
    executed = content

    def timed() -> list[float]:
        plain.run(None, feed)  # what the profiler keeps has driven the weights out of the caches
        return _timed_us(plain, feed, effort.timed)

    for _ in range(effort.sessions):
        measured, executed = _profiled(model, feed, threads, effort.profiled, lambda: times_us.extend(timed()))
        runs += measured
    calm = _calm_runs(runs)
    cost_us = _profiler_us(calm, threads, effort)
    operators = _operators(calm, executed, cost_us)
    outputs = {tensor.name: tensor for operator in operators for tensor in operator.outputs}
    written = sum(outputs[name].size_bytes for name in content.outputs if name in outputs and _is_state(name))
    return GraphProfile(
        operators,
        step_us=_calm_mean(times_us),
        profiler_us=cost_us,
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


def _session(model: bytes, threads: int, profile_folder: Path | None = None) -> Any:
    """As edgeasr.backends.onnxruntime makes it; with a folder, profiled, and the graph that is run saved there."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if profile_folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_folder / "profile")
        options.optimized_model_filepath = str(profile_folder / "executed.onnx")
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"ONNX Runtime cannot load the model ({error}): export the bundle again") from error


def _profiled(
    model: bytes, feed: Mapping[str, Array], threads: int, count: int, between: Callable[[], None] | None = None
) -> tuple[list[_Run], OnnxContent]:
    """Runs under the profiler, and the graph that was run; the profiler's file is read and deleted.

    between: called after each run, so that what it measures meets the same disturbances
    """
    with tempfile.TemporaryDirectory(prefix="edgeasr-profile-") as folder:
        session = _session(model, threads, Path(folder))
        for _ in range(WARM_UP + count):
            session.run(None, feed)
            if between:
                between()
        events = json.loads(Path(session.end_profiling()).read_bytes())
        executed = read_onnx(Path(folder, "executed.onnx"))
    return _runs(events)[WARM_UP:], executed


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


def _calm_runs(runs: Sequence[_Run]) -> list[_Run]:
    """Those that took least in all; operators that were interrupted count as what they usually take."""
    durations = np.array([[event.duration_us for event in run] for run in runs])
    usual = np.median(durations, axis=0)
    durations = np.where(durations > _INTERRUPTED * usual, usual, durations)
    calm = np.argsort(durations.sum(axis=1), kind="stable")[: max(1, round(CALM_RUNS * len(runs)))]
    return [
        [replace(event, duration_us=float(took)) for event, took in zip(runs[i], durations[i], strict=True)]
        for i in calm
    ]


def _calm_mean(times_us: Sequence[float]) -> float:
    return float(np.mean(sorted(times_us)[: max(1, round(CALM_TIMES * len(times_us)))]))


def _middle_mean(times_us: Sequence[float]) -> float:
    """Of the middle half: one would be a median, if the profiler's clock had more than whole microseconds."""
    ordered = sorted(times_us)
    quarter = len(ordered) // 4
    return float(np.mean(ordered[quarter : len(ordered) - quarter]))


def _timed_us(session: Any, feed: Mapping[str, Array], count: int) -> list[float]:
    marks = [time.perf_counter()]
    for _ in range(count):
        session.run(None, feed)
        marks.append(time.perf_counter())
    return [(after - before) * 1e6 for before, after in pairwise(marks)]


def _profiler_us(calm: Sequence[_Run], threads: int, effort: Effort) -> float:
    """What the profiler adds to an operator: to those of this graph that do nothing, or, where it has few such, of a
    chain of negations.
    """
    chain = chain_of_negations(_CHAIN_LENGTH)
    feed = {"x": np.zeros(1, np.float32)}
    nothing_us = _calm_mean(_timed_us(_session(chain, threads), feed, _CHAIN_RUNS)) / _CHAIN_LENGTH
    shown = [event.duration_us for run in calm for event in run if event.op_type in VIEWS]
    if len(shown) < _FEW_VIEWS * len(calm):
        runs, _ = _profiled(chain, feed, threads, effort.profiled)
        shown = [event.duration_us for run in _calm_runs(runs) for event in run]
    # Views of the graph's inputs and outputs are copies: those are not in the middle half.
    return max(0.0, _middle_mean(shown) - nothing_us)


def chain_of_negations(length: int) -> bytes:
    """A graph of operators of almost no work, one after the other, which the runtime cannot drop."""
    names = ["x", *(f"x{i}" for i in range(1, length)), "y"]
    nodes = [onnx_writer.Node("Neg", [before], [after]) for before, after in pairwise(names)]
    return onnx_writer.serialised(nodes, [onnx_writer.Value("x", [1])], [onnx_writer.Value("y", [1])], {})


def _operators(calm: Sequence[_Run], executed: OnnxContent, cost_us: float) -> tuple[Operator, ...]:
    """Operators in the order in which they run, with their tensors' names from the executed graph."""
    nodes = {node.name: node for node in executed.nodes}
    states = {name: "state" for name in (*executed.inputs, *executed.outputs) if _is_state(name)}
    kinds = cast(dict[str, Kind], states)
    operators = []
    for i, event in enumerate(calm[0]):
        time_us = _middle_mean([run[i].duration_us for run in calm]) - cost_us
        node = nodes[event.name]
        inputs = _inputs(event.inputs, node.inputs, executed.initializers, kinds)
        outputs = _outputs(event.outputs, node.outputs, kinds)
        if event.op_type in VIEWS and inputs:
            outputs = tuple(replace(tensor, kind=inputs[0].kind) for tensor in outputs)
            kinds |= {tensor.name: tensor.kind for tensor in outputs}
        operators.append(Operator(event.name, event.op_type, inputs, outputs, time_us))
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
