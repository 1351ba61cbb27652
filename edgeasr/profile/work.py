"""What the operators of a step ask of a machine: bytes of weights, of state and of activations, and multiply-adds.

A byte counts once for each operator that reads it and once for the one that writes it. Operators that only rename what
lies in memory (Reshape and its like) move nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["weight", "state", "activation"]

# What ONNX Runtime and numpy call types, in bytes an element.
_ELEMENT_BYTES = {
    "float": 4,
    "float32": 4,
    "double": 8,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "uint64": 8,
    "int32": 4,
    "uint32": 4,
    "int16": 2,
    "uint16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
VIEWS = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity"})
# They read no more of their first input than they write.
_SELECTIONS = frozenset({"Gather", "Slice", "GatherElements", "GatherND"})
_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "TransposeMatMul", "MatMulNBits"})
_INT8_PRODUCTS = frozenset(
    {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "MatMulInteger16"}
)
_CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv"})
_INT8_CONVOLUTIONS = frozenset({"ConvInteger", "QLinearConv"})
_ATTENTIONS = frozenset({"MultiHeadAttention"})


@dataclass(frozen=True)
class Tensor:
    """What an operator reads or writes. kind: a weight never changes, a state goes from a step to the next"""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: Kind = "activation"

    @property
    def size_bytes(self) -> int:
        """Strings and other types without a fixed size count nothing."""
        return math.prod(self.shape) * _ELEMENT_BYTES.get(self.dtype, 0)


@dataclass(frozen=True)
class OperatorWork:
    """Of one operator in one step; a multiply-add is two operations."""

    weight_bytes: int
    state_bytes: int
    activation_bytes: int
    macs: int
    int8: bool

    @property
    def moved_bytes(self) -> int:
        return self.weight_bytes + self.state_bytes + self.activation_bytes

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return 2 * self.macs / self.moved_bytes if self.moved_bytes else 0.0


def operator_work(op_type: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> OperatorWork:
    """The work of an operator, from what goes in and comes out."""
    moved: dict[Kind, int] = {"weight": 0, "state": 0, "activation": 0}
    if op_type not in VIEWS:
        written = sum(tensor.size_bytes for tensor in outputs)
        for i, tensor in enumerate(inputs):
            part = op_type in _SELECTIONS and i == 0
            moved[tensor.kind] += min(tensor.size_bytes, written) if part else tensor.size_bytes
        for tensor in outputs:
            moved[tensor.kind] += tensor.size_bytes
    macs = _macs(op_type, [tensor.shape for tensor in inputs], [tensor.shape for tensor in outputs])
    int8 = op_type in _INT8_PRODUCTS | _INT8_CONVOLUTIONS
    return OperatorWork(moved["weight"], moved["state"], moved["activation"], macs, int8)


def _macs(op_type: str, inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> int:
    """Multiply-adds of products; sums, norms and the like count none."""
    if op_type in _PRODUCTS | _INT8_PRODUCTS:
        return _product_macs(inputs[0], _second_factor(op_type, inputs), outputs[0])
    if op_type in _CONVOLUTIONS | _INT8_CONVOLUTIONS:
        weight = inputs[3] if op_type == "QLinearConv" else inputs[1]
        return math.prod(outputs[0]) * math.prod(weight[1:])
    if op_type in _ATTENTIONS:  # queries (B, Q, C): scores, and the mean of the values
        return 2 * math.prod(inputs[0]) * _num_keys(inputs, outputs)
    return 0


def _num_keys(inputs: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]) -> int:
    """Of an attention, (B, K, C) or (B, H, K, D); where it appends new ones to a cache it gives all of them back."""
    keys = outputs[1] if len(outputs) > 1 else inputs[1]
    return keys[-2]


def _second_factor(op_type: str, inputs: Sequence[Sequence[int]]) -> Sequence[int]:
    return inputs[3] if op_type in ("QLinearMatMul", "QGemm") else inputs[1]


def _product_macs(left: Sequence[int], right: Sequence[int], product: Sequence[int]) -> int:
    """Whichever factor is not repeated over the batch says how long the sums are, transposed or not."""
    rows = product[-2] if len(product) > 1 else 1
    columns = product[-1] if product else 1
    return max(math.prod(left) * columns, math.prod(right) * rows if len(right) > 1 else 0)
