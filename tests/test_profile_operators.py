from pathlib import Path

import numpy as np
import pytest

from edgeasr.errors import BundleError
from edgeasr.onnx_reader import GraphNode, read_onnx, with_names
from edgeasr.profile import operators
from edgeasr.profile.onnx_writer import Node, Value, serialised
from edgeasr.profile.operators import Effort, profile_graph
from edgeasr.profile.recurrent import baseline
from edgeasr.recognizer import load_model

LEAST = Effort(sessions=1, profiled=2, stretches=2, longest=1, timed=2)
SHIPPED = Path(operators.__file__).parents[1] / "models" / "tiny-en"


def small_graph() -> bytes:
    """A state that moves on, a product with a weight, and a view of the state."""
    weight = np.ones((8, 16), np.float32)
    nodes = [
        Node("Reshape", ["state.past", "shape"], ["flat"]),
        Node("Add", ["flat", "features"], ["sum"]),
        Node("MatMul", ["sum", "weight"], ["y"]),
        Node("Mul", ["sum", "half"], ["next_state.past"]),
    ]
    constants = {"weight": weight, "half": np.full((1, 8), 0.5, np.float32), "shape": np.array([1, 8], np.int64)}
    inputs = [Value("features", [1, 8]), Value("state.past", [1, 2, 4])]
    return serialised(nodes, inputs, [Value("y", [1, 16]), Value("next_state.past", [1, 8])], constants)


SMALL_FEED = {"features": np.ones((1, 8), np.float32), "state.past": np.zeros((1, 2, 4), np.float32)}


@pytest.fixture(scope="module")
def profiled():
    return profile_graph(small_graph(), SMALL_FEED, effort=LEAST)


def test_every_operator_that_runs_is_told_with_its_tensors(profiled):
    by_type = {operator.op_type: operator for operator in profiled.operators}
    assert set(by_type) == {"Reshape", "Add", "MatMul", "Mul"}
    product = by_type["MatMul"]
    assert [(tensor.name, tensor.kind, tensor.shape) for tensor in product.inputs] == [
        ("sum", "activation", (1, 8)),
        ("weight", "weight", (8, 16)),
    ]
    assert product.work.macs == 128
    assert product.work.weight_bytes == 512


def test_state_stays_state_through_a_view(profiled):
    add = next(operator for operator in profiled.operators if operator.op_type == "Add")
    assert (add.work.state_bytes, add.work.activation_bytes) == (32, 64)
    written = next(operator for operator in profiled.operators if operator.op_type == "Mul")
    assert written.work.state_bytes == 32
    assert (profiled.state_read_bytes, profiled.state_written_bytes) == (32, 32)


def test_weights_are_the_constants_of_the_file(profiled):
    assert profiled.weight_bytes == 512 + 32 + 16
    assert profiled.read_weight_bytes == 512 + 32  # a view reads nothing


def test_times_are_of_this_run(profiled):
    assert profiled.step_us > 0
    assert profiled.profiled_us > 0
    assert all(operator.time_us >= 0 for operator in profiled.operators)
    assert profiled.operators_us == pytest.approx(sum(operator.time_us for operator in profiled.operators))


def test_the_profilers_file_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    profile_graph(small_graph(), SMALL_FEED, effort=LEAST)
    assert not list(tmp_path.iterdir())


def test_weights_that_the_runtime_packs_are_counted():
    network = baseline("lstm", 20_000, 16, 8, 1)
    found = profile_graph(network.model, network.feed, effort=LEAST)
    products = [operator for operator in found.operators if operator.op_type == "DynamicQuantizeMatMul"]
    assert products
    assert all(operator.work.weight_bytes > 0 and operator.work.int8 for operator in products)
    assert found.read_weight_bytes == found.weight_bytes


def test_weights_of_the_shipped_graphs_are_those_that_the_package_onnx_finds():
    onnx = pytest.importorskip("onnx", reason="the extra `train` is not installed")
    for part in ("step", "memory"):
        path = SHIPPED / f"{part}.int8.onnx"
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
        content = read_onnx(path)
        assert content.weight_bytes == sum(array.nbytes for array in arrays)
        assert [one.shape for one in content.initializers.values()] == [array.shape for array in arrays]
        assert [one.dtype for one in content.initializers.values()] == [array.dtype.name for array in arrays]


def test_the_operators_of_the_shipped_step_read_all_of_its_weights():
    """Fusions and layouts of this runtime may change some bytes of small constants."""
    model = load_model()
    feed = {
        "features": np.zeros((1, model.config.encoder.chunk_features, model.config.features.num_mels), np.float32),
        **model.init_state(),
    }
    for part in ("number", "merged"):
        feed[f"state.bank.0.{part}"] = np.ones_like(feed[f"state.bank.0.{part}"])
    found = profile_graph(SHIPPED / "step.int8.onnx", feed, effort=LEAST)
    inputs = [tensor for one in found.operators for tensor in one.inputs]
    read = {tensor.name: tensor.size_bytes for tensor in inputs if tensor.kind == "weight"}
    assert sum(read.values()) == pytest.approx(found.weight_bytes, rel=0.01)
    states = set(read_onnx(SHIPPED / "step.int8.onnx").inputs) & set(model.init_state())
    encoder = model.config.encoder
    slots = encoder.memory_capacities[0] + 1  # and the one that is always there
    prepared = 2 * encoder.upper_blocks * slots * encoder.d_model + encoder.chunk_frames * slots
    own = sum(model.init_state()[name].nbytes for name in states)
    assert found.state_read_bytes == own + prepared * np.dtype(np.float32).itemsize
    # Of caches the new rows alone are written.
    assert 0 < found.state_written_bytes < 0.1 * own


