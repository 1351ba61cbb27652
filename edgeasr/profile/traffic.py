"""Bytes from memory for each second of audio, at other lengths of chunk than the one that a graph was exported with.

Weights are read once a chunk, however long it is, and so are the caches of attention; frames cost the same each. A
longer chunk is therefore cheaper, and later: it is this trade that `recommended` settles.

From memory (DRAM) come a step's weights and state, where no cache keeps them until the next step: so on boards, whose
last cache is smaller than the weights. What operators hand each other within a step stays in cache on every board.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeasr.config import ModelConfig
from edgeasr.profile.operators import GraphProfile, Operator
from edgeasr.profile.work import VIEWS, Tensor

CHUNKS_MS = (40, 80, 160, 320, 640, 1280)


@dataclass(frozen=True)
class ChunkTraffic:
    """What a length of chunk costs, modelled.

    dram_bytes_per_s:  weights and state for each second of audio, where no cache keeps them between steps
    moved_bytes_per_s: these and what operators hand each other, which stays in cache
    step_ms:           time of a step, from the measured one in proportion to what is moved
    latency_ms:        from a sound to the output that has heard it: a chunk, the rest of a window, a step
    """

    chunk_ms: int
    dram_bytes_per_s: float
    moved_bytes_per_s: float
    step_ms: float
    latency_ms: float


def chunk_traffic(
    profile: GraphProfile, config: ModelConfig, chunks_ms: Iterable[int] = CHUNKS_MS
) -> list[ChunkTraffic]:
    """The costs at several lengths of chunk; the others are those of a model with the same weights."""
    frame_ms = config.frame_s * 1000
    here = _moved_bytes(profile, config, config.encoder.chunk_frames)
    found = []
    for chunk_ms in chunks_ms:
        moved = _moved_bytes(profile, config, round(chunk_ms / frame_ms))
        step_ms = profile.step_us / 1000 * moved / here
        features = config.features
        window_ms = (features.win_length - features.hop_length) / features.sample_rate_hz * 1000
        dram = profile.weight_bytes + profile.state_bytes
        per_s = 1000 / chunk_ms
        found.append(ChunkTraffic(chunk_ms, dram * per_s, moved * per_s, step_ms, chunk_ms + window_ms + step_ms))
    return found


def recommended(traffic: Sequence[ChunkTraffic], latency_ms: float) -> ChunkTraffic | None:
    """The one that moves least from memory, of those within the latency; None where none is."""
    within = [one for one in traffic if one.latency_ms <= latency_ms]
    return min(within, key=lambda one: one.dram_bytes_per_s, default=None)


def _moved_bytes(profile: GraphProfile, config: ModelConfig, chunk_frames: int) -> float:
    """Of a step whose chunk has another number of frames."""
    activations = sum(_activation_bytes(operator, config, chunk_frames) for operator in profile.operators)
    return profile.weight_bytes + profile.state_bytes + activations


def _activation_bytes(operator: Operator, config: ModelConfig, chunk_frames: int) -> float:
    if operator.op_type in VIEWS:
        return 0.0
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor.kind == "activation"]
    total = sum(tensor.size_bytes for tensor in tensors)
    scaled = sum(tensor.size_bytes * _growth(tensor, config, chunk_frames) for tensor in tensors)
    # A selection reads less than its tensors hold; it grows as they do.
    return operator.work.activation_bytes * scaled / total if total else 0.0


def _growth(tensor: Tensor, config: ModelConfig, chunk_frames: int) -> float:
    """How much larger a tensor is where a chunk has another number of frames.

    Caches and banks stay as they are; what attention sees is a cache and a chunk long, its scores also a chunk wide;
    everything else is a chunk long.
    """
    encoder = config.encoder
    ratio = chunk_frames / encoder.chunk_frames
    seen = encoder.left_context + encoder.chunk_frames
    kept = {encoder.left_context, *encoder.memory_capacities, *(n + 1 for n in encoder.memory_capacities)}
    longer = (encoder.left_context + chunk_frames) / seen
    if seen in tensor.shape:
        return longer * (ratio if tensor.shape[-1] == seen else 1.0)
    if kept & set(tensor.shape[:-1]):
        return 1.0
    return ratio
