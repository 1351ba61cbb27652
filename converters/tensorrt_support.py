"""Whether TensorRT can build an engine of an ONNX graph, as far as its parser's published tables say.

The tables (`tensorrt_operators.toml`) name operators and types. What they cannot say, such as which kernels a GPU
has, only the build on the device finds out.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeasr.errors import BundleError

_INT32 = np.iinfo(np.int32)
_TYPES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.BOOL: "BOOL",
}
_SHOWN = 4


@dataclass(frozen=True)
class Support:
    """What one release of TensorRT supports.

    operators:       name -> types that it may be given
    constant_inputs: name -> places of inputs that must be constants
    narrows_int64:   whether whole numbers are computed in 32 bits, whatever their type
    int8:            whether the GPUs that it is used on here can compute in int8
    """

    version: str
    documented: str
    source: str
    opsets: tuple[int, int]
    operators: Mapping[str, frozenset[str]]
    constant_inputs: Mapping[str, tuple[int, ...]]
    narrows_int64: bool
    int8: bool
    convolutions: tuple[int, ...]  # over so many dimensions


@dataclass(frozen=True, order=True)
class Unsupported:
    """Something in a graph that TensorRT does not take, and what to do."""

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what} ({self.advice})"


@cache
def tensorrt_support() -> Mapping[str, Support]:
    """The releases that are known, by version."""
    text = resources.files("edgeasr.converters").joinpath("tensorrt_operators.toml").read_text(encoding="utf-8")
    return {version: _support(version, table) for version, table in tomllib.loads(text).items()}


def require_supported(model: bytes, name: str, tensorrt: str) -> None:
    """errors: BundleError, in one line, that names what this release of TensorRT does not take of the graph"""
    found = Counter(unsupported(model, tensorrt))
    if not found:
        return
    lines = [f"{one}{f', {count} times' if count > 1 else ''}" for one, count in found.most_common()]
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    raise BundleError(
        f"TensorRT {tensorrt} cannot build the {name} graph: {'; '.join(lines[:_SHOWN])}{more}. "
        f"Known from {tensorrt_support()[tensorrt].source}"
    )


def unsupported(model: bytes, tensorrt: str) -> list[Unsupported]:
    """All that this release of TensorRT does not take, an entry an occurrence, in the order of the graph.

    errors: BundleError for a release that is not known
    """
    known = tensorrt_support()
    if tensorrt not in known:
        raise BundleError(f"got TensorRT {tensorrt}, wanted {' or '.join(known)}: choose that of the board's JetPack")
    return list(_Check(onnx.load_from_string(model), known[tensorrt]).run())


class _Check:
    def __init__(self, model: onnx.ModelProto, support: Support) -> None:
        self._model, self._support = model, support
        graph = onnx.shape_inference.infer_shapes(model).graph
        self._values = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.input)}
        self._values |= {value.name: value.type.tensor_type for value in graph.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        constant_nodes = (node for node in graph.node if node.op_type == "Constant")
        self._constant_names = self._constants.keys() | {name for node in constant_nodes for name in node.output}

    def run(self) -> Iterator[Unsupported]:
        yield from self._opsets()
        yield from self._inputs()
        for node in self._model.graph.node:
            yield from self._node(node)
        if self._support.narrows_int64:
            yield from self._wide_constants()

    def _opsets(self) -> Iterator[Unsupported]:
        low, high = self._support.opsets
        for opset in self._model.opset_import:
            if opset.domain == "" and not low <= opset.version <= high:
                yield Unsupported(f"opset {opset.version}", f"wanted {low} to {high}: export for this release")

    def _inputs(self) -> Iterator[Unsupported]:
        for value in self._model.graph.input:
            if not all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim):
                yield Unsupported(f"a size of {value.name} that varies", "export with fixed shapes")

    def _node(self, node: onnx.NodeProto) -> Iterator[Unsupported]:
        if node.domain not in ("", "ai.onnx"):
            yield Unsupported(f"{node.domain}.{node.op_type}", "of one runtime alone: take the graph before fusion")
            return
        types = self._support.operators.get(node.op_type)
        if types is None:
            yield Unsupported(
                node.op_type, "no such operator: export for this release, or rewrite the graph without it"
            )
            return
        yield from self._types(node, types)
        for place in self._support.constant_inputs.get(node.op_type, ()):
            if place < len(node.input) and node.input[place] not in self._constant_names | {""}:
                yield Unsupported(f"{node.op_type} with a computed input {place}", "make it a constant")
        if node.op_type in ("Conv", "ConvTranspose"):
            yield from self._convolution(node)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from self._zero_point(node)
        if node.op_type == "LayerNormalization" and len(node.output) > 1:
            yield Unsupported("LayerNormalization with more than one output", "take only the first")

    def _types(self, node: onnx.NodeProto, types: Collection[str]) -> Iterator[Unsupported]:
        """Of what is computed on; conditions and indices are of types of their own."""
        place = 1 if node.op_type == "Where" else 0
        names = [node.input[place]] if len(node.input) > place else []
        for name in [*names, *(node.output if node.op_type == "Cast" else ())]:
            found = self._type(name)
            if found and found not in types:
                yield Unsupported(f"{node.op_type} of {found}", f"wanted {', '.join(sorted(types))}: cast before it")

    def _type(self, name: str) -> str | None:
        """None where shape inference does not know it."""
        if name in self._constants:
            number = self._constants[name].data_type
        elif name in self._values:
            number = self._values[name].elem_type
        else:
            return None
        found = _TYPES.get(number, TensorProto.DataType.Name(number))
        return "INT32" if found == "INT64" and self._support.narrows_int64 else found

    def _convolution(self, node: onnx.NodeProto) -> Iterator[Unsupported]:
        weight = self._constants.get(node.input[1])
        if weight is not None and (dimensions := len(weight.dims) - 2) not in self._support.convolutions:
            wanted = " or ".join(map(str, self._support.convolutions))
            yield Unsupported(f"{node.op_type} over {dimensions} dimensions", f"wanted {wanted}: reshape to these")

    def _zero_point(self, node: onnx.NodeProto) -> Iterator[Unsupported]:
        if not self._support.int8:
            yield Unsupported(f"{node.op_type}", "the GPU of these boards has no int8: choose fp16 or fp32")
        if len(node.input) < 3:
            return
        tensor = self._constants.get(node.input[2])
        if tensor is None or np.any(numpy_helper.to_array(tensor)):
            yield Unsupported(f"{node.op_type} with a zero point other than 0", "quantise symmetrically")

    def _wide_constants(self) -> Iterator[Unsupported]:
        """The ends of slices are clamped, which changes nothing."""
        bounds = {name for node in self._model.graph.node if node.op_type == "Slice" for name in node.input[1:3]}
        for name, tensor in self._constants.items():
            if tensor.data_type == TensorProto.INT64 and name not in bounds:
                array = numpy_helper.to_array(tensor)
                if array.size and not _INT32.min <= array.min() <= array.max() <= _INT32.max:
                    yield Unsupported(f"the constant {name} of more than 32 bits", "export for this release")


def _support(version: str, table: Mapping[str, Any]) -> Support:
    operators = {
        name: frozenset(types.split()) for types, names in table["operators"].items() for name in names.split()
    }
    return Support(
        version=version,
        documented=table["documented"],
        source=table["source"],
        opsets=tuple(table["opsets"]),
        operators=operators,
        constant_inputs={name: tuple(places) for name, places in table["constant_inputs"].items()},
        narrows_int64=table["narrows_int64"],
        int8=table["int8"],
        convolutions=tuple(table["convolutions"]),
    )
