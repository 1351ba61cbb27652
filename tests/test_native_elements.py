"""Operators of the native backend on elements and rows."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from edgeasr.backends.native.session import NativeSession

NATIVE = run_path(str(Path(__file__).with_name("native_graphs.py")))
assert_close, assert_same, both, floats, integers, library, model, node = (
    NATIVE[name] for name in ("assert_close", "assert_same", "both", "floats", "integers", "library", "model", "node")
)
pytestmark = NATIVE["needs_compiler"]

SHAPES = [
    ((3, 5, 7), (3, 5, 7)),
    ((3, 5, 7), (7,)),
    ((3, 5, 7), (5, 1)),
    ((1, 5, 1), (3, 1, 7)),
    ((), (2, 67)),
    ((2, 1, 3, 1, 5), (2, 3, 1, 2, 5)),
]


def numbers(*shape, seed=0):
    """int64 around 0, none of them 0."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 20, shape) * rng.choice([-1, 1], shape)


def largest(x, n):
    """The same, of which every n-th is far above the others."""
    x = x.copy()
    x.reshape(-1)[::n] += 50
    return x


@pytest.mark.parametrize(("x_shape", "y_shape"), SHAPES)
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("make", [floats, numbers])
def test_arithmetic_broadcasts(library, op_type, make, x_shape, y_shape):
    inputs = {"x": np.array(make(*x_shape)), "y": np.array(make(*y_shape, seed=1))}
    assert_close(library, [node(op_type, "x y", "z"), node(op_type, "y x", "w")], inputs, "z w")


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Greater"])
def test_arithmetic_of_what_is_turned_and_cut(library, op_type):
    constants = {"from": integers(1, 0), "to": integers(6, 5), "axes": integers(0, 2), "steps": integers(2, 2)}
    nodes = [
        node("Transpose", "x", "t", perm=[2, 1, 0]),
        node("Slice", "t from to axes steps", "s"),
        node(op_type, "s y", "z"),
    ]
    assert_same(library, nodes, {"x": floats(5, 4, 7), "y": floats(3, 4, 3, seed=1)}, "z", constants)


def test_mod_has_the_sign_of_the_divisor(library):
    inputs = {"x": np.arange(-9, 9), "y": np.array([[4], [-4], [7], [1]])}
    assert_same(library, [node("Mod", "x y", "z")], inputs, "z")


def test_mod_of_floats_has_the_sign_of_the_number(library):
    inputs = {"x": floats(33) * 10, "y": np.array([[4], [-2.5], [0.75]], np.float32)}
    assert_same(library, [node("Mod", "x y", "z", fmod=1)], inputs, "z")


@pytest.mark.parametrize("op_type", ["Greater", "GreaterOrEqual", "Less", "Equal"])
def test_comparisons(library, op_type):
    inputs = {"x": integers(1, 2, 3, -4), "y": np.array([[2], [-4]]), "f": floats(1, 3), "g": np.zeros((4, 1), "f4")}
    inputs["f"][0, 1] = 0
    assert_same(library, [node(op_type, "x y", "z"), node(op_type, "f g", "w")], inputs, "z w")


@pytest.mark.parametrize("size", [1, 15, 16, 67])
@pytest.mark.parametrize("op_type", ["Exp", "Sigmoid", "Cos", "Sin"])
def test_functions_of_one_number(library, op_type, size):
    x = floats(size) * 20
    x[0] = -200
    assert_close(library, [node(op_type, "x", "y")], {"x": x}, "y", rtol=3e-6, atol=1e-6)


def test_the_larger_of_two(library):
    for make in (floats, numbers):
        inputs = {"x": np.array(make(3, 5, 7)), "y": np.array(make(5, 1, seed=1))}
        assert_same(library, [node("Max", "x y", "z")], inputs, "z")


def test_floor(library):
    x = np.concatenate([20 * floats(67), np.float32([-1.0, 0.0, -0.5, 2.999, 1e9, -1e9])])
    assert_same(library, [node("Floor", "x", "y")], {"x": x}, "y")


def test_truths(library):
    inputs = {"x": floats(3, 5, 7), "y": floats(5, 1, seed=1), "z": floats(3, 1, 7, seed=2)}
    nodes = [
        node("Greater", "x y", "a"),
        node("Less", "x z", "b"),
        node("And", "a b", "both"),
        node("Not", "both", "n"),
    ]
    assert_same(library, nodes, inputs, "both n")


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("make", [floats, numbers])
def test_elements_chosen_by_numbers_that_vary(library, make, axis):
    shape = [3, 5, 7]
    x, shape[axis] = np.array(make(*shape)), 4
    chosen = np.random.default_rng(1).integers(-3, 3, shape)  # all axes are three long at least
    assert_same(library, [node("GatherElements", "x chosen", "y", axis=axis)], {"x": x, "chosen": chosen}, "y")


def test_exp_ends_at_zero_and_infinity(library):
    x = np.array([-np.inf, -104, -88, 88, 88.5, 89, np.inf], np.float32)
    assert_close(library, [node("Exp", "x", "y")], {"x": x}, "y", atol=1e-37)


def test_log(library):
    x = np.array([0, 1e-38, 0.5, 1, 3e38, np.inf], np.float32)
    assert_close(library, [node("Transpose", "x", "t"), node("Log", "t", "y")], {"x": np.stack([x, x + 1])}, "y")


def test_clip_from_below(library):
    x = np.array([[-2, -0.5, np.inf], [-np.inf, 0.5, 1]], np.float32)
    assert_same(library, [node("Clip", "x least", "y")], {"x": x}, "y", {"least": np.array(-0.5, np.float32)})


