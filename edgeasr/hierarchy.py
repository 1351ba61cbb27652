"""The levels above the first: summaries of segments, and the memory banks that hold them.

Summaries are taken below the blocks that read them, so nothing here is recurrent: a whole recording runs in
parallel, and one chunk at a time gives the same values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeasr.config import EncoderConfig
from edgeasr.layers import FeedForward, attend, merge_heads, split_heads
from edgeasr.memory import Rules, Slots, judge_all

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
    """Stored summaries. Admission reads all but `key` and `value`, which are what R readers attend to."""

    number: Tensor  # (B, capacity) int64, number of the summary in the stream; negative: an empty slot
    merged: Tensor  # (B, capacity) how many summaries this slot stands for
    last: Tensor  # (B, capacity) int64, number of the last of them
    pinned: Tensor  # (B, capacity) bool, never evicted
    vector: Tensor  # (B, capacity, C) what admission compares
    key: Tensor  # (B, R, H, capacity, D)
    value: Tensor  # (B, R, H, capacity, D)


class Entries(NamedTuple):
    """New summaries, as they are offered to a bank."""

    number: Tensor  # (B, S) int64; negative: an incomplete summary, which is not offered
    write: Tensor  # (B, S) what the write gate says: stored or merged from one half on; 1 without a gate
    vector: Tensor  # (B, S, C)
    key: Tensor  # (B, R, H, S, D)
    value: Tensor  # (B, R, H, S, D)


class Admitted(NamedTuple):
    """What became of new summaries, which stand behind the slots of their bank."""

    bias: Tensor  # (B, S + 1, slots + S) log-count after s of them were offered; minus infinity: not held then
    source: Tensor  # (B, capacity) int64, where each slot's content comes from: itself, or slots + s
    slots: tuple[Tensor, ...]  # number, merged, last, pinned and vector of the bank, afterwards


class NewSummaries(NamedTuple):
    """Summaries of one level that became complete, and what became of them."""

    entries: Entries
    admitted: Admitted


# How a bank decides on new summaries: as `admit`, or as `as_held` where the host decides later.
Admit = Callable[[BankState, Tensor, Tensor, Tensor, Rules], Admitted]


def log_count(merged: Tensor) -> Tensor:
    """What a slot adds to attention scores: the log of how many summaries it stands for, minus infinity for none."""
    return torch.where(merged > 0, merged.clamp_min(1e-9).log(), float("-inf"))


@torch.no_grad()
def admit(bank: BankState, number: Tensor, write: Tensor, vector: Tensor, rules: Rules) -> Admitted:
    """Offer summaries in their order to the rules of `edgeasr.memory`; a bank without slots stands for an empty one.

    number: (B, S) int64; write: (B, S) of the write gate; vector: (B, S, C)
    """
    numbers, writes, vectors = (part.cpu().numpy() for part in (number, write.float(), vector))
    held_parts = [part.cpu().numpy() for part in _slots(bank)]
    without = bank.number.shape[1] == 0
    counts, sources, after = [], [], []
    for b in range(len(number)):
        row = Slots.empty(rules.capacity, vector.shape[2]) if without else Slots.copied(p[b] for p in held_parts)
        judged, row = judge_all(row, numbers[b], writes[b], vectors[b], rules)
        counts.append(judged.merged[:, rules.capacity :] if without else judged.merged)
        sources.append(judged.source)
        after.append(row)
    rows: list[list[NDArray[Any]]] = [counts, sources, *(list(parts) for parts in zip(*after, strict=True))]
    count, source, *slots = (torch.from_numpy(np.stack(parts)).to(number.device) for parts in rows)
    return Admitted(log_count(count), source, tuple(slots))


def as_held(bank: BankState, number: Tensor, write: Tensor, vector: Tensor, rules: Rules) -> Admitted:
    """Decide nothing: new summaries see the bank as it is, and the host admits them afterwards."""
    del write, vector, rules
    new = number.shape[1]
    bias = F.pad(held(bank), (0, new), value=float("-inf"))[:, None].expand(-1, new + 1, -1)
    return Admitted(bias, torch.arange(bank.number.shape[1]).expand_as(bank.number), _slots(bank))


def _slots(bank: BankState) -> tuple[Tensor, ...]:
    """What admission reads of a bank, as `edgeasr.memory.Slots` has it."""
    return tuple(getattr(bank, name) for name in Slots._fields)


def held(bank: BankState) -> Tensor:
    """Log-counts of a bank's slots, (B, slots)."""
    return log_count(torch.where(bank.number >= 0, bank.merged, 0.0))


