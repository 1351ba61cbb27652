# ruff: noqa: E402 - onnx is looked for before it is used
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from onnx import TensorProto, helper, numpy_helper

from edgeasr.backends import output_buffers
from edgeasr.backends.onnxruntime import OnnxGraph
from edgeasr.backends.windows import METADATA

KEPT, ADDED, HEADS, SIZE = 6, 2, 2, 3


def summing():
    """Rows of time, (T, 1, H, D): new ones are x, and `sum` is that of all that is seen."""
    row = [1, HEADS, SIZE]
    nodes = [
        helper.make_node("Identity", ["x"], ["next_state.cache"]),
        helper.make_node("Concat", ["state.cache", "x"], ["all"], axis=0),
        helper.make_node("ReduceSum", ["all", "time"], ["sum"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "summing",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [length, *row])
            for name, length in (("x", ADDED), ("state.cache", KEPT))
        ],
        [
            helper.make_tensor_value_info("next_state.cache", TensorProto.FLOAT, [ADDED, *row]),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, row),
        ],
        [numpy_helper.from_array(np.array([0]), "time")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {METADATA: json.dumps({"cache": [1, 2, 0, 3]})})
    return OnnxGraph(model.SerializeToString())


def rows(step):
    rng = np.random.default_rng(step)
    return rng.normal(size=(ADDED, 1, HEADS, SIZE)).astype(np.float32)


def stepped(graph, state, step):
    return graph.run({"x": rows(step), "state.cache": state})["next_state.cache"]


def expected(steps):
    """The cache after these steps, as the signature has it: (1, H, T, D)."""
    past = np.concatenate([np.zeros((KEPT, 1, HEADS, SIZE), np.float32), *(rows(step) for step in steps)])
    return past[-KEPT:].transpose(1, 2, 0, 3)


EMPTY = np.zeros((1, HEADS, KEPT, SIZE), np.float32)


def test_a_graph_says_what_the_signature_says():
    graph = summing()
    assert graph.inputs["state.cache"].shape == graph.outputs["next_state.cache"].shape == EMPTY.shape
    assert graph.inputs["x"].shape == (ADDED, 1, HEADS, SIZE)


def test_a_stream_reads_the_last_rows_from_reel_to_reel():
    graph, state = summing(), EMPTY
    for step in range(3 * output_buffers.STEPS_OF_A_REEL):
        outputs = graph.run({"x": rows(step), "state.cache": state})
        state = outputs["next_state.cache"]
        np.testing.assert_array_equal(state, expected(range(step + 1)))
        seen = np.concatenate([expected(range(step)).transpose(2, 0, 1, 3), rows(step)])
        np.testing.assert_allclose(outputs["sum"], seen.sum(axis=0), rtol=1e-5, atol=1e-6)
        del outputs


def test_within_a_reel_nothing_is_copied():
    graph = summing()
    first = stepped(graph, EMPTY, 0)
    second = stepped(graph, first, 1)
    assert np.shares_memory(first, second)
    np.testing.assert_array_equal(second, expected(range(2)))


def test_states_that_are_held_never_change():
    graph, states = summing(), [EMPTY]
    for step in range(5 * output_buffers.STEPS_OF_A_REEL):
        states.append(stepped(graph, states[-1], step))
    for step, state in enumerate(states):
        np.testing.assert_array_equal(state, expected(range(step)))


@pytest.mark.parametrize("view", [lambda a: a[:, 1:], lambda a: a.T, lambda a: a[0, 0, 2:4]])
def test_a_view_keeps_its_rows(view):
    graph, state = summing(), EMPTY
    kept, wanted = view(stepped(graph, EMPTY, 0)), view(expected([0])).copy()
    for step in range(4 * output_buffers.STEPS_OF_A_REEL):
        state = stepped(graph, state, step + 1)
    np.testing.assert_array_equal(kept, wanted)


def test_branches_of_one_state_do_not_meet():
    graph = summing()
    root = stepped(graph, EMPTY, 0)
    left, right = stepped(graph, root, 1), stepped(graph, root, 2)
    for step in range(3, 3 + 2 * output_buffers.STEPS_OF_A_REEL):
        left, right = stepped(graph, left, step), stepped(graph, right, 100 + step)
    steps = range(3, 3 + 2 * output_buffers.STEPS_OF_A_REEL)
    np.testing.assert_array_equal(root, expected([0]))
    np.testing.assert_array_equal(left, expected([0, 1, *steps]))
    np.testing.assert_array_equal(right, expected([0, 2, *(100 + step for step in steps)]))


def test_a_branch_that_was_dropped_gives_its_rows_back():
    graph = summing()
    root = stepped(graph, EMPTY, 0)
    stepped(graph, root, 1)
    again = stepped(graph, root, 2)
    assert np.shares_memory(root, again)
    np.testing.assert_array_equal(again, expected([0, 2]))


def test_a_stored_state_goes_on_where_it_was():
    graph = summing()
    stored = stepped(graph, EMPTY, 0).copy()
    np.testing.assert_array_equal(stepped(summing(), stored, 1), expected([0, 1]))


def test_without_a_free_reel_the_values_are_the_same(monkeypatch):
    monkeypatch.setattr(output_buffers, "MAX_REELS", 0)
    graph, state = summing(), EMPTY
    for step in range(5):
        state = stepped(graph, state, step)
    np.testing.assert_array_equal(state, expected(range(5)))


@pytest.mark.parametrize("state", [EMPTY[:, :, :-1], EMPTY.astype(np.float64)], ids=["shape", "type"])
def test_a_cache_that_does_not_fit_is_an_error(state):
    graph = summing()
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        stepped(graph, state, 0)
    np.testing.assert_array_equal(stepped(graph, EMPTY, 0), expected([0]))


def test_streams_in_threads_share_a_graph():
    graph = summing()

    def run(k):
        state = EMPTY
        for step in range(50):
            state = stepped(graph, state, 1000 * k + step)
        return state.copy()

    with ThreadPoolExecutor(8) as threads:
        for k, state in enumerate(threads.map(run, range(8))):
            np.testing.assert_array_equal(state, expected(1000 * k + step for step in range(50)))
