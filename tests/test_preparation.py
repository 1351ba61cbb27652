# ruff: noqa: E402 - torch is looked for before the modules that import it
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

import onnx

from edgeasr.backends import load_graph
from edgeasr.backends.preparation import PREPARED
from edgeasr.converters.fuse import fuse
from edgeasr.converters.preparation import set_apart
from edgeasr.converters.signature import StepGraph
from edgeasr.converters.to_onnx import to_onnx
from edgeasr.encoder import Encoder


@pytest.fixture(scope="module")
def fused(toy_model):
    torch.manual_seed(0)
    return fuse(to_onnx(StepGraph(Encoder(toy_model()).eval())))


@pytest.fixture
def graphs(fused):
    return [load_graph("onnxruntime", model, threads=1) for model in (fused, set_apart(fused))]


def inputs_of(graph, seed):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=spec.shape).astype(np.float32) ** 2
        if spec.dtype == "float32"
        else rng.integers(0, 3, spec.shape) * 4
        for name, spec in graph.inputs.items()
    }


def test_the_step_reads_what_is_made_of_the_banks_and_not_the_banks(fused):
    graph = onnx.load_from_string(set_apart(fused)).graph
    names = {value.name for value in graph.input}
    assert not [name for name in names if name.startswith("state.bank.")]
    assert len([name for name in names if name.startswith(PREPARED)]) > 2
    assert len(graph.node) < len(onnx.load_from_string(fused).graph.node)


def test_the_graph_reads_and_gives_what_it_did(graphs):
    whole, apart = graphs
    assert list(apart.inputs.items()) == list(whole.inputs.items())
    assert list(apart.outputs.items()) == list(whole.outputs.items())


def test_the_values_follow_the_memory(graphs):
    whole, apart = graphs
    inputs = inputs_of(whole, 0)
    for seed in (0, 1, 0, 2):
        banks = {name: array for name, array in inputs_of(whole, seed).items() if name.startswith("state.bank.")}
        for _ in range(2):
            inputs |= banks
            wanted, found = whole.run(inputs), apart.run(inputs)
            for name, array in wanted.items():
                np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("part", ["key", "value", "number", "merged"])
def test_one_changed_part_of_a_bank_is_enough(graphs, part):
    whole, apart = graphs
    inputs = inputs_of(whole, 0)
    apart.run(inputs)
    inputs[f"state.bank.0.{part}"] = inputs_of(whole, 1)[f"state.bank.0.{part}"]
    np.testing.assert_array_equal(apart.run(inputs)["log_probs"], whole.run(inputs)["log_probs"])


@pytest.mark.parametrize(("held", "read"), [(0, 16), (3, 16), (15, 16), (16, 32), (31, 32), (32, 41), (40, 41)])
def test_slots_that_hold_nothing_yet_are_not_read(toy_model, held, read):
    torch.manual_seed(0)
    fused = fuse(to_onnx(StepGraph(Encoder(toy_model(memory_capacities=(40,))).eval())))
    whole, apart = (load_graph("onnxruntime", model, threads=1) for model in (fused, set_apart(fused)))
    inputs = inputs_of(whole, 0)
    inputs["state.bank.0.number"] = np.where(np.arange(40) < held, np.arange(40), -1)[None]
    prepared = apart.read_from(inputs)
    sizes = {name: array.shape for name, array in prepared.items() if name.startswith(PREPARED)}
    assert {shape[-1 if len(shape) == 4 and shape[1] == 1 else 2] for shape in sizes.values()} == {read}
    wanted, found = whole.run(inputs), apart.run(inputs)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_streams_with_memories_of_their_own_share_a_graph(graphs):
    whole, apart = graphs
    streams = [inputs_of(whole, seed) for seed in range(3)]
    for inputs in streams * 2:
        np.testing.assert_array_equal(apart.run(inputs)["log_probs"], whole.run(inputs)["log_probs"])


def test_what_was_made_goes_when_its_memory_does(graphs):
    apart = graphs[1]
    inputs = inputs_of(apart, 0)
    apart.run(inputs)
    made = weakref.ref(apart.read_from(inputs)[f"{PREPARED}0"])
    again = apart.read_from(inputs)[f"{PREPARED}0"]
    assert made() is again
    del inputs, again
    assert made() is None


def test_a_graph_that_reads_no_bank_stays_as_it_is(toy_model):
    model = fuse(to_onnx(StepGraph(Encoder(toy_model(summary_strides=(), memory_capacities=())).eval())))
    assert set_apart(model) == model