def settle(bank: BankState, entries: Entries, admitted: Admitted) -> BankState:
    """The bank with what was admitted in its slots; one without slots stays as it is, since nobody reads it again."""
    if bank.number.shape[1] == 0:
        return bank
    source = admitted.source[:, None, None, :, None]
    key, value = (
        torch.cat([old, new], dim=3).take_along_dim(source, dim=3)
        for old, new in ((bank.key, entries.key), (bank.value, entries.value))
    )
    number, merged, last, pinned, vector = admitted.slots
    return BankState(number, merged, last, pinned, vector, key, value)


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
        self.config = config
        self.rules = Rules(config.memory_capacities[level], config.merge_similarity)
        width, readers = config.d_model, config.num_readers
        self.summary = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.write_gate = nn.Linear(width, 1) if config.write_gate else None
        if self.write_gate is not None:
            nn.init.constant_(self.write_gate.bias, 2.0)  # begins by writing most
        self.reader = MemoryReader(width, config.num_heads)
        self.level_key_value = nn.Linear(width, 2 * width)
        self.ff_norm = nn.LayerNorm(width)
        self.ff = FeedForward(width, config.ff_dim)
        self.output_norm = nn.LayerNorm(width)
        self.key_value = nn.Linear(width, 2 * width * (readers - 1))

    def init_state(self, batch: int, slots: int | None = None) -> BankState:
        """An empty bank of `slots` slots (None: the level's capacity)."""
        config, ref = self.config, self.norm.weight
        slots = self.rules.capacity if slots is None else slots
        empty = ref.new_zeros(batch, config.num_readers, config.num_heads, slots, config.head_dim)
        number = torch.full((batch, slots), -1, dtype=torch.int64, device=ref.device)
        return BankState(
            number,
            ref.new_zeros(batch, slots),
            number,
            torch.zeros(batch, slots, dtype=torch.bool, device=ref.device),
            ref.new_zeros(batch, slots, config.d_model),
            empty,
            empty,
        )

    def entries(
        self, pooled: Tensor, number: Tensor, bank: BankState, decide: Admit = admit
    ) -> tuple[Tensor, NewSummaries]:
        """Level outputs and bank entries of new summaries.

        A summary reads the bank as it was before it, and itself.

        pooled: (B, S, C); number: (B, S) int64 numbers in the stream, negative where a segment is incomplete
        returns: (B, S, C) outputs for the next level, and S entries with what became of them
        """
        vector = self.norm(self.summary(pooled)).float()
        write = self._write(vector)
        # While training, the gate is a chance; its gradient is that of a weight that was 1 (straight through).
        admitted = decide(bank, number, torch.bernoulli(write) if self.training else write, vector, self.rules)
        if self.training and self.write_gate is not None:
            slots = bank.number.shape[1]
            admitted = admitted._replace(bias=admitted.bias + F.pad(write - write.detach(), (slots, 0))[:, None])
        key, value = self._split(self.level_key_value(vector), 1)
        known_key = torch.cat([bank.key[:, 0], key[:, 0]], dim=2)
        known_value = torch.cat([bank.value[:, 0], value[:, 0]], dim=2)
        x = vector + self.reader(vector, known_key, known_value, _and_itself(admitted.bias))
        x = x + self.ff(self.ff_norm(x))
        upper_key, upper_value = self._split(self.key_value(self.output_norm(x)), self.config.num_readers - 1)
        keys, values = torch.cat([key, upper_key], dim=1), torch.cat([value, upper_value], dim=1)
        return x, NewSummaries(Entries(number, write, vector, keys, values), admitted)

    def _write(self, vector: Tensor) -> Tensor:
        """(B, S, C) -> (B, S), what the write gate says."""
        if self.write_gate is None:
            return torch.ones_like(vector[..., 0])
        return torch.sigmoid(self.write_gate(vector).float())[..., 0]

    def _split(self, key_value: Tensor, readers: int) -> tuple[Tensor, Tensor]:
        """(B, S, 2 * R * C) -> two of (B, R, H, S, D), in fp32: they are stored."""
        batch, length, _ = key_value.shape
        parts = key_value.float().reshape(batch, length, 2, readers, self.config.num_heads, -1)
        key, value = parts.permute(2, 0, 3, 4, 1, 5).unbind(0)
        return key, value


def _and_itself(bias: Tensor) -> Tensor:
    """What each new summary sees of the slots and the summaries before it, and itself as one; (B, S, slots + S)."""
    new = bias.shape[1] - 1
    itself = F.pad(torch.eye(new, dtype=torch.bool, device=bias.device), (bias.shape[2] - new, 0))
    return torch.where(itself, 0.0, bias[:, :-1])


def query_bias(admitted: Admitted, number: Tensor, time: Tensor, span: int) -> Tensor:
    """What queries add to their attention scores: a summary counts once the `span` vectors of it have passed.

    number: (B, S) int64 of the new summaries; time: (B, Q) int64, vectors passed when each query's chunk starts
    returns: (B, Q, slots + S)
    """
    complete = (number >= 0)[:, None] & ((number + 1)[:, None] * span <= time[:, :, None])  # (B, Q, S)
    row = complete.sum(dim=2, keepdim=True).expand(-1, -1, admitted.bias.shape[2])
    return admitted.bias.gather(1, row)
