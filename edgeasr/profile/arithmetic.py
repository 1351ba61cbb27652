"""Peak arithmetic and the cost of an operator, by the kernels that run models: nothing that runs one is faster.

A multiply-add is counted as two operations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeasr.backends.native.kernels import native_library
from edgeasr.backends.native.session import BoundProgram, NativeSession
from edgeasr.errors import NativeCodeError
from edgeasr.profile.bandwidth import Progress
from edgeasr.profile.machine import Costs
from edgeasr.profile.onnx_writer import Node, Value, serialised

Feed = dict[str, NDArray[np.generic]]

FULL_SHAPES = ((64, 512, 512), (128, 512, 512), (256, 512, 512), (128, 1024, 1024))
QUICK_SHAPES = ((128, 512, 512),)
# What operators of a small model work on: the frames of a chunk, and those that attention looks back on.
_FRAMES = (4, 192)
_LOOK_BACK = (100, 192)
_TINY_PRODUCT = (4, 64, 64)
_USUAL_PRODUCT = (*_FRAMES, _FRAMES[1])
_BETWEEN = 4  # operators from product to product
_SMALL_PRODUCT = (4, 256, 256)
_MANY_TENSORS = 33
_KINDS = 8  # of usual operators


@dataclass(frozen=True)
class Effort:
    """How thoroughly to measure.

    shapes: rows, inner size and columns of products
    rounds: of which the best counts
    chain:  operators in a chain: as many as a model has, and with its products as many weights
    """

    shapes: tuple[tuple[int, int, int], ...] = FULL_SHAPES
    rounds: int = 10
    sample_s: float = 0.005
    chain: int = 512


QUICK = Effort(QUICK_SHAPES, rounds=4, sample_s=0.003, chain=256)


@dataclass(frozen=True)
class Arithmetic:
    """What the machine computes, by number of threads, in the fastest of the runtimes; and the costs of each."""

    fp32_gflops: dict[int, float]
    int8_gops: dict[int, float]
    costs: dict[str, Costs]


def measure_arithmetic(
    threads: tuple[int, ...], effort: Effort | None = None, progress: Progress | None = None
) -> Arithmetic:
    """Matrix products in fp32 and in dynamic int8, with constant weights, and chains of tiny operators.

    Where nothing compiles C there are no costs of the native backend.
    """
    effort = effort or Effort()
    fp32: dict[int, float] = dict.fromkeys(threads, 0.0)
    int8: dict[int, float] = dict.fromkeys(threads, 0.0)
    runtimes = _runtimes()
    jobs = [(count, shape) for count in threads for shape in effort.shapes]
    for i, (count, shape) in enumerate(jobs):
        if progress:
            rows, inner, columns = shape
            progress(f"products {rows} x {inner} x {columns}, {count} thread{'s' * (count > 1)}", i / len(jobs))
        fp32[count] = max(fp32[count], _Bench("onnxruntime", effort).rate(fp32_product(shape), shape, count))
        for runtime in runtimes if count == 1 else ("onnxruntime",):
            int8[count] = max(int8[count], _Bench(runtime, effort).rate(int8_products(shape), shape, count))
    return Arithmetic(fp32, int8, {runtime: _Bench(runtime, effort).costs() for runtime in runtimes})


def _runtimes() -> tuple[str, ...]:
    try:
        native_library()
    except NativeCodeError:
        return ("onnxruntime",)
    return ("onnxruntime", "native")


class _Bench(NamedTuple):
    """Chains of operators in a runtime."""

    runtime: str
    effort: Effort

    def costs(self) -> Costs:
        product_us, sum_us = self._product_us(_TINY_PRODUCT), self._sum_us(_FRAMES)
        return Costs(
            operator_us=self._operator_us(),
            tensor_us=self._tensor_us(sum_us),
            product_us=product_us,
            few_rows_gops=self._few_rows_gops(product_us),
            operator_gb_per_s=self._operator_gb_per_s(sum_us),
        )

    def rate(self, model: bytes, shape: tuple[int, int, int], threads: int) -> float:
        """Operations a second, in 10^9."""
        rows, inner, columns = shape
        feed: Feed = {"x": np.random.default_rng(1).standard_normal((rows, inner), np.float32)}
        (seconds,) = self._best_s([model], feed, threads)
        return 2 * rows * inner * columns / seconds / 1e9

    def _operator_us(self) -> float:
        """By a chain of operators with products between them, and one of as many products alone."""
        feed: Feed = {name: np.ones(_FRAMES, np.float32) for name in ("x", "y")}
        lengths = _KINDS, self.effort.chain
        mixed = [usual_operators(length) for length in lengths]
        alone = [int8_products(_USUAL_PRODUCT, length // _BETWEEN) for length in lengths]
        mixed_s, longer_mixed_s, alone_s, longer_alone_s = self._best_s([*mixed, *alone], feed)
        operators_s = (longer_mixed_s - mixed_s) - (longer_alone_s - alone_s)
        return max(0.0, operators_s) / (self.effort.chain - _KINDS) * 1e6

    def _tensor_us(self, small_us: float) -> float:
        """By a graph of small operators side by side, each of which has an input and an output of the graph."""
        feed: Feed = {f"x{i}": np.ones(_FRAMES, np.float32) for i in range(_MANY_TENSORS)}
        few_s, many_s = self._best_s([_side_by_side(count) for count in (1, _MANY_TENSORS)], feed)
        return max(0.0, (many_s - few_s) * 1e6 / (_MANY_TENSORS - 1) - small_us) / 2

    def _product_us(self, shape: tuple[int, int, int]) -> float:
        feed: Feed = {"x": np.ones(shape[:2], np.float32)}
        return self._each_us(partial(int8_products, shape), self.effort.chain // 8, feed)

    def _few_rows_gops(self, tiny_us: float) -> float:
        operations = 2 * (math.prod(_SMALL_PRODUCT) - math.prod(_TINY_PRODUCT))
        return operations / max(self._product_us(_SMALL_PRODUCT) - tiny_us, 1e-3) / 1e3

    def _operator_gb_per_s(self, small_us: float) -> float:
        """Of sums, which read two tensors and write one."""
        moved = 3 * 4 * (math.prod(_LOOK_BACK) - math.prod(_FRAMES))
        return moved / max(self._sum_us(_LOOK_BACK) - small_us, 1e-3) / 1e3

    def _sum_us(self, shape: tuple[int, int]) -> float:
        """One after another, of tensors that stay in the first cache."""
        feed: Feed = {name: np.ones(shape, np.float32) for name in ("x", "y")}
        return self._each_us(partial(_sums, shape), self.effort.chain // 4, feed)

    def _each_us(self, chain: Callable[[int], bytes], length: int, feed: Feed) -> float:
        """Microseconds of each operator of a chain; what calling the graph takes is not counted."""
        shorter_s, longer_s = self._best_s([chain(count) for count in (_KINDS, length)], feed)
        return max(0.0, longer_s - shorter_s) / (length - _KINDS) * 1e6

    def _best_s(self, models: Sequence[bytes], feed: Feed, threads: int = 1) -> list[float]:
        """Seconds of a run of each in its best round; rounds of all in turn, so that all have the good times."""
        sessions = [_session(self.runtime, model, threads) for model in models]
        rounds = zip(*(_rounds(session, feed, self.effort) for session in sessions), strict=True)
        return [min(taken) for taken in zip(*rounds, strict=True)]


def fp32_product(shape: tuple[int, int, int]) -> bytes:
    """A graph: x (rows, inner) times constant weights, in fp32."""
    rows, inner, columns = shape
    weight = np.random.default_rng(0).standard_normal((inner, columns), np.float32)
    return serialised(
        [Node("MatMul", ["x", "weight"], ["out"])],
        [Value("x", (rows, inner))],
        [Value("out", (rows, columns))],
        {"weight": weight},
    )


def int8_products(shape: tuple[int, int, int], length: int = 1) -> bytes:
    """The same as dynamic quantisation writes it: x is quantised as it comes, weights are int8 of 7 bits per column.

    length: products one after the other; of more than one `inner` and `columns` are equal
    """
    rows, inner, columns = shape
    nodes: list[Node] = []
    constants: dict[str, NDArray[np.generic]] = _of_all_products(columns)
    for i, (given, made) in enumerate(pairwise(_names(length))):
        nodes += _int8_product(i, given, made)
        constants[f"weight{i}"] = _int8_weight(i, inner, columns)
    return serialised(nodes, [Value("x", (rows, inner))], [Value("out", (rows, columns))], constants)


def _int8_product(number: int, given: str, made: str) -> list[Node]:
    """One that reads and makes the named tensors; its weights are `weight` and the number."""
    i = number
    return [
        Node("DynamicQuantizeLinear", [given], [f"int8_{i}", f"scale{i}", f"zero{i}"]),
        Node("MatMulInteger", [f"int8_{i}", f"weight{i}", f"zero{i}", "zero"], [f"sums{i}"]),
        Node("Cast", [f"sums{i}"], [f"floats{i}"], {"to": 1}),
        Node("Mul", [f"scale{i}", "weight_scale"], [f"product_scale{i}"]),
        Node("Mul", [f"floats{i}", f"product_scale{i}"], [made]),
    ]


def _of_all_products(columns: int) -> dict[str, NDArray[np.generic]]:
    return {"zero": np.zeros(columns, np.int8), "weight_scale": np.full(columns, 0.01, np.float32)}


def _int8_weight(number: int, inner: int, columns: int) -> NDArray[np.int8]:
    return np.random.default_rng(number).integers(-64, 64, (inner, columns), np.int8)


def usual_operators(length: int) -> bytes:
    """The operators of attention in turn, on tensors of a few hundred numbers, and products between them.

    length: of operators, products apart; a multiple of eight
    """
    frames, dims = _FRAMES
    heads = 4
    kinds: list[tuple[str, list[str], dict[str, int | tuple[int, ...]]]] = [
        ("Mul", ["y"], {}),
        ("Concat", ["y"], {"axis": 0}),
        ("Slice", ["cut_from", "cut_to"], {}),
        ("LayerNormalization", ["ones", "ones"], {"axis": -1}),
        ("Reshape", ["by_head"], {}),
        ("Transpose", [], {"perm": (1, 0, 2)}),
        ("Softmax", [], {"axis": -1}),
        ("Reshape", ["by_frame"], {}),
    ]
    nodes = []
    constants: dict[str, NDArray[np.generic]] = {
        **_of_all_products(dims),
        "cut_from": np.array([frames // 2]),
        "cut_to": np.array([frames // 2 + frames]),
        "ones": np.ones(dims, np.float32),
        "by_head": np.array([frames, heads, dims // heads]),
        "by_frame": np.array(_FRAMES),
    }
    for i, (given, made) in enumerate(pairwise(_names(length))):
        op_type, others, attributes = kinds[i % len(kinds)]
        read = given if i % _BETWEEN else f"product{i}"
        if read != given:
            nodes += _int8_product(i, given, read)
            constants[f"weight{i}"] = _int8_weight(i, dims, dims)
        nodes.append(Node(op_type, [read, *others], [made], attributes))
    return serialised(nodes, [Value("x", _FRAMES), Value("y", _FRAMES)], [Value("out", _FRAMES)], constants)


def _side_by_side(count: int) -> bytes:
    """Each input negated."""
    names = [(f"x{i}", f"out{i}") for i in range(count)]
    nodes = [Node("Neg", [given], [made]) for given, made in names]
    inputs, outputs = ([Value(pair[end], _FRAMES) for pair in names] for end in (0, 1))
    return serialised(nodes, inputs, outputs, {})


def _sums(shape: tuple[int, int], length: int) -> bytes:
    """y added to x and subtracted in turn, which the runtime cannot join."""
    nodes = [
        Node(("Add", "Sub")[i % 2], [given, "y"], [made]) for i, (given, made) in enumerate(pairwise(_names(length)))
    ]
    return serialised(nodes, [Value("x", shape), Value("y", shape)], [Value("out", shape)], {})


def _names(length: int) -> list[str]:
    """Of what goes from operator to operator."""
    return ["x", *(f"x{i}" for i in range(1, length)), "out"]


def _session(runtime: str, model: bytes, threads: int) -> Any:
    if runtime == "native":
        return NativeSession(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _rounds(session: Any, feed: Feed, effort: Effort) -> Iterator[float]:
    """Seconds of a run, round by round; the first only finds out how many runs fit into one."""
    best_s = math.inf
    run = _ready(session, feed)
    for _ in range(effort.rounds + 1):
        runs = max(1, math.ceil(effort.sample_s / best_s))
        began_s = time.perf_counter()
        for _ in range(runs):
            run()
        seconds = (time.perf_counter() - began_s) / runs
        best_s = min(best_s, max(seconds, 1e-9))
        yield seconds


def _ready(session: Any, feed: Feed) -> Callable[[], object]:
    """A run on these inputs. feed: may hold more than the graph reads"""
    if isinstance(session, NativeSession):
        return BoundProgram(session, feed).run
    return partial(session.run, None, {value.name: feed[value.name] for value in session.get_inputs()})
