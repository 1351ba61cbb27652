"""A graph of opset 18 in the operators of opset 13 and 32-bit numbers, for TensorRT 8.2, the last for the Jetson Nano.

TensorRT 8.2 knows neither LayerNormalization nor Mod, and computes whole numbers in 32 bits, whatever their type.
Everything else of the graph means the same in both opsets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeasr.errors import BundleError

OPSET = 13
_IR_VERSION = 7  # of the ONNX release that brought opset 13
_TURN_BITS = 31
_LIMB_BITS = 15  # a product of two limbs, and the sum of two such, fit 32 bits with a sign


def to_opset13(model: bytes) -> bytes:
    """The same graph for TensorRT 8.2.

    errors: BundleError for an operator that there is no equivalent for
    """
    rewriting = _Rewriting(onnx.load_from_string(model))
    rewritten = rewriting.run()
    onnx.checker.check_model(rewritten, full_check=True)
    return bytes(rewritten.SerializeToString())


class _Rewriting:
    """One pass over the nodes; what takes another form is made of new nodes in its place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._made_by = {name: node for node in model.graph.node for name in node.output}
        self._made: list[str] = []  # constants
        self._nodes: list[onnx.NodeProto] = []
        self._forms: dict[str, Callable[[onnx.NodeProto], None]] = {
            "LayerNormalization": self._layer_norm,
            "Mod": self._mod,
            "ReduceMax": self._reduce_max,
            "Reshape": self._reshape,
            "Split": self._split,
        }

    def run(self) -> onnx.ModelProto:
        graph = self._model.graph
        for node in graph.node:
            self._forms.get(node.op_type, self._nodes.append)(node)
        del graph.node[:]
        graph.node.extend(self._nodes)
        _drop_unread(graph)
        del graph.value_info[:]
        del self._model.opset_import[:]
        self._model.opset_import.append(helper.make_opsetid("", OPSET))
        self._model.ir_version = _IR_VERSION
        return self._model

    def _layer_norm(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node)
        x, scale, *bias = node.input
        if attributes.get("axis", -1) != -1 or len(node.output) != 1:
            raise BundleError(f"LayerNormalization {node.output[0]} is not over the last axis: export for TensorRT 10")
        epsilon = self._constant(np.float32(attributes.get("epsilon", 1e-5)))
        centred = self._add("Sub", [x, self._add("ReduceMean", [x], axes=[-1], keepdims=1)])
        variance = self._add("ReduceMean", [self._add("Mul", [centred, centred])], axes=[-1], keepdims=1)
        deviation = self._add("Sqrt", [self._add("Add", [variance, epsilon])])
        scaled = self._add("Div", [centred, deviation])
        if bias:
            self._add("Add", [self._add("Mul", [scaled, scale]), bias[0]], output=node.output[0])
        else:
            self._add("Mul", [scaled, scale], output=node.output[0])

    def _split(self, node: onnx.NodeProto) -> None:
        attributes = _attributes(node)
        if len(node.input) == 1:
            size = self._size(node.input[0], int(attributes["axis"]))
            part = -(-size // len(node.output))
            sizes = [part] * (len(node.output) - 1)
            node.input.append(self._constant(np.array([*sizes, size - sum(sizes)], np.int64)))
        _remove(node, "num_outputs")
        self._nodes.append(node)

    def _reduce_max(self, node: onnx.NodeProto) -> None:
        """Axes were an attribute."""
        if len(node.input) > 1:
            axes = numpy_helper.to_array(self._constants[node.input[1]])
            del node.input[1]
            _remove(node, "noop_with_empty_axes")
            node.attribute.append(helper.make_attribute("axes", axes.tolist()))
        self._nodes.append(node)

    def _reshape(self, node: onnx.NodeProto) -> None:
        """A size of zero always meant that of the input."""
        if _attributes(node).get("allowzero") and 0 in numpy_helper.to_array(self._constants[node.input[1]]):
            raise BundleError(f"Reshape {node.output[0]} has an empty size: export for TensorRT 10")
        _remove(node, "allowzero")
        self._nodes.append(node)

    def _mod(self, node: onnx.NodeProto) -> None:
        """Of numbers that are not negative; one whole turn of a position is that of `_phase`."""
        divisor = int(numpy_helper.to_array(self._constants[node.input[1]]))
        if divisor != 1 << _TURN_BITS:
            self._remainder(node.input[0], divisor, node.output[0])
            return
        product = self._made_by.get(node.input[0])
        if product is None or product.op_type != "Mul":
            # A position below one turn already: a stream of 2^31 frames takes 2.7 years, and 32 bits hold no more.
            self._add("Identity", [node.input[0]], output=node.output[0])
            return
        self._nodes = [one for one in self._nodes if product.output[0] not in one.output]
        position, steps = product.input
        self._phase(position, numpy_helper.to_array(self._constants[steps]), node.output[0])

    def _phase(self, position: str, steps: NDArray[np.int64], output: str) -> None:
        """position x steps modulo 2^31, as schoolbook multiplication by limbs of 15 bits.

        No number in between has more than 31 bits.
        """
        low, middle, high = self._limbs(position)
        step_low, step_middle, step_high = (self._constant(limb) for limb in _split_limbs(steps))
        ones = self._add("Mul", [low, step_low])
        crosses = [self._add("Mul", list(pair)) for pair in ((low, step_middle), (middle, step_low))]
        cross = self._remainder(self._add("Add", crosses), 1 << 16)
        tops = [self._add("Mul", list(pair)) for pair in ((low, step_high), (middle, step_middle), (high, step_low))]
        bit = self._remainder(self._add("Add", [self._add("Add", tops[:2]), tops[2]]), 2)
        # ones + 2^15 cross + 2^30 bit, modulo 2^31: the lower 30 bits apart, so that no sum needs a 32nd.
        crossed = self._add("Add", [self._remainder(cross, 1 << 15), self._quotient(ones, 1 << 15)])
        carry = self._add("Add", [self._quotient(crossed, 1 << 15), self._quotient(cross, 1 << 15)])
        top_bit = self._remainder(self._add("Add", [carry, bit]), 2)
        lower = self._add(
            "Add",
            [
                self._remainder(ones, 1 << 15),
                self._scaled(self._remainder(crossed, 1 << 15), 1 << 15),
            ],
        )
        self._add("Add", [lower, self._scaled(top_bit, 1 << 30)], output=output)

    def _limbs(self, number: str) -> tuple[str, str, str]:
        """The lower 15 bits, the next 15, and what is above."""
        above = self._quotient(number, 1 << _LIMB_BITS)
        return (
            self._remainder(number, 1 << _LIMB_BITS),
            self._remainder(above, 1 << _LIMB_BITS),
            self._quotient(above, 1 << _LIMB_BITS),
        )

    def _quotient(self, number: str, divisor: int) -> str:
        return self._add("Div", [number, self._constant(np.int64(divisor))])

    def _scaled(self, number: str, factor: int) -> str:
        return self._add("Mul", [number, self._constant(np.int64(factor))])

    def _remainder(self, number: str, divisor: int, output: str | None = None) -> str:
        return self._add("Sub", [number, self._scaled(self._quotient(number, divisor), divisor)], output=output)

    def _add(self, op_type: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or f"opset13.{len(self._nodes)}.{op_type}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def _constant(self, value: NDArray[np.generic] | np.generic) -> str:
        array = np.asarray(value)
        name = f"opset13.{array.dtype}.{len(self._constants)}"
        for known in self._made:
            if _same(numpy_helper.to_array(self._constants[known]), array):
                return known
        self._made.append(name)
        tensor = numpy_helper.from_array(array, name)
        self._model.graph.initializer.append(tensor)
        self._constants[name] = tensor
        return name

    def _size(self, name: str, axis: int) -> int:
        graph = self._model.graph
        for value in (*graph.value_info, *graph.input, *graph.output):
            if value.name == name:
                return int(value.type.tensor_type.shape.dim[axis].dim_value)
        raise BundleError(f"the size of {name} is not known: export the model again")


def _split_limbs(numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    mask = (1 << _LIMB_BITS) - 1
    return tuple((numbers >> shift) & mask for shift in (0, _LIMB_BITS, 2 * _LIMB_BITS))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _remove(node: onnx.NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _same(a: NDArray[np.generic], b: NDArray[np.generic]) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Constants that no node reads any more: TensorRT 8.2 warns of each that has more than 32 bits."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
