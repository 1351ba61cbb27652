"""What an ONNX file holds, without the package `onnx`: ONNX Runtime brings protobuf, and a few of the fields do.

The messages are those of onnx.proto3, with their numbers; fields that are not listed here are carried along unread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from numpy.typing import NDArray

from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import BundleError

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "float": _FIELD.TYPE_FLOAT,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
# Message, then field: (number, type), "*" for a repeated one.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {"graph": (7, "Graph"), "opset_import": (8, "*Opset"), "metadata_props": (14, "*Entry")},
    "Opset": {"domain": (1, "string"), "version": (2, "int64")},
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "Graph": {"node": (1, "*Node"), "initializer": (5, "*Tensor"), "input": (11, "*Value"), "output": (12, "*Value")},
    "Node": {
        "input": (1, "*string"),
        "output": (2, "*string"),
        "name": (3, "string"),
        "op_type": (4, "string"),
        "attribute": (5, "*Attribute"),
        "domain": (7, "string"),
    },
    "Attribute": {
        "name": (1, "string"),
        "f": (2, "float"),
        "i": (3, "int64"),
        "s": (4, "bytes"),
        "floats": (7, "*float"),
        "ints": (8, "*int64"),
        "type": (20, "int32"),
    },
    "Tensor": {
        "dims": (1, "*int64"),
        "data_type": (2, "int32"),
        "float_data": (4, "*float"),
        "int32_data": (5, "*int32"),
        "int64_data": (7, "*int64"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
    },
    "Value": {"name": (1, "string"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, "int32"), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "*Dimension")},
    "Dimension": {"dim_value": (1, "int64"), "dim_param": (2, "string")},
}
# Numbers of AttributeProto.AttributeType, and the field that holds the value; others are not read.
_ATTRIBUTES = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints"}
# Numbers of TensorProto.DataType: the type as numpy names it, and the bits of an element.
_DTYPES = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    16: ("bfloat16", 16),
    21: ("uint4", 4),
    22: ("int4", 4),
}


@dataclass(frozen=True)
class Initializer:
    """A constant of a graph."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class GraphNode:
    """An operator and the names of what it reads and writes, "" for an input that is left out.

    attributes: numbers, strings as bytes, tuples; None for what is not read here
    domain:     of its type, "" for the standard's own
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict, compare=False)
    domain: str = ""


@dataclass(frozen=True)
class OnnxContent:
    """A graph. inputs, outputs: names of what the whole graph reads and gives; specs: their sizes and types; metadata:
    what the file says besides; opsets: versions of operators, by domain
    """

    nodes: tuple[GraphNode, ...]
    initializers: Mapping[str, Initializer]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    specs: Mapping[str, TensorSpec]
    metadata: Mapping[str, str] = field(default_factory=dict)
    opsets: Mapping[str, int] = field(default_factory=dict)

    @property
    def weight_bytes(self) -> int:
        """Of all constants, weights or not."""
        return sum(one.size_bytes for one in self.initializers.values())


def read_onnx(model: Path | bytes) -> OnnxContent:
    """Read a model. errors: BundleError for what is none"""
    name = "the model" if isinstance(model, bytes) else str(model)
    return _content(_parsed(model, name), name)


def _content(parsed: Any, name: str) -> OnnxContent:
    graph = parsed.graph
    return OnnxContent(
        tuple(map(_node, graph.node)),
        {tensor.name: _initializer(tensor, name) for tensor in graph.initializer},
        tuple(value.name for value in graph.input),
        tuple(value.name for value in graph.output),
        {value.name: _spec(value) for value in (*graph.input, *graph.output)},
        {entry.key: entry.value for entry in parsed.metadata_props},
        {opset.domain: opset.version for opset in parsed.opset_import},
    )


class OnnxModel(NamedTuple):
    """A graph, and what its constants hold, by their names."""

    content: OnnxContent
    constants: Mapping[str, NDArray[Any]]


def read_model(model: Path | bytes) -> OnnxModel:
    """Read a model with its constants. errors: BundleError for what is none, or damaged"""
    name = "the model" if isinstance(model, bytes) else str(model)
    parsed = _parsed(model, name)
    held = {tensor.name: _array(tensor, name) for tensor in parsed.graph.initializer}
    return OnnxModel(_content(parsed, name), held)


def with_names(model: Path | bytes) -> bytes:
    """The same model, with a name of its own for each operator: profilers tell operators by their names."""
    parsed = _parsed(model, "the model")
    taken = {node.name for node in parsed.graph.node}
    for i, node in enumerate(parsed.graph.node):
        if not node.name:
            node.name = next(name for n in count(i) if (name := f"{node.op_type}_{n}") not in taken)
            taken.add(node.name)
    content: bytes = parsed.SerializeToString()
    return content


def up_to(model: bytes, numbers: Sequence[int]) -> bytes:
    """The graph of some of its operators, which read nothing of others; what the last one makes is an output, too.

    numbers: of the operators in the file, in the order in which the new one has them
    """
    parsed = _parsed(model, "the model")
    graph = parsed.graph
    nodes = [graph.node[number] for number in numbers]
    read, made = {name for node in nodes for name in node.input}, {name for node in nodes for name in node.output}
    del graph.node[:]
    graph.node.extend(nodes)
    for values, named in ((graph.initializer, read), (graph.input, read), (graph.output, made)):
        kept = [value for value in values if value.name in named]
        del values[:]
        values.extend(kept)
    given = {value.name for value in graph.output}
    for name in nodes[-1].output:
        if name and name not in given:
            graph.output.add(name=name)
    content: bytes = parsed.SerializeToString()
    return content


def _parsed(model: Path | bytes, name: str) -> Any:
    parsed = _message_classes()["Model"]()
    try:
        parsed.ParseFromString(model if isinstance(model, bytes) else model.read_bytes())
    except message.DecodeError as error:
        raise BundleError(f"got {name}, wanted an ONNX model ({error}): export the bundle again") from error
    if not parsed.graph.node:
        raise BundleError(f"got {name} without operators, wanted an ONNX model: export the bundle again")
    return parsed


def _node(node: Any) -> GraphNode:
    attributes: dict[str, Any] = {}
    for one in node.attribute:
        held = _ATTRIBUTES.get(one.type)
        value: Any = None if held is None else getattr(one, held)
        attributes[one.name] = tuple(value) if held in ("floats", "ints") else value
    return GraphNode(node.name, node.op_type, tuple(node.input), tuple(node.output), attributes, node.domain)


def _array(tensor: Any, name: str) -> NDArray[Any]:
    spec = _initializer(tensor, name)
    try:
        if tensor.raw_data or not spec.size_bytes:
            return np.frombuffer(tensor.raw_data, spec.dtype).reshape(spec.shape)
        # Small ones may lie in lists; 8 and 32 bits share one.
        given = tensor.float_data or tensor.int64_data or tensor.int32_data
        return np.array(given, spec.dtype).reshape(spec.shape)
    except (TypeError, ValueError) as error:
        raise BundleError(f"constant {tensor.name} of {name} is damaged ({error}): export the bundle again") from error


def _spec(value: Any) -> TensorSpec:
    """Sizes that vary are names, as ONNX Runtime has them; a type that is not listed here is its number."""
    tensor = value.type.tensor_type
    dtype, _ = _DTYPES.get(tensor.elem_type, (str(tensor.elem_type), 0))
    return TensorSpec(tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim), dtype)


def _initializer(tensor: Any, name: str) -> Initializer:
    if tensor.data_type not in _DTYPES:
        known = ", ".join(dtype for dtype, _ in _DTYPES.values())
        raise BundleError(f"got a constant of ONNX type {tensor.data_type} in {name}, wanted {known}: export again")
    dtype, bits = _DTYPES[tensor.data_type]
    shape = tuple(tensor.dims)
    return Initializer(tensor.name, dtype, shape, math.ceil(math.prod(shape) * bits / 8))


@cache
def _message_classes() -> dict[str, Any]:
    """In a pool of their own, since the package `onnx` may be loaded beside them."""
    file = descriptor_pb2.FileDescriptorProto(name="edgeasr_onnx.proto", package="edgeasr", syntax="proto3")
    for message_name, fields in _MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for name, (number, kind) in fields.items():
            label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
            entry = described.field.add(name=name, number=number, label=label)
            of = kind.removeprefix("*")
            entry.type = _SCALARS.get(of, _FIELD.TYPE_MESSAGE)
            if of not in _SCALARS:
                entry.type_name = f".edgeasr.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"edgeasr.{n}")) for n in _MESSAGES}
