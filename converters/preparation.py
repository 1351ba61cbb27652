"""What a step makes of its memory alone, set apart: it is the same until the memory changes, once in many steps.

The banks' keys and values, the slot that is always there in front of them, and their log-counts are a graph of their
own inside the file. The step reads what it gives (`edgeasr.backends.preparation` runs it, and keeps that).
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import onnx
from onnx import helper

from edgeasr.backends.preparation import METADATA, PREPARED

_SELDOM = "state.bank."


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
    first = _graph("preparation", early, banks, values, graph.initializer)
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
