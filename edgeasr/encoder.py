"""The hierarchical attention encoder: look back over frames, and over summaries of everything before.

Lower blocks work on frames. Their output is pooled into summaries, summaries into summaries of summaries, and
upper blocks read the banks of all levels by cross-attention. See `edgeasr.streaming` for the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from edgeasr.config import ModelConfig
from edgeasr.hierarchy import (
    Admit,
    BankState,
    MemoryLevel,
    MemoryReader,
    NewSummaries,
    PoolState,
    SegmentPool,
    admit,
    held,
    query_bias,
    settle,
)
from edgeasr.layers import (
    AttentionState,
    CausalConvolution,
    CausalSubsampling,
    FeedForward,
    SubsamplingState,
    WindowedAttention,
)
from edgeasr.streaming import chunk_start, positions

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class BlockState(NamedTuple):
    """Caches of one block of level 1."""

    key: Tensor  # (B, H, left_context, D)
    value: Tensor  # (B, H, left_context, D)
    conv: Tensor  # (B, kernel - 1, C)


class EncoderState(NamedTuple):
    """Everything the encoder keeps between two chunks; its size does not depend on the length of the stream."""

    frontend: SubsamplingState
    level1: tuple[BlockState, ...]
    pool: tuple[PoolState, ...]
    bank: tuple[BankState, ...]
    seen: Tensor  # (B,) int64, encoder frames consumed


class Above(NamedTuple):
    """What comes of the output of the lower blocks: that of the upper ones, the next state, the new summaries."""

    output: Tensor  # (B, T, C)
    level1: tuple[BlockState, ...]
    pool: tuple[PoolState, ...]
    bank: tuple[BankState, ...]
    new: tuple[NewSummaries, ...]


class Memory(NamedTuple):
    """What the upper blocks read: the slots of all levels side by side."""

    key: Tensor  # (B, R, H, slots, D)
    value: Tensor  # (B, R, H, slots, D)
    bias: Tensor  # (B, T or 1, slots)


class Emissions(NamedTuple):
    """Log-probabilities of the tokens, and of the phones in a model that has them.

    `lower` is the auxiliary output below the memory, used in training: of phones, where the model has them.
    """

    final: Tensor  # (B, T, V)
    lower: Tensor  # (B, T, V or P)
    phones: Tensor | None = None  # (B, T, P)
    writes: Tensor | None = None  # (B,) expected number of summaries that the write gates let through, if there are any


class Block(nn.Module):
    """Windowed attention, a read from memory in upper blocks, causal convolution and feed-forward, all residual."""

    def __init__(self, config: ModelConfig, reads_memory: bool) -> None:
        super().__init__()
        encoder = config.encoder
        width = encoder.d_model
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowedAttention(width, encoder.num_heads, encoder.left_context)
        self.reader_norm = nn.LayerNorm(width) if reads_memory else None
        self.reader = MemoryReader(width, encoder.num_heads) if reads_memory else None
        self.conv_norm = nn.LayerNorm(width)
        self.conv = CausalConvolution(width, encoder.conv_kernel)
        self.ff_norm = nn.LayerNorm(width)
        self.ff = FeedForward(width, encoder.ff_dim)
        self.dropout = nn.Dropout(encoder.dropout)

    def init_state(self, batch: int, slots: int | None = None) -> BlockState:
        """Empty caches."""
        return BlockState(*self.attention.init_state(batch, slots), self.conv.init_state(batch))

    def step(
        self,
        x: Tensor,
        state: BlockState,
        seen: Tensor,
        chunk_frames: int,
        memory: Memory | None,
        reader: int,
    ) -> tuple[Tensor, BlockState]:
        """x: (B, T, C); `reader` says which keys and values of the memory are this block's. returns: (B, T, C)"""
        cache = AttentionState(state.key, state.value)
        y, cache = self.attention.step(self.attention_norm(x), cache, seen, chunk_frames)
        x = x + self.dropout(y)
        if self.reader is not None and self.reader_norm is not None and memory is not None:
            y = self.reader(self.reader_norm(x), memory.key[:, reader], memory.value[:, reader], memory.bias)
            x = x + self.dropout(y)
        y, conv = self.conv.step(self.conv_norm(x), state.conv)
        x = x + self.dropout(y)
        x = x + self.dropout(self.ff(self.ff_norm(x)))
        return x, BlockState(*cache, conv)


