"""Products and convolutions of the native backend."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from edgeasr.backends.native.kernels import NativeLibrary
from edgeasr.backends.native.session import NativeSession
from edgeasr.errors import UnsupportedGraphError

NATIVE = run_path(str(Path(__file__).with_name("native_graphs.py")))
FORMS, assert_close, floats, integers, library, library_of, model, node, planned_operators, run_onnxruntime = (
    NATIVE[name]
    for name in (
        *("FORMS", "assert_close", "floats", "integers", "library", "library_of", "model", "node"),
        *("planned_operators", "run_onnxruntime"),
    )
)
pytestmark = NATIVE["needs_compiler"]

SEVEN_BITS, EIGHT_BITS = 64, 127


def weights_of(k, n, most=SEVEN_BITS, seed=1):
    weights = np.random.default_rng(seed).integers(-most, most + 1, (k, n)).astype(np.int8)
    weights[0, 0], weights[-1, -1] = most, -most
    return weights


def linear(x="x", y="y", weights="w", scales="s", quantised=None):
    """Numbers quantised as they come, times weights. quantised: of another product, whose numbers these are"""
    q = quantised or f"{y}_q"
    quantise = [] if quantised else [node("DynamicQuantizeLinear", x, f"{q} {q}_scale {q}_zero")]
    return [
        *quantise,
        node("MatMulInteger", f"{q} {weights} {q}_zero", f"{y}_i"),
        node("Cast", f"{y}_i", f"{y}_f", to=1),
        node("Mul", f"{q}_scale {scales}", f"{y}_s"),
        node("Mul", f"{y}_f {y}_s", y),
    ]


def constants_of(k, n, most=SEVEN_BITS):
    return {"w": weights_of(k, n, most), "s": np.abs(floats(n, seed=2)) / 50, "b": floats(n, seed=3)}


def by_hand(x, constants):
    """float32 but for sums of integers, which are exact."""
    least, most = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32(most - least) / np.float32(255) if most > least else np.float32(1)
    zero = np.rint(-least / scale)
    quantised = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    sums = quantised.astype(np.int64) @ constants["w"].astype(np.int64)
    return sums.astype(np.float32) * (scale * constants["s"])


def test_forms_are_what_their_flags_say():
    """Products of 8 bits are not exact where sums of two saturate at 16."""
    layouts = {form: library_of(form).layout for form in FORMS}
    assert layouts["portable"].eight_bits
    expected = {"avx512": (16, False), "avx2": (8, False), "narrow": (4, True)}
    for form in expected.keys() & layouts.keys():
        assert (layouts[form].lanes, layouts[form].eight_bits) == expected[form]
    if "narrow" in layouts:  # flags come behind those for this processor
        assert NativeLibrary(("-march=x86-64",)).layout.lanes == 4


@pytest.mark.parametrize("rows", range(1, 10))
@pytest.mark.parametrize(("k", "n"), [(64, 64), (48, 100), (5, 3), (131, 67), (1, 1), (7, 192)])
def test_products_in_int8(library, rows, k, n):
    x, constants = floats(rows, k) * 3 + 1, constants_of(k, n)
    content = model(linear(), {"x": x}, {"y": floats(rows, n)}, constants)
    found = NativeSession(content, library=library).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, by_hand(x, constants), rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(found, run_onnxruntime(content, {"x": x})[0], rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("x", [np.zeros((2, 9)), np.ones((2, 9)), -np.ones((2, 9)), np.arange(18).reshape(2, 9) - 40.0])
def test_numbers_of_one_sign_are_quantised_from_zero_on(library, x):
    assert_close(library, linear(), {"x": x.astype(np.float32)}, "y", constants_of(9, 5))


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(library, rows, sign):
    """Weights of 7 bits, all of them the largest, times numbers that are all the largest."""
    constants = {"w": np.full((512, 70), sign * SEVEN_BITS, np.int8), "s": np.ones(70, np.float32)}
    assert_close(library, linear(), {"x": np.ones((rows, 512), np.float32)}, "y", constants)


def test_weights_of_8_bits_are_exact_or_refused(library):
    x, constants = floats(3, 131), constants_of(131, 67, EIGHT_BITS)
    content = model(linear(), {"x": x}, {"y": floats(3, 67)}, constants)
    if not library.layout.eight_bits:
        with pytest.raises(UnsupportedGraphError, match="weights of 8 bits"):
            NativeSession(content, library=library)
        return
    found = NativeSession(content, library=library).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, by_hand(x, constants), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("n", [3, 64, 100])
@pytest.mark.parametrize("behind", ["bias", "silu", "bias silu", "residual", "bias residual"])
def test_what_comes_behind_a_product(library, behind, n):
    nodes, last = linear(), "y"
    if "bias" in behind:
        nodes, last = [*nodes, node("Add", f"b {last}", "biased")], "biased"
    if "silu" in behind:
        nodes, last = [*nodes, node("Sigmoid", last, "sigmoid"), node("Mul", f"{last} sigmoid", "silu")], "silu"
    if "residual" in behind:
        nodes, last = [*nodes, node("Transpose", "r", "t"), node("Add", f"t {last}", "sum")], "sum"
    inputs = {"x": floats(5, 23), "r": floats(n, 5, seed=4)}
    assert_close(library, nodes, inputs, last, constants_of(23, n), atol=1e-5)
    operators = planned_operators(model(nodes, inputs, {last: floats(5, n)}, constants_of(23, n)), library)
    assert operators == ["copy"] * ("residual" in behind) + ["linear"]


def test_a_sum_of_two_products(library):
    constants = constants_of(23, 70) | {"w2": weights_of(9, 70, seed=5), "s2": np.abs(floats(70, seed=6))}
    nodes = [*linear(y="y"), *linear("u", "z", "w2", "s2"), node("Add", "y z", "sum")]
    assert_close(library, nodes, {"x": floats(5, 23), "u": floats(5, 9)}, "sum", constants, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 70), (70,)])
def test_scales_and_biases_of_one_number_or_of_one_a_column(library, shape):
    constants = constants_of(23, 70) | {"s": np.abs(floats(*shape, seed=2)) / 50, "b": np.array(floats(*shape, seed=3))}
    constants["s"] = np.array(constants["s"], np.float32)
    nodes = [*linear(y="p"), node("Add", "p b", "y")]
    assert_close(library, nodes, {"x": floats(5, 23)}, "y", constants, atol=1e-5)


def test_numbers_are_quantised_once_for_two_products(library):
    constants = constants_of(23, 70) | {"w2": weights_of(23, 9, seed=5), "s2": np.abs(floats(9, seed=6))}
    nodes = [*linear(y="y"), *linear(y="z", weights="w2", scales="s2", quantised="y_q")]
    nodes += [node("Add", "z c", "z_biased")]
    assert_close(library, nodes, {"x": floats(1, 5, 23)}, "y z_biased", constants | {"c": floats(9)}, atol=1e-4)


def test_a_product_of_what_is_turned_and_cut(library):
    constants = constants_of(6, 70) | {"from": integers(1), "to": integers(13), "axis": integers(1), "two": integers(2)}
    nodes = [node("Transpose", "given", "t"), node("Slice", "t from to axis two", "x"), *linear()]
    assert_close(library, nodes, {"given": floats(14, 5)}, "y", constants, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "y"),
    [((3, 5), (5, 7)), ((2, 3, 5), (2, 5, 7)), ((1, 4, 3, 5), (2, 1, 5, 1)), ((2, 3, 2, 1, 9), (2, 1, 2, 9, 4))],
)
def test_products_of_floats(library, x, y):
    assert_close(library, [node("MatMul", "x y", "z")], {"x": floats(*x), "y": floats(*y, seed=1)}, "z")


@pytest.mark.parametrize(
    ("x", "y", "switches"),
    [
        ((5, 3), (7, 5), {"transA": 1, "transB": 1}),
        ((2, 3, 5), (2, 7, 5), {"transB": 1}),
        ((4, 1, 2, 5), (6, 1, 2, 5), {"transBatchA": 1, "transBatchB": 1, "transB": 1}),
        ((1, 2, 4, 6), (6, 1, 2, 5), {"transBatchB": 1}),
        ((4, 2, 5), (2, 5, 3), {"transBatchA": 1}),
    ],
)
def test_products_of_what_is_turned(library, x, y, switches):
    inputs = {"x": floats(*x), "y": floats(*y, seed=1)}
    assert_close(library, [node("FusedMatMul", "x y", "z", alpha=0.3, **switches)], inputs, "z")


@pytest.mark.parametrize("channels", [(1, 1), (3, 5), (2, 16), (1, 49), (5, 100)])
@pytest.mark.parametrize(
    ("size", "kernel", "places"),
    [
        ((5, 9), (3, 3), {}),
        ((6, 80), (3, 3), {"strides": (2, 2), "pads": (0, 1, 0, 1)}),
        ((7, 4), (2, 3), {"strides": (1, 2), "pads": (1, 2, 0, 1)}),
        ((1, 33), (1, 5), {"strides": (1, 3), "pads": (0, 4, 0, 0), "auto_pad": "NOTSET"}),
    ],
)
@pytest.mark.parametrize("silu", [False, True])
def test_convolutions(library, channels, size, kernel, places, silu):
    given, out = channels
    constants = {"w": floats(out, given, *kernel, seed=1), "b": floats(out, seed=2)}
    nodes = [node("Conv", "x w b", "c", kernel_shape=kernel, **places)]
    nodes += [node("Sigmoid", "c", "s"), node("Mul", "c s", "y")] if silu else []
    x, last = floats(1, given, *size), "y" if silu else "c"
    assert_close(library, nodes, {"x": x}, last, constants, atol=1e-5)


def test_a_convolution_without_bias_of_what_is_turned(library):
    nodes = [node("Transpose", "x", "t", perm=[0, 3, 1, 2]), node("Conv", "t w", "y")]
    assert_close(library, nodes, {"x": floats(1, 6, 9, 3)}, "y", {"w": floats(20, 3, 3, 2, seed=1)}, atol=1e-5)


@pytest.mark.parametrize("rows", range(1, 10))
@pytest.mark.parametrize(("taps", "channels"), [(1, 5), (3, 24), (15, 19)])
def test_convolutions_of_each_channel(library, rows, taps, channels):
    constants = {
        "rows": np.arange(rows)[:, None] + np.arange(taps),
        "w": floats(taps, channels, seed=1),
        "axis": integers(2),
        "b": floats(channels, seed=2),
    }
    nodes = [
        node("Concat", "past new", "all", axis=1),
        node("Gather", "all rows", "g", axis=1),
        node("Mul", "g w", "p"),
        node("ReduceSum", "p axis", "r", keepdims=0),
        node("Add", "r b", "y"),
    ]
    past, new = floats(1, taps - 1, channels), floats(1, rows, channels, seed=3)
    if taps == 1:  # nothing is empty here
        content = model(nodes, {"past": past, "new": new}, {"y": new}, constants)
        with pytest.raises(UnsupportedGraphError, match="1 or more"):
            NativeSession(content, library=library)
        return
    assert_close(library, nodes, {"past": past, "new": new}, "y", constants, atol=1e-5)
    content = model(nodes, {"past": past, "new": new}, {"y": new}, constants)
    assert planned_operators(content, library) == ["depthwise"]
    # What others read joined is joined for them.
    joined = [*nodes, node("Slice", "all from end axis1", "next")]
    constants |= {"from": integers(1 - taps), "end": integers(99), "axis1": integers(1)}
    assert_close(library, joined, {"past": past, "new": new}, "y next", constants, atol=1e-5)
    content = model(joined, {"past": past, "new": new}, {"y": new, "next": past}, constants)
    assert sorted(planned_operators(content, library)) == ["copy", "copy", "copy", "depthwise"]