def test_nameless_operators_get_names_of_their_own():
    named = read_onnx(with_names(small_graph())).nodes
    names = [node.name for node in named]
    assert len(set(names)) == 4
    assert "" not in names
    assert with_names(with_names(small_graph())) == with_names(small_graph())
    assert [node.inputs for node in named] == [node.inputs for node in read_onnx(small_graph()).nodes]


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"no model at all"])
def test_what_is_no_model_is_refused(content):
    with pytest.raises(BundleError, match="wanted an ONNX model"):
        read_onnx(content)


def test_a_graph_that_the_runtime_refuses_is_named():
    broken = serialised([Node("NoSuchOperator", ["x"], ["y"])], [Value("x", [1])], [Value("y", [1])], {})
    with pytest.raises(BundleError, match="ONNX Runtime cannot load"):
        profile_graph(broken, {"x": np.zeros(1, np.float32)}, effort=LEAST)


def event(name, start, duration, op_type="Add"):
    arguments = {"op_name": op_type, "input_type_shape": [{"float": [1]}], "output_type_shape": [{"float": [1]}]}
    return {"name": f"{name}_kernel_time", "ts": str(start), "dur": duration, "args": arguments}


def test_events_become_runs():
    events = [
        event("b", 5, 2),
        {"name": "model_run", "ts": 0, "dur": 9},
        event("a", 1, 1),
        event("a", 11, 3),
        event("b", 15, 4),
    ]
    runs = operators._runs(events)
    assert [[(one.name, one.duration_us) for one in run] for run in runs] == [
        [("a", 1), ("b", 2)],
        [("a", 3), ("b", 4)],
    ]
    assert runs[0][0].inputs == (("float", (1,)),)


def test_disturbed_runs_do_not_count():
    runs = np.array([(9, 9), (2, 2), (50, 50), (3, 3), (8, 8), (9, 8), (9, 9), (9, 9)], float)
    assert operators._shown_us(runs) == pytest.approx([2.5, 2.5])
    middle = np.array([[1.0], [2.0], [3.0], [90.0]] + [[99.0]] * 12)
    assert operators._shown_us(middle) == pytest.approx([2.5])


def test_operators_of_less_than_a_microsecond_take_some_time():
    shown_us = operators._shown_us(np.zeros((4, 3)))
    assert (shown_us > 0).all()
    assert operators._stops(shown_us, 3, 0) == [1, 2, 3]
    assert operators._shared_out(np.array([3.0]), [3], shown_us) == pytest.approx([1.0, 1.0, 1.0])


def test_an_interrupted_operator_counts_as_what_it_usually_takes():
    runs = np.array([(5, 5, 5), (6, 6, 6), (4, 4, 900), (6, 6, 7)], float)
    assert operators._shown_us(runs) == pytest.approx([4.0, 4.0, 6.5])


def test_stretches_end_where_the_profiler_says_that_equal_shares_of_the_time_do():
    shown_us = np.array([2.0, 2.0, 8.0, 4.0, 4.0, 4.0])
    assert operators._stops(shown_us, 3, 0) == [3, 4, 6]
    assert operators._stops(shown_us, 1, 0) == [6]
    assert operators._stops(shown_us, 100, 0) == [1, 2, 3, 4, 5, 6]


def test_the_longest_operators_are_stretches_of_their_own():
    shown_us = np.array([9.0, 1.0, 1.0, 8.0, 1.0, 1.0, 7.0])
    assert operators._stops(shown_us, 1, 1) == [1, 7]
    assert operators._stops(shown_us, 1, 3) == [1, 3, 4, 6, 7]


def test_the_time_of_a_stretch_is_shared_out_by_what_the_profiler_says_beyond_its_least():
    times_us = operators._shared_out(np.array([10.0, 0.2]), [3, 5], np.array([2.0, 4.0, 5.0, 2.0, 2.0]))
    assert times_us == pytest.approx([10 * 0.1 / 5.1, 10 * 2 / 5.1, 10 * 3 / 5.1, 0.1, 0.1])


def test_operators_of_one_name_are_told_apart_by_their_order():
    nodes = [GraphNode(name, "Add", (), ()) for name in ("a", "b", "a")]
    run = operators._runs([event("a", 1, 1), event("a", 2, 1), event("b", 3, 1)])
    assert operators._in_order([*run[0], *run[1]], nodes) == [0, 2, 1]
