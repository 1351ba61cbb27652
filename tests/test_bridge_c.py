"""The C library of the firmware bridge: built for this machine and microcontrollers, tested, fuzzed and compared."""

import os
import subprocess
import zlib
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

from edgeasr.config import FeatureConfig
from edgeasr.features import log_mel
from edgeasr.manifest import read_manifest

UNIT = 1024  # of a value of the C front end: a nat
FRAME = 160  # samples that the gate judges at once
NOISE_DB = -62
CROSS = {
    "m0plus": "arm-none-eabi-gcc",
    "m4f": "arm-none-eabi-gcc",
    "m33": "arm-none-eabi-gcc",
    "rv32": "riscv64-unknown-elf-gcc",
}


missing = run_path(str(Path(__file__).with_name("toolchain.py")))["missing"]


def needs(*programs: str) -> None:
    if (reason := missing(*programs)) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def make(repository: Path, tmp_path_factory):
    """Runs make in the library's folder, with a folder of its own for what is built; returns what it printed."""
    needs("make", "gcc")
    build = tmp_path_factory.mktemp("c")

    def run(*targets: str) -> str:
        targets = tuple(target.replace("BUILD/", f"{build}/") for target in targets)
        command = ["make", "-C", str(repository / "firmware_bridge" / "c"), "--no-print-directory", f"BUILD={build}"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
        done = subprocess.run([*command, *targets], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.build = build
    return run


def suites(output: str) -> dict[str, int]:
    """Checks of each suite that was run without a failure."""
    words = [line.split() for line in output.splitlines() if line.endswith(" 0 failed")]
    return {line[0]: int(line[1]) for line in words}


@pytest.mark.parametrize("goal", ["test", "sanitize"])
def test_units_and_vectors_pass(make, repository, goal):
    passed = suites(make(goal))
    units = {"cobs", "crc", "frame", "messages", "ring", "codecs", "features", "logmel", "vad", "gate"}
    vectors = {path.name for path in (repository / "firmware_bridge" / "vectors").iterdir()}
    assert set(passed) == units | vectors
    assert len(vectors) >= 15
    assert min(passed.values()) >= 5


def test_the_arithmetic_of_the_m0_gives_the_same(make):
    make("BUILD/short/unit", "BUILD/short/logmel_driver", "BUILD/host/logmel_driver")
    pcm = np.random.default_rng(1).integers(-32768, 32768, 16000).astype(np.int16)
    frames = [c_log_mel(make.build / variant / "logmel_driver", pcm) for variant in ("short", "host")]
    np.testing.assert_array_equal(*frames)
    assert len(frames[0]) == 98


@pytest.mark.parametrize("target", CROSS)
def test_it_builds_for(make, target):
    needs(CROSS[target])
    make(f"cross-{target}")
    assert (make.build / target / "libedgeasr.a").is_file()


def test_sizes_are_told_and_small(make):
    needs(*set(CROSS.values()))
    flash, ram, stack = (table_rows(text) for text in make("sizes").split("| --- ")[1:])
    assert max(flash["all"]) < 12 * 1024
    assert max(ram["logmel"]) < 3000
    assert max(max(sizes) for sizes in stack.values()) < 256


def table_rows(text: str) -> dict[str, list[int]]:
    """Numbers of a table in Markdown by the name that begins the row."""
    cells = [line.replace(",", "").split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(): [int(cell) for cell in row[1:]] for row in cells if row[1].strip().isdigit()}


def test_a_short_fuzz_finds_nothing(make):
    needs("clang")
    output = make("fuzz", "FUZZ_BYTES=100000")
    runs = {line.split()[0]: line for line in output.splitlines() if line.endswith("no fault")}
    assert set(runs) == {"cobs", "codecs", "frame", "packet", "signal"}


def test_the_tests_run_nearly_every_line(make):
    needs("gcovr")
    assert "TOTAL" in make("coverage")


def c_log_mel(program: Path, pcm: np.ndarray) -> np.ndarray:
    output = subprocess.run([program], input=pcm.tobytes(), stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(output, np.int16).reshape(-1, FeatureConfig().num_mels)


@pytest.fixture(scope="module")
def clips(speech: Path) -> list[np.ndarray]:
    """Twelve dev utterances of several speakers, as int16."""
    utterances = read_manifest(speech / "dev.jsonl")
    step = len(utterances) // 12
    waveforms = [soundfile.read(utterance.path, dtype="float32") for utterance in utterances[: 12 * step : step]]
    assert {rate for _, rate in waveforms} == {16000}
    return [to_pcm(waveform) for waveform, _ in waveforms]


def to_pcm(waveform: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)


def test_the_log_mel_is_that_of_the_definition(make, clips):
    make("BUILD/host/logmel_driver")
    program = make.build / "host" / "logmel_driver"
    errors = []
    for pcm in clips:
        expected = log_mel(pcm.astype(np.float32) / 32768, FeatureConfig())
        errors.append(np.abs(c_log_mel(program, pcm) / UNIT - expected).ravel())
    errors = np.concatenate(errors)
    assert len(errors) > 80 * 5000
    assert errors.mean() < 0.001
    assert errors.max() < 0.1


@pytest.mark.parametrize("gain_db", [0, -20])
def test_the_log_mel_of_quiet_speech_too(make, clips, gain_db):
    make("BUILD/host/logmel_driver")
    waveform = clips[0] / 32768 * 10 ** (gain_db / 20)
    expected = log_mel(waveform.astype(np.float32), FeatureConfig())
    difference = np.abs(c_log_mel(make.build / "host" / "logmel_driver", to_pcm(waveform)) / UNIT - expected)
    # Here the samples are rounded to int16 too.
    assert difference.mean() < 0.02


class Gated:
    """What the gate made of samples: events as (name, time), and runs of speech as (time, number of samples)."""

    def __init__(self, program: Path, pcm: np.ndarray, preroll: int) -> None:
        output = subprocess.run([program, str(preroll)], input=pcm.tobytes(), stdout=subprocess.PIPE, check=True).stdout
        lines = [line.split() for line in output.decode().splitlines()]
        self.events = [(name, int(time)) for name, time, *rest in lines if not rest]
        self.runs = [(int(time), int(count)) for _, time, count, _ in (line for line in lines if len(line) == 4)]
        self.checksums = [int(line[3]) for line in lines if len(line) == 4]

    def heard(self, length: int) -> np.ndarray:
        mask = np.zeros(length, bool)
        for start, count in self.runs:
            mask[start : start + count] = True
        return mask


def speech_part(pcm: np.ndarray) -> np.ndarray:
    """From the first to the last 30 ms that are at most 20 dB below the loudest frames."""
    frames = (pcm[: len(pcm) // FRAME * FRAME] / 32768).reshape(-1, FRAME)
    level = 10 * np.log10((frames**2).mean(axis=1) + 1e-12)
    loud = level > np.percentile(level, 95) - 20
    sustained = np.flatnonzero(loud[:-2] & loud[1:-1] & loud[2:])
    return pcm[sustained[0] * FRAME : (sustained[-1] + 3) * FRAME]


def test_the_gate_lets_all_speech_through(make, clips):
    make("BUILD/host/gate_driver")
    rng = np.random.default_rng(0)
    missing, silence_kept_back = [], []
    for clip in clips:
        part = speech_part(clip)
        quiet = to_pcm(rng.standard_normal(3 * 16000) * 10 ** (NOISE_DB / 20))
        pcm = np.concatenate([quiet, part, quiet])
        gated = Gated(make.build / "host" / "gate_driver", pcm, preroll=4800)
        for (start, count), checksum in zip(gated.runs, gated.checksums, strict=True):
            assert zlib.crc32(pcm[start : start + count].tobytes()) == checksum
        onset = gated.events[0][1]
        assert gated.events[0][0] == "start"
        # Found within 50 ms, and the pre-roll begins before the speech does.
        assert 0 <= onset + FRAME - len(quiet) <= 800
        assert len(quiet) - 4800 - FRAME <= gated.runs[0][0] <= len(quiet) - 4000
        assert gated.events[-1][0] == "end"
        heard = gated.heard(len(pcm))
        missing.append(1 - heard[len(quiet) : -len(quiet)].mean())
        silence_kept_back.append(1 - heard[-len(quiet) :].mean())
    assert np.mean(missing) < 0.01
    assert min(silence_kept_back) > 0.75


def test_the_gate_stays_shut_in_noise(make):
    make("BUILD/host/gate_driver")
    rng = np.random.default_rng(2)
    swell = 10 ** ((NOISE_DB + 6 * np.sin(np.arange(60 * 16000) / 160000)) / 20)
    noise = to_pcm(rng.standard_normal(60 * 16000) * swell)
    assert Gated(make.build / "host" / "gate_driver", noise, preroll=4800).events == []
