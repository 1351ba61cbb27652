"""Operators of the native backend that only look at a tensor in another way, or put some together."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from edgeasr.backends.native.session import NativeSession

NATIVE = run_path(str(Path(__file__).with_name("native_graphs.py")))
assert_same, floats, integers, library, model, node, run_onnxruntime, with_size = (
    NATIVE[name]
    for name in ("assert_same", "floats", "integers", "library", "model", "node", "run_onnxruntime", "with_size")
)
pytestmark = NATIVE["needs_compiler"]


def numbers(*shape):
    """int64 that differ."""
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape) - 5


def bits(*shape):
    return np.random.default_rng(1).random(shape) < 0.5


@pytest.mark.parametrize("make", [floats, numbers, bits])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_transpose(library, make, order):
    assert_same(library, [node("Transpose", "x", "y", perm=list(order))], {"x": make(3, 5, 7)}, "y")


def test_transpose_turns_all_axes_around_where_it_is_not_told(library):
    assert_same(library, [node("Transpose", "x", "y")], {"x": floats(3, 1, 5, 2)}, "y")


@pytest.mark.parametrize(
    ("shape", "wanted", "attributes"),
    [
        ((6, 35), (2, 3, 5, 7), {}),
        ((6, 35), (-1, 7), {}),
        ((6, 35), (0, 5, -1), {}),
        ((6, 35), (3, -1, 1), {"allowzero": 1}),
        ((1,), (1, 1, 1), {}),
        ((1, 1), (), {}),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_reshape(library, shape, wanted, attributes, turned):
    x = floats(*(reversed(shape) if turned else shape))
    before = [node("Transpose", "x", "turned")] if turned else [node("Identity", "x", "turned")]
    nodes = [*before, node("Reshape", "turned shape", "y", **attributes)]
    assert_same(library, nodes, {"x": x}, "y", {"shape": integers(*wanted)})


@pytest.mark.parametrize("axes", [(0,), (-1,), (0, 2), (1, -1), (-4, 3)])
def test_unsqueeze(library, axes):
    x = floats(3, 5) if len(axes) == 2 else floats(3, 5, 2)
    nodes = [node("Transpose", "x", "t"), node("Unsqueeze", "t axes", "u"), node("Add", "u u", "y")]
    assert_same(library, nodes, {"x": x}, "y u", {"axes": integers(*axes)})


@pytest.mark.parametrize("axes", [None, (0,), (-1,), (0, 3), (2, -1)])
def test_squeeze(library, axes):
    shape = {None: (1, 3, 1, 5), (0,): (1, 3, 5), (-1,): (3, 5, 1), (0, 3): (1, 2, 3, 1), (2, -1): (2, 3, 1, 1)}[axes]
    nodes = [node("Squeeze", "x" if axes is None else "x axes", "s"), node("Transpose", "s", "y")]
    assert_same(library, nodes, {"x": floats(*shape)}, "y", None if axes is None else {"axes": integers(*axes)})


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ((1,), (4,), (0,), (1,)),
        ((-2,), (2**62,), (-1,), (1,)),
        ((0, 1), (5, -1), (1, 2), (2, 3)),
        ((-100,), (3,), (2,), (1,)),
        ((2, 0, 1), (5, 7, 2), None, None),
        ((1,), (6,), (1,), (2,)),
    ],
)
@pytest.mark.parametrize("make", [floats, numbers])
def test_slice(library, make, starts, ends, axes, steps):
    given = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    constants = {name: integers(*value) for name, value in given.items() if value is not None}
    nodes = [node("Slice", " ".join(["x", *constants]), "y")]
    assert_same(library, nodes, {"x": make(5, 7, 6)}, "y", constants)


def test_a_slice_of_a_slice_of_what_is_turned(library):
    constants = {"from": integers(1), "to": integers(6), "axis": integers(1), "two": integers(2)}
    nodes = [
        node("Transpose", "x", "t", perm=[2, 0, 1]),
        node("Slice", "t from to axis two", "s"),
        node("Slice", "s from to two", "y"),
        node("Add", "y y", "z"),
    ]
    assert_same(library, nodes, {"x": floats(7, 9, 5)}, "y z", constants)


@pytest.mark.parametrize(("axis", "sizes"), [(0, (1, 4)), (1, (3, 1, 3)), (-1, (5, 1))])
def test_split_into_parts_of_these_sizes(library, axis, sizes):
    names = " ".join(f"y{i}" for i in range(len(sizes)))
    nodes = [node("Split", "x sizes", names, axis=axis), *(node("Add", f"{y} {y}", f"z{y}") for y in names.split())]
    outputs = " ".join([*names.split(), *(f"z{y}" for y in names.split())])
    assert_same(library, nodes, {"x": floats(5, 7, 6)}, outputs, {"sizes": integers(*sizes)})


@pytest.mark.parametrize(("size", "parts"), [(6, 2), (7, 2), (7, 3), (8, 3)])
def test_split_into_equal_parts_and_a_last_one(library, size, parts):
    names = " ".join(f"y{i}" for i in range(parts))
    assert_same(library, [node("Split", "x", names, axis=1, num_outputs=parts)], {"x": floats(3, size, 5)}, names)


@pytest.mark.parametrize(("axis", "number"), [(0, 2), (1, -1), (-1, 0), (2, -6)])
def test_gather_of_one_row(library, axis, number):
    nodes = [node("Gather", "x number", "y", axis=axis)]
    assert_same(library, nodes, {"x": floats(5, 7, 6)}, "y", {"number": np.array(number)})


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 5, 7), (1, 1, 7), (4, 1, 1, 1)])
def test_expand(library, shape):
    nodes = [node("Expand", "x shape", "y"), node("Add", "y x", "z")]
    assert_same(library, nodes, {"x": floats(3, 1, 7)}, "y z", {"shape": integers(*shape)})


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("make", [floats, numbers, bits])
def test_concat_of_turned_parts_and_constants(library, axis, make):
    shapes = [[3, 5, 7], [3, 5, 7], [3, 5, 7]]
    for i, shape in enumerate(shapes):
        shape[axis] = i + 1
    first, second, third = (make(*shape) for shape in shapes)
    nodes = [node("Transpose", "a", "t", perm=[1, 2, 0]), node("Concat", "t b c t", "y", axis=axis)]
    assert_same(library, nodes, {"a": first.transpose(2, 0, 1).copy(), "b": second}, "y", {"c": third})


@pytest.mark.parametrize("pads", [(0, 0, 0, 0, 1, 0), (2, 1, 3, 1, 0, 2), (0, 0, 0, 0, 0, 0)])
@pytest.mark.parametrize("value", [None, -1.5])
def test_pad(library, pads, value):
    constants = {"pads": integers(*pads)} | ({} if value is None else {"value": np.array(value, np.float32)})
    nodes = [node("Pad", " ".join(["x", *constants]), "y", mode="constant")]
    assert_same(library, nodes, {"x": floats(3, 5, 7)}, "y", constants)


def test_pad_of_integers_by_what_is_computed(library):
    nodes = [node("ReduceMax", "x", "value", keepdims=0), node("Pad", "x pads value", "y")]
    assert_same(library, nodes, {"x": numbers(3, 5)}, "y", {"pads": integers(0, 1, 2, 0)})


def test_outputs_are_inputs_constants_and_other_outputs_looked_at_in_another_way(library):
    nodes = [
        node("Transpose", "x", "of_input"),
        node("Identity", "c", "of_constant"),
        node("Add", "x x", "made"),
        node("Transpose", "made", "of_output"),
        node("Identity", "made", "again"),
        node("Mul", "of_output of_input", "of_both"),
    ]
    outputs = "of_input of_constant made of_output again of_both"
    assert_same(library, nodes, {"x": floats(3, 5)}, outputs, {"c": floats(2, 3, seed=1)})


@pytest.mark.parametrize("also_given", [False, True])
def test_an_output_whose_end_is_computed(library, also_given):
    """As the preparation of a memory gives its slots: those that are held."""
    x, counts = floats(2, 5, 3), integers(1, 3)
    nodes = [
        node("ReduceMax", "n", "end", keepdims=1),
        node("Slice", "x zero end axis", "y"),
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("Slice", "t zero end zero one", "z"),
    ]
    outputs = {"y": x, "z": x} | ({"end": integers(0)} if also_given else {})
    constants = {"zero": integers(0), "axis": integers(-2), "one": integers(1)}
    content = model(nodes, {"x": x, "n": counts}, outputs, constants)
    content = with_size(with_size(content, "y", 1, "held"), "z", 0, "held")
    content = with_size(content, "z", 1, 2)
    session = NativeSession(content, library=library)
    for counts in (integers(1, 3), integers(5, -2), integers(1, 1), integers(9, 0)):
        feed = {"x": x, "n": counts}
        for found, wanted in zip(session.run(None, feed), run_onnxruntime(content, feed), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_some_of_the_outputs_in_another_order(library):
    x = floats(3, 5)
    content = model([node("Add", "x x", "y"), node("Transpose", "x", "z")], {"x": x}, {"y": x, "z": x.T})
    session = NativeSession(content, library=library)
    found = session.run(["z", "y"], {"x": x})
    assert [array.tolist() for array in found] == [x.T.tolist(), (x + x).tolist()]


def test_each_instruction_is_timed_and_an_unknown_one_refused(library):
    x = floats(30, 50)
    content = model([node("Exp", "x", "y"), node("Transpose", "y", "z")], {"x": x}, {"z": x.T})
    session = NativeSession(content, library=library)
    binding, z, times = session.io_binding(), np.zeros((50, 30), np.float32), np.full(2, -1)
    binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output("z", "cpu", 0, np.float32, z.shape, z.ctypes.data)
    session.run_with_iobinding(binding, times)
    assert (times > 0).all()
    np.testing.assert_allclose(z, np.exp(x).T, rtol=1e-5)
    session.plan.words[0] = 99
    with pytest.raises(RuntimeError, match="a program that the library does not know"):
        session.run_with_iobinding(binding)


def test_scratch_memory_is_not_used_again_too_early(library):
    """Each intermediate is read once right away and once at the end."""
    nodes = [node("Add", f"x{i} x{i}", f"x{i + 1}") for i in range(6)]
    nodes += [node("Transpose", f"x{i}", f"t{i}") for i in range(1, 6)]
    nodes += [node("Concat", "t1 t2 t3 t4 t5", "y", axis=0)]
    assert_same(library, nodes, {"x0": floats(17, 3)}, "y x6")
