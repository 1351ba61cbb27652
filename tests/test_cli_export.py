# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

import onnx
from onnx import numpy_helper

from edgeasr.bundle import Bundle
from edgeasr.converters import export as export_module

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]


@pytest.fixture
def checkpoint(exported, monkeypatch, tmp_path):
    """A checkpoint whose graphs are exported already."""
    monkeypatch.setattr(export_module, "to_onnx", lambda graph: exported.onnx[graph.name])
    exported.checkpoint.save(tmp_path / "best.safetensors")
    return tmp_path / "best.safetensors"


def test_an_export_prints_a_table_of_parities(exported, checkpoint, tmp_path):
    output = tmp_path / "bundles" / "toy"
    code, out, err = edgeasr("export", checkpoint, "--output", output, "--check-audio", exported.recording)
    assert (code, err) == (0, "")
    header, int8, fp32, last = out.splitlines()
    assert header.split() == ["artefact", "size", "chunks", "of", "max", "diff", "SNR", "agreement"]
    for line, kind in ((int8, "onnx-int8"), (fp32, "onnx-fp32")):
        parity = exported.parities[kind]
        size = f"{exported.made.size_bytes(kind) / 1e6:.2f} MB"
        values = [kind, *size.split(), "20", "160", "ms", f"{parity.max_difference:.1e}", f"{parity.snr_db:.1f}", "dB"]
        assert line.split() == [*values, f"{parity.agreement:.2%}"]
        assert len(line) == len(header)
    assert last == f"Wrote {output}"
    assert Bundle.load(output).default_artefact == "onnx-int8"


def test_json_is_one_object(exported, checkpoint, tmp_path):
    arguments = ("--artefact", "onnx-fp32", "--check-audio", exported.recording, "--json")
    code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy.edgeasr", *arguments)
    assert (code, err, out.count("\n")) == (0, "", 1)
    made = json.loads(out)
    (row,) = made.pop("artefacts")
    assert made == {"bundle": str(tmp_path / "toy.edgeasr")}
    assert row.keys() == {"artefact", "size_mb", "chunk_ms", "chunks", "max_difference", "snr_db", "agreement"}
    assert (row["artefact"], row["chunks"], row["agreement"]) == ("onnx-fp32", 20, 1.0)
    assert row["max_difference"] < 1e-4
    assert Bundle.load(tmp_path / "toy.edgeasr").default_artefact == "onnx-fp32"


def test_an_artefact_that_differs_is_refused(exported, checkpoint, tmp_path, monkeypatch):
    broken = onnx.load_from_string(exported.onnx["step"])
    tensor = next(t for t in broken.graph.initializer if t.name.endswith("upper.0.ff.0.bias"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 3, tensor.name))
    monkeypatch.setitem(exported.onnx, "step", broken.SerializeToString())
    output = tmp_path / "toy"
    code, out, err = edgeasr("export", checkpoint, "--output", output, "--check-audio", exported.recording)
    assert (code, out) == (2, "")
    assert err.startswith("edgeasr: error: onnx-")
    assert "does not match torch" in err
    assert err.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--artefact", "onnx-int4"), "got artefacts ['onnx-int4'], wanted some of onnx-int8, onnx-fp32"),
        (("--check-audio", "missing.wav"), "missing.wav"),
    ],
)
def test_bad_input_is_one_line(exported, checkpoint, tmp_path, arguments, message):
    recording = () if "--check-audio" in arguments else ("--check-audio", exported.recording)
    code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments, *recording)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("edgeasr: error: ")
    assert message in err
    assert not (tmp_path / "toy").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    code, out, err = edgeasr("export", tmp_path / "none.safetensors", "--output", tmp_path / "toy")
    assert (code, out) == (2, "")
    assert err == (
        f"edgeasr: error: got {tmp_path / 'none.safetensors'}, where no file is, wanted a safetensors file: "
        "check the path\n"
    )


def test_the_clip_of_the_package_is_what_is_compared_on(exported, checkpoint, tmp_path, monkeypatch):
    called = []

    def export(*arguments):
        called.append(arguments)
        return exported.made

    monkeypatch.setattr(export_module, "export", export)
    assert edgeasr("export", checkpoint, "--output", tmp_path / "toy").code == 0
    ((_, output, artefacts, recording, *_),) = called
    assert (output, artefacts) == (tmp_path / "toy", ("onnx-int8", "onnx-fp32"))
    assert recording == Path(export_module.__file__).parents[1] / "edgeasr" / "models" / "demo.flac"


@pytest.mark.parametrize("arguments", [("export", "a.safetensors", "--output", "b"), ("train", "a.toml")])
def test_without_the_extra_it_is_named(tmp_path, arguments):
    code = "import sys; sys.modules['torch'] = None; from edgeasr.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "edgeasr: error: got no package torch, wanted what edgeasr[train] brings: pip install edgeasr[train]\n"
    )
