# ruff: noqa: E402 - torch is looked for before the modules that import it
import json
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeasr.backends import load_graph
from edgeasr.backends.windows import METADATA
from edgeasr.converters.fuse import RULES, Attention, fuse
from edgeasr.converters.signature import MemoryGraph, StepGraph
from edgeasr.converters.to_onnx import to_onnx
from edgeasr.encoder import Encoder

CHUNKS = 12


@pytest.fixture(scope="module")
def encoder(toy_model):
    torch.manual_seed(0)
    return Encoder(toy_model()).eval()


@pytest.fixture(scope="module")
def step(encoder):
    """The step graph as torch exports it."""
    return to_onnx(StepGraph(encoder))


def count(model):
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


def random_inputs(graph, rng):
    """Floats around zero; of whole numbers, small ones."""
    return {
        name: rng.normal(size=spec.shape).astype(np.float32)
        if spec.dtype == "float32"
        else rng.integers(0, 3, spec.shape)
        for name, spec in graph.inputs.items()
    }


def stream(model, chunks=CHUNKS):
    """Outputs of every chunk of a stream whose memory is full of something, from its first chunk on."""
    graph, rng = load_graph("onnxruntime", model, threads=1), np.random.default_rng(0)
    one_chunk = np.array([graph.outputs["log_probs"].shape[1]])
    state = random_inputs(graph, rng) | {"state.seen": np.zeros(1, np.int64), "state.pool.0.filled": one_chunk}
    state["state.pool.0.weight"] = 1 + np.abs(state["state.pool.0.weight"])
    outputs = []
    for _ in range(chunks):
        state["features"] = rng.normal(size=graph.inputs["features"].shape).astype(np.float32)
        outputs.append(graph.run(state))
        state |= {name.removeprefix("next_"): a for name, a in outputs[-1].items() if name.startswith("next_state.")}
    return outputs


def assert_same_stream(model, expected):
    for found, wanted in zip(stream(model), expected, strict=True):
        assert found.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def expected(step):
    return stream(step)


@pytest.mark.parametrize(
    "rules",
    [[], *(RULES[:n] for n in range(1, 5)), *([rule] for rule in (Attention.rule, *RULES[4:]))],
    ids=["none", "rotation", "attention", "windows", "packed", "attention alone", "convolution", "mask", "angles"],
)
def test_every_rule_leaves_the_values_of_a_stream_as_they_are(step, expected, rules):
    assert_same_stream(fuse(step, rules), expected)


def test_all_rules_leave_the_values_of_a_stream_as_they_are(step, expected):
    assert_same_stream(fuse(step), expected)


def test_every_part_of_the_encoder_is_found(encoder, step):
    config, before, after = encoder.config.encoder, count(step), count(fuse(step))
    blocks = config.lower_blocks + config.upper_blocks
    assert before["MultiHeadAttention"] == before["RotaryEmbedding"] == 0
    assert after["MultiHeadAttention"] == config.upper_blocks  # reads of the memory
    assert after["FusedMatMul"] == 2 * blocks
    assert after["RotaryEmbedding"] == blocks
    assert after["Softmax"] == blocks
    assert after["Conv"] == before["Conv"] - blocks == 2
    assert (after["Sin"], after["Cos"], after["LessOrEqual"], after["And"]) == (1, 1, 0, 0)
    assert before["GatherElements"] == 3
    assert after["GatherElements"] == 0  # of the pool
    assert sum(after.values()) < 0.7 * sum(before.values())


@pytest.mark.parametrize(("chunk", "heads"), [(4, 1), (4, 2), (8, 2), (16, 4)])
def test_values_are_turned_by_nothing_whether_a_frame_has_more_heads_or_a_chunk_more_frames(toy_model, chunk, heads):
    torch.manual_seed(1)
    model = toy_model(chunk_frames=chunk, num_heads=heads, left_context=32, summary_strides=(32,))
    exact = to_onnx(StepGraph(Encoder(model).eval()))
    fused = fuse(exact)
    encoder = model.encoder
    assert count(fused)["RotaryEmbedding"] == encoder.lower_blocks + encoder.upper_blocks
    assert_same_stream(fused, stream(exact))


