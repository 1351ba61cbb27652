# ruff: noqa: E402 - onnx is looked for before it is used
"""Graphs that the native backend has not: each is refused by name, none computes something else."""

import re
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from edgeasr.backends.native.plan import planned
from edgeasr.backends.native.program import Layout
from edgeasr.errors import BundleError, UnsupportedGraphError
from edgeasr.onnx_reader import read_model, read_onnx

floats, integers, model, node, with_size = (
    run_path(str(Path(__file__).with_name("native_graphs.py")))[name]
    for name in ("floats", "integers", "model", "node", "with_size")
)

LAYOUT = Layout(4, 12, True)
PICTURE, KERNEL = floats(1, 2, 5, 6), floats(4, 2, 3, 3)


def plan(content, most=None):
    return planned(*read_model(content), LAYOUT, most)


def refused(content, message, most=None):
    with pytest.raises(UnsupportedGraphError, match=message):
        plan(content, most)


CONSTANTS = {"w": KERNEL, "half_w": KERNEL[:, :1], "five": floats(5), "pads": integers(1, 0, 0, 0)}
INPUTS = {
    "x": floats(3, 5),
    "picture": PICTURE,
    "q": floats(1, 4, 24),
    "k": floats(1, 2, 4, 12),
    "turned": floats(1, 1, 2, 4),
    "numbers": np.zeros((1, 2), np.int64),
    "table": floats(9, 2),
}
ROTATION = "turned numbers table table"


@pytest.mark.parametrize(
    ("op_type", "names", "attributes"),
    [
        ("MultiHeadAttention", "q k k", {"unidirectional": 1}),
        ("MultiHeadAttention", "q k k", {"num_heads": 2, "unidirectional": 1}),
        ("RotaryEmbedding", ROTATION, {"interleaved": 1}),
        ("RotaryEmbedding", ROTATION, {"rotary_embedding_dim": 2}),
        ("RotaryEmbedding", ROTATION, {"is_packed_batching": 1}),
        ("RotaryEmbedding", ROTATION, {"scale": 2.0}),
        ("LayerNormalization", "x five five", {"stash_type": 11}),
        ("Conv", "picture w", {"auto_pad": "SAME_UPPER"}),
        ("Conv", "picture half_w", {"group": 2}),
        ("ReduceSum", "x", {"noop_with_empty_axes": 1}),
        ("ReduceMax", "x", {"axes": [0]}),
        ("Squeeze", "picture", {"axes": [0]}),
        ("Unsqueeze", "x", {"axes": [0]}),
        ("Split", "x", {"split": [3]}),
        ("Pad", "x pads", {"mode": "reflect"}),
        ("Clip", "x", {"min": 0.0}),
        ("Add", "x x", {"broadcast": 1}),
        ("Add", "x x", {"names": ["a", "b"]}),
    ],
)
def test_attributes_that_change_what_is_computed(op_type, names, attributes):
    content = model([node(op_type, names, "y", **attributes)], INPUTS, {"y": None}, CONSTANTS)
    refused(content, f"got {op_type} with {list(attributes)[-1]} ")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Erf", "x", "y")], "got the operator Erf, which the native backend has not"),
        ([node("Clip", "x low high", "y")], "another limit than a constant least value"),
        ([node("Clip", "x", "y")], "cannot plan"),
        ([node("Clip", "x - high", "y")], "another limit"),
        ([node("Clip", "x x", "y")], "another limit"),
        ([node("Softmax", "x", "y", axis=0)], "over another axis than the last"),
        ([node("LogSoftmax", "x", "y", axis=-2)], "over another axis than the last"),
        ([node("LayerNormalization", "x five", "y")], "cannot plan"),
        ([node("LayerNormalization", "x five five", "y", axis=0)], "more than the last axis"),
        ([node("LayerNormalization", "x one one", "y")], r"LayerNormalization of \[3, 5\] with \[1\]"),
        ([node("LayerNormalization", "x five five", "z mean y")], "the output 'y', which nothing makes"),
        ([node("Cast", "x", "y", to=6)], "got Cast of float32"),
        ([node("Cast", "x", "y", to=11)], "got Cast of float32"),
        ([node("Split", "x sizes", "y z", axis=1)], r"got a Split of \[3, 5\] into \[1, 3\]"),
        ([node("Split", "x", "y z", axis=1, num_outputs=3)], r"got a Split"),
        ([node("Split", "x", "y z u v", axis=1, num_outputs=4)], r"got a Split of \[3, 5\] into \[2, 2, 2, -1\]"),
        ([node("Mod", "x five", "y")], "Mod of float32 with fmod 0"),
        ([node("Mod", "i i", "y", fmod=1)], "Mod of int64 with fmod 1"),
        ([node("Add", "x i", "y")], "Add of float32 and int64"),
        ([node("Where", "i x x", "y")], "Where of int64"),
        ([node("Gather", "x i", "y")], "more than one constant row"),
        ([node("Gather", "x far", "y")], "cannot plan"),
        ([node("Reshape", "x seven", "y")], r"Reshape of \[3, 5\] to \[7\]"),
        ([node("Squeeze", "x zero", "y")], r"Squeeze of \[3, 5\] to \[5\]"),
        ([node("Slice", "x four zero zero one", "y")], "wanted sizes that do not vary, 1 or more"),
        ([node("Slice", "x four zero zero back", "y")], "steps of -1"),
        ([node("Pad", "x pads - zero", "y")], "padding by"),
        ([node("Pad", "x wide_pads - axes", "y")], "padding by"),
        ([node("Concat", "x five", "y", axis=0)], r"got float32 \[5\] where float32 \[5, 5\] is wanted"),
        ([node("Concat", "five i", "y", axis=0)], r"got int64 \[5\] where float32 \[5\] is wanted"),
        ([node("MatMul", "x x", "y")], "got a product of"),
        ([node("MatMul", "x five", "y")], "got a product of"),
        ([node("ReduceSum", "x none", "y")], "cannot plan"),
        ([node("ReduceSum", "half half_axes", "y")], "got ReduceSum of float32 over the axes"),
        ([node("Reshape", "x i", "y")], "got 'i' that varies"),
        ([node("DynamicQuantizeLinear", "x", "y a b")], "got the operator DynamicQuantizeLinear"),
        ([node("Identity", "x", "y"), node("Identity", "y", "z"), node("Add", "nothing z", "u")], "got 'nothing'"),
    ],
)  # fmt: skip
def test_uses_of_operators(nodes, message):
    constants = {
        "five": floats(5),
        "one": np.ones(1, np.float32),
        "low": np.array(-1, np.float32),
        "high": np.array(1, np.float32),
        "sizes": integers(1, 3),
        "seven": integers(7),
        "zero": integers(0),
        "four": integers(4),
        "back": integers(-1),
        "far": np.array(3),
        "none": np.zeros(0, np.int64),
        "half": floats(2, 3, 4),
        "half_axes": integers(0, 2),
        "pads": integers(1, 0),
        "wide_pads": integers(1, 0, 0, 0),
        "axes": integers(1, 0),
    }
    inputs = {"x": floats(3, 5), "i": np.arange(5)}
    refused(model(nodes, inputs, {"y": None}, constants), message)


