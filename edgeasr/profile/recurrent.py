"""LSTM, GRU and temporal convolution encoders of the model's size in int8, through the same profiler.

They are put together here, operator by operator, as the exporter and the quantiser make them of a trained network, with
weights drawn at random: what is read and multiplied does not depend on their values, and a board needs no
torch. Layers are those of common speech encoders: four recurrent ones, eight blocks of dilated convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ConfigError
from edgeasr.profile.onnx_writer import Node, Value, serialised

Kind = Literal["lstm", "gru", "tcn"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Array = NDArray[np.generic]

RECURRENT_LAYERS = 4
TCN_BLOCKS = 8
TAPS = 3


@dataclass(frozen=True)
class Baseline:
    """A network as ONNX. feed: inputs to run it on; width: of its layers"""

    kind: Kind
    width: int
    model: bytes
    feed: dict[str, Array]


def baseline(kind: Kind, weight_bytes: int, input_size: int, output_size: int, vectors: int) -> Baseline:
    """The network whose constants come nearest to so many bytes.

    vectors: in a step, (1, vectors, input_size) float32
    errors:  ConfigError where not even a width of one is small enough
    """

    def size_of(width: int) -> int:
        return _built(kind, width, input_size, output_size, 1).constant_bytes

    width = _largest(lambda width: size_of(width) <= weight_bytes)
    if not width:
        raise ConfigError(
            f"got {weight_bytes} bytes for a {kind}, wanted {size_of(1)} at least: profile a larger model"
        )
    width += abs(size_of(width + 1) - weight_bytes) < abs(size_of(width) - weight_bytes)
    network = _built(kind, width, input_size, output_size, vectors)
    feed = {value.name: _example(value) for value in network.inputs}
    return Baseline(kind, width, network.serialise(), feed)


@cache
def _some_weights() -> NDArray[np.int8]:
    """A prime number of them: repeated, no row of a matrix is like the next."""
    return np.random.default_rng(0).integers(-64, 64, 65_521, np.int8)


def _example(value: Value) -> Array:
    rng = np.random.default_rng(0)
    return rng.standard_normal(tuple(value.shape)).astype(np.float32)


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, 0 for none; smaller ones fit too."""
    high = 1
    while fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _built(kind: Kind, width: int, input_size: int, output_size: int, vectors: int) -> _Network:
    network = _Network(vectors)
    x = network.input("features", (1, vectors, input_size))
    if kind == "tcn":
        x = network.product(x, input_size, width)
        for i in range(TCN_BLOCKS):
            x = _tcn_block(network, x, i, width)
    else:
        layer = _lstm_layer if kind == "lstm" else _gru_layer
        for i in range(RECURRENT_LAYERS):
            x = layer(network, x, i, (input_size if i == 0 else width, width))
    network.output(
        network.node("LogSoftmax", [network.product(x, width, output_size)], axis=-1),
        "log_probs",
        (1, vectors, output_size),
    )
    return network


def _lstm_layer(network: _Network, x: str, layer: int, sizes: tuple[int, int]) -> str:
    """Hochreiter and Schmidhuber 1997: four products with the vector and four with the last output, in one each."""
    width = sizes[1]
    recurrent = network.weight(width, 4 * width)
    hidden = network.input(f"state.hidden.{layer}", (1, 1, width))
    cell = network.input(f"state.cell.{layer}", (1, 1, width))
    outputs = []
    for gates in network.vectors_of(network.product(x, sizes[0], 4 * width)):
        summed = network.node("Add", [gates, network.product_with(hidden, recurrent)])
        enter, forget, new, leave = network.split(summed, 4)
        kept = network.node("Mul", [network.node("Sigmoid", [forget]), cell])
        added = network.node("Mul", [network.node("Sigmoid", [enter]), network.node("Tanh", [new])])
        cell = network.node("Add", [kept, added])
        hidden = network.node("Mul", [network.node("Sigmoid", [leave]), network.node("Tanh", [cell])])
        outputs.append(hidden)
    network.output(hidden, f"next_state.hidden.{layer}", (1, 1, width))
    network.output(cell, f"next_state.cell.{layer}", (1, 1, width))
    return network.joined(outputs)


def _gru_layer(network: _Network, x: str, layer: int, sizes: tuple[int, int]) -> str:
    """Cho et al. 2014 (arXiv 1406.1078), the reset gate after the product."""
    width = sizes[1]
    recurrent, bias = network.weight(width, 3 * width), network.bias(3 * width)
    hidden = network.input(f"state.hidden.{layer}", (1, 1, width))
    outputs = []
    for gates in network.vectors_of(network.product(x, sizes[0], 3 * width)):
        reset, keep, new = network.split(gates, 3)
        again = network.node("Add", [network.product_with(hidden, recurrent), bias])
        reset_again, keep_again, new_again = network.split(again, 3)
        reset = network.node("Sigmoid", [network.node("Add", [reset, reset_again])])
        keep = network.node("Sigmoid", [network.node("Add", [keep, keep_again])])
        candidate = network.node("Tanh", [network.node("Add", [new, network.node("Mul", [reset, new_again])])])
        change = network.node("Mul", [keep, network.node("Sub", [hidden, candidate])])
        hidden = network.node("Add", [candidate, change])
        outputs.append(hidden)
    network.output(hidden, f"next_state.hidden.{layer}", (1, 1, width))
    return network.joined(outputs)


