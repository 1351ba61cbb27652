"""The levels above the first: summaries of segments, and the memory banks that hold them.

Summaries are taken below the blocks that read them, so nothing here is recurrent: a whole recording runs in
parallel, and one chunk at a time gives the same values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeasr.config import EncoderConfig
from edgeasr.layers import FeedForward, attend, merge_heads, split_heads

# Stands for minus infinity in running maxima, where inf - inf would be NaN.
LOWEST = -1e9


class PoolState(NamedTuple):
    """A softmax-weighted mean of the segment in progress, kept as running sums (arXiv 1805.02867)."""

    peak: Tensor  # (B, H) highest score so far
    weight: Tensor  # (B, H) sum of exp(score - peak)
    total: Tensor  # (B, H, D) sum of exp(score - peak) * vector
    filled: Tensor  # (B,) int64, vectors in it
    number: Tensor  # (B,) int64, segments completed before it


class SegmentPool(nn.Module):
    """A learned query pools each segment of `stride` vectors into one: the context vector C_T of its segment."""

    def __init__(self, d_model: int, num_heads: int, stride: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.stride = num_heads, d_model // num_heads, stride
        self.score = nn.Linear(d_model, num_heads)

    def init_state(self, batch: int) -> PoolState:
        """An empty segment."""
        ref = self.score.weight
        zeros = ref.new_zeros(batch, self.num_heads)
        none = torch.zeros(batch, dtype=torch.int64, device=ref.device)
        total = ref.new_zeros(batch, self.num_heads, self.head_dim)
        return PoolState(torch.full_like(zeros, LOWEST), zeros, total, none, none)

    def step(self, x: Tensor, count: Tensor, state: PoolState) -> tuple[Tensor, Tensor, PoolState]:
        """Pool the first `count` of the vectors x.

        x: (B, T, C); count: (B,) int64
        returns: summaries (B, S, C) with S = ceil(T / stride), and their numbers in the stream (B, S) int64, -1
            where the segment is not complete
        """
        batch, length, _ = x.shape
        segments = (length + self.stride - 1) // self.stride + 1
        index = torch.arange(length, device=x.device)
        segment = torch.div(state.filled[:, None] + index, self.stride, rounding_mode="floor")
        inside = segment[:, None] == torch.arange(segments, device=x.device)[:, None]
        inside = (inside & (index < count[:, None])[:, None])[:, None]  # (B, 1, S, T)

        scores = self.score(x).float().transpose(1, 2)[:, :, None].masked_fill(~inside, LOWEST)
        carry_peak = F.pad(state.peak[:, :, None], (0, segments - 1), value=LOWEST)
        peak = torch.maximum(scores.amax(dim=-1), carry_peak)  # (B, H, S)
        weights = torch.exp(scores - peak[..., None]) * inside
        carry = torch.exp(state.peak - peak[:, :, 0])
        weight = weights.sum(dim=-1) + F.pad((state.weight * carry)[:, :, None], (0, segments - 1))
        total = weights @ split_heads(x.float(), self.num_heads)  # (B, H, S, D)
        total = total + F.pad((state.total * carry[..., None])[:, :, None], (0, 0, 0, segments - 1))

        filled = state.filled + count
        complete = torch.div(filled, self.stride, rounding_mode="floor")
        pooled = merge_heads(total / weight.clamp_min(1e-9)[..., None])[:, :-1]
        current = complete[:, None, None].expand(batch, self.num_heads, 1)
        next_state = PoolState(
            peak.gather(2, current)[:, :, 0],
            weight.gather(2, current)[:, :, 0],
            total.gather(2, current[..., None].expand(-1, -1, -1, self.head_dim))[:, :, 0],
            filled - complete * self.stride,
            state.number + complete,
        )
        order = torch.arange(segments - 1, device=x.device)
        number = torch.where(order < complete[:, None], state.number[:, None] + order, -1)
        return pooled, number, next_state


class BankState(NamedTuple):
    """Stored summaries. The `vector` is what admission compares; keys and values are what R readers attend to."""

    number: Tensor  # (B, capacity) int64, number of the summary in the stream; negative: an empty slot
    merged: Tensor  # (B, capacity) how many summaries this slot stands for
    vector: Tensor  # (B, capacity, C)
    key: Tensor  # (B, R, H, capacity, D)
    value: Tensor  # (B, R, H, capacity, D)


def extended(bank: BankState, entries: BankState) -> BankState:
    """The bank with new entries behind its slots; nothing is evicted yet."""
    return BankState(
        torch.cat([bank.number, entries.number], dim=1),
        torch.cat([bank.merged, entries.merged], dim=1),
        torch.cat([bank.vector, entries.vector], dim=1),
        torch.cat([bank.key, entries.key], dim=3),
        torch.cat([bank.value, entries.value], dim=3),
    )


def slot_bias(bank: BankState, time: Tensor, span: int, capacity: int) -> Tensor:
    """What each query adds to its attention scores for each slot: the log-count, or minus infinity if unseen.

    A slot is seen once the `span` vectors of its summary have passed, and until those of `capacity` more have.

    time: (B, Q) int64, vectors that have passed when each query's chunk starts
    returns: (B, Q, slots)
    """
    number, time = bank.number[:, None], time[:, :, None]
    seen = (number >= 0) & ((number + 1) * span <= time) & ((number + capacity + 1) * span > time)
    return torch.where(seen, bank.merged[:, None].clamp_min(1).log(), float("-inf"))


def admit(bank: BankState, entries: BankState) -> BankState:
    """Put each complete entry into the slot of its number, over the oldest: plain, capacity-limited admission."""
    capacity = bank.number.shape[1]
    if capacity == 0:
        return bank
    slots = torch.arange(capacity, device=bank.number.device)
    for j in range(entries.number.shape[1]):
        number = entries.number[:, j : j + 1]
        chosen = (number >= 0) & (slots == number % capacity)  # (B, capacity)
        bank = BankState(
            torch.where(chosen, number, bank.number),
            torch.where(chosen, entries.merged[:, j : j + 1], bank.merged),
            torch.where(chosen[..., None], entries.vector[:, j : j + 1], bank.vector),
            torch.where(chosen[:, None, None, :, None], entries.key[:, :, :, j : j + 1], bank.key),
            torch.where(chosen[:, None, None, :, None], entries.value[:, :, :, j : j + 1], bank.value),
        )
    return bank


class MemoryReader(nn.Module):
    """Attention by content over memory slots, and over one learned slot that is always there (nothing to recall)."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, d_model)
        self.empty_key = nn.Parameter(torch.zeros(1, num_heads, 1, d_model // num_heads))
        self.empty_value = nn.Parameter(torch.zeros(1, num_heads, 1, d_model // num_heads))

    def forward(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """x: (B, Q, C); key, value: (B, H, slots, D); bias: (B, Q, slots). returns: (B, Q, C)"""
        query = split_heads(self.query(x), self.num_heads)
        batch = x.shape[0]
        key = torch.cat([self.empty_key.expand(batch, -1, -1, -1), key], dim=2).to(query.dtype)
        value = torch.cat([self.empty_value.expand(batch, -1, -1, -1), value], dim=2).to(query.dtype)
        y: Tensor = self.output(merge_heads(attend(query, key, value, F.pad(bias, (1, 0))[:, None])))
        return y


class MemoryLevel(nn.Module):
    """One level above the first: a summary attends over the last summaries and becomes an entry of the bank."""

    def __init__(self, config: EncoderConfig, level: int) -> None:
        super().__init__()
        self.config, self.capacity = config, config.memory_capacities[level]
        width, readers = config.d_model, config.num_readers
        self.summary = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.reader = MemoryReader(width, config.num_heads)
        self.level_key_value = nn.Linear(width, 2 * width)
        self.ff_norm = nn.LayerNorm(width)
        self.ff = FeedForward(width, config.ff_dim)
        self.output_norm = nn.LayerNorm(width)
        self.key_value = nn.Linear(width, 2 * width * (readers - 1))

    def init_state(self, batch: int, slots: int | None = None) -> BankState:
        """An empty bank of `slots` slots (None: the level's capacity)."""
        config, ref = self.config, self.norm.weight
        slots = self.capacity if slots is None else slots
        empty = ref.new_zeros(batch, config.num_readers, config.num_heads, slots, config.head_dim)
        return BankState(
            torch.full((batch, slots), -1, dtype=torch.int64, device=ref.device),
            ref.new_zeros(batch, slots),
            ref.new_zeros(batch, slots, config.d_model),
            empty,
            empty,
        )

    def entries(self, pooled: Tensor, number: Tensor, bank: BankState) -> tuple[Tensor, BankState]:
        """Level outputs and bank entries of new summaries.

        pooled: (B, S, C); number: (B, S) int64 numbers in the stream, negative where a segment is incomplete
        returns: (B, S, C) outputs for the next level, and S entries
        """
        vector = self.norm(self.summary(pooled)).float()
        key, value = self._split(self.level_key_value(vector), 1)
        new = BankState(number, (number >= 0).to(vector.dtype), vector, key, value)
        known = BankState(bank.number, bank.merged, bank.vector, bank.key[:, :1], bank.value[:, :1])
        known = extended(known, new)
        bias = slot_bias(known, number + 1, 1, self.capacity)
        x = vector + self.reader(vector, known.key[:, 0], known.value[:, 0], bias)
        x = x + self.ff(self.ff_norm(x))
        upper_key, upper_value = self._split(self.key_value(self.output_norm(x)), self.config.num_readers - 1)
        return x, new._replace(key=torch.cat([key, upper_key], dim=1), value=torch.cat([value, upper_value], dim=1))

    def _split(self, key_value: Tensor, readers: int) -> tuple[Tensor, Tensor]:
        """(B, S, 2 * R * C) -> two of (B, R, H, S, D), in fp32: they are stored."""
        batch, length, _ = key_value.shape
        parts = key_value.float().reshape(batch, length, 2, readers, self.config.num_heads, -1)
        key, value = parts.permute(2, 0, 3, 4, 1, 5).unbind(0)
        return key, value
