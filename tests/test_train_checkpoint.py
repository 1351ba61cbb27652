# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="checkpoints need the extra `train`")

import onnx
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import save_file

from edgeasr.bundle import Bundle, default_bundle
from edgeasr.config import EncoderConfig, FeatureConfig, ModelConfig
from edgeasr.converters.export import export
from edgeasr.encoder import Encoder
from edgeasr.errors import BundleError
from edgeasr.tokenizer import CHARACTERS
from edgeasr.train import checkpoint as checkpoint_module
from edgeasr.train.checkpoint import Checkpoint, load_tensors, save_tensors

MODEL = ModelConfig(
    FeatureConfig(num_mels=8),
    EncoderConfig(
        d_model=8,
        num_heads=2,
        lower_blocks=1,
        upper_blocks=1,
        ff_dim=8,
        conv_kernel=3,
        conv_channels=2,
        left_context=8,
        summary_strides=(8,),
        memory_capacities=(4,),
    ),
)
TRAINING = {"step": 7, "wer": {"dev": 0.5}, "sources": [{"name": "readers", "licence": "CC0"}]}


@pytest.fixture
def checkpoint():
    torch.manual_seed(0)
    return Checkpoint(MODEL, CHARACTERS, Encoder(MODEL).state_dict(), TRAINING)


@pytest.fixture
def saved(checkpoint, tmp_path):
    checkpoint.save(tmp_path / "runs" / "best.safetensors")
    return tmp_path / "runs" / "best.safetensors"


def refusal(path) -> str:
    with pytest.raises(BundleError) as caught:
        Checkpoint.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_checkpoint_comes_back_as_it_was(checkpoint, saved):
    loaded = Checkpoint.load(saved)
    assert (loaded.config, loaded.tokens, loaded.training) == (MODEL, CHARACTERS, TRAINING)
    assert loaded.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(loaded.weights[name], tensor) for name, tensor in checkpoint.weights.items())
    assert sorted(path.name for path in saved.parent.iterdir()) == ["best.safetensors"]


def test_its_encoder_computes_what_the_trained_one_does(checkpoint, saved):
    trained = Encoder(MODEL).eval()
    trained.load_state_dict(checkpoint.weights)
    encoder = Checkpoint.load(saved).encoder()
    assert not encoder.training
    x = torch.randn(1, 32, 8)
    torch.testing.assert_close(encoder(x).final, trained(x).final, rtol=0, atol=0)


def test_half_precision_weights_are_used_in_full_precision(checkpoint):
    half = dataclasses.replace(checkpoint, weights={k: v.half() for k, v in checkpoint.weights.items()})
    assert {p.dtype for p in half.encoder().parameters()} == {torch.float32}


def test_weights_of_another_config_are_refused(checkpoint):
    other = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, ff_dim=9))
    with pytest.raises(BundleError, match=r"not those of the config \(.*size mismatch.*\): give a checkpoint"):
        dataclasses.replace(checkpoint, config=other).encoder()
    fewer = {name: tensor for name, tensor in checkpoint.weights.items() if name != "norm.weight"}
    with pytest.raises(BundleError, match=r"Missing key.*norm\.weight"):
        dataclasses.replace(checkpoint, weights=fewer).encoder()


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "where no file is" in refusal(tmp_path / "missing.safetensors")
    assert "where no file is" in refusal(tmp_path)


@pytest.mark.parametrize("length", [0, 4, 100, -10])
def test_a_cut_file_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    assert "give a safetensors file that is whole" in refusal(saved)


def test_a_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb()))
    assert "give a safetensors file that is whole" in refusal(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "edgeasr-checkpoint-9"}, "says format 'edgeasr-checkpoint-9', wanted 'edgeasr-checkpoint-1'"),
        ({"format": None}, "says format None, wanted 'edgeasr-checkpoint-1'"),
        ({"config": None}, "has a damaged description ('config')"),
        ({"config": "{"}, "has a damaged description (Expecting property name"),
        ({"config": '{"encoder": {"width": 5}}'}, "unknown key 'width' in EncoderConfig"),
        ({"tokens": '["a", "b"]'}, "has a damaged description (got first token"),
        ({"tokens": "5"}, "has a damaged description ('int' object is not iterable)"),
        ({"training": "[1]"}, "has a damaged description"),
    ],
)
def test_another_format_and_a_damaged_description_are_refused(saved, change, message):
    tensors, metadata = load_tensors(saved)
    changed = {key: value for key, value in (metadata | change).items() if value is not None}
    save_file(tensors, saved, changed)
    assert message in refusal(saved)


def test_a_kill_while_saving_leaves_the_old_file(saved, checkpoint, monkeypatch):
    old = saved.read_bytes()

    def die(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_module, "save_file", die)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(saved)
    assert saved.read_bytes() == old
    dataclasses.replace(checkpoint, training={"step": 8}).save(saved)
    assert Checkpoint.load(saved).training == {"step": 8}
    assert len(list(saved.parent.iterdir())) == 1


def test_a_full_disk_is_an_operating_system_error(tmp_path, monkeypatch):
    def fill(tensors, path, metadata):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint_module, "save_file", fill)
    with pytest.raises(OSError, match=r"cannot write .*t\.safetensors: .*No space left on device"):
        save_tensors(tmp_path / "t.safetensors", {"t": torch.zeros(1)}, {})


