# ruff: noqa: E402 - torch is looked for before the modules that import it
"""What `edgeasr export` is given and cannot do: one line that says what, why and what to do, exit code 2, no bundle."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

import onnx
from torch import nn

from edgeasr.config import ModelConfig
from edgeasr.converters import raw_graph, to_tensorrt
from edgeasr.converters.to_onnx import to_onnx
from edgeasr.errors import BundleError

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]


@pytest.fixture
def refused(exported, monkeypatch, tmp_path):
    """Export with these arguments: the line that it is refused with. The graphs are exported already."""
    monkeypatch.setattr(raw_graph, "to_onnx", lambda graph: exported.onnx[graph.name])
    path = tmp_path / "checkpoint" / "best.safetensors"
    exported.checkpoint.save(path)

    def export(*arguments, checkpoint=None):
        if checkpoint is not None:
            checkpoint.save(path)
        output = tmp_path / "bundles" / "toy"
        recording = ("--check", exported.recording)
        code, out, err = edgeasr("export", path, "--output", output, *recording, *arguments)
        assert (code, out) == (2, "")
        assert not output.exists()
        assert [*tmp_path.glob("bundles/*"), *tmp_path.glob("bundles/.*")] == []  # nothing half-written either
        return err

    return export


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "rpi9"), "got device 'rpi9', wanted one of rpi-zero2w, rpi3b-plus, rpi4, rpi5, jetson-nano"),
        (("--target", "tpu"), "got --target tpu, wanted one of bundle, c-array, onnx-int8, onnx, litert-int8, litert"),
        (("--artefact", "onnx-int4"), "got artefacts ['onnx-int4'], wanted some of onnx-int8, onnx-fp32, litert-int8"),
        (("--artefact", "onnx-int8", "--target", "onnx"), "got --target onnx and --artefact, wanted one of both"),
        (
            ("--artefact", "tensorrt-int8"),
            "got tensorrt-int8 without speech to set its scales on: name a --cal",
        ),
        (("--target", "tensorrt", "--tensorrt", "9"), "got TensorRT 9, wanted 10 or 8.2: choose the one of the board"),
        (("--chunk-ms", "50"), "got chunks of 50 ms, wanted a multiple of 40 ms"),
        (("--chunk-ms", "7"), "got chunks of 7 ms, wanted a multiple of 40 ms"),
        (("--tensorrt", "10"), "--tensorrt is for --target tensorrt and artefacts that begin with tensorrt-"),
        (("--checkpoint", "x", "--target", "onnx"), "--checkpoint is for bundles with the artefact onnx-int8"),
        (("--sample", "3"), "--sample is for --check MANIFEST"),
        (("--check", "none.jsonl"), "got none.jsonl, wanted a manifest: JSON objects, a line each, or a recording"),
        (("--calibration", "none.jsonl", "--artefact", "tensorrt-int8"), "cannot read the manifest none.jsonl"),
    ],
)
def test_unknown_names_and_impossible_choices(refused, arguments, message):
    err = " ".join(refused(*arguments).split())
    assert message in err
    assert "Traceback" not in err


def test_weights_of_another_config(refused, exported):
    config = exported.checkpoint.config
    wider = ModelConfig(config.features, replace(config.encoder, ff_dim=64), *_vocabularies(config))
    err = refused(checkpoint=replace(exported.checkpoint, config=wider))
    assert err.startswith("edgeasr: error: the weights are not those of the config (size mismatch")
    assert err.endswith("give a checkpoint that this version of edgeasr train wrote\n")
    assert err.count("\n") == 1


def _vocabularies(config):
    return config.vocabulary_size, config.phone_vocabulary_size


def test_sizes_that_vary(refused, exported, monkeypatch):
    varying = onnx.load_from_string(exported.onnx["step"])
    features = next(value for value in varying.graph.input if value.name == "features")
    features.type.tensor_type.shape.dim[1].dim_param = "time"
    monkeypatch.setitem(exported.onnx, "step", varying.SerializeToString())
    assert refused() == (
        "edgeasr: error: the step graph has a size of features that varies (time), wanted fixed sizes: give the sizes "
        "of chunks and states as numbers in the model\n"
    )


class Eigen(nn.Module):
    """What ONNX has no operator for."""

    name = "step"

    def example_inputs(self):
        return [("features", torch.eye(3)[None])]

    def output_names(self):
        return ["log_probs"]

    def forward(self, features):
        return torch.linalg.eigvals(features).real


def test_an_operation_without_a_form_in_onnx():
    message = r"PyTorch cannot export the step graph to ONNX \(.*eig.*\): write the model in operations of opset 18"
    with pytest.raises(BundleError, match=message):
        to_onnx(Eigen())


def test_an_operation_that_the_target_does_not_have(refused, monkeypatch):
    monkeypatch.setattr(to_tensorrt, "to_opset13", lambda model: model)
    err = refused("--target", "tensorrt", "--tensorrt", "8.2", "--force")
    assert "TensorRT 8.2 cannot build the step graph" in err
    assert "LayerNormalization" in err


def test_a_converter_that_is_not_installed(refused, monkeypatch):
    for name in ("edgeasr.converters.to_litert", "edgeasr.converters.litert_artefacts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    assert refused("--artefact", "litert-int8") == (
        "edgeasr: error: got no package litert_torch, wanted what edgeasr[litert-export] brings: pip install "
        "edgeasr[litert-export]\n"
    )


def test_a_board_that_is_too_small(refused, monkeypatch):
    from edgeasr.devices import profile

    board = replace(profile.device_profile("rpi4"), memory_bytes=(64 << 20,))
    monkeypatch.setattr(profile, "device_profile", lambda name: board)
    err = refused("--device", "rpi4")
    assert re.search(r"onnx-int8 takes \d+ MB, and Raspberry Pi 4 Model B has 67 MB, of which 50% may be taken", err)
    assert err.endswith("train a smaller model, name another board, or say --force\n")
