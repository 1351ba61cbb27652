"""Small ONNX graphs without the package `onnx`, which boards do not install: protobuf's wire format, a few fields.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

OPSET = 18
_IR_VERSION = 8

_ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}
_FLOAT, _INT, _INTS = 1, 2, 7  # AttributeProto.AttributeType


@dataclass(frozen=True)
class Node:
    """An operator. attributes: a float, an int or several ints each"""

    op_type: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, float | int | Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """An input or output of the graph."""

    name: str
    shape: Sequence[int]
    dtype: str = "float32"


def serialised(
    nodes: Iterable[Node],
    inputs: Iterable[Value],
    outputs: Iterable[Value],
    initializers: Mapping[str, NDArray[np.generic]],
) -> bytes:
    """The graph as a model of opset 18, for ONNX Runtime to load."""
    graph = b"".join(_message(1, _node(node)) for node in nodes)
    graph += _text(2, "graph")
    graph += b"".join(_message(5, _tensor(name, array)) for name, array in initializers.items())
    graph += b"".join(_message(11, _value(value)) for value in inputs)
    graph += b"".join(_message(12, _value(value)) for value in outputs)
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, _text(1, "") + _number(2, OPSET))


def _node(node: Node) -> bytes:
    parts = [_text(1, name) for name in node.inputs] + [_text(2, name) for name in node.outputs]
    parts += [_text(4, node.op_type), *(_message(5, _attribute(*item)) for item in node.attributes.items())]
    return b"".join(parts)


def _attribute(name: str, value: float | int | Sequence[int]) -> bytes:
    if isinstance(value, float):
        return _text(1, name) + _key(2, 5) + struct.pack("<f", value) + _number(20, _FLOAT)
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, _INT)
    return _text(1, name) + b"".join(_number(8, item) for item in value) + _number(20, _INTS)


def _tensor(name: str, array: NDArray[np.generic]) -> bytes:
    sizes = b"".join(_number(1, size) for size in array.shape)
    return sizes + _number(2, _ELEMENT_TYPES[array.dtype.name]) + _text(8, name) + _message(9, array.tobytes())


def _value(value: Value) -> bytes:
    shape = b"".join(_message(1, _number(1, size)) for size in value.shape)
    tensor_type = _number(1, _ELEMENT_TYPES[value.dtype]) + _message(2, shape)
    return _text(1, value.name) + _message(2, _message(1, tensor_type))


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _number(number: int, value: int) -> bytes:
    return _key(number, 0) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _key(number, 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
