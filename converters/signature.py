"""Names, shapes and types of what goes into and out of the exported graphs.

Two graphs make up a model. `step` runs once a chunk; `memory` runs only when a segment is complete (once in
some seconds) and turns its summary into the entries that the host then admits to the banks. Keeping them apart
keeps the memory's weights out of the bandwidth of every step. A model that can change the length of its chunks has a
step for each (`step.320`, in ms); their states are the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from edgeasr.encoder import Encoder, EncoderState
from edgeasr.errors import BundleError
from edgeasr.hierarchy import BankState, Entries, PoolState, as_held
from edgeasr.model import MEMORY, STEP, chunk_of_part, step_part
from edgeasr.streaming import replace_tensors, state_tensors

Named = list[tuple[str, Tensor]]
_BANK_INPUTS = ("number", "merged", "key", "value")
TensorSpec = dict[str, str | float | list[int]]


class StepGraph(nn.Module):
    """One chunk of features to log-probabilities, the summary (if one is complete) and the next state."""

    def __init__(self, encoder: Encoder, name: str = STEP) -> None:
        super().__init__()
        self.encoder, self.name = encoder, name
        self.template = encoder.init_state(1)

    def example_inputs(self) -> Named:
        """Inputs in order, with their names."""
        config = self.encoder.config
        features = torch.zeros(1, config.encoder.chunk_features, config.features.num_mels)
        state = [(name, t) for name, t in state_tensors(self.template, "state") if _read_by_step(name)]
        return _distinct([("features", features), *state])

    def output_names(self) -> list[str]:
        """Names of what forward returns, in order."""
        summary = ["summary.vector", "summary.number"] if self.encoder.levels else []
        phones = ["phone_log_probs"] if self.encoder.config.phone_vocabulary_size else []
        return ["log_probs", *phones, *summary, *(f"next_state.{name}" for name in self._written())]

    def forward(self, features: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """features: (1, chunk_features, M); tensors: the state as `example_inputs` names it"""
        state = self._state(iter(tensors))
        encoder = self.encoder
        chunk_frames = encoder.config.encoder.chunk_frames
        x, frontend, lower = encoder.run_lower(features, state, chunk_frames)
        summary: tuple[Tensor, ...] = ()
        pool = state.pool
        if encoder.levels:
            pooled, number, first_pool = encoder.run_summaries(x, state.pool[0])
            summary = (pooled, number)
            pool = (first_pool, *state.pool[1:])
        y, upper = encoder.run_upper(x, state, chunk_frames, ())
        new = EncoderState(frontend, lower + upper, pool, state.bank, state.seen + x.shape[1])
        written = set(self._written())
        next_state = (tensor for name, tensor in state_tensors(new) if name in written)
        phones = encoder.emit_phones(y)
        emissions = (encoder.emit(y),) if phones is None else (encoder.emit(y), phones)
        return (*emissions, *summary, *next_state)

    def _state(self, tensors: Iterator[Tensor]) -> EncoderState:
        full = [next(tensors) if _read_by_step(f"state.{n}") else t for n, t in state_tensors(self.template)]
        return replace_tensors(self.template, iter(full))

    def _written(self) -> list[str]:
        names = [name for name, _ in state_tensors(self.template)]
        return [n for n in names if n.startswith(("frontend.", "level1.", "pool.0.", "seen"))]


class MemoryGraph(nn.Module):
    """The summary of a complete segment to entries of the banks of every level; number -1 where none is due."""

    name = MEMORY

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        template = encoder.init_state(1)
        self.pools: tuple[PoolState, ...] = template.pool[1:]
        self.banks: tuple[BankState, ...] = template.bank

    def example_inputs(self) -> Named:
        """Inputs in order, with their names."""
        width = self.encoder.config.encoder.d_model
        summary = [
            ("summary.vector", torch.zeros(1, 1, width)),
            ("summary.number", torch.zeros(1, 1, dtype=torch.int64)),
        ]
        return _distinct([*summary, *self._pool_tensors("state"), *_bank_tensors(self.banks)])

    def output_names(self) -> list[str]:
        """Names of what forward returns, in order."""
        pools = [name for name, _ in self._pool_tensors("next_state")]
        return [
            *pools,
            *(f"entry.{i}.{field}" for i in range(len(self.banks)) for field in self._entry_fields()),
        ]

    def forward(self, vector: Tensor, number: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """vector: (1, 1, C); number: (1, 1); tensors: pools and banks as `example_inputs` names them"""
        given = iter(tensors)
        pools = replace_tensors(self.pools, given)
        banks = tuple(bank._replace(**{field: next(given) for field in _BANK_INPUTS}) for bank in self.banks)
        next_pools, new = self.encoder.run_memory(vector, number, pools, banks, as_held)
        made = [getattr(level.entries, field) for level in new for field in self._entry_fields()]
        return (*(tensor for _, tensor in state_tensors(next_pools)), *made)

    def _entry_fields(self) -> list[str]:
        """What the host gets of an entry; only a model with a write gate has something to say with it."""
        gated = self.encoder.config.encoder.write_gate
        return [field for field in Entries._fields if gated or field != "write"]

    def _pool_tensors(self, prefix: str) -> Named:
        """The pools above the second level, numbered as in the whole state."""
        return [pair for i, pool in enumerate(self.pools, 1) for pair in state_tensors(pool, f"{prefix}.pool.{i}")]


Graph = StepGraph | MemoryGraph


def graphs(encoder: Encoder, chunk_lengths_ms: Sequence[int] = ()) -> Sequence[Graph]:
    """The graphs of an encoder, in the order in which they run. chunk_lengths_ms: beside its own"""
    steps = [StepGraph(encoder), *(StepGraph(in_chunks(encoder, ms), step_part(ms)) for ms in chunk_lengths_ms)]
    return [*steps, MemoryGraph(encoder)] if encoder.levels else steps


def graph_of_part(encoder: Encoder, part: str) -> Graph:
    """The graph of this name in a bundle. Errors: BundleError for another name, ConfigError as `with_chunk`"""
    if part == MEMORY:
        return MemoryGraph(encoder)
    if (chunk_ms := chunk_of_part(part)) is not None:
        return StepGraph(in_chunks(encoder, chunk_ms), part)
    if part != STEP:
        raise BundleError(f"got the part {part!r}, wanted {STEP}, {STEP}.MS or {MEMORY}: export the bundle again")
    return StepGraph(encoder)


def in_chunks(encoder: Encoder, chunk_ms: int) -> Encoder:
    """The same encoder, with the same weights, in chunks of another length. Errors: ConfigError as `with_chunk`"""
    other = copy.copy(encoder)
    other.config = encoder.config.with_chunk(chunk_ms)
    return other


def specs(tensors: Named) -> dict[str, TensorSpec]:
    """Shapes and types of named tensors as they stand in a bundle's manifest, and what a state is full of at first."""
    table: dict[str, TensorSpec] = {}
    for name, tensor in tensors:
        table[name] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        if name.startswith("state."):
            table[name]["initial"] = float(tensor.flatten()[0]) if tensor.numel() else 0.0
    return table


@torch.no_grad()
def graph_signature(graph: Graph) -> dict[str, dict[str, TensorSpec]]:
    """The whole signature of a graph."""
    inputs = graph.example_inputs()
    outputs = graph(*(tensor for _, tensor in inputs))
    return {
        "inputs": specs(inputs),
        "outputs": specs(list(zip(graph.output_names(), outputs, strict=True))),
    }


def _read_by_step(name: str) -> bool:
    """Upper pools are the memory graph's business, and what only admission reads is the host's."""
    if name.startswith("state.bank."):
        return name.endswith(_BANK_INPUTS)
    return not name.startswith("state.pool.") or name.startswith("state.pool.0.")


def _distinct(tensors: Named) -> Named:
    """Copies: an exporter takes inputs that share one tensor for one input."""
    return [(name, tensor.clone()) for name, tensor in tensors]


def _bank_tensors(banks: Sequence[BankState]) -> Named:
    return [(f"state.bank.{i}.{field}", getattr(bank, field)) for i, bank in enumerate(banks) for field in _BANK_INPUTS]
