"""What a network costs a device that hears one vector at a time: as an exported graph on ONNX Runtime, one thread."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgeasr.backends.onnxruntime import OnnxGraph
from edgeasr.baselines import GRU, LSTM, TCN
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.converters.signature import Graph, Named, graphs
from edgeasr.converters.to_onnx import to_onnx
from edgeasr.recall.models import Hierarchy, Recaller
from edgeasr.streaming import replace_tensors, state_tensors

_WARMUP_RUNS = 20
_RUNS = 200


@dataclass(frozen=True)
class Cost:
    """Of one vector.

    ms_per_step:    median
    bytes_per_step: weights, and the state as it is read and written; what runs once a summary counts in proportion
    """

    ms_per_step: float
    bytes_per_step: int


class VectorGraph(nn.Module):
    """One vector through a baseline, its state among the inputs and outputs."""

    name = "step"

    def __init__(self, model: LSTM | GRU | TCN, input_size: int) -> None:
        super().__init__()
        self.model, self.input_size = model, input_size
        self.template = model.init_state(1)

    def example_inputs(self) -> Named:
        """Inputs in order, with their names."""
        state = [(name, tensor.clone()) for name, tensor in state_tensors(self.template, "state")]
        return [("vector", torch.zeros(1, 1, self.input_size)), *state]

    def output_names(self) -> list[str]:
        """Names of what forward returns, in order."""
        return ["output", *(name for name, _ in state_tensors(self.template, "next_state"))]

    def forward(self, vector: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """vector: (1, 1, input_size); tensors: the state as `example_inputs` names it"""
        state = replace_tensors(self.template, iter(tensors))
        y, next_state = self.model.step(vector, state)  # type: ignore[arg-type]  # a state of its own kind
        return (y, *(tensor for _, tensor in state_tensors(next_state)))


def cost(model: Recaller, input_size: int) -> Cost:
    """Export in fp32, and measure."""
    total_ms, total_bytes = 0.0, 0.0
    for graph, share in _graphs(model, input_size):
        exported = to_onnx(graph)
        total_ms += share * _median_ms(OnnxGraph(exported))
        total_bytes += share * _touched_bytes(exported)
    return Cost(total_ms, round(total_bytes))


def _graphs(model: Recaller, input_size: int) -> Sequence[tuple[Graph, float]]:
    """Graphs, and how often each runs for one vector."""
    if not isinstance(model, Hierarchy):
        return [(cast(Graph, VectorGraph(model, input_size)), 1.0)]
    strides = model.encoder.config.encoder.summary_strides
    shares = (1.0, *(1 / stride for stride in strides[:1]))
    return list(zip(graphs(model.encoder), shares, strict=True))


def _touched_bytes(exported: bytes) -> int:
    """Bytes of a graph's weights, inputs and outputs."""
    model = onnx.load_from_string(exported)
    weights = sum(onnx.numpy_helper.to_array(weight).nbytes for weight in model.graph.initializer)
    graph = OnnxGraph(exported)
    return weights + sum(_bytes(spec) for spec in _specs(graph))


def _specs(graph: OnnxGraph) -> Iterable[TensorSpec]:
    return (*graph.inputs.values(), *graph.outputs.values())


def _bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize


def _median_ms(graph: OnnxGraph) -> float:
    feed = {name: np.zeros(spec.shape, spec.dtype) for name, spec in graph.inputs.items()}
    times = []
    for _ in range(_WARMUP_RUNS + _RUNS):
        began_s = time.perf_counter()
        graph.run(feed)
        times.append(time.perf_counter() - began_s)
    return 1000 * median(times[_WARMUP_RUNS:])
