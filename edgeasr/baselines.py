"""What the hierarchy is compared with: LSTM, GRU and temporal convolutional networks of a wanted number of parameters.

They keep the contract of `edgeasr.streaming`: one body for whole streams and for one vector at a time, state passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeVar, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeasr.errors import ConfigError

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Kind = Literal["lstm", "gru", "tcn"]

# Layers where the caller says nothing: as in speech encoders, and a TCN that looks back 1,021 vectors.
_USUAL_LAYERS: dict[Kind, int] = {"lstm": 4, "gru": 4, "tcn": 8}
_TOLERANCE = 0.02
_KERNEL = 3


class LSTMLayer(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), with a forget gate that starts open."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 4 * width)
        self.recurrent = _recurrent_weight(width, 4)
        with torch.no_grad():
            self.input.bias[width : 2 * width] = 1.0

    def step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, T, inputs); hidden, cell: (B, 1, width). returns: (B, T, width), and the next hidden and cell"""
        outputs = []
        for gates in self.input(x).split(1, dim=1):
            enter, forget, new, leave = (gates + hidden @ self.recurrent).chunk(4, dim=-1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return torch.cat(outputs, dim=1), hidden, cell


class LSTMState(NamedTuple):
    """What each layer carries from one vector to the next."""

    hidden: tuple[Tensor, ...]  # (B, 1, width of the layer)
    cell: tuple[Tensor, ...]  # (B, 1, width of the layer)


class LSTM(nn.Module):
    """Stacked long short-term memory; the last layer may be wider, to fit a size."""

    def __init__(self, input_size: int, output_size: int, layers: int, width: int, last: int) -> None:
        super().__init__()
        self.widths = (*(layers - 1) * (width,), last)
        sizes = zip((input_size, *self.widths), self.widths, strict=False)
        self.layers = _modules(LSTMLayer(inputs, outputs) for inputs, outputs in sizes)
        self.output = nn.Linear(last, output_size)

    def init_state(self, batch: int) -> LSTMState:
        """Zeros."""
        zeros = tuple(self.output.weight.new_zeros(batch, 1, width) for width in self.widths)
        return LSTMState(zeros, zeros)

    def step(self, x: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """x: (B, T, input_size). returns: (B, T, output_size)"""
        states = []
        for layer, hidden, cell in zip(self.layers, state.hidden, state.cell, strict=True):
            x, next_hidden, next_cell = layer.step(x, hidden, cell)
            states.append((next_hidden, next_cell))
        return self.output(x), LSTMState(*zip(*states, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """`step` over a whole stream."""
        return self.step(x, self.init_state(x.shape[0]))[0]


class GRULayer(nn.Module):
    """Gated recurrent unit (Cho et al. 2014, arXiv 1406.1078), its reset gate after the product as in cuDNN."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 3 * width)
        self.recurrent = _recurrent_weight(width, 3)
        self.recurrent_bias = nn.Parameter(torch.zeros(3 * width))

    def step(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, inputs); hidden: (B, 1, width). returns: (B, T, width), and the next hidden"""
        outputs = []
        for gates in self.input(x).split(1, dim=1):
            reset, keep, new = gates.chunk(3, dim=-1)
            from_reset, from_keep, from_new = (hidden @ self.recurrent + self.recurrent_bias).chunk(3, dim=-1)
            candidate = (new + (reset + from_reset).sigmoid() * from_new).tanh()
            hidden = candidate + (keep + from_keep).sigmoid() * (hidden - candidate)
            outputs.append(hidden)
        return torch.cat(outputs, dim=1), hidden


class GRUState(NamedTuple):
    """What each layer carries from one vector to the next."""

    hidden: tuple[Tensor, ...]  # (B, 1, width of the layer)


class GRU(nn.Module):
    """Stacked gated recurrent units; the last layer may be wider, to fit a size."""

    def __init__(self, input_size: int, output_size: int, layers: int, width: int, last: int) -> None:
        super().__init__()
        self.widths = (*(layers - 1) * (width,), last)
        sizes = zip((input_size, *self.widths), self.widths, strict=False)
        self.layers = _modules(GRULayer(inputs, outputs) for inputs, outputs in sizes)
        self.output = nn.Linear(last, output_size)

    def init_state(self, batch: int) -> GRUState:
        """Zeros."""
        return GRUState(tuple(self.output.weight.new_zeros(batch, 1, width) for width in self.widths))

    def step(self, x: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        """x: (B, T, input_size). returns: (B, T, output_size)"""
        states = []
        for layer, hidden in zip(self.layers, state.hidden, strict=True):
            x, next_hidden = layer.step(x, hidden)
            states.append(next_hidden)
        return self.output(x), GRUState(tuple(states))

    def forward(self, x: Tensor) -> Tensor:
        """`step` over a whole stream."""
        return self.step(x, self.init_state(x.shape[0]))[0]


class DilatedConvolution(nn.Module):
    """A causal convolution over every `dilation`-th vector, as one matrix product over its taps side by side."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.inputs, self.dilation = inputs, dilation
        self.taps = nn.Linear(_KERNEL * inputs, outputs)

    @property
    def past(self) -> int:
        """Vectors back to the first tap."""
        return (_KERNEL - 1) * self.dilation

    def init_state(self, batch: int, slots: int | None = None) -> Tensor:
        """(B, slots, inputs) zeros, None for `past` slots: there is nothing before the stream."""
        return self.taps.weight.new_zeros(batch, self.past if slots is None else slots, self.inputs)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, inputs). returns: (B, T, outputs)"""
        extended = torch.cat([state, x], dim=1)
        taps = [_shifted(extended, x.shape[1], i * self.dilation) for i in reversed(range(_KERNEL))]
        return self.taps(torch.cat(taps, dim=-1)), extended[:, -self.past :]


def _shifted(extended: Tensor, length: int, back: int) -> Tensor:
    """The last `length` vectors as they were `back` vectors ago; zeros before the first."""
    end = extended.shape[1] - back
    tap = extended[:, max(0, end - length) : max(0, end)]
    return tap if tap.shape[1] == length else F.pad(tap, (0, 0, length - tap.shape[1], 0))


class TCNBlockState(NamedTuple):
    """The vectors that the two convolutions of a block still see."""

    first: Tensor  # (B, past, C)
    second: Tensor  # (B, past, hidden)


class TCNBlock(nn.Module):
    """Two dilated causal convolutions, residual (Bai et al. 2018, arXiv 1803.01271; with LayerNorm)."""

    def __init__(self, width: int, hidden: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = DilatedConvolution(width, hidden, dilation)
        self.second = DilatedConvolution(hidden, width, dilation)

    def init_state(self, batch: int, slots: int | None = None) -> TCNBlockState:
        """Zeros."""
        return TCNBlockState(self.first.init_state(batch, slots), self.second.init_state(batch, slots))

    def step(self, x: Tensor, state: TCNBlockState) -> tuple[Tensor, TCNBlockState]:
        """x: (B, T, width). returns: (B, T, width)"""
        hidden, first = self.first.step(self.norm(x), state.first)
        y, second = self.second.step(F.silu(hidden), state.second)
        return x + y, TCNBlockState(first, second)


class TCNState(NamedTuple):
    """Everything that a temporal convolutional network keeps between two vectors."""

    blocks: tuple[TCNBlockState, ...]


class TCN(nn.Module):
    """Temporal convolutional network: block i sees every 2^i-th vector."""

    def __init__(self, input_size: int, output_size: int, layers: int, width: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(input_size, width)
        self.blocks = _modules(TCNBlock(width, hidden, 2**i) for i in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, output_size)

    @property
    def lookback(self) -> int:
        """Vectors back to the first that an output sees."""
        dilations: int = 2 ** len(self.blocks) - 1
        return 2 * (_KERNEL - 1) * dilations

    def init_state(self, batch: int, slots: int | None = None) -> TCNState:
        """Zeros; `slots` overrides the number of vectors that each convolution keeps."""
        return TCNState(tuple(block.init_state(batch, slots) for block in self.blocks))

    def step(self, x: Tensor, state: TCNState) -> tuple[Tensor, TCNState]:
        """x: (B, T, input_size). returns: (B, T, output_size)"""
        x, states = self.input(x), []
        for block, block_state in zip(self.blocks, state.blocks, strict=True):
            x, next_state = block.step(x, block_state)
            states.append(next_state)
        return self.output(self.norm(x)), TCNState(tuple(states))

    def forward(self, x: Tensor) -> Tensor:
        """`step` over a whole stream."""
        # Before a stream, no slots are as good as slots of zeros, and cost nothing.
        return self.step(x, self.init_state(x.shape[0], slots=0))[0]


Baseline = LSTM | GRU | TCN
_CLASSES: dict[Kind, type[Baseline]] = {"lstm": LSTM, "gru": GRU, "tcn": TCN}


def baseline(kind: Kind, input_size: int, output_size: int, parameters: int, layers: int | None = None) -> Baseline:
    """A network of a kind with a wanted number of parameters, to within 2 %.

    layers: of an LSTM or GRU, or blocks of a TCN; None for a usual number
    errors: ConfigError for an unknown kind, and where no width gives that number
    """
    if kind not in _CLASSES:
        raise ConfigError(f"unknown kind of network {kind!r}: wanted one of {', '.join(get_args(Kind))}")
    layers = _USUAL_LAYERS[kind] if layers is None else layers
    if layers < 1:
        raise ConfigError(f"got {layers} layers: wanted 1 or more")

    def build(width: int, extra: int) -> Baseline:
        return _CLASSES[kind](input_size, output_size, layers, width, width + extra)

    def count(width: int, extra: int) -> int:
        with torch.device("meta"):
            return num_parameters(build(width, extra))

    for width in range(_largest(lambda width: count(width, 0) <= parameters), 0, -1):
        extra = _nearest(partial(count, width), parameters)
        if abs(count(width, extra) - parameters) <= _TOLERANCE * parameters:
            return build(width, extra)
    raise ConfigError(
        f"no {kind} of {layers} layers has {parameters} parameters to within {_TOLERANCE:.0%}: "
        "ask for more of them or for fewer layers"
    )


def num_parameters(module: nn.Module) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _recurrent_weight(width: int, gates: int) -> nn.Parameter:
    """(width, gates * width): transposed already, since exporters leave a transposition in every step of a loop."""
    bound = width**-0.5
    return nn.Parameter(torch.empty(width, gates * width).uniform_(-bound, bound))


def _modules(modules: Iterable[ModuleT]) -> Sequence[ModuleT]:
    """A ModuleList, typed by what it holds."""
    return cast(Sequence[ModuleT], nn.ModuleList(modules))


def _nearest(count: Callable[[int], int], wanted: int) -> int:
    """The number that is counted nearest to what is wanted."""
    below = _largest(lambda number: count(number) <= wanted)
    return min((below, below + 1), key=lambda number: abs(count(number) - wanted))


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, of those from 0; every smaller one fits too."""
    too_many = 1
    while fits(too_many):
        too_many *= 2
    fitting = too_many // 2
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        fitting, too_many = (middle, too_many) if fits(middle) else (fitting, middle)
    return fitting
