# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

import numpy as np
import onnx
from onnx import numpy_helper

from edgeasr.bundle import Bundle
from edgeasr.config import EncoderConfig
from edgeasr.converters import export as export_module
from edgeasr.converters import raw_graph
from edgeasr.converters.artefacts import KINDS, ExportOptions
from edgeasr.converters.board_fit import BoardFit, differences
from edgeasr.converters.sample import Sample
from edgeasr.devices import profile
from edgeasr.devices.profile import device_profile
from edgeasr.manifest import read_manifest
from edgeasr.profile.prediction import Work, predict

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]


@pytest.fixture
def checkpoint(exported, monkeypatch, tmp_path):
    """A checkpoint whose graphs are exported already."""
    monkeypatch.setattr(raw_graph, "to_onnx", lambda graph: exported.onnx[graph.name])
    exported.checkpoint.save(tmp_path / "best.safetensors")
    return tmp_path / "best.safetensors"


def test_an_export_prints_a_table_of_parities(exported, checkpoint, tmp_path):
    output = tmp_path / "bundles" / "toy"
    code, out, err = edgeasr("export", checkpoint, "--output", output, "--check-audio", exported.recording)
    assert (code, err) == (0, "")
    header, int8, fp32, last = out.splitlines()
    titles = ["artefact", "size", "in fp32", "chunks", "of", "max diff", "SNR", "agreement", "a chunk"]
    assert re.split("  +", header) == titles
    for line, kind in ((int8, "onnx-int8"), (fp32, "onnx-fp32")):
        parity = exported.parities[kind]
        size = f"{exported.made.size_bytes(kind) / 1e6:.2f} MB"
        cells = line.split()
        share = float(cells.pop(3).removesuffix("%"))
        assert share == 100 if kind == "onnx-fp32" else 5 < share < 60
        values = [kind, *size.split(), "20", "160", "ms", f"{parity.max_difference:.1e}", f"{parity.snr_db:.1f}", "dB"]
        assert cells[:-2] == [*values, f"{parity.agreement:.2%}"]
        assert 0 < float(cells[-2]) < 1000
        assert len(line) == len(header)
    assert last == f"Wrote {output}"
    assert Bundle.load(output).default_artefact == "onnx-int8"


def test_json_is_one_object(exported, checkpoint, tmp_path):
    arguments = ("--artefact", "onnx-fp32", "--check-audio", exported.recording, "--json")
    code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy.edgeasr", *arguments)
    assert (code, err, out.count("\n")) == (0, "", 1)
    made = json.loads(out)
    (row,) = made.pop("artefacts")
    speech = {"file": "speech.wav", "recordings": 1, "minutes": round(20 * 0.16 / 60, 2), "torch_wer": None}
    assert made == {"bundle": str(tmp_path / "toy.edgeasr"), "speech": speech}
    compared = {"max_difference", "snr_db", "agreement", "fp32_share", "step_ms", "wer"}
    assert row.keys() == {"artefact", "size_mb", "chunk_ms", "chunks"} | compared
    assert (row["fp32_share"], row["wer"]) == (1.0, None)
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

    def export(*arguments, force, options):
        assert not force
        assert options == ExportOptions("10", [])
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