@pytest.mark.parametrize("opset", [13, 17, 23])
def test_versions_of_operators_that_are_not_known(opset):
    content = model([node("Softmax", "x", "y")], {"x": floats(3, 5)}, {"y": floats(3, 5)}, opset=opset)
    refused(content, f"got opset {opset}, the native backend has 18 to 22")


def test_operators_of_another_domain():
    attention = onnx.helper.make_node("Softmax", ["x"], ["y"], domain="com.example")
    refused(model([attention], {"x": floats(3, 5)}, {"y": floats(3, 5)}), "got the operator Softmax")
    rotary = onnx.helper.make_node("RotaryEmbedding", ["x", "c", "s", "p"], ["y"])  # the standard's, in another order
    inputs = {"x": floats(1, 1, 2, 4), "c": floats(9, 2), "s": floats(9, 2), "p": np.zeros((1, 2), int)}
    refused(model([rotary], inputs, {"y": inputs["x"]}), "got the operator RotaryEmbedding")


@pytest.mark.parametrize("shape", [(3, 6), (3, 4), (5, 3)])
def test_outputs_of_another_size_than_the_file_says(shape):
    content = model([node("Add", "x x", "y")], {"x": floats(3, 5)}, {"y": floats(*shape)})
    refused(content, re.escape(f"got the output 'y' of float32 [3, 5], the file says float32 {list(shape)}"))


