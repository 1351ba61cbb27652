"""Causal layers of the first level: subsampling, windowed attention, depthwise convolution, feed-forward."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeasr.streaming import positions, visible

# A full turn of rotary positions, in whole numbers.
TURN = 2**31


class SubsamplingState(NamedTuple):
    """The feature frame and the hidden frame before the next chunk."""

    features: Tensor  # (B, 1, M)
    hidden: Tensor  # (B, C, 1, ceil(M / 2))


class CausalSubsampling(nn.Module):
    """Two causal convolutions of stride 2 over time and frequency: four feature frames become one."""

    def __init__(self, num_mels: int, channels: int, d_model: int) -> None:
        super().__init__()
        self.num_mels, self.channels = num_mels, channels
        self.hidden_bands = (num_mels + 1) // 2
        self.first = nn.Conv2d(1, channels, 3, stride=2, padding=(0, 1))
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=(0, 1))
        self.project = nn.Linear(channels * ((self.hidden_bands + 1) // 2), d_model)

    def init_state(self, batch: int) -> SubsamplingState:
        """Zeros: the normalised features of an average frame."""
        ref = self.project.weight
        return SubsamplingState(
            ref.new_zeros(batch, 1, self.num_mels), ref.new_zeros(batch, self.channels, 1, self.hidden_bands)
        )

    def step(self, x: Tensor, state: SubsamplingState) -> tuple[Tensor, SubsamplingState]:
        """x: (B, T, M) normalised features, T a multiple of 4. returns: (B, T / 4, C)"""
        features = torch.cat([state.features, x], dim=1)
        hidden = F.silu(self.first(features[:, None]))
        extended = torch.cat([state.hidden.to(hidden.dtype), hidden], dim=2)
        y = F.silu(self.second(extended))
        y = self.project(y.transpose(1, 2).flatten(2))
        return y, SubsamplingState(features[:, -1:], extended[:, :, -1:])

    def forward(self, x: Tensor) -> Tensor:
        """`step` over a whole recording."""
        return self.step(x, self.init_state(x.shape[0]))[0]


def phase_steps(head_dim: int) -> Tensor:
    """By how much each pair of channels turns from one position to the next, 1 / TURN of a full turn being the unit.

    returns: (D / 2,) int64
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    return (1000.0**-exponent / (2 * math.pi) * TURN).round().long()


