"""Attention of the native backend: over a past and what is new, and over a number of keys that varies."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from edgeasr.backends.native.session import NativeSession

NATIVE = run_path(str(Path(__file__).with_name("native_graphs.py")))
assert_close, floats, integers, library, model, node, planned_operators, run_onnxruntime, with_size = (
    NATIVE[name]
    for name in (
        *("assert_close", "floats", "integers", "library", "model", "node"),
        *("planned_operators", "run_onnxruntime", "with_size"),
    )
)
pytestmark = NATIVE["needs_compiler"]

SIZES = [48, 12, 20, 64, 4, 7, 300]


def windowed(turned=False):
    """Queries (T, 1, H, D) over keys and values of the same axes, a past and new ones; to (1, T, H * D)."""
    before = [node("Transpose", f"{name}_given", name, perm=[1, 2, 0, 3]) for name in ("q", "k", "v") if turned]
    return [
        *before,
        node("Concat", "past_k k", "all_k", axis=0),
        node("Concat", "past_v v", "all_v", axis=0),
        node("FusedMatMul", "q all_k", "scores", alpha=0.3, transBatchA=1, transBatchB=1, transB=1),
        node("Add", "scores bias", "masked"),
        node("Softmax", "masked", "weights", axis=-1),
        node("FusedMatMul", "weights all_v", "heads", transBatchB=1),
        node("Transpose", "heads", "rows", perm=[0, 2, 1, 3]),
        node("Reshape", "rows shape", "y"),
    ]


def window(queries, past, heads, size, turned=False):
    new = (1, queries, 1, heads, size)[1:]
    inputs = {name: floats(*new, seed=i) for i, name in enumerate(("q", "k", "v"))}
    if turned:  # (heads, T, 1, size), as the Transpose of each wants it
        inputs = {f"{name}_given": array.transpose(2, 0, 1, 3).copy() for name, array in inputs.items()}
    inputs |= {name: floats(past, 1, heads, size, seed=i) for i, name in enumerate(("past_k", "past_v"), start=3)}
    return inputs | {"bias": floats(1, 1, queries, past + queries, seed=5)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("queries", [1, 4, 5])
def test_attention_over_a_past_and_what_is_new(library, queries, size):
    inputs = window(queries, 9, 3, size)
    assert_close(library, windowed(), inputs, "y", {"shape": integers(1, queries, 3 * size)}, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("queries", range(1, 10))
@pytest.mark.parametrize("past", [1, 2, 15, 16, 67])
def test_attention_of_every_number_of_queries_and_keys(library, queries, past):
    inputs = window(queries, past, 2, 12)
    assert_close(library, windowed(), inputs, "y", {"shape": integers(0, 0, -1)}, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 5, 24), (5, 24), (5, 2, 12), (1, 1, -1), (0, -1)])
def test_what_attention_gives_has_the_shape_that_the_graph_says(library, shape):
    assert_close(library, windowed(), window(5, 7, 2, 12), "y", {"shape": integers(*shape)}, rtol=1e-4, atol=1e-5)


def test_attention_is_one_operator_if_nothing_else_is_asked_of_it(library):
    inputs, constants, y = window(5, 7, 2, 12), {"shape": integers(1, 5, 24)}, floats(1, 5, 24)
    assert planned_operators(model(windowed(), inputs, {"y": y}, constants), library) == ["attention"]
    both = {"y": y, "weights": floats(1, 2, 5, 12)}
    assert "attention" not in planned_operators(model(windowed(), inputs, both, constants), library)
    assert_close(library, windowed(), inputs, "y weights all_k masked", constants, rtol=1e-4, atol=1e-5)


def test_attention_of_what_is_turned(library):
    inputs = window(5, 7, 2, 12, turned=True)
    assert_close(library, windowed(turned=True), inputs, "y", {"shape": integers(1, 5, 24)}, rtol=1e-4, atol=1e-5)


def test_masked_keys_weigh_nothing_whatever_they_hold(library):
    inputs = window(5, 11, 2, 12)
    inputs["bias"][..., 3:9] = -np.inf
    inputs["bias"][0, 0, 2, :15] = -np.inf  # one query has one key
    assert_close(library, windowed(), inputs, "y", {"shape": integers(1, 5, 24)}, rtol=1e-4, atol=1e-5)
    content = model(windowed(), inputs, {"y": floats(1, 5, 24)}, {"shape": integers(1, 5, 24)})
    session = NativeSession(content, library=library)
    found = session.run(None, inputs)[0]
    inputs["past_k"][3:9], inputs["past_v"][3:9] = 1e4, 1e4
    np.testing.assert_allclose(session.run(None, inputs)[0], found, rtol=1e-6, atol=1e-6)


def crossing(**attributes):
    return [node("MultiHeadAttention", "q k v - - bias", "y", **attributes)]


def crossed(queries, keys, heads, size):
    return {
        "q": floats(1, queries, heads * size),
        "k": floats(1, heads, keys, size, seed=1),
        "v": floats(1, heads, keys, size, seed=2),
        "bias": floats(1, 1, queries, keys, seed=3),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("queries", [1, 3, 6])
def test_attention_across(library, queries, size):
    inputs = crossed(queries, 11, 2, size)
    assert_close(library, crossing(num_heads=2, scale=0.2), inputs, "y", rtol=1e-4, atol=1e-5)


def test_attention_across_with_the_usual_scale_and_without_a_bias(library):
    inputs = crossed(5, 17, 3, 12)
    del inputs["bias"]
    nodes = [node("MultiHeadAttention", "q k v", "y", num_heads=3)]
    assert_close(library, nodes, inputs, "y", rtol=1e-4, atol=1e-5)


def test_attention_across_what_is_turned(library):
    inputs = crossed(5, 17, 3, 12)
    inputs["v"] = inputs["v"].transpose(0, 2, 1, 3).copy()
    nodes = [
        node("Transpose", "v", "t", perm=[0, 2, 1, 3]),
        node("MultiHeadAttention", "q k t - - bias", "y", num_heads=3),
    ]
    assert_close(library, nodes, inputs, "y", rtol=1e-4, atol=1e-5)


def of_any_length():
    """Attention across 5 queries of 2 heads, and as many keys as the caller likes."""
    content = model(crossing(num_heads=2), crossed(5, 1, 2, 20), {"y": floats(1, 5, 40)})
    for name, axis in (("k", 2), ("v", 2), ("bias", 3)):
        content = with_size(content, name, axis, "keys")
    return content


def test_the_number_of_keys_varies_from_run_to_run(library):
    content = of_any_length()
    session = NativeSession(content, {"keys": 40}, library)
    for keys in (1, 40, 3, 17, 1):
        inputs = crossed(5, keys, 2, 20)
        wanted = run_onnxruntime(content, inputs)[0]
        np.testing.assert_allclose(session.run(None, inputs)[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keys", [0, 41])
def test_no_keys_and_too_many_are_refused(library, keys):
    session = NativeSession(of_any_length(), {"keys": 40}, library)
    with pytest.raises(ValueError, match=rf"got 'k' of \[1, 2, {keys}, 20\], wanted 1 to 40 along axis 2"):
        session.run(None, crossed(5, keys, 2, 20))


def test_inputs_of_another_size_are_refused(library):
    content = model(crossing(num_heads=2), crossed(5, 4, 2, 20), {"y": floats(1, 5, 40)})
    with pytest.raises(ValueError, match=r"got 'q' of \[1, 4, 40\], wanted \[1, 5, 40\]"):
        NativeSession(content, library=library).run(None, crossed(4, 4, 2, 20) | {"bias": floats(1, 1, 5, 4)})


@pytest.mark.parametrize("size", [2, 12, 34, 48])
def test_rotation_of_queries(library, size):
    constants = {"cosines": floats(20, size // 2, seed=1), "sines": floats(20, size // 2, seed=2)}
    constants |= {"numbers": integers(0, 19, 3, 3, 7, 8, 1, 0, 5, 2).reshape(2, 5)}
    inputs = {"given": floats(2, 5, 1, size)}
    nodes = [
        node("Transpose", "given", "x", perm=[0, 2, 1, 3]),
        node("RotaryEmbedding", "x numbers cosines sines", "y"),
    ]
    assert_close(library, nodes, inputs, "y", constants)