def test_outputs_of_another_type_or_that_nothing_makes():
    x = floats(3, 5)
    refused(model([node("Add", "x x", "y")], {"x": x}, {"y": x > 0}), "the file says bool")
    refused(model([node("Add", "x x", "y")], {"x": x}, {"x": x}), "the output 'x', which nothing makes")
    refused(model([node("Add", "x x", "y")], {"x": x}, {"y": x, "z": x}), "the output 'z', which nothing makes")


def test_an_input_that_is_a_constant_as_well():
    x = floats(3, 5)
    refused(model([node("Add", "x c", "y")], {"x": x, "c": x}, {"y": x}, {"c": x}), "got the inputs c")


def test_numbers_of_16_bits():
    x = floats(3, 5).astype(np.float16)
    refused(model([node("Transpose", "x", "y")], {"x": x}, {"y": x.T}), "is wanted")
    refused(model([node("Add", "x x", "y")], {"x": x}, {"y": x}), "Add of float16")


def test_sizes_that_vary_where_only_a_number_of_keys_may():
    x = floats(3, 5)
    for operator in (node("Add", "x x", "y"), node("Transpose", "x", "y"), node("Unsqueeze", "x axis", "y")):
        content = with_size(model([operator], {"x": x}, {"y": x}, {"axis": integers(0)}), "x", 0, "rows")
        refused(content, "wanted sizes that do not vary", {"rows": 9})


def keys_that_vary(before=(), names="q k v"):
    inputs = {"q": floats(1, 5, 40), "k": floats(1, 2, 4, 20), "v": floats(1, 2, 4, 20)}
    nodes = [*before, node("MultiHeadAttention", names, "y", num_heads=2)]
    content = model(nodes, inputs, {"y": inputs["q"]}, {"sizes": integers(2, 2)})
    for name in "kv":
        content = with_size(content, name, 2, "keys")
    return content


def test_keys_that_vary_without_a_limit_or_that_are_no_inputs():
    assert plan(keys_that_vary(), {"keys": 7}).varying == ("keys",)
    refused(keys_that_vary(), "got the size 'keys', which nothing limits")
    refused(keys_that_vary([node("Identity", "k", "t")], "q t v"), "wanted sizes that do not vary", {"keys": 7})


@pytest.mark.parametrize("names", ["q k v bias", "q k v - mask", "q k v - - - past past"])
def test_attention_with_a_bias_a_mask_or_a_past(names):
    inputs = {"q": floats(1, 5, 40), "k": floats(1, 2, 4, 20), "v": floats(1, 2, 4, 20)}
    constants = {"bias": floats(120), "mask": np.ones((1, 4), np.int32), "past": floats(1, 2, 3, 20)}
    content = model([node("MultiHeadAttention", names, "y", num_heads=2)], inputs, {"y": inputs["q"]}, constants)
    refused(content, "got a MultiHeadAttention of")


def test_an_end_that_varies_of_what_others_read():
    nodes = [
        node("ReduceMax", "n", "end", keepdims=1),
        node("Slice", "x zero end axis", "y"),
        node("Add", "y y", "z"),
    ]
    inputs, constants = {"x": floats(3, 5), "n": integers(1, 2)}, {"zero": integers(0), "axis": integers(0)}
    content = with_size(model(nodes, inputs, {"y": floats(3, 5), "z": floats(3, 5)}, constants), "y", 0, "rows")
    refused(content, "a slice of 'x' to an end that varies")
    content = with_size(model(nodes[:2], inputs, {"y": floats(3, 5)}, constants), "y", 0, "rows")
    assert plan(content).cuts["y"].axis == 0
    refused(with_size(content, "y", 0, 3), r"got 'y' of \[3, 5\], wanted a size that varies along axis 0")


@pytest.mark.parametrize("numbers", [(0, 9), (-1, 0), None])
def test_rotations_by_rows_that_a_table_has_not_or_that_nobody_knows(numbers):
    constants = {"table": floats(9, 2)} | ({} if numbers is None else {"numbers": integers(*numbers).reshape(1, 2)})
    inputs = {"x": floats(1, 1, 2, 4)} | ({"numbers": np.zeros((1, 2), np.int64)} if numbers is None else {})
    content = model([node("RotaryEmbedding", "x numbers table table", "y")], inputs, {"y": inputs["x"]}, constants)
    refused(content, "a RotaryEmbedding at 'numbers', wanted constants within its tables")


