from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edgeasr.devices.profile import device_profile, device_profiles
from edgeasr.errors import ProfileError
from edgeasr.profile import prediction
from edgeasr.profile.bandwidth import BandwidthPoint
from edgeasr.profile.machine import CacheLevel, Costs, Machine
from edgeasr.profile.prediction import Work, predict, step_work

WORK = Work(
    weight_bytes=4_000_000,
    activation_bytes=2_000_000,
    state_bytes=1_000_000,
    int8_macs=10_000_000,
    fp32_macs=1_000_000,
    tensors=60,
    operators=500,
    products=50,
    chunk_ms=160.0,
)

COSTS = Costs(operator_us=1.0, tensor_us=0.5, product_us=3.0, few_rows_gops=50.0, operator_gb_per_s=20.0)


def machine(**changes):
    made = Machine(
        name="a machine",
        fingerprint="",
        cpu="",
        cores=2,
        caches=(CacheLevel(1, 2**15, 1, None), CacheLevel(2, 2**20, 2, None)),
        memory_bytes=2**28,
        features=(),
        bandwidth=(
            BandwidthPoint("read", 1, 2**20, 40.0),
            BandwidthPoint("read", 1, 2**22, 10.0),
            BandwidthPoint("copy", 1, 2**20, 20.0),
            BandwidthPoint("copy", 1, 2**22, 8.0),
            BandwidthPoint("read", 2, 2**22, 20.0),
            BandwidthPoint("copy", 2, 2**22, 16.0),
        ),
        fp32_gflops={1: 10.0, 2: 20.0},
        int8_gops={1: 100.0, 2: 150.0},
        costs={"onnxruntime": COSTS, "native": replace(COSTS, operator_us=0.1, tensor_us=0.0, product_us=0.2)},
        kernel_source="c",
    )
    return replace(made, **changes)


def costing(**changes):
    """A machine on which ONNX Runtime has other costs."""
    return machine(costs={"onnxruntime": replace(COSTS, **changes)})


def test_the_formula():
    found = predict(machine(), WORK)
    assert found.operators_ms == pytest.approx((500 * 1.0 + 60 * 0.5 + 50 * (3.0 - 1.0)) / 1e3)
    # Products take 2e7 / 50e9 s and 2e6 / 10e9 s, reading the weights 4e6 / 10e9 s.
    assert found.weights_ms == pytest.approx(0.4 + 0.2)
    assert found.activations_ms == pytest.approx(1e6 / 8e9 * 1e3 + 2e6 / 20e9 * 1e3)
    assert found.time_ms == pytest.approx(found.operators_ms + found.weights_ms + found.activations_ms)
    assert found.real_time_factor == pytest.approx(found.time_ms / 160)
    assert found.bound == "operators"


def test_a_backend_has_costs_of_its_own():
    native = predict(machine(), WORK, backend="native")
    assert native.operators_ms == pytest.approx((450 * 0.1 + 50 * 0.2) / 1e3)
    assert native.weights_ms == predict(machine(), WORK).weights_ms
    board = device_profile("rpi4")
    assert predict(board, WORK, backend="native").time_ms < predict(board, WORK).time_ms
    with pytest.raises(
        ProfileError, match="got backend 'litert', wanted one whose costs are known: onnxruntime, native"
    ):
        predict(machine(), WORK, backend="litert")


def test_weights_are_read_while_they_are_multiplied():
    slow = tuple(replace(point, gb_per_s=0.5) for point in machine().bandwidth if point.kernel == "read")
    copies = tuple(point for point in machine().bandwidth if point.kernel == "copy")
    found = predict(machine(bandwidth=slow + copies), WORK)
    assert found.weights_ms == pytest.approx(8.0)
    assert found.bound == "memory"
    assert predict(costing(few_rows_gops=0.1), WORK).bound == "compute"


def test_threads_share_products_and_bandwidth_but_not_the_runtimes_own_time():
    one, two = predict(machine(), WORK), predict(machine(), WORK, threads=2)
    assert two.operators_ms == one.operators_ms
    assert two.weights_ms == pytest.approx(2e7 / 75e9 * 1e3 + 2e6 / 20e9 * 1e3)
    assert two.activations_ms == pytest.approx(1e6 / 16e9 * 1e3 + 2e6 / 20e9 * 1e3)
    with pytest.raises(ProfileError, match="got 0 threads"):
        predict(machine(), WORK, threads=0)


