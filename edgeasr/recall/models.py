"""The networks of the benchmark: the product's encoder with vectors for audio, and baselines of equal size."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeasr.baselines import GRU, LSTM, TCN, baseline, num_parameters
from edgeasr.config import EncoderConfig, FeatureConfig, ModelConfig
from edgeasr.encoder import Emissions, Encoder, EncoderState
from edgeasr.layers import CausalSubsampling, SubsamplingState
from edgeasr.recall.task import RecallTask

ModelName = Literal["hierarchy", "lstm", "gru", "tcn"]
MODELS: tuple[ModelName, ...] = ("hierarchy", "lstm", "gru", "tcn")

# The product's windows (100 vectors back, 100 summaries of 100 vectors) in a small width; a chunk is one vector.
HIERARCHY = EncoderConfig(
    d_model=48,
    num_heads=6,
    lower_blocks=1,
    upper_blocks=1,
    ff_dim=96,
    conv_kernel=3,
    conv_channels=1,
    left_context=100,
    chunk_frames=1,
    summary_strides=(100,),
    memory_capacities=(100,),
    dropout=0.0,
)
_RECURRENT_LAYERS = 1


class VectorFrontEnd(nn.Module):
    """Takes the place of the subsampling of log-mel frames: four rows side by side are one vector, projected."""

    def __init__(self, columns: int, config: EncoderConfig) -> None:
        super().__init__()
        self.rows = config.subsampling
        self.project = nn.Linear(self.rows * columns, config.d_model)

    def init_state(self, batch: int) -> SubsamplingState:
        """Nothing: a vector stands alone."""
        empty = self.project.weight.new_zeros(batch, 0)
        return SubsamplingState(empty, empty)

    def step(self, x: Tensor, state: SubsamplingState) -> tuple[Tensor, SubsamplingState]:
        """x: (B, 4 * T, columns). returns: (B, T, C)"""
        return self.project(x.reshape(x.shape[0], x.shape[1] // self.rows, -1)), state


class Hierarchy(nn.Module):
    """The product's `Encoder`, with vectors in the place of audio and values in the place of letters."""

    def __init__(self, input_size: int, output_size: int, config: EncoderConfig = HIERARCHY) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, output_size
        self.rows, self.columns = config.subsampling, -(-input_size // config.subsampling)
        self.encoder = Encoder(ModelConfig(FeatureConfig(num_mels=self.columns), config, output_size))
        self.encoder.frontend = cast(CausalSubsampling, VectorFrontEnd(self.columns, config))

    def within(self, window: int) -> Hierarchy:
        """The same weights, shared, looking back over `window` vectors and summarising as many."""
        config = self.encoder.config.encoder
        if window == config.left_context:
            return self
        strides = (window, *config.summary_strides[1:])
        narrow = replace(config, left_context=window, summary_strides=strides)
        with torch.random.fork_rng(devices=[]):
            other = Hierarchy(self.input_size, self.output_size, narrow)
        other.load_state_dict(self.state_dict(keep_vars=True), assign=True)
        return other

    def init_state(self, batch: int, slots: int | None = None) -> EncoderState:
        """The state before the first vector; `slots` overrides the capacity of caches and banks."""
        return self.encoder.init_state(batch, slots)

    def step(self, x: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """x: (B, T, input_size). returns: (B, T, output_size) log-probabilities"""
        emissions, next_state = self.encoder.step(self._as_rows(x), state)
        return emissions.final, next_state

    def forward(self, x: Tensor) -> Tensor:
        """`step` over a whole stream."""
        emissions: Emissions = self.encoder(self._as_rows(x))
        return emissions.final

    def _as_rows(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, self.rows * self.columns - x.shape[2]))
        return padded.reshape(x.shape[0], self.rows * x.shape[1], self.columns)


Recaller = Hierarchy | LSTM | GRU | TCN


def build(name: ModelName, task: RecallTask, config: EncoderConfig, distance: int) -> Recaller:
    """A network of the benchmark, of as many parameters as the hierarchy of this config (to within 2 %).

    distance: the farthest that a TCN shall look back; it has as many blocks as that takes
    """
    hierarchy = Hierarchy(task.input_size, task.num_values, config)
    if name == "hierarchy":
        return hierarchy
    layers = tcn_blocks(distance) if name == "tcn" else _RECURRENT_LAYERS
    return baseline(name, task.input_size, task.num_values, num_parameters(hierarchy), layers)


def tcn_blocks(distance: int) -> int:
    """Blocks of a TCN that looks back `distance` vectors: n blocks look back 4 * (2^n - 1)."""
    return (-(-distance // 4)).bit_length()


def hops(model: Recaller, distance: int) -> int:
    """Layers on the shortest way from a vector to the output `distance` vectors later."""
    if isinstance(model, LSTM | GRU):
        return distance + len(model.layers) + 1
    if isinstance(model, TCN):
        return 2 * len(model.blocks) + 2
    config = model.encoder.config.encoder
    level1 = 1 + config.lower_blocks + config.upper_blocks + 1
    # From the lower blocks to the upper ones through a pool and its memory level.
    return level1 if distance <= config.left_context else level1 + 2
