"""A profile of a small graph on a machine that does not exist, for tests of what is said of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from edgeasr.config import ModelConfig
from edgeasr.profile.bandwidth import BandwidthPoint
from edgeasr.profile.counters import Counted
from edgeasr.profile.machine import CacheLevel, Costs, Machine
from edgeasr.profile.model_profile import Fed, ModelProfile
from edgeasr.profile.operators import GraphProfile, Operator
from edgeasr.profile.report import Measured, profile_report
from edgeasr.profile.run import StreamRun
from edgeasr.profile.sensors import Readings, Span
from edgeasr.profile.work import Tensor

MACHINE = Machine(
    name="Board <1>",
    fingerprint="0",
    cpu="a core",
    cores=2,
    caches=(CacheLevel(1, 2**15, 1, 80.0), CacheLevel(2, 2**20, 2, None)),
    memory_bytes=2**29,
    features=(),
    bandwidth=tuple(
        BandwidthPoint(kernel, threads, size, rate * threads)
        for kernel in ("read", "copy", "triad")
        for threads in (1, 2)
        for size, rate in ((2**14, 80.0), (2**20, 20.0), (2**24, 4.0))
    ),
    fp32_gflops={1: 20.0, 2: 40.0},
    int8_gops={1: 100.0, 2: 200.0},
    costs={
        "onnxruntime": Costs(
            operator_us=1.0, tensor_us=0.5, product_us=3.0, few_rows_gops=50.0, operator_gb_per_s=20.0
        ),
        "native": Costs(operator_us=0.1, tensor_us=0.0, product_us=0.2, few_rows_gops=80.0, operator_gb_per_s=30.0),
    },
    kernel_source="numpy",
    missing=("a compiler: there is none",),
)


def operator(name: str, op_type: str, time_us: float, weight: tuple[int, ...], dtype: str = "int8") -> Operator:
    x, y = Tensor("x", "float", (1, 4, weight[0])), Tensor("y", "float", (1, 4, weight[-1]))
    return Operator(name, op_type, (x, Tensor(f"{name}.w", dtype, weight, "weight")), (y,), time_us)


def step(time_us: float = 1000.0) -> GraphProfile:
    operators = (
        operator("first", "DynamicQuantizeMatMul", 0.6 * time_us, (192, 576)),
        operator("second", "MatMul", 0.3 * time_us, (576, 192), "float"),
        operator("third", "Reshape", -0.05 * time_us, (192,), "int64"),
    )
    return GraphProfile(operators, time_us, 2.0, 4_000_000, 1_500_000, 500_000, threads=1)


def readings(**changes: Any) -> Readings:
    known: dict[str, Any] = {
        "duration_s": 2.0,
        "cpu_s": 1.5,
        "rss_bytes": 90_000_000,
        "peak_rss_bytes": 95_000_000,
        "memory_parts": {"anonymous": 60_000_000, "file": 30_000_000, "shared": 0},
        "minor_faults": 1234,
        "major_faults": 0,
        "voluntary_switches": 5,
        "involuntary_switches": 6,
        "temperature_c": Span(40.0, 45.0, 51.0),
        "clock_hz": Span(6e8, 1e9, 1.5e9),
        "throttled": ("clock capped",),
        "energy_j": 3.25,
        "energy_of": "the board",
        "missing": ("a sense of humour: none was found",),
    }
    return Readings(**(known | changes))


def report(time_us: float = 1000.0, baselines: bool = True, **changes: Any) -> dict[str, Any]:
    """As `edgeasr profile --json` prints it. changes: of the readings"""
    lstm = GraphProfile(
        (operator("gates", "DynamicQuantizeMatMul", 90.0, (192, 576)),), 100.0, 2.0, 4_000_000, 5_000, 5_000, 1
    )
    fed = [Fed("lstm", lstm, 10, 1), Fed("lstm", lstm, 40, 1), Fed("lstm", lstm, 40, 4)] if baselines else []
    run = StreamRun(
        real_time=False,
        audio_s=16.0,
        wall_s=0.4,
        cpu_s=0.32,
        chunk_ms=list(np.linspace(2.0, 4.0, 100)),
        first_token_latency_ms=[200.0, 220.0],
        words=31,
    )
    memory = GraphProfile((), 100.0, 2.0, 600_000, 40_000, 0, threads=1)
    model = ModelProfile(step(time_us), memory, 4.0, Counted({"instructions": 5_000_000}, ("cycles: busy",)))
    acoustic = SimpleNamespace(config=ModelConfig(), name="toy", artefact="onnx-int8", backend="onnxruntime", threads=1)
    recognizer: Any = SimpleNamespace(model=acoustic, decoder="greedy")
    return profile_report(recognizer, MACHINE, Measured(model, run, readings(**changes), fed), latency_ms=200.0)
