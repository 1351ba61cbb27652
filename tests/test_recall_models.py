# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="the recall benchmark needs the extra `train`")
pytest.importorskip("onnxscript", reason="graphs are exported with the extra `train`")

from torch.testing import assert_close

from edgeasr.baselines import num_parameters
from edgeasr.recall.cost import cost
from edgeasr.recall.models import HIERARCHY, MODELS, Hierarchy, build, hops, tcn_blocks
from edgeasr.recall.task import RecallTask
from edgeasr.streaming import state_tensors

TASK = RecallTask(num_keys=4, num_values=4, pairs=2, spread=8, asked=1)
SMALL = dataclasses.replace(
    HIERARCHY, d_model=16, num_heads=4, ff_dim=32, left_context=10, summary_strides=(10,), memory_capacities=(10,)
)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", MODELS)
def test_all_are_of_one_size(name):
    wanted = num_parameters(Hierarchy(TASK.input_size, TASK.num_values, SMALL))
    assert num_parameters(build(name, TASK, SMALL, 60)) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_hierarchy_in_steps_is_the_hierarchy_over_the_whole(size):
    model, x = Hierarchy(TASK.input_size, TASK.num_values, SMALL), torch.randn(2, 75, TASK.input_size)
    state, parts = model.init_state(2), []
    for part in x.split(size, dim=1):
        y, state = model.step(part, state)
        parts.append(y)
    assert_close(torch.cat(parts, dim=1), model(x))


def test_a_hierarchy_with_other_windows_has_the_same_weights():
    model, x = Hierarchy(TASK.input_size, TASK.num_values, SMALL), torch.randn(1, 30, TASK.input_size)
    narrow = model.within(4)
    expected = Hierarchy(
        TASK.input_size, TASK.num_values, dataclasses.replace(SMALL, left_context=4, summary_strides=(4,))
    )
    expected.load_state_dict(model.state_dict())
    assert torch.equal(narrow(x), expected(x))
    assert not torch.equal(narrow(x), model(x))
    model.encoder.emission.bias.add_(1.0)
    assert torch.equal(narrow.encoder.emission.bias, model.encoder.emission.bias)
    assert model.within(10) is model


def test_the_hierarchy_sees_one_vector_at_a_time():
    model, x = Hierarchy(TASK.input_size, TASK.num_values, SMALL), torch.randn(1, 30, TASK.input_size)
    for channel in range(TASK.input_size):
        other = x.clone()
        other[:, 12, channel] += 1.0
        changed = torch.nonzero((model(other) != model(x)).any(dim=2)[0]).flatten()
        assert changed[0] == 12


@pytest.mark.parametrize("distance", [1, 4, 5, 20, 60, 100, 1000, 10_000])
def test_a_tcn_has_just_the_blocks_that_it_takes(distance):
    blocks = tcn_blocks(distance)
    assert 4 * (2**blocks - 1) >= distance
    assert blocks == 1 or 4 * (2 ** (blocks - 1) - 1) < distance


@pytest.mark.parametrize(
    ("name", "near", "far"), [("hierarchy", 4, 6), ("lstm", 12, 62), ("gru", 12, 62), ("tcn", 10, 10)]
)
def test_hops_count_layers_and_in_recurrence_vectors(name, near, far):
    model = build(name, TASK, SMALL, 60)
    assert (hops(model, 10), hops(model, 60)) == (near, far)


def test_the_shortest_way_is_as_long_as_hops_say():
    """Through the window, input, lower block, upper block and output; a summary comes by its pool and level."""
    model = build("hierarchy", TASK, SMALL, 60)
    encoder = model.encoder
    layers = [encoder.frontend, *encoder.lower, *encoder.upper, encoder.emission]
    assert len(layers) == hops(model, 10)
    assert len([*layers, *encoder.pools, *encoder.levels]) == hops(model, 11)


def test_bytes_of_an_lstm_are_its_weights_and_its_state_twice():
    model = build("lstm", TASK, SMALL, 60)
    state = sum(tensor.nbytes for _, tensor in state_tensors(model.init_state(1)))
    expected = 4 * num_parameters(model) + 2 * state + 4 * (TASK.input_size + TASK.num_values)
    found = cost(model, TASK.input_size)
    assert expected <= found.bytes_per_step < 1.02 * expected
    assert found.ms_per_step > 0


def test_the_weights_of_the_memory_count_once_a_summary():
    model = build("hierarchy", TASK, SMALL, 60)
    weights = 4 * num_parameters(model)
    memory = 4 * num_parameters(model.encoder.levels[0])
    state = sum(tensor.nbytes for _, tensor in state_tensors(model.init_state(1)))
    found = cost(model, TASK.input_size).bytes_per_step
    assert weights - 0.9 * memory < found < weights - 0.9 * memory + 2 * state
