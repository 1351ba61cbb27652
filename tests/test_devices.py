import json
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest

from edgeasr.devices.detect import detect
from edgeasr.devices.hardware import Cache, available_memory_bytes, read_hardware
from edgeasr.devices.profile import DeviceProfile, device_profile, device_profiles
from edgeasr.errors import ConfigError

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]

BOARDS = ("rpi-zero2w", "rpi3b-plus", "rpi4", "rpi5", "jetson-nano", "jetson-orin-nano")
GENERIC = ("generic-aarch64", "generic-x86-64")
PI_FEATURES = "fp asimd evtstrm crc32 cpuid"


def machine(root, model="", part="0xd08", features=PI_FEATURES, cores=4, caches=(("1", "Data", "32K", "0"),)):
    """A tree as an Arm kernel shows it. caches: level, type, size and the CPUs that share it"""
    block = "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: {}\nCPU implementer\t: 0x41\nCPU part\t: {}\n\n"
    write(root / "proc/cpuinfo", "".join(block.format(core, features, part) for core in range(cores)))
    write(
        root / "proc/meminfo", "MemTotal:        3884340 kB\nMemFree:          100000 kB\nMemAvailable:    3000000 kB\n"
    )
    if model:
        write(root / "proc/device-tree/model", model + "\0")
    cpu = root / "sys/devices/system/cpu"
    write(cpu / "present", f"0-{cores - 1}\n")
    write(cpu / "cpu0/cpufreq/cpuinfo_max_freq", "1800000\n")
    for i, (level, kind, size, shared) in enumerate(caches):
        for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
            write(cpu / f"cpu0/cache/index{i}/{name}", text + "\n")
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# The kernel's words.


def test_hardware_is_read_from_the_kernel(tmp_path):
    caches = (("1", "Data", "32K", "0"), ("1", "Instruction", "48K", "0"), ("2", "Unified", "1M", "0-3"))
    found = read_hardware(machine(tmp_path, "Raspberry Pi 4 Model B Rev 1.4", caches=caches), "aarch64")
    assert found.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert (found.cpu, found.cores, found.architecture) == ("Cortex-A72", 4, "aarch64")
    assert found.features == ("asimd", "cpuid", "crc32", "evtstrm", "fp")
    assert found.caches == (Cache(1, 2**15, 1), Cache(2, 2**20, 4))
    assert (found.memory_bytes, found.max_clock_hz) == (3884340 * 1024, 1.8e9)


def test_a_kernel_that_says_nothing_is_no_failure(tmp_path):
    found = read_hardware(tmp_path, "riscv64")
    assert (found.model, found.cpu, found.cores, found.caches) == ("", "unknown CPU", 1, ())
    assert (found.memory_bytes, found.max_clock_hz, found.features) == (0, 0.0, ())
    assert available_memory_bytes(tmp_path) == 0


def test_x86_has_other_names(tmp_path):
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nmodel name\t: A CPU\ncpu MHz\t\t: 2600.5\nflags\t\t: avx2 fma\n")
    found = read_hardware(tmp_path, "x86_64")
    assert (found.cpu, found.features, found.max_clock_hz) == ("A CPU", ("avx2", "fma"), 2600.5e6)


def test_unknown_parts_are_named_by_number(tmp_path):
    assert read_hardware(machine(tmp_path, part="0xfff"), "aarch64").cpu == "Arm part 0xfff"


def test_a_container_has_what_its_limit_leaves(tmp_path):
    machine(tmp_path)
    assert available_memory_bytes(tmp_path) == 3000000 * 1024
    write(tmp_path / "sys/fs/cgroup/memory.max", "1000000\n")
    write(tmp_path / "sys/fs/cgroup/memory.current", "400000\n")
    assert available_memory_bytes(tmp_path) == 600000
    write(tmp_path / "sys/fs/cgroup/memory.max", "max\n")
    assert available_memory_bytes(tmp_path) == 3000000 * 1024


def test_this_machine_is_read():
    found = read_hardware()
    assert found.cores >= 1
    assert found.memory_bytes > 2**20
    assert 0 < available_memory_bytes() <= found.memory_bytes


# Profiles.


