"""Peak arithmetic and the cost of an operator, by ONNX Runtime's own kernels: nothing that runs a model is faster.

A multiply-add is counted as two operations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeasr.profile.bandwidth import Progress
from edgeasr.profile.onnx_writer import Node, Value, serialised

Feed = dict[str, NDArray[np.generic]]

FULL_SHAPES = ((64, 512, 512), (128, 512, 512), (256, 512, 512), (128, 1024, 1024))
QUICK_SHAPES = ((128, 512, 512),)
# What operators of a small model work on: the frames of a chunk, and those that attention looks back on.
_FRAMES = (4, 192)
_LOOK_BACK = (100, 192)
_TINY_PRODUCT = (4, 64, 64)
_SMALL_PRODUCT = (4, 256, 256)
_MANY_TENSORS = 33
_KINDS = 8  # of usual operators


@dataclass(frozen=True)
class Effort:
    """How thoroughly to measure.

    shapes: rows, inner size and columns of products
    rounds: of which the best counts
    chain:  operators in a chain: as many as a model has, whose own data fill the first caches
    """

    shapes: tuple[tuple[int, int, int], ...] = FULL_SHAPES
    rounds: int = 10
    sample_s: float = 0.005
    chain: int = 512


QUICK = Effort(QUICK_SHAPES, rounds=4, sample_s=0.003, chain=256)


@dataclass(frozen=True)
class Arithmetic:
    """What the machine computes, by number of threads, and what operators take on one thread.

    operator_us:       one on a few hundred numbers, the mean of the usual kinds: mostly the runtime's own time
    tensor_us:         handing a small tensor to the runtime, or taking one from it
    product_us:        a product in dynamic int8 with a few thousand weights
    few_rows_gops:     of int8 products with few rows, as a chunk has, whose weights do not stay in the first caches;
                       beyond product_us
    operator_gb_per_s: what an operator on larger tensors reads and writes in the time that it takes beyond operator_us
    """

    fp32_gflops: dict[int, float]
    int8_gops: dict[int, float]
    operator_us: float
    tensor_us: float
    product_us: float
    few_rows_gops: float
    operator_gb_per_s: float


def measure_arithmetic(
    threads: tuple[int, ...], effort: Effort | None = None, progress: Progress | None = None
) -> Arithmetic:
    """Matrix products in fp32 and in dynamic int8, with constant weights, and chains of tiny operators."""
    effort = effort or Effort()
    fp32: dict[int, float] = dict.fromkeys(threads, 0.0)
    int8: dict[int, float] = dict.fromkeys(threads, 0.0)
    jobs = [(count, shape) for count in threads for shape in effort.shapes]
    for i, (count, shape) in enumerate(jobs):
        if progress:
            rows, inner, columns = shape
            progress(f"products {rows} x {inner} x {columns}, {count} thread{'s' * (count > 1)}", i / len(jobs))
        fp32[count] = max(fp32[count], _rate(fp32_product(shape), shape, count, effort))
        int8[count] = max(int8[count], _rate(int8_products(shape), shape, count, effort))
    operator_us, product_us = _operator_us(effort), _product_us(_TINY_PRODUCT, effort)
    return Arithmetic(
        fp32,
        int8,
        operator_us=operator_us,
        tensor_us=_tensor_us(operator_us, effort),
        product_us=product_us,
        few_rows_gops=_few_rows_gops(product_us, effort),
        operator_gb_per_s=_operator_gb_per_s(effort),
    )


def _operator_us(effort: Effort) -> float:
    feed: Feed = {name: np.ones(_FRAMES, np.float32) for name in ("x", "y")}
    return _each_us(usual_operators, effort.chain, feed, effort)


def _tensor_us(operator_us: float, effort: Effort) -> float:
    """By a graph of operators side by side, each of which has an input and an output of the graph."""
    feed: Feed = {f"x{i}": np.ones(_FRAMES, np.float32) for i in range(_MANY_TENSORS)}
    few_s, many_s = (_best_s(_session(_side_by_side(count), 1), feed, effort) for count in (1, _MANY_TENSORS))
    return max(0.0, (many_s - few_s) * 1e6 / (_MANY_TENSORS - 1) - operator_us) / 2


def _product_us(shape: tuple[int, int, int], effort: Effort) -> float:
    feed: Feed = {"x": np.ones(shape[:2], np.float32)}
    return _each_us(partial(int8_products, shape), effort.chain // 8, feed, effort)


def _few_rows_gops(tiny_us: float, effort: Effort) -> float:
    operations = 2 * (math.prod(_SMALL_PRODUCT) - math.prod(_TINY_PRODUCT))
    return operations / max(_product_us(_SMALL_PRODUCT, effort) - tiny_us, 1e-3) / 1e3


def _operator_gb_per_s(effort: Effort) -> float:
    """Of sums, which read two tensors and write one."""
    taken = {}
    for shape in (_FRAMES, _LOOK_BACK):
        feed: Feed = {name: np.ones(shape, np.float32) for name in ("x", "y")}
        taken[shape] = _each_us(partial(_sums, shape), effort.chain // 4, feed, effort)
    moved = 3 * 4 * (math.prod(_LOOK_BACK) - math.prod(_FRAMES))
    return moved / max(taken[_LOOK_BACK] - taken[_FRAMES], 1e-3) / 1e3


def _each_us(chain: Callable[[int], bytes], length: int, feed: Feed, effort: Effort) -> float:
    """Microseconds of each operator of a chain; what calling the graph takes is not counted."""
    shorter_s, longer_s = (_best_s(_session(chain(count), 1), feed, effort) for count in (_KINDS, length))
    return max(0.0, longer_s - shorter_s) / (length - _KINDS) * 1e6


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
    rng = np.random.default_rng(0)
    nodes: list[Node] = []
    constants: dict[str, NDArray[np.generic]] = {
        "zero": np.zeros(columns, np.int8),
        "weight_scale": np.full(columns, 0.01, np.float32),
    }
    for i, (given, made) in enumerate(pairwise(_names(length))):
        constants[f"weight{i}"] = rng.integers(-64, 64, (inner, columns), np.int8)
        nodes += [
            Node("DynamicQuantizeLinear", [given], [f"int8_{i}", f"scale{i}", f"zero{i}"]),
            Node("MatMulInteger", [f"int8_{i}", f"weight{i}", f"zero{i}", "zero"], [f"sums{i}"]),
            Node("Cast", [f"sums{i}"], [f"floats{i}"], {"to": 1}),
            Node("Mul", [f"scale{i}", "weight_scale"], [f"product_scale{i}"]),
            Node("Mul", [f"floats{i}", f"product_scale{i}"], [made]),
        ]
    return serialised(nodes, [Value("x", (rows, inner))], [Value("out", (rows, columns))], constants)


def usual_operators(length: int) -> bytes:
    """The operators of attention in turn, on tensors of a few hundred numbers. length: a multiple of eight"""
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
    names = _names(length)
    nodes = []
    for i, (given, made) in enumerate(pairwise(names)):
        op_type, others, attributes = kinds[i % len(kinds)]
        nodes.append(Node(op_type, [given, *others], [made], attributes))
    constants: dict[str, NDArray[np.generic]] = {
        "cut_from": np.array([frames // 2]),
        "cut_to": np.array([frames // 2 + frames]),
        "ones": np.ones(dims, np.float32),
        "by_head": np.array([frames, heads, dims // heads]),
        "by_frame": np.array(_FRAMES),
    }
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


def _rate(model: bytes, shape: tuple[int, int, int], threads: int, effort: Effort) -> float:
    rows, inner, columns = shape
    feed: Feed = {"x": np.random.default_rng(1).standard_normal((rows, inner), np.float32)}
    return 2 * rows * inner * columns / _best_s(_session(model, threads), feed, effort) / 1e9


def _session(model: bytes, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _best_s(session: Any, feed: Feed, effort: Effort) -> float:
    """Seconds of a run in the best round; the first rounds only find out how many runs fit into one."""
    return min(_rounds(session, feed, effort))


def _rounds(session: Any, feed: Feed, effort: Effort) -> Iterator[float]:
    best_s = math.inf
    given = {value.name: feed[value.name] for value in session.get_inputs()}
    for _ in range(effort.rounds + 1):
        runs = max(1, math.ceil(effort.sample_s / best_s))
        began_s = time.perf_counter()
        for _ in range(runs):
            session.run(None, given)
        seconds = (time.perf_counter() - began_s) / runs
        best_s = min(best_s, max(seconds, 1e-9))
        yield seconds