class TestBoards:
    @pytest.fixture
    def small(self, monkeypatch):
        """A Raspberry Pi 4 of 64 MB."""
        board = replace(device_profile("rpi4"), memory_bytes=(64 << 20,))
        monkeypatch.setattr(profile, "device_profile", lambda name: board)
        return board

    def test_what_a_board_recommends_is_made_and_predicted(self, exported, checkpoint, tmp_path):
        arguments = ("--device", "rpi4", "--check-audio", exported.recording, "--json")
        code, out, _ = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments)
        assert code == 0
        made = json.loads(out)
        assert [row["artefact"] for row in made["artefacts"]] == ["onnx-int8"]
        (fit,) = made["boards"]
        assert (fit["device"], fit["real_time"], fit["fits_memory"]) == ("rpi4", True, True)
        assert 20 < fit["resident_mb"] < 250
        assert fit["rtf_predicted"] == pytest.approx(fit["step_ms_predicted"] / 160, abs=1e-4)
        assert 0 < fit["step_ms_here"] < fit["step_ms_predicted"] * 100
        assert Bundle.load(tmp_path / "toy").default_artefact == "onnx-int8"

    def test_a_board_that_is_too_small_is_refused_and_nothing_written(self, exported, checkpoint, tmp_path, small):
        arguments = ("--device", "rpi4", "--check-audio", exported.recording)
        code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert re.search(
            r"onnx-int8 takes \d+ MB, and Raspberry Pi 4 Model B has 67 MB, of which 50% may be taken", err
        )
        assert err.endswith("train a smaller model, name another board, or say --force\n")
        assert not (tmp_path / "toy").exists()

    def test_force_writes_it(self, exported, checkpoint, tmp_path, small):
        arguments = ("--device", "rpi4", "--check-audio", exported.recording, "--force")
        code, out, _ = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments)
        assert code == 0
        assert out.splitlines()[-2].endswith("does not fit")
        assert Bundle.load(tmp_path / "toy").default_artefact == "onnx-int8"

    def test_unknown_ones_are_answered_with_the_known(self, checkpoint, tmp_path):
        code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy", "--device", "rpi9")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "got device 'rpi9', wanted one of rpi-zero2w, rpi3b-plus, rpi4, rpi5, jetson-nano" in err

    @pytest.mark.parametrize(("seconds", "problem"), [(0.1, None), (1.7, "would take 1.7 s for a second of audio")])
    def test_what_is_too_slow_does_not_fit(self, seconds, problem):
        board = device_profile("rpi4")
        work = Work(4_000_000, 8_000_000, 3_000_000, 15_000_000, 2_000_000, 30, 363, 50, 160.0, 100 << 20)
        step = replace(predict(board, work), real_time_factor=seconds, real_time=seconds < 1)
        found = BoardFit("onnx-int8", board, 1.0, 100.0, step, "onnx-int8").problem
        assert found is None if problem is None else problem in found

    def test_what_is_not_onnx_is_tried_and_counted_as_onnx(self, exported, checkpoint, tmp_path):
        arguments = ("--device", "rpi-zero2w", "--artefact", "torch-fp32", "--check-audio", exported.recording)
        code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments, "--json")
        assert (code, err) == (0, "")
        (fit,) = json.loads(out)["boards"]
        assert (fit["artefact"], fit["counted_as"]) == ("torch-fp32", "onnx-fp32")
        assert fit["resident_mb"] > 120  # torch itself was loaded
        assert fit["step_ms_here"] > 0 < fit["step_ms_predicted"]
        assert list(Bundle.load(tmp_path / "toy").artefacts) == ["torch-fp32"]

        code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments)
        assert code == 0
        assert err.splitlines() == [
            "edgeasr: rpi-zero2w is recommended the preset nano, the checkpoint is of no preset (24 channels)",
            "edgeasr: rpi-zero2w is recommended onnx-int8, not torch-fp32",
            "edgeasr: torch-fp32 is predicted with the bytes, multiply-adds and operators of onnx-fp32: the work of a "
            "step is taken not to depend on the format",
        ]

    def test_chunks_of_another_length_are_noted(self, exported):
        board = device_profile("rpi4")
        slow = replace(board, recommended=replace(board.recommended, chunk_ms=320))
        kind = KINDS["onnx-int8"]
        found = differences(replace(exported.checkpoint.config, encoder=EncoderConfig()), [kind], slow)
        assert found == ["rpi4 is recommended chunks of 320 ms, the checkpoint has 160 ms"]

    @pytest.mark.parametrize(("board", "has_it"), [("rpi4", False), ("jetson-nano", True)])
    def test_a_board_without_tensorrt_is_named(self, exported, board, has_it):
        found = differences(exported.checkpoint.config, [KINDS["tensorrt-fp16"]], device_profile(board))
        assert any(note.endswith("has no TensorRT: this bundle is for a Jetson") for note in found) is not has_it


