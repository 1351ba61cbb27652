"""What a step makes of its memory alone, set apart: it is the same until the memory changes, once in many steps.

The banks' keys and values, the slot that is always there in front of them, and their log-counts are a graph of their
own inside the file. The step reads what it gives (`edgeasr.backends.preparation` runs it, and keeps that).

Banks fill from their first slot on, in minutes. What holds nothing yet is left out: no query sees it, so a step that
does not read it gives the same. How many slots are left is the one size in the file that varies.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeasr.backends.preparation import METADATA, PREPARED

_SELDOM = "state.bank."
_HELD = "held_slots"
# Slots that come and go together: sums over them are then made in the same order, however many there are.
_TOGETHER = 16
_READER = "MultiHeadAttention"
_KEY, _VALUE, _BIAS = 1, 2, 5  # its inputs
_SLOTS_AXIS = {_KEY: 2, _VALUE: 2, _BIAS: 3}


def set_apart(model: bytes) -> bytes:
    """The same graph, reading what is made of the banks instead of them; as it is where nothing is made of them alone.

    model: nodes in the order in which they can run, shapes inferred
    """
    whole = onnx.load_from_string(model)
    graph = whole.graph
    early, late = _made_of_banks(graph)
    given = {value.name for value in graph.output}
    read = _inputs(late)
    made = [name for name in _outputs(early) if name in read and name not in given]
    if not made:
        return model
    shapes = {value.name: value for value in graph.value_info}
    names = {name: f"{PREPARED}{i}" for i, name in enumerate(made)}
    values = [_named(shapes[name], new) for name, new in names.items()]
    _rename([*early, *late], names)
    banks = [value for value in graph.input if value.name in _inputs(early)]
    leaving_out, constants = _leave_out_what_is_empty(early, _slots_axes(late, values), values)
    first = _graph("preparation", [*early, *leaving_out], banks, values, [*graph.initializer, *constants])
    prepared = helper.make_model(first, opset_imports=whole.opset_import, ir_version=whole.ir_version)
    inputs = list(graph.input)
    at = inputs.index(banks[0])
    inputs[at:at] = values
    kept = [value for value in inputs if value.name in _inputs(late) or not value.name.startswith(_SELDOM)]
    rest = _graph(graph.name, late, kept, list(graph.output), graph.initializer)
    known = _outputs(late)
    rest.value_info.extend(value for value in graph.value_info if value.name in known)
    graph.CopyFrom(rest)
    entry = whole.metadata_props.add()
    entry.key, entry.value = METADATA, base64.b64encode(prepared.SerializeToString()).decode()
    serialised: bytes = whole.SerializeToString()
    return serialised


def _made_of_banks(graph: Any) -> tuple[list[Any], list[Any]]:
    """Nodes that read nothing that changes but the banks, and the others."""
    constants = {tensor.name for tensor in graph.initializer}
    known = {value.name for value in graph.input if value.name.startswith(_SELDOM)}
    early, late = [], []
    for node in graph.node:
        read = {name for name in node.input if name and name not in constants}
        if read and read <= known:
            early.append(node)
            known |= set(node.output)
        else:
            late.append(node)
    return early, late


def _slots_axes(nodes: Iterable[Any], made: Sequence[Any]) -> Mapping[str, tuple[int, str]]:
    """What is made for reads of the memory alone: the axis of its slots, and what is added to the scores of these."""
    names = {value.name for value in made}
    found: dict[str, tuple[int, str]] = {}
    for node in nodes:
        read = dict(enumerate(node.input))
        if node.op_type == _READER and all(read.get(number) in names for number in _SLOTS_AXIS):
            found |= {read[number]: (axis, read[_BIAS]) for number, axis in _SLOTS_AXIS.items()}
        else:
            names -= set(node.input)
    return {name: place for name, place in found.items() if name in names and place[1] in names}


def _leave_out_what_is_empty(
    nodes: Sequence[Any], axes: Mapping[str, tuple[int, str]], made: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Nodes, and their constants, that keep slots up to the last that some query sees. made: whose sizes vary then"""
    biases = {value.name: value for value in made if value.name in {bias for _, bias in axes.values()}}
    _rename(nodes, {name: f"{name}.whole" for name in axes})
    leaving_out, constants = [], []
    for bias, value in biases.items():
        slots = value.type.tensor_type.shape.dim[_SLOTS_AXIS[_BIAS]].dim_value
        first, last, more = _last_seen(bias, slots)
        leaving_out += first
        constants += more
        for name, (axis, of) in axes.items():
            if of == bias:
                constants.append(numpy_helper.from_array(np.array([axis]), f"{name}.axis"))
                inputs = [f"{name}.whole", more[0].name, last, f"{name}.axis"]
                leaving_out.append(helper.make_node("Slice", inputs, [name]))
    for value in made:
        if value.name in axes:
            value.type.tensor_type.shape.dim[axes[value.name][0]].dim_param = _HELD
    return leaving_out, constants


def _last_seen(bias: str, slots: int) -> tuple[list[Any], str, list[Any]]:
    """How many slots there are up to the last that some query sees, in whole groups: nodes, its name, constants."""
    values = {
        "zero": np.array([0]),
        "none": np.array(-np.inf, np.float32),
        "but_slots": np.arange(_SLOTS_AXIS[_BIAS]),
        "numbers": np.arange(slots) // _TOGETHER * _TOGETHER + _TOGETHER,
    }
    constants = [numpy_helper.from_array(array, f"{bias}.{name}") for name, array in values.items()]
    zero, none, but_slots, numbers = (constant.name for constant in constants)
    most, seen, ends, last = (f"{bias}.{name}" for name in ("most", "seen", "ends", "last"))
    nodes = [
        helper.make_node("ReduceMax", [f"{bias}.whole", but_slots], [most], keepdims=0),
        helper.make_node("Greater", [most, none], [seen]),
        helper.make_node("Where", [seen, numbers, zero], [ends]),
        helper.make_node("ReduceMax", [ends], [last]),
    ]
    return nodes, last, constants


def _graph(name: str, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Any) -> Any:
    used = _inputs(nodes)
    return helper.make_graph(nodes, name, inputs, outputs, [one for one in constants if one.name in used])


def _inputs(nodes: Iterable[Any]) -> Collection[str]:
    return {name for node in nodes for name in node.input}


def _outputs(nodes: Iterable[Any]) -> Collection[str]:
    return dict.fromkeys(name for node in nodes for name in node.output)


def _named(value: Any, name: str) -> Any:
    other = onnx.ValueInfoProto()
    other.CopyFrom(value)
    other.name = name
    return other


def _rename(nodes: Iterable[Any], names: dict[str, str]) -> None:
    for node in nodes:
        for listed in (node.input, node.output):
            renamed = [names.get(name, name) for name in listed]
            del listed[:]
            listed.extend(renamed)
