import subprocess
import time

import pytest

from edgeasr.profile import throttling
from edgeasr.profile.energy import PowerMeter, energy_meter
from edgeasr.profile.sensors import Sampler, Span, clock_hz, temperature_c
from edgeasr.profile.throttling import throttle_meter


def write(root, **files):
    """Files below root, by path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def pi(tmp_path):
    """What a Raspberry Pi shows."""
    write(
        tmp_path,
        **{
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": 48200,
            "sys/class/thermal/thermal_zone1/type": "rp1_adc",
            "sys/class/thermal/thermal_zone1/temp": 71000,
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 600000,
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": 1500000,
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50000",
            "proc/self/status": "Name:\tpython\nRssAnon:\t 1000 kB\nRssFile:\t 200 kB\nRssShmem:\t 4 kB",
        },
    )
    return tmp_path


def test_a_board_is_read_before_during_and_after(pi):
    sampler = Sampler(pi, period_s=0.005)
    sampler.start()
    write(pi, **{"sys/class/thermal/thermal_zone0/temp": 81000})
    write(pi, **{"sys/devices/platform/soc/soc:firmware/get_throttled": "50005"})
    write(pi, **{"sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": 1000000})
    deadline_s = time.monotonic() + 10
    while len(sampler._temperatures.values) < 5 and time.monotonic() < deadline_s:
        time.sleep(0.002)
    write(pi, **{"sys/devices/platform/soc/soc:firmware/get_throttled": "50000"})
    readings = sampler.stop()
    assert readings.temperature_c.lowest == 48.2
    assert readings.temperature_c.highest == 81.0
    assert 48.2 < readings.temperature_c.mean < 81.0
    assert readings.clock_hz.lowest == 1e9
    assert readings.clock_hz.highest == 1.5e9
    assert readings.throttled == ("supply voltage too low", "throttled")
    assert readings.memory_parts == {"anonymous": 1024000, "file": 204800, "shared": 4096}
    assert readings.rss_bytes == 1024000 + 204800 + 4096
    assert readings.energy_j is None
    assert readings.missing == ("energy: no RAPL counter that may be read (root may), and no INA3221",)


def test_what_only_was_before_the_run_is_not_of_the_run(pi):
    with Sampler(pi, period_s=10) as sampler:
        pass
    assert sampler.readings.throttled == ()
    assert sampler.readings.temperature_c == Span(48.2, 48.2, 48.2)


def test_with_nothing_to_read_everything_is_missing(tmp_path):
    with Sampler(tmp_path) as sampler:
        pass
    readings = sampler.readings
    assert (readings.temperature_c, readings.clock_hz, readings.throttled, readings.energy_j) == (None,) * 4
    assert (readings.rss_bytes, readings.memory_parts) == (None, {})
    what = [reason.split(":")[0] for reason in readings.missing]
    assert what == ["parts of the memory", "temperature", "clock", "throttling", "energy"]
    assert readings.peak_rss_bytes > 2**20


def test_the_process_is_counted():
    with Sampler(period_s=10) as sampler:
        began_s = time.process_time()
        while time.process_time() - began_s < 0.05:
            pass
        kept = bytearray(2**24)
        kept[:: 2**12] = b"x" * 2**12
        time.sleep(0.02)
    readings = sampler.readings
    assert readings.cpu_s >= 0.05
    assert readings.duration_s >= 0.07
    assert readings.minor_faults > 0
    assert readings.voluntary_switches > 0
    assert readings.rss_bytes == sum(readings.memory_parts.values())
    assert readings.peak_rss_bytes >= 0.9 * readings.rss_bytes
    assert readings.to_dict()["cpu_s"] == readings.cpu_s


def test_an_error_in_the_run_stops_the_sampler(pi):
    sampler = Sampler(pi, period_s=0.001)
    with pytest.raises(ZeroDivisionError), sampler:
        _ = 1 // 0
    assert not sampler._thread.is_alive()


def test_without_zones_the_hottest_sensor_counts(tmp_path):
    assert temperature_c(tmp_path) is None
    write(tmp_path, **{"sys/class/hwmon/hwmon0/temp1_input": 41000, "sys/class/hwmon/hwmon1/temp2_input": 55500})
    write(tmp_path, **{"sys/class/hwmon/hwmon1/temp3_input": "no number"})
    assert temperature_c(tmp_path) == 55.5


def test_clocks_that_cannot_be_read_are_left_out(pi):
    write(pi, **{"sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "<unknown>"})
    assert clock_hz(pi) == 6e8


# Energy.


def rapl(root, name, microjoules, limit=1_000_000):
    write(root, **{f"sys/class/powercap/{name}/energy_uj": microjoules})
    write(root, **{f"sys/class/powercap/{name}/max_energy_range_uj": limit})


def test_rapl_counts_packages_and_begins_again(tmp_path):
    rapl(tmp_path, "intel-rapl:0", 900_000)
    rapl(tmp_path, "intel-rapl:1", 0)
    rapl(tmp_path, "intel-rapl:0:0", 500_000)  # a part of the first
    meter = energy_meter(tmp_path)
    meter.sample()
    rapl(tmp_path, "intel-rapl:0", 100_000)
    rapl(tmp_path, "intel-rapl:1", 50_000)
    rapl(tmp_path, "intel-rapl:0:0", 600_000)
    meter.sample()
    meter.sample()
    assert meter.joules() == pytest.approx(0.2 + 0.05)
    assert "RAPL" in meter.name


def test_power_is_summed_over_time():
    times = iter((0.0, 1.0, 2.0, 4.0))
    powers = iter((2.0, 4.0, None, 1.0))
    meter = PowerMeter("a board", lambda: next(powers), lambda: next(times))
    for _ in range(4):
        meter.sample()
    assert meter.joules() == pytest.approx(1.0 * 3.0 + 3.0 * 2.5)


@pytest.mark.parametrize(
    "files",
    [
        {
            "sys/class/hwmon/hwmon0/name": "nct6775",
            "sys/class/hwmon/hwmon0/in1_input": 1,
            "sys/class/hwmon/hwmon3/name": "ina3221",
            "sys/class/hwmon/hwmon3/in1_input": 5000,
            "sys/class/hwmon/hwmon3/curr1_input": 800,
        },
        {"sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": 4000},
    ],
)
def test_a_jetsons_power_is_read(tmp_path, files, monkeypatch):
    write(tmp_path, **files)
    meter = energy_meter(tmp_path)
    clock = iter((0.0, 2.0))
    monkeypatch.setattr(meter, "_clock", lambda: next(clock))
    meter.sample()
    meter.sample()
    assert meter.joules() == pytest.approx(2 * 4.0)


# Throttling.


def test_x86_counts_how_often(tmp_path):
    for core, times in ((0, 7), (1, 1)):
        write(tmp_path, **{f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count": times})
    meter = throttle_meter(tmp_path)
    meter.sample()
    assert meter.seen() == ()
    write(tmp_path, **{"sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": 3})
    meter.sample()
    assert meter.seen() == ("throttled 2 times",)


def test_what_was_forgotten_is_not_seen_again(tmp_path, pi):
    write(pi, **{"sys/devices/platform/soc/soc:firmware/get_throttled": "50005"})
    firmware = throttle_meter(pi)
    firmware.sample()
    firmware.forget()
    write(pi, **{"sys/devices/platform/soc/soc:firmware/get_throttled": "50002"})
    firmware.sample()
    assert firmware.seen() == ("clock capped",)
    path = tmp_path / "x86"
    write(path, **{"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": 7})
    counted = throttle_meter(path)
    counted.forget()
    counted.sample()
    for times, seen in ((9, ("throttled 2 times",)), (9, ()), (10, ("throttled 1 time",))):
        write(path, **{"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": times})
        counted.sample()
        assert counted.seen() == seen
        counted.forget()


@pytest.mark.parametrize(
    ("says", "bits"), [("throttled=0x50005\n", 0x50005), ('error=1 error_msg="no"\n', None), ("", None)]
)
def test_vcgencmd_is_understood(monkeypatch, says, bits):
    done = subprocess.CompletedProcess([], 0, stdout=says)
    monkeypatch.setattr(throttling.subprocess, "run", lambda *arguments, **options: done)
    assert throttling._ask("vcgencmd") == bits


def test_a_vcgencmd_that_hangs_is_missing(monkeypatch):
    def hang(*arguments, **options):
        raise subprocess.TimeoutExpired("vcgencmd", 2)

    monkeypatch.setattr(throttling.subprocess, "run", hang)
    assert throttling._ask("vcgencmd") is None