def rotation(position: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles at absolute positions, as exact after a year as after a second.

    position: (B, T) int64; steps: (D / 2,) int64 of `phase_steps`
    returns:  two of (B, 1, T, D / 2) float32
    """
    # Whole numbers below TURN: their product fits into 63 bits, and nothing is rounded but the last angle.
    phase = (position % TURN)[:, None, :, None] * steps % TURN
    angle = phase.float() * (2 * math.pi / TURN)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864), halves convention.

    x: (B, H, T, D); cos, sin: (B, 1, T, D / 2)
    """
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, H * D) -> (B, H, T, D)"""
    batch, length, _ = x.shape
    return x.reshape(batch, length, num_heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D)"""
    return x.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention in fp32, since the bf16 kernels of CPUs take twice as long to train.

    query: (B, H, Q, D); key, value: (B, H, K, D); mask: (B, 1, Q, K) bool (True: visible) or float (added)
    returns: (B, H, Q, D)
    """
    if torch.is_autocast_enabled(query.device.type):
        with torch.autocast(query.device.type, enabled=False):
            return attend(query.float(), key.float(), value.float(), mask)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def attend_within(
    query: Tensor, key: Tensor, value: Tensor, position: Tensor, left_context: int, chunk_frames: int
) -> Tensor:
    """Attention of the last Q of K vectors to `left_context` before each, and to its chunk.

    Long recordings are cut into blocks, whose queries meet the keys of their own block and the one before only:
    the same values at a cost that does not grow with the square of the length.

    query: (B, H, Q, D), the first of them at the start of a chunk; key, value: (B, H, K, D); position: (B, K)
    returns: (B, H, Q, D)
    """
    length, past = query.shape[2], key.shape[2] - query.shape[2]
    block = -(-left_context // chunk_frames) * chunk_frames
    if length <= 2 * block:
        mask = visible(position[:, past:], position, left_context, chunk_frames)
        return attend(query, key, value, mask[:, None])
    blocks = -(-length // block)
    front, back = block - past, blocks * block - length
    batch, heads, _, channels = query.shape
    queries = F.pad(query, (0, 0, 0, back)).reshape(batch, heads, blocks, block, channels).transpose(1, 2).flatten(0, 1)
    keys, values = (_pairs_of_blocks(F.pad(part, (0, 0, front, back)), block) for part in (key, value))
    # Around the recording there is nothing to see; queries behind its end, cut off again, see what the last one does.
    query_times = torch.cat([position[:, past:], position[:, -1:].expand(-1, back)], dim=1).reshape(-1, block)
    key_times = F.pad(position, (front, back), value=-1).unfold(1, 2 * block, block).reshape(-1, 2 * block)
    mask = visible(query_times, key_times, left_context, chunk_frames)
    context = attend(queries, keys, values, mask[:, None])
    whole = context.reshape(batch, blocks, heads, block, channels).transpose(1, 2).flatten(2, 3)
    return whole[:, :, :length]


def _pairs_of_blocks(x: Tensor, block: int) -> Tensor:
    """(B, H, (n + 1) * block, D) -> (B * n, H, 2 * block, D): every block behind the one before it."""
    return x.unfold(2, 2 * block, block).permute(0, 2, 1, 4, 3).flatten(0, 1)


class AttentionState(NamedTuple):
    """Keys and values of the last `left_context` frames; keys are kept rotated to their absolute positions."""

    key: Tensor  # (B, H, left_context, D)
    value: Tensor  # (B, H, left_context, D)


class WindowedAttention(nn.Module):
    """Multi-head attention over `left_context` past frames and the frame's own chunk, with rotary positions.

    Rotary positions are those of the stream. Scores depend on their differences alone, and angles are computed from
    whole numbers, so an endless stream needs no renumbering.
    """

    phase_steps: Tensor

    def __init__(self, d_model: int, num_heads: int, left_context: int) -> None:
        super().__init__()
        self.num_heads, self.left_context = num_heads, left_context
        self.head_dim = d_model // num_heads
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        self.register_buffer("phase_steps", phase_steps(self.head_dim), persistent=False)

    def init_state(self, batch: int, slots: int | None = None) -> AttentionState:
        """An empty cache of `slots` frames (None: left_context); what it holds is never read."""
        slots = self.left_context if slots is None else slots
        empty = self.output.weight.new_zeros(batch, self.num_heads, slots, self.head_dim)
        return AttentionState(empty, empty)

    def step(self, x: Tensor, state: AttentionState, seen: Tensor, chunk_frames: int) -> tuple[Tensor, AttentionState]:
        """x: (B, T, C), whole chunks (the last may be ragged); seen: (B,) frames before x. returns: (B, T, C)"""
        query, key, value = (split_heads(part, self.num_heads) for part in self.query_key_value(x).chunk(3, -1))
        past = state.key.shape[2]
        position = positions(seen, past, x.shape[1])
        cos, sin = (part.to(query.dtype) for part in rotation(position[:, past:], self.phase_steps))
        key = torch.cat([state.key.to(key.dtype), rotate(key, cos, sin)], dim=2)
        value = torch.cat([state.value.to(value.dtype), value], dim=2)
        context = attend_within(rotate(query, cos, sin), key, value, position, self.left_context, chunk_frames)
        kept = AttentionState(key[:, :, -self.left_context :], value[:, :, -self.left_context :])
        return self.output(merge_heads(context)), kept


class CausalConvolution(nn.Module):
    """Gated pointwise, causal depthwise and pointwise convolution (Conformer, arXiv 2005.08100; causal, LayerNorm)."""

    def __init__(self, d_model: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.gated = nn.Linear(d_model, 2 * d_model)
        # Two-dimensional, because over (B, C, T, 1) the channels-last kernels are several times faster to train.
        self.depthwise = nn.Conv2d(d_model, d_model, (kernel, 1), groups=d_model)
        self.norm = nn.LayerNorm(d_model)
        self.output = nn.Linear(d_model, d_model)

    def init_state(self, batch: int) -> Tensor:
        """(B, kernel - 1, C) zeros: silence before the stream."""
        return self.output.weight.new_zeros(batch, self.kernel - 1, self.output.in_features)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B, T, C). returns: (B, T, C)"""
        gated = F.glu(self.gated(x), dim=-1)
        extended = torch.cat([state.to(gated.dtype), gated], dim=1)
        y = self.depthwise(extended.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        return self.output(F.silu(self.norm(y))), extended[:, extended.shape[1] - self.kernel + 1 :]


class FeedForward(nn.Sequential):
    """Position-wise feed-forward layer."""

    def __init__(self, d_model: int, ff_dim: int) -> None:
        super().__init__(nn.Linear(d_model, ff_dim), nn.SiLU(), nn.Linear(ff_dim, d_model))
