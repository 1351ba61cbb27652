"""The examples for boards: that they compile for their processors, and the decimator of the PDM microphone by value."""

import subprocess
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

missing = run_path(str(Path(__file__).with_name("toolchain.py")))["missing"]
C = Path(__file__).parents[1] / "firmware_bridge" / "c"
BIT_RATE_HZ, RATE_HZ = 1_024_000, 16_000

# Words of bits on standard input, samples on standard output.
DRIVER = """
#include <stdio.h>
#include "pdm.h"

int main(void) {
    pdm_t pdm;
    uint32_t words[PDM_WORDS_PER_SAMPLE];
    int16_t sample;
    pdm_init(&pdm);
    while (fread(words, sizeof words, 1, stdin) == 1) {
        pdm_decimate(&pdm, words, 1, &sample);
        fwrite(&sample, sizeof sample, 1, stdout);
    }
    return 0;
}
"""


@pytest.mark.parametrize(
    ("example", "compiler"), [("rp2040", "arm-none-eabi-gcc"), ("esp32", "riscv64-unknown-elf-gcc")]
)
def test_an_example_compiles_for_its_processor(tmp_path, example, compiler):
    if (reason := missing("make", compiler)) is not None:
        pytest.skip(reason)
    command = ["make", "--silent", "-C", C / "examples", f"BUILD={tmp_path}", example]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{example}: ")


@pytest.fixture(scope="module")
def decimate(tmp_path_factory):
    """A function from the values of PDM, -1 or 1, to samples."""
    if (reason := missing("gcc")) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("pdm")
    (folder / "driver.c").write_text(DRIVER)
    sources = [folder / "driver.c", C / "examples" / "rp2040" / "pdm.c"]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2", "-fsanitize=undefined,address"]
    subprocess.run(
        ["gcc", *flags, f"-I{sources[1].parent}", "-o", folder / "driver", *sources, "-fno-sanitize-recover"],
        check=True,
    )

    def run(pdm: np.ndarray) -> np.ndarray:
        words = np.packbits(pdm > 0).view(">u4").astype("<u4")
        done = subprocess.run([folder / "driver"], input=words.tobytes(), capture_output=True, check=True)
        return np.frombuffer(done.stdout, "<i2")

    return run


def modulated(waveform: np.ndarray) -> np.ndarray:
    """Sigma-delta modulation of second order, as the microphone does it. waveform: at the bit rate, in [-1, 1]"""
    first = second = output = 0.0
    bits = []
    for value in waveform.tolist():
        first += value - output
        second += first - 2 * output
        output = 1.0 if second >= 0 else -1.0
        bits.append(output)
    return np.array(bits)


@pytest.mark.parametrize("hz", [100, 1000, 3000, 6900])
def test_a_tone_keeps_its_level(decimate, hz):
    seconds = 0.2
    time = np.arange(round(BIT_RATE_HZ * seconds)) / BIT_RATE_HZ
    samples = decimate(modulated(0.25 * np.sin(2 * np.pi * hz * time))) / 32768
    settled = samples[len(samples) // 2 :]  # a whole number of periods
    at = np.arange(len(settled)) / RATE_HZ
    part = 2 * np.mean(settled * np.exp(-2j * np.pi * hz * at))
    assert 20 * np.log10(abs(part) / 0.25) == pytest.approx(0, abs=0.3)
    tone = (part * np.exp(2j * np.pi * hz * at)).real
    noise = settled - tone - settled.mean()
    assert 20 * np.log10(np.std(tone) / np.std(noise)) > 45


def test_what_lies_above_hearing_does_not_fold_back(decimate):
    time = np.arange(BIT_RATE_HZ // 5) / BIT_RATE_HZ
    samples = decimate(modulated(0.25 * np.sin(2 * np.pi * 11_000 * time))) / 32768  # would fold to 5 kHz
    settled = samples[len(samples) // 2 :]
    folded = 2 * np.mean(settled * np.exp(-2j * np.pi * 5000 * np.arange(len(settled)) / RATE_HZ))
    assert 20 * np.log10(abs(folded) / 0.25) < -45


def test_full_scale_is_full_scale(decimate):
    assert decimate(np.ones(BIT_RATE_HZ // 50))[-1] >= 32760
    assert decimate(-np.ones(BIT_RATE_HZ // 50))[-1] <= -32760
    assert abs(int(decimate(np.tile([1, -1], BIT_RATE_HZ // 100))[-1])) <= 1
