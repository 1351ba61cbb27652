import json
from dataclasses import replace

import pytest

from edgeasr.devices.hardware import Cache, Hardware
from edgeasr.errors import ProfileError
from edgeasr.profile import machine as machine_module
from edgeasr.profile.bandwidth import BandwidthPoint, Sweep
from edgeasr.profile.machine import (
    CacheLevel,
    Costs,
    Machine,
    cached_machine,
    fingerprint,
    measure_machine,
    nearest_below,
)

HARDWARE = Hardware("A board", "aarch64", "Cortex-A53", 4, ("asimd",), (Cache(1, 2**15, 1),), 2**30, 1e9)


COSTS = Costs(operator_us=4.0, tensor_us=3.0, product_us=9.0, few_rows_gops=3.0, operator_gb_per_s=5.0)


def machine(**changes):
    points = [
        BandwidthPoint("read", 1, 2**14, 16.0),
        BandwidthPoint("read", 1, 2**18, 8.0),
        BandwidthPoint("copy", 1, 2**14, 12.0),
        BandwidthPoint("copy", 1, 2**18, 10.0),
        BandwidthPoint("read", 4, 2**14, 60.0),
        BandwidthPoint("read", 4, 2**18, 9.0),
    ]
    made = Machine(
        name="A board",
        fingerprint="0123",
        cpu="Cortex-A53",
        cores=4,
        caches=(CacheLevel(1, 2**15, 1, 16.0), CacheLevel(2, 2**19, 4, None)),
        memory_bytes=2**30,
        features=("asimd",),
        bandwidth=tuple(points),
        fp32_gflops={1: 4.0, 4: 15.0},
        int8_gops={1: 8.0, 4: 30.0},
        costs={"onnxruntime": COSTS},
        kernel_source="c",
        missing=("nothing",),
    )
    return replace(made, **changes)


@pytest.fixture
def measured(monkeypatch):
    """How often, and how, the machine was measured."""
    calls = []

    def measure(quick, progress, folder):
        calls.append(quick)
        return machine(quick=quick, memory_bytes=len(calls))

    monkeypatch.setattr(machine_module, "measure_machine", measure)
    return calls


def test_bandwidth_between_measured_sizes_goes_by_the_logarithm():
    assert machine().gb_per_s(2**16, 1, "read") == pytest.approx(12.0)
    assert machine().gb_per_s(2**15, 1, "read") == pytest.approx(14.0)
    assert machine().gb_per_s(2**18, 1, "read") == 8.0


def test_bandwidth_beyond_measured_sizes_is_that_of_the_nearest():
    assert machine().gb_per_s(1, 1, "read") == 16.0
    assert machine().gb_per_s(2**40, 1, "read") == 8.0
    assert machine().dram_gb_per_s(1, "copy") == 10.0


def test_the_roof_is_the_best_kernel_at_each_size():
    assert machine().gb_per_s(2**14) == 16.0
    assert machine().dram_gb_per_s() == 10.0


def test_threads_that_were_not_measured_are_the_next_lower():
    assert machine().gb_per_s(2**14, 3) == 16.0
    assert machine().gb_per_s(2**14, 9) == 60.0
    assert nearest_below(1, (2, 4)) == 2


def test_an_unknown_kernel_names_the_measured_ones():
    with pytest.raises(ProfileError, match="got kernel 'triad', measured were copy, read"):
        machine().gb_per_s(1, 1, "triad")


def test_a_machine_survives_json():
    assert Machine.from_dict(json.loads(json.dumps(machine().to_dict()))) == machine()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": ...}, "keys missing or unknown: cores"),
        ({"clock": 1}, "keys missing or unknown: clock"),
        ({"bandwidth": [{"kernel": "read"}]}, "measure again"),
        ({"fp32_gflops": {"one": 1.0}}, "measure again"),
        ({"int8_gops": None}, "measure again"),
    ],
)
def test_what_is_no_machine_is_refused(change, message):
    values = {key: value for key, value in (machine().to_dict() | change).items() if value is not ...}
    with pytest.raises(ProfileError, match=message):
        Machine.from_dict(values)


def test_a_machine_is_measured_once(tmp_path, measured):
    first = cached_machine(folder=tmp_path)
    assert cached_machine(folder=tmp_path) == first
    assert cached_machine(quick=True, folder=tmp_path) == first
    assert measured == [False]
    assert cached_machine(refresh=True, folder=tmp_path).memory_bytes == 2
    assert cached_machine(folder=tmp_path).memory_bytes == 2


def test_what_was_measured_quickly_does_not_stand_for_a_full_measurement(tmp_path, measured):
    cached_machine(quick=True, folder=tmp_path)
    assert not cached_machine(folder=tmp_path).quick
    assert measured == [True, False]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": 3}', "\x00" * 100])
def test_a_corrupt_cache_is_measured_again(tmp_path, measured, content):
    cached_machine(folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(content)
    assert cached_machine(folder=tmp_path).memory_bytes == 2
    assert Machine.from_dict(json.loads(path.read_text())).memory_bytes == 2


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path, measured):
    (tmp_path / "file").write_text("")
    assert cached_machine(folder=tmp_path / "file" / "below").memory_bytes == 1
    assert cached_machine(folder=tmp_path / "file" / "below").memory_bytes == 2


def test_a_user_without_a_home_keeps_nothing(monkeypatch, measured):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert cached_machine().memory_bytes == 1
    assert cached_machine().memory_bytes == 2


def test_other_hardware_has_another_fingerprint():
    same = fingerprint(replace(HARDWARE), 4)
    assert same == fingerprint(HARDWARE, 4)
    others = [fingerprint(replace(HARDWARE, memory_bytes=2**31), 4), fingerprint(HARDWARE, 2)]
    assert len({same, *others}) == 3


def test_it_measures_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(
        machine_module,
        "quick_sweep",
        lambda cores, last, free: Sweep((2**18, 2**19), (1, 2), ("read", "copy"), rounds=1, sample_s=1e-4),
    )
    shares = []
    found = measure_machine(quick=True, progress=lambda what, share: shares.append(share), folder=tmp_path)
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] < 1
    assert {point.threads for point in found.bandwidth} == {1, 2}
    assert found.quick
    assert found.cores >= 1
    assert found.memory_bytes > 2**20
    assert Machine.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_levels_of_cache_are_measured_where_a_working_set_fits(tmp_path, monkeypatch):
    hardware = replace(HARDWARE, caches=(Cache(1, 2**15, 1), Cache(2, 2**18, 4), Cache(3, 2**18 + 1, 4)))
    points = (
        BandwidthPoint("read", 1, 2**14, 30.0),
        BandwidthPoint("read", 1, 2**16, 20.0),
        BandwidthPoint("copy", 1, 2**18, 9.0),
        BandwidthPoint("read", 1, 2**18, 11.0),
        BandwidthPoint("read", 4, 2**18, 40.0),
        BandwidthPoint("read", 1, 2**20, 2.0),
    )
    levels = machine_module._cache_levels(hardware, points)
    assert [level.measured_gb_per_s for level in levels] == [30.0, 20.0, None]
