# ruff: noqa: E402 - torch is looked for before the modules that import it
import pytest

torch = pytest.importorskip("torch", reason="the baselines need the extra `train`")

from torch.testing import assert_close

from edgeasr.baselines import GRU, LSTM, TCN, DilatedConvolution, baseline, num_parameters
from edgeasr.config import ModelConfig, preset
from edgeasr.encoder import Encoder
from edgeasr.errors import ConfigError
from edgeasr.streaming import replace_tensors, state_tensors

KINDS = ["lstm", "gru", "tcn"]
INPUTS, OUTPUTS, FRAMES = 5, 3, 41


@pytest.fixture(autouse=True)
def _seeded(request):
    torch.manual_seed(0)
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


@pytest.fixture(params=KINDS)
def module(request):
    return small(request.param)


def small(kind):
    return baseline(kind, INPUTS, OUTPUTS, 6000, layers=3)


def in_steps(module, x, size):
    state, parts = module.init_state(x.shape[0]), []
    for part in x.split(size, dim=1):
        y, state = module.step(part, state)
        parts.append(y)
    return torch.cat(parts, dim=1), state


def changed_frames(before, after):
    return torch.nonzero((before != after).any(dim=2).any(dim=0)).flatten().tolist()


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_steps_give_what_the_whole_gives(module, size):
    x = torch.randn(2, FRAMES, INPUTS)
    y, state = in_steps(module, x, size)
    assert y.shape == (2, FRAMES, OUTPUTS)
    assert_close(y, module(x))
    whole = module.step(x, module.init_state(2))[1]
    for (name, stepped), (_, at_once) in zip(state_tensors(state), state_tensors(whole), strict=True):
        assert_close(stepped, at_once, msg=lambda text, name=name: f"{name}: {text}")


def test_the_future_does_not_change_the_past(module):
    x = torch.randn(1, FRAMES, INPUTS)
    other = x.clone()
    other[:, 20] += 1.0
    changed = changed_frames(module(x), module(other))
    assert changed[0] == 20
    assert changed[1] == 21


def test_an_lstm_is_that_of_torch():
    module, x = LSTM(INPUTS, OUTPUTS, 2, 4, 6), torch.randn(2, 9, INPUTS)
    expected = x
    for layer, inputs, width in zip(module.layers, (INPUTS, 4), (4, 6), strict=True):
        theirs = torch.nn.LSTM(inputs, width, batch_first=True)
        theirs.weight_ih_l0.copy_(layer.input.weight)
        theirs.weight_hh_l0.copy_(layer.recurrent.T)
        theirs.bias_ih_l0.copy_(layer.input.bias)
        theirs.bias_hh_l0.zero_()
        expected = theirs(expected)[0]
    assert_close(module(x), module.output(expected))


def test_a_gru_is_that_of_torch():
    module, x = GRU(INPUTS, OUTPUTS, 2, 4, 6), torch.randn(2, 9, INPUTS)
    expected = x
    for layer, inputs, width in zip(module.layers, (INPUTS, 4), (4, 6), strict=True):
        theirs = torch.nn.GRU(inputs, width, batch_first=True)
        theirs.weight_ih_l0.copy_(layer.input.weight)
        theirs.weight_hh_l0.copy_(layer.recurrent.T)
        theirs.bias_ih_l0.copy_(layer.input.bias)
        theirs.bias_hh_l0.copy_(layer.recurrent_bias.normal_())
        expected = theirs(expected)[0]
    assert_close(module(x), module.output(expected))


def test_a_dilated_convolution_is_that_of_torch():
    module, x = DilatedConvolution(4, 6, dilation=5), torch.randn(2, 23, 4)
    weight = module.taps.weight.reshape(6, 3, 4).transpose(1, 2)  # (outputs, inputs, taps)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (10, 0))
    expected = torch.nn.functional.conv1d(padded, weight, module.taps.bias, dilation=5).transpose(1, 2)
    assert_close(module.step(x, module.init_state(2))[0], expected)


def test_a_tcn_looks_back_as_far_as_it_says():
    module, x = TCN(INPUTS, OUTPUTS, 3, 4, 4), torch.randn(1, FRAMES, INPUTS)
    other = x.clone()
    other[:, 3] += 1.0
    assert module.lookback == 28
    assert changed_frames(module(x), module(other))[-1] == 3 + module.lookback


def test_a_step_changes_neither_its_state_nor_its_input(module):
    x = torch.randn(1, 6, INPUTS)
    _, state = in_steps(module, x, 3)
    before, given = [tensor.clone() for _, tensor in state_tensors(state)], x.clone()
    module.step(x, state)
    assert all(torch.equal(t, b) for (_, t), b in zip(state_tensors(state), before, strict=True))
    assert torch.equal(x, given)


def test_streams_of_different_age_share_a_batch(module):
    old, young = torch.randn(1, 30, INPUTS), torch.randn(1, 9, INPUTS)
    states = [in_steps(module, x[:, :-4], 3)[1] for x in (old, young)]
    pairs = zip(*([t for _, t in state_tensors(state)] for state in states), strict=True)
    together = replace_tensors(states[0], (torch.cat(pair) for pair in pairs))
    y, _ = module.step(torch.cat([old[:, -4:], young[:, -4:]]), together)
    assert_close(y, torch.cat([module(old)[:, -4:], module(young)[:, -4:]]))


def test_a_gradient_reaches_the_first_vector(module):
    x = torch.randn(1, 12, INPUTS, requires_grad=True)
    module(x)[:, -1].sum().backward()
    assert x.grad[0, 0].abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("wanted", "layers"), [(20_000, 2), (90_000, 2), (1_000_000, 5)])
def test_the_number_of_parameters_is_that_asked_for(kind, wanted, layers):
    assert num_parameters(baseline(kind, 24, 12, wanted, layers)) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_baselines_are_as_large_as_the_encoder(kind):
    encoder = num_parameters(Encoder(ModelConfig(encoder=preset("nano"))))
    with torch.device("meta"):
        module = baseline(kind, 80, 29, encoder)
    assert num_parameters(module) == pytest.approx(encoder, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "wanted", "layers", "message"),
    [
        ("rnn", 1000, 2, "unknown kind of network 'rnn': wanted one of lstm, gru, tcn"),
        ("lstm", 10, 2, "no lstm of 2 layers has 10 parameters to within 2%"),
        ("gru", 1000, 0, "got 0 layers: wanted 1 or more"),
    ],
)
def test_impossible_sizes_are_refused(kind, wanted, layers, message):
    with pytest.raises(ConfigError, match=message):
        baseline(kind, INPUTS, OUTPUTS, wanted, layers)