class TestWords:
    def test_words_of_a_manifest_are_heard_beside_those_of_torch(self, checkpoint, toy_folder, tmp_path):
        arguments = ("--check", toy_folder / "dev.jsonl", "--sample", 3)
        code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments, scripted=False)
        assert (code, err) == (0, "")
        first, header, *lines, _ = out.splitlines()
        said = re.fullmatch(
            r"Compared on 3 utterances of dev.jsonl, 0\.\d minutes; torch's word error rate there is (.*)", first
        )
        assert header.endswith("  WER")
        rates = [float(line.split()[-1]) for line in lines]
        assert rates[1] == float(said[1]) < 0.5  # fp32
        assert abs(rates[0] - rates[1]) < 0.5

    def test_all_of_it_in_json(self, checkpoint, toy_folder, tmp_path):
        arguments = ("--check", toy_folder / "dev.jsonl", "--artefact", "onnx-fp32", "--json")
        code, out, _ = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments, scripted=False)
        assert code == 0
        made = json.loads(out)
        (row,) = made["artefacts"]
        seconds = sum(one.duration_s for one in read_manifest(toy_folder / "dev.jsonl"))
        assert (made["speech"]["file"], made["speech"]["recordings"]) == ("dev.jsonl", 4)
        assert made["speech"]["minutes"] == pytest.approx(seconds / 60, abs=0.02)
        assert row["wer"] == made["speech"]["torch_wer"]
        assert row["chunks"] == -(-round(seconds * 100) // 16)

    def test_a_sample_is_spread_evenly(self, toy_folder):
        utterances = read_manifest(toy_folder / "train.jsonl")
        sample = Sample.of(toy_folder / "train.jsonl", 4)
        assert list(sample.utterances) == utterances[::5]
        assert list(sample.recordings) == [one.path for one in utterances[::5]]

    def test_a_manifest_without_words_is_refused(self, checkpoint, toy_folder, tmp_path):
        one = read_manifest(toy_folder / "dev.jsonl")[0]
        line = {"audio_filepath": str(one.path), "duration": one.duration_s, "text": " "}
        (tmp_path / "silent.jsonl").write_text(json.dumps(line))
        arguments = ("--check", tmp_path / "silent.jsonl")
        code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments, scripted=False)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "silent.jsonl has no words in the 1 utterances taken: name one with texts" in err
        assert not (tmp_path / "toy").exists()


def test_what_is_no_number_is_null_in_json(exported, checkpoint, toy_folder, tmp_path, monkeypatch):
    broken = onnx.load_from_string(exported.onnx["step"])
    tensor = next(t for t in broken.graph.initializer if t.name.endswith("upper.0.ff.0.bias"))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.nan, tensor.name))
    monkeypatch.setitem(exported.onnx, "step", broken.SerializeToString())
    arguments = ("--artefact", "onnx-fp32", "--check", toy_folder / "dev.jsonl", "--force")
    code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments, "--json", scripted=False)
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["artefacts"]
    assert (row["max_difference"], row["snr_db"], row["wer"]) == (None, None, None)
    code, out, _ = edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments, scripted=False)
    assert code == 0
    assert "nan" in out


def test_a_target_is_one_artefact(exported, checkpoint, tmp_path):
    arguments = ("--target", "onnx", "--check-audio", exported.recording)
    assert edgeasr("export", checkpoint, "--output", tmp_path / "toy", *arguments).code == 0
    assert list(Bundle.load(tmp_path / "toy").artefacts) == ["onnx-fp32"]
    code, out, err = edgeasr(
        "export", checkpoint, "--output", tmp_path / "b", "--target", "onnx", "--artefact", "onnx-int8"
    )
    assert (code, out) == (2, "")
    assert "got --target onnx and --artefact, wanted one of both" in err
    code, out, err = edgeasr("export", checkpoint, "--output", tmp_path / "b", "--calibration", "train.jsonl")
    assert (code, out) == (2, "")
    assert "--calibration is for --artefact tensorrt-int8" in err
    assert not (tmp_path / "b").exists()
