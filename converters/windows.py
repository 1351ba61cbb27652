"""Caches that the graph reads as windows on rows of time, and of which it gives the new rows alone.

As torch has it, a step gives a cache whole again: the old rows, less the first, and the new ones behind them. That
copies a megabyte a chunk. Here `next_state.x` is made of the new rows only. Whoever runs the graph puts them behind
those that `state.x` was read from, and moves the window on (`edgeasr.backends.windows`).
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import onnx_ir

from edgeasr.backends.windows import METADATA

_STATE, _NEXT = "state.", "next_state."


class _Window(NamedTuple):
    """A cache: what is read, the new rows, and how axes in the order of time become those of the signature."""

    past: Any
    new: Any
    order: list[int]


def open_windows(model: onnx_ir.Model) -> None:
    """Change the inputs and outputs of all caches, and note in the model how their axes are ordered for others."""
    graph, orders = model.graph, {}
    given = {value.name: value for value in graph.inputs}
    for i, output in enumerate(graph.outputs):
        name = str(output.name).removeprefix(_NEXT)
        window = _window(output, given.get(_STATE + name))
        if window is None:
            continue
        _read_in_rows(given[_STATE + name], window)
        output.name = f"{name}.whole"
        window.new.name = _NEXT + name
        graph.outputs[i] = window.new
        orders[name] = window.order
    if orders:
        model.metadata_props[METADATA] = json.dumps(orders)


def _window(output: Any, given: Any) -> _Window | None:
    """What a cache consists of, where its next value is the end of the old one and of new rows."""
    kept, order = _untransposed(output)
    slicing = kept.producer()
    if given is None or slicing is None or slicing.op_type != "Slice":
        return None
    joined = slicing.inputs[0].producer()
    if joined is None or joined.op_type != "Concat" or len(joined.inputs) != 2:
        return None
    past, new = joined.inputs
    source = past.producer().inputs[0] if _is_transposition(past, np.argsort(order)) else past
    axis = joined.attributes["axis"].as_int()
    sole = source is given and len(given.uses()) == 1 and new.producer() is not None and not new.is_graph_output()
    if not (sole and _keeps_the_last(slicing, axis, past.shape, new.shape)):
        return None
    return _Window(past, new, order)


def _untransposed(value: Any) -> tuple[Any, list[int]]:
    """What a value is made of by reordering axes, and in which order they then are."""
    node = value.producer()
    if node is not None and node.op_type == "Transpose":
        return node.inputs[0], list(node.attributes["perm"].as_ints())
    return value, list(range(len(value.shape)))


def _is_transposition(value: Any, order: Any) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Transpose" and list(node.attributes["perm"].as_ints()) == list(order)


def _keeps_the_last(slicing: Any, axis: int, past: Any, new: Any) -> bool:
    """Whether as many rows are kept as there were, up to the newest; rows must lie one behind the other."""
    first, last, axes, steps = (value.const_value.numpy().tolist() for value in slicing.inputs[1:])
    before, added = int(past[axis]), int(new[axis])
    from_there = first[0] in (-before, added) and last[0] >= before + added
    return added < before and from_there and axes == [axis] and steps == [1] and all(size == 1 for size in past[:axis])


def _read_in_rows(given: Any, window: _Window) -> None:
    if window.past is not given:
        given.shape = window.past.shape
        window.past.replace_all_uses_with(given)
