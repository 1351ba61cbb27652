import re
import subprocess
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.config import FeatureConfig
from edgeasr.features import analysis_window, mel_filterbank
from edgeasr.firmware_bridge import generate, tables
from edgeasr.firmware_bridge.frame import encode_frame
from edgeasr.firmware_bridge.messages import MESSAGES, Flow, Ping, Status, TailField

missing = run_path(str(Path(__file__).with_name("toolchain.py")))["missing"]
FLAGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror")
COMPILERS = ("gcc", "clang", "arm-none-eabi-gcc")


@pytest.fixture
def folder(repository):
    return repository / "firmware_bridge"


def test_the_generated_files_are_those_of_the_sources(folder):
    assert generate.stale_files(folder) == []


def test_the_vectors_are_all_generated(folder):
    names = {name for name in generate.generated_files() if name.startswith("vectors/")}
    assert names == {f"vectors/{path.name}" for path in (folder / "vectors").iterdir()}


def test_a_stale_file_is_found_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err.count("stale: ") == len(generate.generated_files())
    assert not list(tmp_path.iterdir())
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "vectors" / "cobs.txt").write_text("# other\n")
    assert generate.stale_files(tmp_path) == ["vectors/cobs.txt"]
    assert generate.main(["--check"]) == 1


def test_the_header_names_every_message_and_status(folder):
    header = (folder / "c" / "include" / "edgeasr_messages.h").read_text()
    for message in MESSAGES.values():
        noun = message.title().lower()
        assert f"EDGEASR_TYPE_{message.title()} = {message.TYPE}," in header
        assert f"#define EDGEASR_{message.title()}_SIZE {message.fixed_size()}u" in header
        assert f"edgeasr_status_t edgeasr_{noun}_pack(" in header
        assert f"edgeasr_status_t edgeasr_{noun}_unpack(" in header
    known = int(re.search(r"EDGEASR_KNOWN_TYPES (0x[0-9A-F]{8})u", header)[1], 16)
    assert {number for number in range(32) if known >> number & 1} == set(MESSAGES)
    status = (folder / "c" / "include" / "edgeasr_status.h").read_text()
    assert dict(re.findall(r"EDGEASR_(\w+) = (\d+)", status)) == {s.name: str(s.value) for s in Status}


def wire_name(field):
    if isinstance(field, TailField):
        return "utf8" if field.text else "bytes"
    return f"{'i' if field.signed else 'u'}{8 * field.size}"


def test_the_specification_lists_every_message_with_its_fields(repository):
    text = (repository / "docs" / "firmware-protocol.md").read_text()
    senders = {Flow.BOTH: "both", Flow.TO_HOST: "device", Flow.TO_DEVICE: "host"}
    rows = [
        f"| {message.TYPE} | {message.title()} | {senders[message.FLOW]} | "
        + ", ".join(f"{wire_name(field)} {name}" for name, field in message.wire_fields().items())
        + " |"
        for message in MESSAGES.values()
    ]
    assert "\n".join(rows) in text
    assert encode_frame(Ping(0), 0).hex(" ") in text


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_header_and_the_tables_compile_without_a_warning(folder, tmp_path, compiler):
    if (reason := missing(compiler)) is not None:
        pytest.skip(reason)
    calls = "\n".join(
        f"edgeasr_status_t try_{noun}(edgeasr_{noun}_t *m, uint8_t *b, size_t *n);\n"
        f"edgeasr_status_t try_{noun}(edgeasr_{noun}_t *m, uint8_t *b, size_t *n) {{\n"
        f"    const edgeasr_status_t s = edgeasr_{noun}_pack(m, b, *n, n);\n"
        f"    return s != EDGEASR_OK ? s : edgeasr_{noun}_unpack(b, *n, m);\n}}"
        for noun in (message.title().lower() for message in MESSAGES.values())
    )
    source = tmp_path / "calls.c"
    source.write_text(f'#include "edgeasr_messages.h"\n{calls}\n')
    for file in (source, folder / "c" / "src" / "edgeasr_tables.c"):
        command = [compiler, *FLAGS, f"-I{folder / 'c' / 'include'}", "-c", str(file), "-o", str(tmp_path / "out.o")]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_filters_are_those_of_the_definition():
    config = FeatureConfig()
    wanted = mel_filterbank(config).astype(np.float64)
    rebuilt = np.zeros_like(wanted)
    for m, row in enumerate(tables.mel_filters(config)):
        rebuilt[row.first_bin : row.first_bin + len(row.values), m] = np.array(row.values) / 2.0 ** (15 + row.shift)
        assert max(row.values) >= 1 << 14
    assert np.abs(rebuilt - wanted).max() <= wanted.max() * 2**-14
    assert ((rebuilt == 0) == (wanted == 0)).all()


def test_window_and_twiddles_are_those_of_the_definition():
    config = FeatureConfig()
    window = np.array(tables.q15(analysis_window(config))) / 2**15
    assert np.abs(window - analysis_window(config)).max() <= 2**-15
    turned = np.array(tables.twiddles(config)).reshape(-1, 2) / 2**15
    wanted = np.exp(-2j * np.pi * np.arange(256) / 512)
    assert np.abs(turned[:, 0] + 1j * turned[:, 1] - wanted).max() <= 2**-15 * 1.0001
