import pytest
import torch
from torch import nn

from edgeasr.config import EncoderConfig, ModelConfig
from edgeasr.encoder import Encoder
from edgeasr.train.optimizer import Optimizer
from edgeasr.train.recipe import OptimizerConfig

RATE = 0.01


class Layers(nn.Module):
    """One parameter of each kind."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 4)
        self.emission = nn.Linear(4, 3)
        self.conv = nn.Conv2d(1, 2, 3)


def stepped(muon, weight_decay=0.0):
    """The parameters before and after one step down a random gradient."""
    torch.manual_seed(0)
    module = Layers()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = Optimizer(module, OptimizerConfig(muon=muon, weight_decay=weight_decay))
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step(RATE)
    return before, dict(module.named_parameters())


def test_the_first_step_of_adamw_is_as_long_as_the_rate():
    before, after = stepped(muon=False)
    for name, parameter in after.items():
        torch.testing.assert_close(
            (parameter - before[name]).abs(), torch.full_like(parameter, RATE), rtol=1e-3, atol=0
        )


def test_muon_moves_inner_matrices_by_an_orthogonal_matrix_and_adamw_the_rest():
    before, after = stepped(muon=True)
    update = (after["inner.weight"] - before["inner.weight"]).detach()
    singular = torch.linalg.svdvals(update) / (RATE * 0.2 * 6**0.5)
    assert singular.min() > 0.5
    assert singular.max() < 1.4
    for name in after.keys() - {"inner.weight"}:
        moved = (after[name] - before[name]).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, RATE), rtol=1e-3, atol=0)


@pytest.mark.parametrize("muon", [False, True])
def test_matrices_are_decayed_and_vectors_are_not(muon):
    before, plain = stepped(muon)
    _, decayed = stepped(muon, weight_decay=0.5)
    for name, parameter in plain.items():
        shrunk = before[name] * (RATE * 0.5 if parameter.dim() > 1 else 0.0)
        torch.testing.assert_close(parameter - decayed[name], shrunk, rtol=1e-3, atol=1e-6)


def test_muon_takes_the_matrices_of_an_encoder_but_its_emissions_and_scores():
    encoder = Encoder(ModelConfig(encoder=EncoderConfig(d_model=8, num_heads=2, ff_dim=8, conv_channels=2)))
    optimizer = Optimizer(encoder, OptimizerConfig(muon=True))
    for parameter in encoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(RATE)
    momentum = [name for name in optimizer.tensors() if name.endswith("momentum_buffer")]
    inner = [
        name
        for name, parameter in encoder.named_parameters()
        if parameter.dim() == 2 and "emission" not in name and "score" not in name
    ]
    assert len(momentum) == len(inner) > 40


def test_the_moments_of_another_optimizer_are_refused():
    module = Layers()
    with pytest.raises(ValueError, match="there is no optimiser 1"):
        Optimizer(module, OptimizerConfig()).restore({"1.0.momentum_buffer": torch.zeros(4, 6)})