@pytest.mark.parametrize("seen", [0, 4, 96, 100, 2**31 - 4, 2**31, 2**40])
def test_masks_and_angles_are_those_of_every_place_in_a_stream(step, seen):
    before, after = (load_graph("onnxruntime", model, threads=1) for model in (step, fuse(step)))
    inputs = random_inputs(before, np.random.default_rng(4)) | {"state.seen": np.array([seen])}
    wanted, found = before.run(inputs), after.run(inputs)
    for name in ("log_probs", "next_state.level1.0.key"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def windows(model):
    return json.loads({entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}[METADATA])


def test_caches_are_read_as_rows_of_time_and_given_as_the_new_ones(encoder, step):
    config = encoder.config.encoder
    graph, blocks = onnx.load_from_string(fuse(step)).graph, config.lower_blocks + config.upper_blocks
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    head = [1, config.num_heads, config.head_dim]
    for i in range(blocks):
        assert shapes[f"state.level1.{i}.key"] == shapes[f"state.level1.{i}.value"] == [config.left_context, *head]
        assert shapes[f"next_state.level1.{i}.key"] == [config.chunk_frames, *head]
    orders = windows(fuse(step))
    assert {name for name, order in orders.items() if order == [1, 2, 0, 3]} == {
        f"level1.{i}.{part}" for i in range(blocks) for part in ("key", "value")
    }


@pytest.mark.parametrize(("chunk", "kernel", "as_window"), [(4, 15, True), (4, 5, False), (8, 8, False)])
def test_a_cache_is_a_window_where_a_chunk_is_shorter(toy_model, chunk, kernel, as_window):
    encoder = Encoder(toy_model(chunk_frames=chunk, conv_kernel=kernel, left_context=32)).eval()
    orders = windows(fuse(to_onnx(StepGraph(encoder))))
    assert ("level1.0.conv" in orders) is as_window
    assert "level1.0.key" in orders


def test_a_pool_stays_where_a_chunk_may_belong_to_two_segments(toy_model):
    model = to_onnx(StepGraph(Encoder(toy_model(summary_strides=(6,), memory_capacities=(4,))).eval()))
    assert count(fuse(model))["GatherElements"] == 3
    assert_same_stream(fuse(model), stream(model))


def test_inputs_and_outputs_keep_their_names_order_and_shapes(step):
    before, after = (load_graph("onnxruntime", model, threads=1) for model in (step, fuse(step)))
    assert list(after.inputs.items()) == list(before.inputs.items())
    assert list(after.outputs.items()) == list(before.outputs.items())


def test_the_memory_graph_keeps_its_values(encoder):
    exact = to_onnx(MemoryGraph(encoder))
    fused = fuse(exact)
    assert count(fused)["MultiHeadAttention"] == len(encoder.levels)
    before, after = (load_graph("onnxruntime", model, threads=1) for model in (exact, fused))
    inputs = random_inputs(before, np.random.default_rng(1))
    wanted, found = before.run(inputs), after.run(inputs)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def convolution(groups, stride=1):
    """A convolution over time as `edgeasr.layers.CausalConvolution` writes it: (1, 7, 4) -> (1, T, 4)."""
    rng = np.random.default_rng(2)
    tensors = {
        "weight": rng.normal(size=(4, 4 // groups, 3, 1)).astype(np.float32),
        "bias": rng.normal(size=4).astype(np.float32),
        "axes": np.array([3]),
        "zero": np.array(0),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["columns", "axes"], ["image"]),
        helper.make_node(
            "Conv",
            ["image", "weight", "bias"],
            ["convolved"],
            group=groups,
            strides=[stride, stride],
            pads=[0] * 4,
            dilations=[1, 1],
        ),
        helper.make_node("Gather", ["convolved", "zero"], ["plain"], axis=3),
        helper.make_node("Transpose", ["plain"], ["y"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 7, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4 // stride + 1, 4])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("groups", "stride", "convolutions"), [(4, 1, 0), (1, 1, 1), (2, 1, 1), (4, 2, 1)], ids=["depthwise", *"abc"]
)
def test_only_plain_depthwise_convolutions_are_replaced(groups, stride, convolutions):
    exact = convolution(groups, stride)
    fused = fuse(exact)
    assert count(fused)["Conv"] == convolutions
    x = np.random.default_rng(3).normal(size=(1, 7, 4)).astype(np.float32)
    wanted, found = (load_graph("onnxruntime", model, threads=1).run({"x": x})["y"] for model in (exact, fused))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