def test_what_does_not_fit_a_cache_comes_from_dram_each_step():
    found = predict(machine(), WORK)
    assert found.dram_bytes == 5_000_000
    assert found.demand_gb_per_s == pytest.approx(5e6 / 0.16 / 1e9)
    assert found.bandwidth_gb_per_s == pytest.approx(5e6 / (found.time_ms * 1e-3) / 1e9)
    small = predict(machine(), replace(WORK, weight_bytes=2**19, state_bytes=2**10))
    assert (small.dram_bytes, small.demand_gb_per_s) == (0, 0.0)


def test_it_says_what_does_not_fit():
    assert predict(machine(), WORK).fits_memory is None
    assert predict(machine(), replace(WORK, resident_bytes=2**27)).fits_memory is True
    assert predict(machine(), replace(WORK, resident_bytes=2**27 + 1)).fits_memory is False
    assert predict(machine(), WORK).real_time
    assert not predict(costing(operator_us=400.0), WORK).real_time


def test_a_board_is_predicted_by_its_profile():
    board = device_profile("rpi4")
    found = predict(board, WORK)
    reference = prediction.REFERENCES["onnxruntime"]
    slower = reference.mips / 1769
    runtime_us = 450 * reference.operator_us + 60 * reference.tensor_us + 50 * reference.product_us
    assert found.operators_ms == pytest.approx(runtime_us * slower / 1e3)
    products_ms = 2e7 / (1.8e9 * 16 * 0.28) * 1e3 + 2e6 / (1.8e9 * 8 * 0.7) * 1e3
    assert found.weights_ms == pytest.approx(max(products_ms, 4e6 / (2 * 2330e6) * 1e3))
    assert found.activations_ms == pytest.approx(1e6 / (2 * 2330e6) * 1e3 + 2e6 / (8 * 1.8e9) * 1e3)
    assert found.dram_bytes == 5_000_000


def test_what_fits_a_boards_cache_is_read_from_it():
    found = predict(device_profile("jetson-orin-nano"), replace(WORK, weight_bytes=3 * 2**20, state_bytes=2**10))
    assert (found.dram_bytes, found.bandwidth_gb_per_s) == (0, 0.0)


def test_faster_boards_are_predicted_faster():
    times = {board.name: predict(board, WORK).time_ms for board in device_profiles()}
    assert times["rpi5"] < times["rpi4"] < times["rpi3b-plus"] < times["rpi-zero2w"]
    assert times["jetson-orin-nano"] < times["jetson-nano"]


def test_no_more_cores_than_there_are_help():
    board = device_profile("rpi4")
    assert predict(board, WORK, threads=4).weights_ms == predict(board, WORK, threads=8).weights_ms


def test_a_profiled_graph_says_what_it_asks_for():
    def operator(*names, int8=False):
        tensors = [SimpleNamespace(name=name) for name in names]
        return SimpleNamespace(inputs=tensors[:1], outputs=tensors[1:], work=SimpleNamespace(int8=int8))

    profile = SimpleNamespace(
        weight_bytes=5,
        activation_bytes=7,
        state_bytes=11,
        macs=lambda *, int8: 13 if int8 else 17,
        operators=(
            operator("state.level1.0.key", "a"),
            operator("state.level1.0.key", "b"),
            operator("a", "next_state.level1.0.key", int8=True),
            operator("b", "log_probs"),
        ),
    )
    assert step_work(profile, 160.0, 19) == Work(
        5, 7, 11, 13, 17, tensors=2, operators=4, products=1, chunk_ms=160.0, resident_bytes=19
    )


def test_the_shipped_step_is_within_real_time_of_every_board(repository):
    from edgeasr.backends.onnxruntime import OnnxGraph
    from edgeasr.profile.operators import Effort, profile_graph

    path = repository / "edgeasr" / "models" / "tiny-en" / "step.int8.onnx"
    feed = {name: np.zeros(spec.shape, spec.dtype) for name, spec in OnnxGraph(path).inputs.items()}
    work = step_work(profile_graph(path, feed, effort=Effort(1, 2, 2)), 160.0)
    assert work.int8_macs > 10**7
    assert work.tensors > 20
    assert 0 < work.products < work.operators
    for board in device_profiles():
        found = predict(board, work)
        assert 0 < found.real_time_factor < 0.5
        assert found.demand_gb_per_s < board.dram_gb_per_s / 10
