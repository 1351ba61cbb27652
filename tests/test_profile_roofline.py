import pytest

from edgeasr.profile.bandwidth import BandwidthPoint
from edgeasr.profile.machine import CacheLevel, Costs, Machine
from edgeasr.profile.operators import GraphProfile, Operator
from edgeasr.profile.roofline import holding_cache, peak_gops, place_operator, place_step, working_set_bytes
from edgeasr.profile.work import Tensor

MACHINE = Machine(
    name="a machine",
    fingerprint="",
    cpu="",
    cores=2,
    caches=(CacheLevel(1, 2**15, 1, 80.0), CacheLevel(2, 2**20, 2, 40.0)),
    memory_bytes=2**28,
    features=(),
    bandwidth=(BandwidthPoint("copy", 1, 2**15, 80.0), BandwidthPoint("copy", 1, 2**21, 10.0)),
    fp32_gflops={1: 20.0, 2: 40.0},
    int8_gops={1: 100.0},
    costs={
        "onnxruntime": Costs(operator_us=1.0, tensor_us=0.5, product_us=3.0, few_rows_gops=50.0, operator_gb_per_s=20.0)
    },
    kernel_source="c",
)


def product(rows, time_us):
    x, y = (Tensor("", "float", (rows, 1000)) for _ in range(2))
    weight = Tensor("weight", "int8", (1000, 1000), "weight")
    return Operator("product", "DynamicQuantizeMatMul", (x, weight), (y,), time_us)


def profile(operators, weight_bytes=2_000_000):
    return GraphProfile(tuple(operators), 500.0, 0.0, weight_bytes, 100_000, 50_000, threads=1)


def test_one_row_waits_for_memory_and_many_for_arithmetic():
    one, many = product(1, 200.0), product(64, 2000.0)
    placed = place_operator(one, profile([one]), MACHINE)
    # A megabyte of weights at 10 GB/s; 8,000 bytes of activations at 80 GB/s; 2 million operations at 100 in 10^9.
    assert placed.memory_floor_us == pytest.approx(100 + 0.1)
    assert placed.compute_floor_us == pytest.approx(20)
    assert placed.bound == "memory"
    assert placed.roof_share == pytest.approx(100.1 / 200)
    assert placed.gb_per_s == pytest.approx(1_008_000 / 200e-6 / 1e9)
    assert placed.gop_per_s == pytest.approx(10.0)
    placed = place_operator(many, profile([many]), MACHINE)
    assert (placed.bound, placed.compute_floor_us) == ("compute", pytest.approx(1280))


def test_a_step_reads_weights_once_and_state_both_ways():
    shared = [product(1, 200.0), product(1, 200.0)]
    placed = place_step(profile(shared), MACHINE)
    assert working_set_bytes(profile(shared)) == placed.moved_bytes == 2_150_000
    assert placed.memory_floor_us == pytest.approx(215.0)
    assert placed.compute_floor_us == pytest.approx(40.0)
    assert placed.times_floor == pytest.approx(500 / 215)
    assert placed.intensity == pytest.approx(4e6 / 2_150_000)


def test_the_smallest_cache_that_holds_it():
    assert holding_cache(30_000, MACHINE).level == 1
    assert holding_cache(2**15 + 1, MACHINE).level == 2
    assert holding_cache(2**20 + 1, MACHINE) is None


def test_peaks_are_of_the_next_lower_number_of_threads():
    assert peak_gops(MACHINE, 4, int8=False) == 40.0
    assert peak_gops(MACHINE, 4, int8=True) == 100.0


def test_a_time_that_the_clock_could_not_resolve_is_no_division_by_zero():
    placed = place_operator(product(1, 0.0), profile([]), MACHINE)
    assert (placed.gb_per_s, placed.gop_per_s, placed.roof_share) == (0.0, 0.0, 1.0)