def test_tensors_in_any_layout_are_saved(tmp_path):
    tensor = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last).transpose(1, 2)
    save_tensors(tmp_path / "t.safetensors", {"t": tensor}, {})
    assert torch.equal(load_tensors(tmp_path / "t.safetensors")[0]["t"], tensor)


def test_a_compact_checkpoint_is_a_quarter_and_nearly_the_same(toy_model, tmp_path):
    encoder = Encoder(toy_model(d_model=64, ff_dim=256))
    tokens = CHARACTERS
    whole = Checkpoint(encoder.config, tokens, encoder.state_dict(), {"step": 3})
    whole.save(tmp_path / "whole.safetensors")
    whole.save(tmp_path / "compact.safetensors", compact=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("compact", "whole")]
    assert sizes[0] < 0.35 * sizes[1]
    found = Checkpoint.load(tmp_path / "compact.safetensors")
    assert (found.config, found.tokens, found.training) == (whole.config, whole.tokens, whole.training)
    for name, tensor in found.encoder().state_dict().items():
        wanted = whole.weights[name]
        if wanted.dim() < 2:
            torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-4)
            continue
        step = wanted.flatten(1).abs().amax(dim=1) / 127
        assert ((tensor - wanted).flatten(1).abs() <= 0.5001 * step[:, None]).all()


# A checkpoint beside its bundle


@pytest.fixture
def beside(exported, tmp_path):
    """A bundle and its checkpoint without the matrices that the bundle holds."""
    shutil.copytree(exported.bundle.path, tmp_path / "toy-model")
    exported.checkpoint.save(tmp_path / "toy.safetensors", bundle=Bundle.load(tmp_path / "toy-model"))
    return tmp_path / "toy.safetensors"


def test_a_checkpoint_beside_its_bundle_holds_no_matrix_twice(exported, beside):
    stored, _ = load_tensors(beside)
    left_out = exported.checkpoint.weights.keys() - stored.keys()
    linear = [name for name, module in exported.encoder.named_modules() if isinstance(module, torch.nn.Linear)]
    # What only training uses is in no artefact.
    assert {f"{name}.weight" for name in linear} - left_out == {"lower_emission.weight"}
    assert left_out <= {f"{name}.weight" for name in linear}


def test_its_matrices_are_those_that_the_device_computes_with(exported, beside):
    found = Checkpoint.load(beside)
    assert (found.config, found.tokens, found.training) == (
        exported.checkpoint.config,
        exported.checkpoint.tokens,
        exported.checkpoint.training,
    )
    stored, _ = load_tensors(beside)
    for name, tensor in found.encoder().state_dict().items():
        wanted = exported.checkpoint.weights[name].float()
        if name in stored:
            torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-4)
            continue
        step = wanted.abs().amax(dim=1, keepdim=True) / 64
        assert ((tensor - wanted).abs() <= 0.5001 * step).all()
        whole_numbers = tensor / tensor.abs().amax(dim=1, keepdim=True) * 64
        torch.testing.assert_close(whole_numbers, whole_numbers.round(), rtol=0, atol=1e-3)


def test_exported_again_it_gives_the_same_whole_numbers(exported, beside, tmp_path):
    again = export(Checkpoint.load(beside), tmp_path / "again" / "toy-model", speech=exported.recording).bundle

    def whole_numbers(bundle):
        return {
            (part, tensor.name): numpy_helper.to_array(tensor)
            for part, path in bundle.artefact("onnx-int8").items()
            for tensor in onnx.load(path).graph.initializer
            if tensor.name.endswith("_quantized")
        }

    first, second = whole_numbers(exported.bundle), whole_numbers(again)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_the_bundle_that_it_leans_on_is_not_replaced(exported, beside):
    checkpoint = Checkpoint.load(beside)
    before = {path.name: path.read_bytes() for path in checkpoint.beside.iterdir()}
    with pytest.raises(BundleError, match="takes its matrices from the bundle"):
        export(checkpoint, checkpoint.beside, ["onnx-fp32"], speech=exported.recording, force=True)
    assert {path.name: path.read_bytes() for path in checkpoint.beside.iterdir()} == before


def test_a_bundle_with_a_language_model_is_replaced_by_force_alone(exported, tmp_path):
    there = tmp_path / "toy-model"
    shutil.copytree(default_bundle(), there)
    with pytest.raises(BundleError, match=f"{there} has a language model and a transducer, which would be gone"):
        export(exported.checkpoint, there, ["onnx-fp32"], speech=exported.recording)
    assert Bundle.load(there).language_model is not None
    export(exported.checkpoint, there, ["onnx-fp32"], speech=exported.recording, force=True)
    assert Bundle.load(there).language_model is None


def test_another_bundle_in_its_place_is_refused(beside):
    name = json.loads(load_tensors(beside)[1]["matrices"])["bundle"]
    shutil.rmtree(beside.with_name(name))
    assert "has matrices in a bundle beside it" in refusal(beside)
    shutil.copytree(default_bundle(), beside.with_name(name))
    assert "keep a checkpoint and its bundle together" in refusal(beside)


def test_paths_may_be_relative(exported, beside, monkeypatch):
    monkeypatch.chdir(beside.parent)
    exported.checkpoint.save(Path("again.safetensors"), bundle=Bundle.load("toy-model"))
    assert Path("again.safetensors").stat().st_size == beside.stat().st_size


def test_a_checkpoint_is_written_beside_its_bundle_only(exported, tmp_path):
    with pytest.raises(BundleError, match="put both in one folder"):
        exported.checkpoint.save(tmp_path / "toy.safetensors", bundle=exported.bundle)
