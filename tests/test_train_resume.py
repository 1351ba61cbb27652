# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import json
import math

import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.config import EncoderConfig, FeatureConfig, ModelConfig
from edgeasr.encoder import Encoder
from edgeasr.errors import BundleError, ConfigError
from edgeasr.train.checkpoint import load_tensors, save_tensors
from edgeasr.train.optimizer import Optimizer
from edgeasr.train.recipe import OptimizerConfig
from edgeasr.train.resume import RunState, Standing, restore_run, save_run

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
RATE = 0.1
STANDING = Standing(step=12, epoch=2, position=5, best=math.inf)


def new_run(seed: int, model: ModelConfig = MODEL, steps: int = 0, muon: bool = False) -> RunState:
    torch.manual_seed(seed)
    encoder = Encoder(model)
    run = RunState(
        encoder,
        {name: torch.rand_like(p) for name, p in encoder.named_parameters()},
        Optimizer(encoder, OptimizerConfig(muon=muon)),
    )
    train(run, steps)
    return run


def train(run: RunState, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(step)
        run.module.zero_grad()
        run.module(torch.randn(1, 32, 8)).final.square().mean().backward()
        run.optimizer.step(RATE)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "resume.safetensors"
    save_run(path, new_run(0, steps=2), STANDING, MODEL, processes=2)
    return path


@pytest.mark.parametrize("muon", [False, True])
def test_a_run_comes_back_as_it_was(tmp_path, muon):
    path = tmp_path / "resume.safetensors"
    save_run(path, new_run(0, steps=2, muon=muon), STANDING, MODEL, processes=2)
    original, restored = new_run(0, steps=2, muon=muon), new_run(1, muon=muon)
    assert restore_run(path, restored, MODEL, processes=2) == STANDING
    for a, b in (
        (original.module.state_dict(), restored.module.state_dict()),
        (original.average, restored.average),
        (original.optimizer.tensors(), restored.optimizer.tensors()),
    ):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    train(original, 3)
    train(restored, 3)
    for a, b in zip(original.module.parameters(), restored.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_an_optimizer_without_its_moments_would_go_another_way():
    original, forgetful = new_run(0, steps=2), new_run(0, steps=2)
    forgetful = dataclasses.replace(forgetful, optimizer=Optimizer(forgetful.module, OptimizerConfig()))
    restored = new_run(0, steps=2)
    restored = dataclasses.replace(restored, optimizer=Optimizer(restored.module, OptimizerConfig()))
    restored.optimizer.restore({name: tensor.clone() for name, tensor in original.optimizer.tensors().items()})
    for run in (original, forgetful, restored):
        train(run, 1)
    assert torch.equal(original.module.norm.weight, restored.module.norm.weight)
    assert not torch.equal(original.module.norm.weight, forgetful.module.norm.weight)


def test_the_moments_of_another_optimizer_are_refused(tmp_path):
    path = tmp_path / "resume.safetensors"
    save_run(path, new_run(0, steps=1, muon=True), STANDING, MODEL, processes=2)
    with pytest.raises(ConfigError, match="was saved with another model or optimiser than the recipe's"):
        restore_run(path, new_run(1), MODEL, processes=2)


def test_another_number_of_processes_is_refused(saved):
    with pytest.raises(ConfigError, match=r"was saved in 2 processes, this run has 3: go on with --processes 2, or"):
        restore_run(saved, new_run(1), MODEL, processes=3)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("encoder", {"ff_dim": 9}, r"has encoder\.ff_dim 8, this run 9: take back the change, or delete"),
        ("encoder", {"dropout": 0.3}, r"has encoder\.dropout 0\.1, this run 0\.3"),
        ("encoder", {"summary_strides": (9,)}, r"has encoder\.summary_strides \[8\], this run \[9\]"),
        ("features", {"low_hz": 30.0}, r"has features\.low_hz 20\.0, this run 30\.0"),
    ],
)
def test_another_model_is_refused_with_what_differs(saved, part, change, message):
    other = dataclasses.replace(MODEL, **{part: dataclasses.replace(getattr(MODEL, part), **change)})
    with pytest.raises(ConfigError, match=message):
        restore_run(saved, new_run(1, other), other, processes=2)


@pytest.fixture
def older(saved):
    """A state without what it was saved with, as the first version wrote it."""
    tensors, metadata = load_tensors(saved)
    progress = json.loads(metadata["progress"])
    del progress["processes"], progress["config"]
    save_tensors(saved, tensors, {"progress": json.dumps(progress)})
    return saved


def test_an_older_state_is_restored(older):
    restored = new_run(1)
    assert restore_run(older, restored, MODEL, processes=3) == STANDING
    assert torch.equal(restored.module.norm.weight, new_run(0, steps=2).module.norm.weight)


def test_a_state_that_has_its_model_under_the_older_name_is_checked(saved):
    tensors, metadata = load_tensors(saved)
    progress = json.loads(metadata["progress"])
    progress["model"] = progress.pop("config")
    del progress["model"]["encoder"]["dropout"]  # what was not yet a setting does not differ
    save_tensors(saved, tensors, {"progress": json.dumps(progress)})
    assert restore_run(saved, new_run(1), MODEL, processes=2) == STANDING
    other = dataclasses.replace(MODEL, features=dataclasses.replace(MODEL.features, low_hz=30.0))
    with pytest.raises(ConfigError, match=r"has features\.low_hz 20\.0, this run 30\.0"):
        restore_run(saved, new_run(1, other), other, processes=2)


def test_an_older_state_of_another_model_is_refused(older):
    other = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, ff_dim=9))
    with pytest.raises(
        ConfigError, match="with another model or optimiser than the recipe's: take back the change, or"
    ):
        restore_run(older, new_run(1, other), other, processes=2)


def test_what_is_no_state_of_a_run_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(BundleError, match="give a safetensors file that is whole"):
        restore_run(saved, new_run(1), MODEL, processes=2)
    for metadata in ({}, {"progress": "{"}, {"progress": '{"step": 1}'}, {"progress": "[]"}):
        save_tensors(saved, {"x": torch.zeros(1)}, metadata)
        with pytest.raises(BundleError, match="is not the state of a run"):
            restore_run(saved, new_run(1), MODEL, processes=2)
