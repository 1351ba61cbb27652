import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.bundle import Bundle, default_bundle, write_bundle
from edgeasr.config import FeatureConfig
from edgeasr.converters import to_c_array
from edgeasr.converters.to_c_array import export_c_arrays, front_end_arrays, identifier, mel_filters, model_arrays
from edgeasr.errors import BundleError, ConfigError
from edgeasr.features import analysis_window, mel_filterbank

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]

# Each array of a header, written to standard output.
DUMP = """
#include "model.h"
#include <stdio.h>

int main(void) {{
    if ((size_t){array} % 16 != 0 || sizeof {array} != {macro}_SIZE) {{
        return 1;
    }}
    fputs({macro}_SHA256, stderr);
    return fwrite({array}, 1, sizeof {array}, stdout) != sizeof {array};
}}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Bundle:
    """A bundle like the shipped one whose graphs are but a few bytes, every value among them."""
    manifest = json.loads((default_bundle() / "manifest.json").read_text())
    for others in ("files", "language_model", "transducer"):
        manifest.pop(others, None)
    files = {
        name: bytes(range(256)) * (1 + part) + name.encode()
        for part, name in enumerate(sorted({n for parts in manifest["artefacts"].values() for n in parts.values()}))
    }
    return write_bundle(tmp_path_factory.mktemp("small") / "nano-2", {**manifest, "name": "nano-2"}, files)


def compiled(source: str, folder: Path, *command: str) -> tuple[bytes, str]:
    """What a program writes to standard output and standard error."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: apt-get install gcc g++")
    path = folder / ("dump.cc" if "++" in command[0] else "dump.c")
    path.write_text(source)
    flags = ("-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")
    subprocess.run([*command, *flags, "-o", folder / "dump", path], check=True)
    done = subprocess.run([folder / "dump"], capture_output=True, check=True)
    return done.stdout, done.stderr.decode()


@pytest.mark.parametrize("compiler", [("gcc", "-std=c99"), ("gcc", "-std=c11"), ("g++", "-std=c++17")])
def test_a_compiler_finds_the_bytes_of_the_file(small, tmp_path, compiler):
    made = export_c_arrays(small, tmp_path / "model.h", ["onnx-int8"])
    assert [array.name for array in made.arrays] == ["nano_2_onnx_int8_step", "nano_2_onnx_int8_memory"]
    for array, (part, name) in zip(made.arrays, small.artefacts["onnx-int8"].items(), strict=True):
        assert array.name.endswith(part)
        source = DUMP.format(array=array.name, macro=array.name.upper())
        content, sha256 = compiled(source, tmp_path, *compiler)
        assert content == (small.path / name).read_bytes()
        assert sha256 == small.files[name].sha256 == hashlib.sha256(content).hexdigest()


def test_the_tables_are_those_of_the_features(tmp_path, small):
    config = FeatureConfig()
    arrays = {array.name.removeprefix("edgeasr_front_end_"): array for array in front_end_arrays(config)}
    window = np.frombuffer(arrays["window_q15"].content, "<i2") / 2**15
    np.testing.assert_allclose(window, analysis_window(config), atol=1 / 2**15)
    first, num, shift, weights = (
        np.frombuffer(arrays[f"mel_{name}"].content, kind)
        for name, kind in (("first_bin", "<u2"), ("num_bins", "<u2"), ("shift", "|u1"), ("weights", "<u2"))
    )
    bank, at = np.zeros((config.num_bins, config.num_mels)), 0
    for mel in range(config.num_mels):
        row = weights[at : at + num[mel]] / 2.0 ** (15 + int(shift[mel]))
        bank[first[mel] : first[mel] + num[mel], mel] = row
        at += num[mel]
    assert at == len(weights) == sum(len(row.values) for row in mel_filters(config))
    np.testing.assert_allclose(bank, mel_filterbank(config), atol=2e-6 * mel_filterbank(config).max() * 100)

    made = export_c_arrays(small, tmp_path / "model.h", [to_c_array.FRONT_END])
    text = made.path.read_text()
    assert "#define EDGEASR_FRONT_END_HOP_LENGTH 160\n" in text
    assert "#define EDGEASR_FRONT_END_FLOOR 1e-07f\n" in text
    source = DUMP.format(array="edgeasr_front_end_mel_weights", macro="EDGEASR_FRONT_END_MEL_WEIGHTS")
    content, sha256 = compiled(source, tmp_path, "gcc", "-std=c99")
    assert content == arrays["mel_weights"].content
    assert sha256 == arrays["mel_weights"].sha256


