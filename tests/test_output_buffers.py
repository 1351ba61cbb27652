# ruff: noqa: E402 - onnx is looked for before it is used
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from onnx import TensorProto, helper

from edgeasr.backends import output_buffers
from edgeasr.backends.onnxruntime import OnnxGraph

SHAPE = [4, 1000]


def accumulator(shape=SHAPE):
    """next = x + state, and their largest value."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "state"], ["next"]),
            helper.make_node("ReduceMax", ["next"], ["largest"], keepdims=0),
        ],
        "accumulator",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "state")],
        [
            helper.make_tensor_value_info("next", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("largest", TensorProto.FLOAT, []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return OnnxGraph(model.SerializeToString())


def full(value):
    return np.full(SHAPE, value, np.float32)


def address(array):
    return array.__array_interface__["data"][0]


def test_a_stream_goes_on_in_two_reels():
    graph, state, addresses = accumulator(), full(0), set()
    for chunk in range(1, 9):
        outputs = graph.run({"x": full(chunk), "state": state})
        state = outputs["next"]
        addresses.add(address(state))
        assert (state == sum(range(chunk + 1))).all()
        assert outputs["largest"] == sum(range(chunk + 1))
        del outputs
    assert len(addresses) == 2


def test_outputs_that_are_held_never_change():
    graph = accumulator()
    count = output_buffers.MAX_REELS + 8
    kept = [graph.run({"x": full(k), "state": full(1)})["next"] for k in range(count)]
    assert [float(array[0, 0]) for array in kept] == [k + 1 for k in range(count)]
    assert len({address(array) for array in kept}) == count


def test_what_streams_leave_behind_is_given_up():
    graph = accumulator()
    # Each stream reads what another wrote, so that their reels are bound to each other's arrays.
    states = [graph.run({"x": full(k), "state": full(1)})["next"] for k in range(output_buffers.MAX_REELS)]
    states = [graph.run({"x": full(1), "state": state})["next"] for state in states]
    gone = [weakref.ref(state) for state in states]
    del states
    first, second, third = (graph.run({"x": full(k), "state": full(2)})["next"] for k in range(3))
    assert sum(one() is not None for one in gone) <= output_buffers.SPARE_REELS
    for k in range(30):
        assert (graph.run({"x": full(k), "state": full(k)})["next"] == 2 * k).all()
        assert (graph.run({"x": first, "state": third})["next"] == 6).all()
    assert (second == 3).all()


@pytest.mark.parametrize("view", [lambda a: a[1:3], lambda a: a.T, lambda a: a.reshape(-1)[5:], memoryview])
def test_a_view_holds_the_buffers_that_it_looks_into(view):
    graph = accumulator()
    kept = view(graph.run({"x": full(1), "state": full(1)})["next"])
    for _ in range(3):
        graph.run({"x": full(5), "state": full(5)})
    assert (np.asarray(kept) == 2).all()


def test_an_input_is_read_anew_where_another_array_takes_the_place_of_a_dropped_one():
    graph, found = accumulator(), []
    for k in range(30):
        x = full(k)  # often at the address, with the id, of the one before
        found.append(float(graph.run({"x": x, "state": full(0)})["largest"]))
        del x
    assert found == list(range(30))


def test_an_input_is_let_go_of_when_its_owner_lets_go():
    graph, x = accumulator(), full(1)
    kept = graph.run({"x": x, "state": full(0)})["next"]
    gone = weakref.ref(x)
    del x
    assert gone() is None
    assert (kept == 1).all()


def test_an_input_that_was_changed_in_place_is_read_as_it_is_now():
    graph, x = accumulator(), full(1)
    for value in (1, 2, 3):
        x[:] = value
        assert graph.run({"x": x, "state": full(0)})["largest"] == value


@pytest.mark.parametrize("layout", ["transposed", "strided"])
def test_an_input_in_another_layout_is_read_too(layout):
    wide = np.random.default_rng(0).normal(size=[4, 2000]).astype(np.float32)
    x = np.asfortranarray(wide[:, ::2]) if layout == "transposed" else wide[:, ::2]
    np.testing.assert_array_equal(accumulator().run({"x": x, "state": full(0)})["next"], wide[:, ::2])


@pytest.mark.parametrize("x", [np.zeros([4, 999], np.float32), np.zeros(SHAPE)], ids=["shape", "type"])
def test_an_input_that_does_not_fit_is_an_error_as_ever(x):
    graph = accumulator()
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        graph.run({"x": x, "state": full(0)})
    assert graph.run({"x": full(1), "state": full(0)})["largest"] == 1


def test_small_inputs_are_read_as_they_are_each_time():
    graph = accumulator([4, 3])
    x, state = np.zeros([4, 3], np.float32), np.ones([4, 3], np.float32)
    for chunk in range(1, 9):
        x[:] = chunk
        state = graph.run({"x": x if chunk % 2 else x.copy(), "state": state})["next"]
        assert (state == 1 + sum(range(chunk + 1))).all()


def test_sizes_that_vary_are_no_business_of_buffers():
    graph = accumulator(["time", 2])
    for length in (1, 5):
        assert graph.run(dict.fromkeys(("x", "state"), np.ones([length, 2], np.float32)))["next"].shape == (length, 2)


def test_streams_in_threads_share_a_graph():
    graph = accumulator()

    def run(k):
        state = full(0)
        for _ in range(50):
            state = graph.run({"x": full(k), "state": state})["next"]
        return float(state.min()), float(state.max())

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(run, range(8))) == [(50.0 * k, 50.0 * k) for k in range(8)]