class Encoder(nn.Module):
    """Log-mel features in, token log-probabilities out; one body for whole recordings and for chunks."""

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        encoder, mels = config.encoder, config.features.num_mels
        self.register_buffer("feature_mean", torch.zeros(mels))
        self.register_buffer("feature_std", torch.ones(mels))
        self.frontend = CausalSubsampling(mels, encoder.conv_channels, encoder.d_model)
        self.lower = _modules(Block(config, False) for _ in range(encoder.lower_blocks))
        reads_memory = bool(encoder.summary_strides)
        self.upper = _modules(Block(config, reads_memory) for _ in range(encoder.upper_blocks))
        self.pools = _modules(
            SegmentPool(encoder.d_model, encoder.num_heads, stride) for stride in encoder.summary_strides
        )
        self.levels = _modules(MemoryLevel(encoder, i) for i in range(len(encoder.summary_strides)))
        self.lower_norm = nn.LayerNorm(encoder.d_model)
        phones = config.phone_vocabulary_size
        self.lower_emission = nn.Linear(encoder.d_model, phones or config.vocabulary_size)
        self.norm = nn.LayerNorm(encoder.d_model)
        self.emission = nn.Linear(encoder.d_model, config.vocabulary_size)
        self.phone_emission = nn.Linear(encoder.d_model, phones) if phones else None

    def init_state(self, batch: int, slots: int | None = None) -> EncoderState:
        """The state before the first chunk; `slots` overrides the capacity of attention caches and banks."""
        return EncoderState(
            self.frontend.init_state(batch),
            tuple(block.init_state(batch, slots) for block in [*self.lower, *self.upper]),
            tuple(pool.init_state(batch) for pool in self.pools),
            tuple(level.init_state(batch, slots) for level in self.levels),
            torch.zeros(batch, dtype=torch.int64, device=self.feature_mean.device),
        )

    def step(self, x: Tensor, state: EncoderState) -> tuple[Emissions, EncoderState]:
        """One chunk or several.

        x: (B, T, M) log-mel; T a multiple of chunk_features, ragged only at the end of a stream (then of subsampling)
        returns: log-probabilities, (B, T / 4, V) each, and the next state
        """
        return self._run(x, state, self.config.encoder.chunk_frames)

    def forward(self, x: Tensor, chunk_frames: int | None = None) -> Emissions:
        """A whole recording at once: the same body from the initial state.

        x: (B, T, M) log-mel, T a multiple of subsampling; chunk_frames overrides the config (dynamic chunk training)
        returns: log-probabilities, (B, T / 4, V) each
        """
        # There is nothing before a recording: caches without slots are as good as empty ones, and cost nothing.
        state = self.init_state(x.shape[0], slots=0)
        return self._run(x, state, chunk_frames or self.config.encoder.chunk_frames)[0]

    def _run(self, x: Tensor, state: EncoderState, chunk_frames: int) -> tuple[Emissions, EncoderState]:
        x, frontend, level1 = self.run_lower(x, state, chunk_frames)
        y, upper, pool, banks, new = self.run_above(x, state, chunk_frames)
        lower = self.lower_emission(self.lower_norm(x)).float().log_softmax(-1)
        emissions = Emissions(self.emit(y), lower, self.emit_phones(y), _writes(new))
        return emissions, EncoderState(frontend, level1 + upper, pool, banks, state.seen + x.shape[1])

    def run_above(self, x: Tensor, state: EncoderState, chunk_frames: int) -> Above:
        """Everything that follows the lower blocks, from their output (B, T, C): summaries, memory, upper blocks."""
        pool, banks = state.pool, state.bank
        new: tuple[NewSummaries, ...] = ()
        if self.levels:
            pooled, number, first_pool = self.run_summaries(x, state.pool[0])
            upper_pools, new = self.run_memory(pooled, number, state.pool[1:], state.bank)
            pool = (first_pool, *upper_pools)
            banks = tuple(settle(bank, *made) for bank, made in zip(state.bank, new, strict=True))
        y, upper = self.run_upper(x, state, chunk_frames, new)
        return Above(y, upper, pool, banks, new)

    def run_lower(
        self, x: Tensor, state: EncoderState, chunk_frames: int
    ) -> tuple[Tensor, SubsamplingState, tuple[BlockState, ...]]:
        """Features (B, T, M) to the output of the lower blocks (B, T / 4, C)."""
        x, frontend = self.frontend.step((x - self.feature_mean) / self.feature_std, state.frontend)
        states = []
        for block, cache in zip(self.lower, state.level1, strict=False):
            x, next_cache = block.step(x, cache, state.seen, chunk_frames, None, 0)
            states.append(next_cache)
        return x, frontend, tuple(states)

    def run_summaries(self, x: Tensor, state: PoolState) -> tuple[Tensor, Tensor, PoolState]:
        """Pool the output of the lower blocks into the summaries of level 2.

        x: (B, T, C)
        returns: summaries (B, S, C), their numbers in the stream (B, S), -1 where the segment is not complete
        """
        summaries: tuple[Tensor, Tensor, PoolState]
        summaries = self.pools[0].step(x, torch.full_like(state.filled, x.shape[1]), state)
        return summaries

    def run_memory(
        self,
        pooled: Tensor,
        number: Tensor,
        pools: tuple[PoolState, ...],
        banks: tuple[BankState, ...],
        decide: Admit = admit,
    ) -> tuple[tuple[PoolState, ...], tuple[NewSummaries, ...]]:
        """New summaries of level 2, and of the levels above as their segments fill up, to entries of the banks.

        pooled: (B, S, C); number: (B, S) as from run_summaries; pools: of the levels above the second
        returns: the pools' next states, and the new summaries of every bank
        """
        next_pools: list[PoolState] = []
        x, made = self.levels[0].entries(pooled, number, banks[0], decide)
        new = [made]
        for pool, level, state, bank in zip(self.pools[1:], self.levels[1:], pools, banks[1:], strict=True):
            count = (new[-1].entries.number >= 0).sum(dim=1)
            pooled, number, next_pool = pool.step(x, count, state)
            x, made = level.entries(pooled, number, bank, decide)
            next_pools.append(next_pool)
            new.append(made)
        return tuple(next_pools), tuple(new)

    def run_upper(
        self, x: Tensor, state: EncoderState, chunk_frames: int, new: tuple[NewSummaries, ...]
    ) -> tuple[Tensor, tuple[BlockState, ...]]:
        """Output of the lower blocks (B, T, C) to that of the upper blocks (B, T, C)."""
        memory = self._memory(positions(state.seen, 0, x.shape[1]), state.bank, chunk_frames, new)
        states = []
        for i, block in enumerate(self.upper):
            cache = state.level1[len(self.lower) + i]
            x, next_cache = block.step(x, cache, state.seen, chunk_frames, memory, i + 1)
            states.append(next_cache)
        return x, tuple(states)

    def emit(self, x: Tensor) -> Tensor:
        """Output of the upper blocks (B, T, C) to log-probabilities (B, T, V)."""
        log_probs: Tensor = self.emission(self.norm(x)).float().log_softmax(-1)
        return log_probs

    def emit_phones(self, x: Tensor) -> Tensor | None:
        """Output of the upper blocks (B, T, C) to log-probabilities of phones (B, T, P), if the model has them."""
        return None if self.phone_emission is None else self.phone_emission(self.norm(x)).float().log_softmax(-1)

    def _memory(
        self, position: Tensor, banks: tuple[BankState, ...], chunk_frames: int, new: tuple[NewSummaries, ...]
    ) -> Memory | None:
        if not banks:
            return None
        if not new:
            key, value = (torch.cat([getattr(bank, part) for bank in banks], dim=3) for part in ("key", "value"))
            return Memory(key, value, torch.cat([held(bank) for bank in banks], dim=1)[:, None])
        start = chunk_start(position, chunk_frames)
        spans = self.config.encoder.level_spans
        keys, values, biases = [], [], []
        for bank, (entries, admitted), span in zip(banks, new, spans, strict=True):
            keys += [bank.key, entries.key]
            values += [bank.value, entries.value]
            biases.append(query_bias(admitted, entries.number, start, span))
        return Memory(torch.cat(keys, dim=3), torch.cat(values, dim=3), torch.cat(biases, dim=2))


def _writes(new: tuple[NewSummaries, ...]) -> Tensor | None:
    """How many summaries the write gates let through, in expectation; (B,)."""
    counts = [(entries.write * (entries.number >= 0)).sum(dim=1) for entries, _ in new]
    return torch.stack(counts).sum(dim=0) if counts else None


def _modules(modules: Iterable[ModuleT]) -> Sequence[ModuleT]:
    """A ModuleList, typed by what it holds."""
    return cast(Sequence[ModuleT], nn.ModuleList(modules))


def num_parameters(encoder: Encoder) -> int:
    """Trainable parameters."""
    return sum(parameter.numel() for parameter in encoder.parameters())
