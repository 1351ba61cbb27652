"""The same of a graph in C of our own: what each instruction of its program reads, writes, multiplies and takes.

A clock is read between instructions, which costs some 20 ns each; nothing else is in the way, so each time is its own.
What calling a program from Python takes, 2 us, is no part of its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.native.graph import NativeGraph
from edgeasr.backends.native.program import CONSTANTS, Instruction, Plan
from edgeasr.backends.native.session import BoundProgram
from edgeasr.backends.native.tensors import View
from edgeasr.profile.operators import Effort, GraphProfile, Operator
from edgeasr.profile.stretches import CALM_TIMES, calm_mean
from edgeasr.profile.work import Kind, OperatorWork, Tensor

Array = NDArray[np.generic]

# What an instruction is called in a profile, where ONNX has a name for it.
_NAMES = {
    "linear": "DynamicQuantizeMatMul",
    "convolution": "Conv",
    "attention": "Attention",
    "layer_norm": "LayerNormalization",
    "product": "MatMul",
    "rotate": "RotaryEmbedding",
}
_TURNS = 4


def profile_native(
    model: Path | bytes, feed: Mapping[str, Array], threads: int = 1, effort: Effort | None = None
) -> GraphProfile:
    """Run a graph again and again, with and without a clock between its instructions.

    feed:   as for `profile_graph`
    errors: those of NativeGraph
    """
    effort = effort or Effort()
    graph = NativeGraph(model, threads)
    feed = graph.read_from(feed)
    bound, plan = BoundProgram(graph.session, feed), graph.session.plan
    whole_us: list[float] = []
    empty_us: list[float] = []
    timed = np.zeros((_TURNS, effort.timed, len(plan.instructions)), np.int64)
    for turn in timed:
        whole_us += bound.times_us(effort.timed)
        empty_us += bound.times_us(effort.timed, empty=True)
        for run in turn:
            bound.run(run)
    operators = _operators(graph, feed, _calm(timed.reshape(-1, timed.shape[-1])) / 1e3)
    written = sum(array.nbytes for name, array in bound.outputs.items() if _is_state(name))
    return GraphProfile(
        operators,
        step_us=calm_mean(whole_us) - calm_mean(empty_us),
        profiled_us=None,
        weight_bytes=plan.content.weight_bytes,
        state_read_bytes=sum(array.nbytes for name, array in feed.items() if _is_state(name)),
        state_written_bytes=written,
        threads=threads,
    )


def _calm(times_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each instruction over the runs that took least in all. times_ns: (runs, instructions)"""
    count = max(1, round(CALM_TIMES * len(times_ns)))
    calm = np.argsort(times_ns.sum(axis=1), kind="stable")[:count]
    mean: NDArray[np.float64] = times_ns[calm].mean(axis=0)
    return mean


def _operators(graph: NativeGraph, feed: Mapping[str, Array], times_us: NDArray[np.float64]) -> tuple[Operator, ...]:
    session = graph.session
    sizes = {
        session.plan.varying[which]: feed[name].shape[axis]
        for name, found in session.varying.items()
        for axis, which, _ in found
    }
    return tuple(
        _operator(session.plan, instruction, sizes, float(time_us))
        for instruction, time_us in zip(session.plan.instructions, times_us, strict=True)
    )


def _operator(plan: Plan, instruction: Instruction, sizes: Mapping[str, int], time_us: float) -> Operator:
    written, *read = (_tensor(plan, view, sizes) for view in instruction.tensors)
    moved: dict[Kind, int] = {"weight": 0, "state": 0, "activation": 0}
    for tensor in (written, *read):
        moved[tensor.kind] += tensor.size_bytes
    last = plan.content.nodes[max(instruction.nodes)]
    macs = instruction.macs * sizes.get(instruction.varying or "", 1)
    int8 = instruction.operator == "linear"
    work = OperatorWork(moved["weight"], moved["state"], moved["activation"], macs, int8)
    op_type = _NAMES.get(instruction.operator, instruction.operator.capitalize())
    return Operator(last.name or last.outputs[0], op_type, tuple(read), (written,), time_us, work)


def _tensor(plan: Plan, view: View, sizes: Mapping[str, int]) -> Tensor:
    """What is read or written through a view; elements that are read again and again count once."""
    shape = tuple(sizes[size] if isinstance(size, str) else size for size in view.shape)
    kind: Kind = "weight" if view.buffer.root == CONSTANTS else "activation"
    name = plan.name_of(view)
    if _is_state(name):
        kind = "state"
    repeated = all(isinstance(size, int) for size in view.shape)
    distinct = (size for size, stride in zip(shape, view.strides, strict=True) if stride or not repeated)
    return Tensor(name, view.dtype, tuple(distinct) if kind == "weight" else shape, kind)


def _is_state(name: str) -> bool:
    return name.startswith(("state.", "next_state."))