@pytest.mark.parametrize("given", ["float32", "int64", "bool"])
@pytest.mark.parametrize(("wanted", "number"), [("float32", 1), ("int64", 7), ("bool", 9)])
def test_cast(library, given, wanted, number):
    x = np.array([[0, -1.75, 2.5], [0.25, 1, -3]]).astype(given)
    assert_same(library, [node("Cast", "x", "y", to=number)], {"x": x}, "y")


def test_cast_keeps_every_digit_of_integers(library):
    x = integers(2**62 + 1, -(2**53) - 1, 2**63 - 1)
    assert_same(library, [node("Cast", "x", "y", to=7)], {"x": x}, "y")


@pytest.mark.parametrize("kind", ["float32", "int64"])
@pytest.mark.parametrize(
    ("condition", "x", "y"),
    [((3, 5, 7), (3, 5, 7), (3, 5, 7)), ((5, 1), (3, 1, 7), ()), ((1,), (7,), (2, 1, 7)), ((3, 1, 1), (1, 5, 1), (7,))],
)
def test_where(library, kind, condition, x, y):
    rng = np.random.default_rng(0)
    inputs = {"c": rng.random(condition) < 0.5, "x": np.array(floats(*x) * 9), "y": np.array(floats(*y, seed=1) * 9)}
    inputs |= {name: inputs[name].astype(kind) for name in "xy"}
    assert_same(library, [node("Where", "c x y", "z")], inputs, "z")


def test_where_of_booleans_which_onnxruntime_has_not(library):
    inputs = {name: np.random.default_rng(seed).random((5, 7)) < 0.5 for seed, name in enumerate("cxy")}
    content = model([node("Where", "c x y", "z")], inputs, {"z": inputs["x"]})
    found = NativeSession(content, library=library).run(None, inputs)[0]
    np.testing.assert_array_equal(found, np.where(*inputs.values()))


def test_where_of_what_is_turned(library):
    nodes = [node("Transpose", "x", "t"), node("Greater", "t y", "c"), node("Where", "c t y", "z")]
    assert_same(library, nodes, {"x": floats(7, 5), "y": floats(5, 7, seed=1)}, "z")


@pytest.mark.parametrize("axes", [(0,), (1,), (-1,), (0, 1), (1, 2), (-1, -2), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceMax"])
@pytest.mark.parametrize("make", [floats, numbers])
def test_reductions(library, op_type, make, axes, keepdims):
    nodes = [node("Transpose", "x", "t"), node(op_type, "t axes", "y", keepdims=keepdims)]
    assert_close(library, nodes, {"x": make(7, 5, 3)}, "y", {"axes": integers(*axes)}, atol=1e-5)


def test_a_reduction_without_axes_is_of_everything(library):
    nodes = [node("ReduceSum", "x", "y"), node("ReduceMax", "x", "z", keepdims=0)]
    assert_close(library, nodes, {"x": floats(7, 5)}, "y z")


def test_the_maximum_of_infinities(library):
    x = np.array([[-np.inf, -np.inf], [-np.inf, 3]], np.float32)
    assert_same(library, [node("ReduceMax", "x axis", "y")], {"x": x}, "y", {"axis": integers(1)})


@pytest.mark.parametrize("size", [1, 3, 15, 16, 17, 33, 131])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_softmax(library, op_type, size):
    x = largest(floats(2, 3, size), 7)
    nodes = [node(op_type, "x", "y", axis=-1), node(op_type, "x", "z", axis=2), node(op_type, "x", "w")]
    assert_close(library, nodes, {"x": x}, "y z w", atol=1e-5)


def test_softmax_of_numbers_that_are_masked(library):
    x = floats(3, 21)
    x[:, 4:17] = -np.inf
    weights, logarithms = both(library, [node("Softmax", "x", "y"), node("LogSoftmax", "x", "z")], {"x": x}, "y z")
    np.testing.assert_allclose(*weights, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(*logarithms, rtol=1e-5)
    assert (logarithms[0][:, 4:17] == -np.inf).all()


@pytest.mark.parametrize("size", [1, 5, 16, 23, 48, 131])
@pytest.mark.parametrize("axis", [-1, 2])
def test_layer_norm(library, size, axis):
    constants = {"weight": floats(size, seed=1), "bias": floats(size, seed=2)}
    nodes = [node("LayerNormalization", "x weight bias", "y", axis=axis, epsilon=1e-3)]
    assert_close(library, nodes, {"x": 3 + floats(2, 3, size)}, "y", constants, atol=2e-5)


def test_layer_norm_of_what_is_turned_by_what_is_given(library):
    nodes = [node("Transpose", "x", "t"), node("LayerNormalization", "t weight bias", "y")]
    inputs = {"x": floats(19, 5), "weight": floats(19, seed=1), "bias": floats(19, seed=2)}
    assert_close(library, nodes, inputs, "y", atol=2e-5)


@pytest.mark.parametrize("size", [2, 34, 130])
def test_a_gate_of_halves(library, size):
    nodes = [
        node("Split", "x", "a b", axis=-1, num_outputs=2),
        node("Sigmoid", "b", "s"),
        node("Mul", "a s", "y"),
    ]
    assert_close(library, nodes, {"x": floats(1, 5, size) * 5}, "y")


@pytest.mark.parametrize("order", ["x s", "s x"])
def test_a_gate_of_itself(library, order):
    nodes = [node("Transpose", "given", "x"), node("Sigmoid", "x", "s"), node("Mul", order, "y")]
    assert_close(library, nodes, {"given": floats(19, 5) * 5}, "y")


def test_a_gate_whose_logistic_function_is_given_too(library):
    nodes = [node("Sigmoid", "x", "s"), node("Mul", "x s", "y"), node("Mul", "s s", "z")]
    assert_close(library, nodes, {"x": floats(5, 19)}, "y s z")