def linear(behind=(), **changed):
    constants = {"w": np.ones((6, 4), np.int8), "s": np.ones(4, np.float32)} | changed
    nodes = [
        node("DynamicQuantizeLinear", "x", "q q_scale q_zero"),
        node("MatMulInteger", "q w q_zero", "i"),
        node("Cast", "i", "f", to=1),
        node("Mul", "q_scale s", "both"),
        node("Mul", "f both", "p"),
        *behind,
    ]
    last = nodes[-1].output[0]
    return model(nodes, {"x": floats(4, 6)}, {last: floats(4, 4)}, constants)


def test_products_in_int8_in_another_form():
    assert [one.operator for one in plan(linear()).instructions] == ["linear"]
    refused(linear(s=np.ones((4, 1), np.float32)), r"got float32 \[4, 1\] for 4 columns")
    refused(linear(s=np.ones(4, np.float64)), "got float64")
    refused(linear(w=np.ones((6, 4), np.uint8)), "got weights")
    refused(linear(w=np.ones((1, 6, 4), np.int8)), "got weights")
    refused(linear([node("Add", "p b", "y")], b=floats(4, 1)), r"got float32 \[4, 1\] for 4 columns")
    refused(linear([node("Add", "p b", "y")], b=floats(4, 4)), r"got float32 \[4, 4\] for 4 columns")
    refused(linear([node("Add", "p x2", "y")], x2=floats(3)), "columns")


def test_numbers_in_a_product_that_are_read_elsewhere():
    """Scales and sums of integers are nowhere in memory: who wants them is refused."""
    for name in ("q_scale", "i", "f", "both"):
        refused(linear([node("Transpose", name, "y")]), "the native backend has")


def depthwise(rows=5, weights=(3, 8), bias=(8,)):
    constants = {
        "rows": np.arange(rows)[:, None] + np.arange(3),
        "w": floats(*weights),
        "axis": integers(2),
        "b": floats(*bias),
    }
    nodes = [
        node("Concat", "past new", "all", axis=1),
        node("Gather", "all rows", "g", axis=1),
        node("Mul", "g w", "p"),
        node("ReduceSum", "p axis", "r", keepdims=0),
        node("Add", "r b", "y"),
    ]
    return model(nodes, {"past": floats(1, 2, 8), "new": floats(1, 5, 8)}, {"y": floats(1, rows, 8)}, constants)


def test_convolutions_of_each_channel_in_another_form():
    assert [one.operator for one in plan(depthwise()).instructions] == ["depthwise"]
    refused(depthwise(rows=4), "got a convolution over")
    refused(depthwise(weights=(3, 1)), "got a convolution by")
    refused(depthwise(weights=(1, 8)), "got a convolution by")
    refused(depthwise(bias=(1,)), "got a convolution by")
    refused(depthwise(bias=(5, 8)), "got a convolution by")


def test_convolutions_of_other_dimensions():
    constants = {"w": KERNEL, "line": floats(4, 2, 3), "odd": floats(4, 3, 3, 3)}
    y = floats(1, 4, 3, 4)
    for name, attributes in (("odd", {}), ("w", {"dilations": [2, 2]})):
        content = model([node("Conv", f"x {name}", "y", **attributes)], {"x": PICTURE}, {"y": y}, constants)
        refused(content, "got a Conv of .* or with dilation")
    beyond = ({"strides": [1, -1]}, {"strides": [0, 1]}, {"pads": [0, -1, 0, 0]}, {"kernel_shape": [2, 2]})
    for places in beyond:
        outside = model([node("Conv", "x w", "y", **places)], {"x": PICTURE}, {"y": y}, constants)
        refused(outside, r"got a Conv by \[\d+, \d+, \d+, \d+\] with|got the output 'y'")
    line = model([node("Conv", "x line", "y")], {"x": floats(1, 2, 6)}, {"y": floats(1, 4, 4)}, constants)
    refused(line, "wanted one picture and constant weights")
    varying = model([node("Conv", "x k", "y")], {"x": PICTURE, "k": KERNEL}, {"y": y})
    refused(varying, "wanted one picture and constant weights")
    batch = model([node("Conv", "x w", "y")], {"x": floats(2, 2, 5, 6)}, {"y": floats(2, 4, 3, 4)}, constants)
    refused(batch, "wanted one picture and constant weights")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100])
def test_what_is_no_model(content):
    with pytest.raises(BundleError, match="wanted an ONNX model"):
        read_onnx(content)