def test_every_board_has_a_profile():
    names = [profile.name for profile in device_profiles()]
    assert set(names) == {*BOARDS, *GENERIC}
    assert names[-2:] == list(GENERIC)


@pytest.mark.parametrize("name", BOARDS + GENERIC)
def test_profiles_are_sound(name):
    profile = device_profile(name)
    assert profile.generic == (not profile.models)
    sizes = [cache.size_bytes * profile.cores // cache.shared_by for cache in profile.caches]
    rates = [profile.gb_per_s(cache.size_bytes) for cache in profile.caches]
    assert [cache.level for cache in profile.caches] == list(range(1, len(sizes) + 1))
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > profile.dram_gb_per_s
    # What memcpy moves, in and out, is less than what the bus could.
    assert profile.dram_gb_per_s < profile.bandwidth.theoretical_gb_per_s
    assert max(profile.memory_bytes) < 2**35
    assert profile.recommended.threads <= profile.cores
    assert all(vars(profile.sources).values())


def test_the_figures_are_those_of_the_sources():
    assert device_profile("rpi4").dram_gb_per_s == 4.66
    assert device_profile("rpi5").gb_per_s(2**21) == pytest.approx(12 * 2.4)
    assert device_profile("rpi5").gb_per_s(2**21 + 1) == pytest.approx(12.05)
    has_sdot = {name for name in BOARDS if "asimddp" in device_profile(name).features}
    assert has_sdot == {"rpi5", "jetson-orin-nano"}
    assert device_profile("rpi-zero2w").memory_bytes == (512 * 2**20,)


def tables(**changes):
    profile = device_profile("rpi4")
    values = {
        "name": "x",
        "title": "X",
        "soc": "S",
        "architecture": "aarch64",
        "models": [],
        "core": "C",
        "cores": 4,
        "clock_mhz": 1000,
        "memory_mb": [512],
        "features": [],
        "power": "",
        "caches": [{"level": 1, "size_kb": 32, "shared_by": 1, "bytes_per_cycle": 8}],
        "bandwidth": profile.bandwidth.to_dict(),
        "arithmetic": profile.arithmetic.to_dict(),
        "recommended": profile.recommended.to_dict(),
        "sources": profile.sources.to_dict(),
    } | changes
    return {key: value for key, value in values.items() if value is not ...}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": ...}, "cores"),
        ({"colour": "green"}, "colour"),
        ({"caches": []}, "caches"),
        ({"caches": [{"level": 1}]}, "size_kb"),
        ({"memory_mb": []}, "sizes of memory"),
        ({"cores": 0}, "positive"),
        ({"bandwidth": {"memcpy": 1.0}}, "unknown key 'memcpy' in Bandwidth"),
        ({"sources": {"caches": 3, "bandwidth": "", "arithmetic": "", "recommended": ""}}, "caches in Sources is 3"),
    ],
)
def test_a_malformed_profile_is_refused(change, message):
    assert DeviceProfile.from_dict(tables()).cores == 4
    with pytest.raises(ConfigError, match=message):
        DeviceProfile.from_dict(tables(**change))


# Detection.


@pytest.mark.parametrize(
    ("model", "part", "features", "name"),
    [
        ("Raspberry Pi Zero 2 W Rev 1.0", "0xd03", PI_FEATURES, "rpi-zero2w"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "0xd03", PI_FEATURES, "rpi3b-plus"),
        ("Raspberry Pi 4 Model B Rev 1.4", "0xd08", PI_FEATURES, "rpi4"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "0xd08", PI_FEATURES, "rpi4"),
        ("Raspberry Pi 5 Model B Rev 1.0", "0xd0b", PI_FEATURES + " asimdhp asimddp", "rpi5"),
        ("NVIDIA Jetson Nano Developer Kit", "0xd07", PI_FEATURES, "jetson-nano"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "0xd42", PI_FEATURES + " asimdhp asimddp", "jetson-orin-nano"),
    ],
)
def test_boards_are_known(tmp_path, model, part, features, name):
    found = detect(machine(tmp_path, model, part, features), "aarch64")
    assert (found.profile, found.known, found.notes) == (device_profile(name), True, ())