def test_without_a_choice_there_are_tables_and_the_default_model(small, tmp_path):
    made = export_c_arrays(small, tmp_path / "new" / "model.h")
    names = [array.name for array in made.arrays]
    assert names[0] == "edgeasr_front_end_window_q15"
    assert names[-2:] == [array.name for array in model_arrays(small)]
    again = export_c_arrays(small, tmp_path / "model.h")
    assert again.path.read_bytes() == made.path.read_bytes()


def test_archives_serve_too(small, tmp_path):
    manifest = json.loads((small.path / "manifest.json").read_text())
    del manifest["files"]
    files = {name: small.path / name for name in small.files}
    archive = write_bundle(tmp_path / "nano-2.edgeasr", manifest, files)
    assert model_arrays(archive) == model_arrays(small)


def test_names_become_identifiers():
    assert identifier("tiny-en", "onnx-int8", "step") == "tiny_en_onnx_int8_step"
    assert identifier("7-words") == "edgeasr_7_words"


def test_a_comment_cannot_be_ended_by_a_name(small, tmp_path):
    header = to_c_array.c_header("x", model_arrays(small), {}, "licence */ int evil; \\\nnext /*")
    (tmp_path / "model.h").write_text(header)
    source = DUMP.format(array="nano_2_onnx_int8_step", macro="NANO_2_ONNX_INT8_STEP")
    subprocess_out, _ = compiled(source.replace("return 1", "int evil = 1; return evil"), tmp_path, "gcc", "-std=c99")
    assert subprocess_out == model_arrays(small)[0].content


@pytest.mark.parametrize(
    ("output", "kinds", "error", "message"),
    [
        ("model", [], ConfigError, "want the name of a header"),
        ("model.h", ["litert-int8"], BundleError, "got artefact 'litert-int8', wanted one of onnx-int8"),
    ],
)
def test_what_cannot_be_is_refused(small, tmp_path, output, kinds, error, message):
    with pytest.raises(error, match=message.replace("'", ".")):
        export_c_arrays(small, tmp_path / output, kinds)
    assert not (tmp_path / output).exists()


def test_the_command_writes_a_header_of_a_bundle(small, tmp_path):
    arguments = ("--target", "c-array", "--output", tmp_path / "model.h", "--artefact", "onnx-int8")
    code, out, err = edgeasr("export", small.path, *arguments)
    assert (code, err) == (0, "")
    header, step, memory, last = out.splitlines()
    assert header.split() == ["array", "bytes", "SHA-256"]
    for line, array in zip((step, memory), model_arrays(small, "onnx-int8"), strict=True):
        assert line.split() == [array.name, str(len(array.content)), f"{array.sha256[:12]}…"]
    assert last == f"Wrote {tmp_path / 'model.h'}"

    code, out, err = edgeasr("export", small.path, *arguments, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    made = json.loads(out)
    assert made["header"] == str(tmp_path / "model.h")
    assert [row["sha256"] for row in made["arrays"]] == [array.sha256 for array in model_arrays(small, "onnx-int8")]


def test_speech_to_compare_on_is_for_a_checkpoint(small, tmp_path):
    arguments = ("--target", "c-array", "--output", tmp_path / "model.h", "--check-audio", "speech.wav")
    code, out, err = edgeasr("export", small.path, *arguments)
    assert (code, out) == (2, "")
    assert "--check is for a CHECKPOINT" in err


def test_a_checkpoint_is_exported_and_compared_first(exported, tmp_path, monkeypatch):
    from edgeasr.converters import raw_graph

    monkeypatch.setattr(raw_graph, "to_onnx", lambda graph: exported.onnx[graph.name])
    (tmp_path / "toy").mkdir()
    exported.checkpoint.save(tmp_path / "toy" / "best.safetensors")
    arguments = ("--artefact", "onnx-fp32", "--artefact", "front-end", "--check-audio", exported.recording)
    output = tmp_path / "model.h"
    code, out, err = edgeasr(
        "export", tmp_path / "toy" / "best.safetensors", "--target", "c-array", "--output", output, *arguments
    )
    assert (code, err) == (0, "")
    assert out.split("\n")[1].split()[:2] == [
        "toy_onnx_fp32_step",
        str(exported.bundle.files[exported.bundle.artefacts["onnx-fp32"]["step"]].size_bytes),
    ]
    assert "edgeasr_front_end_mel_weights" in out
    assert "#define EDGEASR_FRONT_END_NUM_MELS 20\n" in output.read_text()
