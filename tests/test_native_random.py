"""Graphs of operators that follow each other at random: looks at looks, memory that is used again, many outputs."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from edgeasr.backends.native.session import NativeSession

NATIVE = run_path(str(Path(__file__).with_name("native_graphs.py")))
FORMS, library_of, model, node, run_onnxruntime = (
    NATIVE[name] for name in ("FORMS", "library_of", "model", "node", "run_onnxruntime")
)
pytestmark = NATIVE["needs_compiler"]

GRAPHS, NODES = 150, 14


class Writer:
    """A graph that grows by an operator at a time; it knows the shape of everything, all of which is float32."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.shapes, self.constants = [], {}, {}
        self.inputs = {}
        for name in ("x", "y"):
            shape = tuple(self.rng.integers(1, 6, self.rng.integers(1, 5)).tolist())
            self.inputs[name] = self.rng.standard_normal(shape).astype(np.float32)
            self.shapes[name] = shape

    def any(self):
        """The name of something, rather something new."""
        names = list(self.shapes)[-6:]
        return names[self.rng.integers(len(names))]

    def numbers(self, *values):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(values, np.int64)
        return name

    def add(self, op_type, inputs, shape, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op_type, " ".join(inputs), name, **attributes))
        self.shapes[name] = tuple(shape)

    def grow(self):
        makers = ("transpose", "reshape", "part", "binary", "function", "reduction", "join", "widen", "axis", "rows")
        getattr(self, str(self.rng.choice(makers)))(self.any())

    def transpose(self, name):
        order = self.rng.permutation(len(self.shapes[name])).tolist()
        self.add("Transpose", [name], [self.shapes[name][i] for i in order], perm=order)

    def reshape(self, name):
        left, shape = int(np.prod(self.shapes[name])), []
        while left > 1 and len(shape) < 4:
            size = int(self.rng.choice([n for n in range(1, left + 1) if left % n == 0]))
            shape.append(size)
            left //= size
        shape.append(left)
        self.add("Reshape", [name, self.numbers(*shape)], shape)

    def part(self, name):
        shape = list(self.shapes[name])
        axis = int(self.rng.integers(len(shape)))
        first, step = int(self.rng.integers(shape[axis])), int(self.rng.integers(1, 4))
        last = int(self.rng.integers(first + 1, shape[axis] + 1))
        shape[axis] = len(range(first, last, step))
        limits = [self.numbers(value) for value in (first, last, axis - len(self.shapes[name]), step)]
        self.add("Slice", [name, *limits], shape)

    def binary(self, name):
        other = self.any()
        try:
            shape = np.broadcast_shapes(self.shapes[name], self.shapes[other])
        except ValueError:
            other, shape = name, self.shapes[name]
        if np.prod(shape) < 5000:
            self.add(str(self.rng.choice(["Add", "Sub", "Mul"])), [name, other], shape)

    def function(self, name):
        self.add(str(self.rng.choice(["Sigmoid", "Cos"])), [name], self.shapes[name])

    def rows(self, name):
        self.add("Softmax", [name], self.shapes[name])

    def reduction(self, name):
        shape = list(self.shapes[name])
        axis, kept = int(self.rng.integers(len(shape))), int(len(shape) == 1 or self.rng.integers(2))
        shape[axis : axis + 1] = [1] * kept
        kind = str(self.rng.choice(["ReduceSum", "ReduceMax"]))
        self.add(kind, [name, self.numbers(axis)], shape, keepdims=kept)

    def join(self, name):
        alike = [other for other, shape in self.shapes.items() if len(shape) == len(self.shapes[name])]
        shape = list(self.shapes[name])
        axis = int(self.rng.integers(len(shape)))
        fitting = [
            other
            for other in alike
            if all(a == b for i, (a, b) in enumerate(zip(self.shapes[other], shape, strict=True)) if i != axis)
        ]
        others = self.rng.choice(fitting, 2).tolist()
        shape[axis] += sum(self.shapes[other][axis] for other in others)
        if np.prod(shape) < 5000:
            self.add("Concat", [name, *others], shape, axis=axis)

    def widen(self, name):
        wanted = [size if size > 1 else int(self.rng.integers(1, 4)) for size in (1, *self.shapes[name])]
        if len(wanted) < 6 and np.prod(wanted) < 5000:
            self.add("Expand", [name, self.numbers(*wanted)], wanted)

    def axis(self, name):
        shape = list(self.shapes[name])
        if 1 in shape and len(shape) > 1:
            gone = shape.index(1)
            self.add("Squeeze", [name, self.numbers(gone)], shape[:gone] + shape[gone + 1 :])
        elif len(shape) < 5:
            added = int(self.rng.integers(len(shape) + 1))
            self.add("Unsqueeze", [name, self.numbers(added)], [*shape[:added], 1, *shape[added:]])


@pytest.mark.parametrize("form", FORMS)
def test_graphs_at_random(form):
    for seed in range(GRAPHS):
        writer = Writer(seed)
        while len(writer.nodes) < NODES:
            writer.grow()
        made = [one.output[0] for one in writer.nodes]
        given = sorted({made[-1], *writer.rng.choice(made, 4).tolist()})
        outputs = {name: np.zeros(writer.shapes[name], np.float32) for name in given}
        content = model(writer.nodes, writer.inputs, outputs, writer.constants)
        session = NativeSession(content, library=library_of(form))
        for found, wanted in zip(
            session.run(None, writer.inputs), run_onnxruntime(content, writer.inputs), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=f"seed {seed}")