def _tcn_block(network: _Network, x: str, block: int, width: int) -> str:
    """Two causal convolutions over every 2^block-th vector, residual (Bai et al. 2018, arXiv 1803.01271)."""
    norm = [x, network.constant(np.ones(width, np.float32)), network.constant(np.zeros(width, np.float32))]
    y = network.node("LayerNormalization", norm, axis=-1)
    y = _dilated(network, y, f"{block}.first", 2**block, width)
    y = network.node("Mul", [y, network.node("Sigmoid", [y])])
    y = _dilated(network, y, f"{block}.second", 2**block, width)
    return network.node("Add", [x, y])


def _dilated(network: _Network, x: str, name: str, dilation: int, width: int) -> str:
    """All taps side by side, as one product."""
    past = (TAPS - 1) * dilation
    state = network.input(f"state.{name}", (1, past, width))
    extended = network.node("Concat", [state, x], axis=1)
    last = network.vectors
    taps = [network.slice(extended, i * dilation, i * dilation + last) for i in range(TAPS)]
    network.output(network.slice(extended, last, past + last), f"next_state.{name}", (1, past, width))
    return network.product(network.node("Concat", taps, axis=2), TAPS * width, width)


@dataclass
class _Network:
    """A graph that grows. Products are in int8, as ONNX Runtime's quantiser writes them."""

    vectors: int
    nodes: list[Node] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    @property
    def constant_bytes(self) -> int:
        return sum(constant.nbytes for constant in self.constants.values())

    def serialise(self) -> bytes:
        return serialised(self.nodes, self.inputs, self.outputs, self.constants)

    def input(self, name: str, shape: Sequence[int]) -> str:
        self.inputs.append(Value(name, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int]) -> None:
        self.nodes.append(Node("Identity", [value], [name]))
        self.outputs.append(Value(name, shape))

    def constant(self, value: Array) -> str:
        name = f"constant.{len(self.constants)}"
        self.constants[name] = value
        return name

    def node(self, op_type: str, inputs: Sequence[str], **attributes: int) -> str:
        name = f"value.{len(self.nodes)}"
        self.nodes.append(Node(op_type, inputs, [name], attributes))
        return name

    def weight(self, rows: int, columns: int) -> tuple[str, str, str]:
        """A matrix in int8, its scales and its zero points, a column each."""
        values = np.resize(_some_weights(), (rows, columns))
        scales = np.full(columns, 1 / (64 * rows**0.5), np.float32)
        return self.constant(values), self.constant(scales), self.constant(np.zeros(columns, np.int8))

    def bias(self, columns: int) -> str:
        return self.constant(np.zeros(columns, np.float32))

    def product(self, x: str, rows: int, columns: int) -> str:
        """x times a matrix of its own, and a bias."""
        return self.node("Add", [self.product_with(x, self.weight(rows, columns)), self.bias(columns)])

    def product_with(self, x: str, weight: tuple[str, str, str]) -> str:
        """x times a matrix that others may read too."""
        matrix, scales, zeros = weight
        quantised = [f"value.{len(self.nodes)}.{part}" for part in ("values", "scale", "zero")]
        self.nodes.append(Node("DynamicQuantizeLinear", [x], quantised))
        values, scale, zero = quantised
        whole = self.node("Cast", [self.node("MatMulInteger", [values, matrix, zero, zeros])], to=1)
        return self.node("Mul", [whole, self.node("Mul", [scale, scales])])

    def split(self, x: str, parts: int, axis: int = -1) -> list[str]:
        names = [f"value.{len(self.nodes)}.{i}" for i in range(parts)]
        self.nodes.append(Node("Split", [x], names, {"axis": axis, "num_outputs": parts}))
        return names

    def vectors_of(self, x: str) -> list[str]:
        """(1, vectors, n) as so many (1, 1, n)."""
        return [x] if self.vectors == 1 else self.split(x, self.vectors, axis=1)

    def joined(self, vectors: Sequence[str]) -> str:
        return vectors[0] if len(vectors) == 1 else self.node("Concat", vectors, axis=1)

    def slice(self, x: str, start: int, end: int) -> str:
        """Vectors from start to end."""
        bounds = [self.constant(np.array([value], np.int64)) for value in (start, end, 1)]
        return self.node("Slice", [x, *bounds])