def test_a_name_alone_is_not_believed(tmp_path):
    found = detect(machine(tmp_path, "Raspberry Pi 5 Model B Rev 1.0"), "aarch64")
    assert (found.profile.name, found.known) == ("generic-aarch64", False)
    assert "its cores lack asimdhp, asimddp" in found.notes[0]
    found = detect(machine(tmp_path / "other", "Raspberry Pi 4 Model B Rev 1.4", cores=8), "aarch64")
    assert "it has 8 cores, not 4" in found.notes[0]


def test_an_unknown_board_gets_the_nearest_and_is_told_so(tmp_path):
    caches = (("1", "Data", "64K", "0"), ("2", "Unified", "512K", "0"), ("4", "Unified", "3M", "0-7"))
    tree = machine(tmp_path, "Radxa ROCK 5B", "0xd0b", PI_FEATURES + " asimddp", 8, caches)
    found = detect(tree, "aarch64")
    profile, generic = found.profile, device_profile("generic-aarch64")
    assert (profile.name, profile.title, found.known) == ("generic-aarch64", "Radxa ROCK 5B", False)
    assert found.notes[0] == "the board 'Radxa ROCK 5B' has no profile of its own"
    assert found.notes[1].startswith("taken for the nearest, generic-aarch64")
    assert (profile.cores, profile.core, profile.clock_hz) == (8, "Cortex-A76", 1.8e9)
    assert profile.memory_bytes == (3884340 * 1024,)
    assert profile.caches == (Cache(1, 2**16, 1), Cache(2, 2**19, 1), Cache(4, 3 * 2**20, 8))
    assert profile.bytes_per_cycle == (*generic.bytes_per_cycle, 8.0)
    assert profile.bandwidth == generic.bandwidth
    assert profile.sources.caches.startswith("sizes: the kernel")


def test_a_machine_that_says_nothing_gets_the_generic_profile(tmp_path):
    found = detect(tmp_path, "x86_64")
    generic = device_profile("generic-x86-64")
    assert found.profile == replace(generic, title="unknown CPU", core="unknown CPU", cores=1)
    assert "a machine without a device tree" in found.notes[0]
    assert detect(tmp_path, "riscv64").profile.name == "generic-aarch64"


def test_a_32_bit_system_on_a_known_board_is_told_so(tmp_path):
    tree = machine(tmp_path, "Raspberry Pi 4 Model B Rev 1.4", features="half thumb neon vfpv4 crc32")
    found = detect(tree, "armv7l")
    assert (found.profile.name, found.known) == ("rpi4", True)
    assert found.notes == ("the system is 32-bit: figures are those of a 64-bit one",)


# The commands.


def test_list_prints_every_board():
    code, out, err = edgeasr("devices", "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {*BOARDS, *GENERIC}
    assert next(line for line in lines if line.startswith("rpi4")).split()[1:8] == [
        "4", "1.80", "Cortex-A72", "1-8", "GB", "4.7", "tiny",
    ]  # fmt: skip
    assert {one["name"] for one in json.loads(edgeasr("devices", "list", "--json").out)} == {*BOARDS, *GENERIC}


def test_show_prints_figures_and_sources():
    code, out, err = edgeasr("devices", "show", "rpi5")
    assert (code, err) == (0, "")
    assert "4 x Cortex-A76, 2.40 GHz" in out
    assert "2048 KB for 4 cores" in out
    assert "memcpy 6025 MB/s, memset" in out
    assert "12.1 GB/s of one thread" in out  # as in the list
    assert "sbc-bench" in out
    found = json.loads(edgeasr("devices", "show", "rpi5", "--json").out)
    assert found["bandwidth"]["memcpy_mb_per_s"] == 6025


def test_an_unknown_name_lists_the_known_ones():
    code, out, err = edgeasr("devices", "show", "rpi6")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "got device 'rpi6'" in err
    assert all(name in err for name in BOARDS + GENERIC)


def test_detect_prints_this_machine():
    code, out, err = edgeasr("devices", "detect", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["profile"]["name"] in BOARDS + GENERIC
    assert found["known"] == (found["profile"]["name"] in BOARDS)
    code, out, err = edgeasr("devices", "detect")
    assert code == 0
    assert out.startswith(f"name          {found['profile']['name']}\n")
    assert [line.removeprefix("edgeasr: ") for line in err.splitlines()] == found["notes"]
