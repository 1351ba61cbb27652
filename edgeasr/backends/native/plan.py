"""From a graph of ONNX to a program of `kernels.c`: what runs in which order, on what, and where it lies.

Shapes are known beforehand, so nothing is decided while a program runs. What only looks at a tensor in another way
(transposes, slices, reshapes and the like) becomes strides; scratch memory is used again once nobody reads it any more.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.native.operators import check_operators
from edgeasr.backends.native.patterns import Group, grouped
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import UnsupportedGraphError
from edgeasr.onnx_reader import GraphNode, OnnxContent

# In the order of kernels.c.
_OPERATORS = (
    "copy",
    "binary",
    "unary",
    "where",
    "reduce",
    "softmax",
    "layer_norm",
    "gate",
    "product",
    "linear",
    "convolution",
    "depthwise",
    "rotate",
    "attention",
)
_TYPES = {"float32": 0, "int64": 1, "bool": 2}
_BINARY = ("Add", "Sub", "Mul", "Div", "Mod", "Greater", "GreaterOrEqual")
_UNARY = ("Exp", "Log", "Sigmoid", "Cos", "Sin", "Clip", "Cast", "Tanh", "Neg")
_CASTS = {1: "float32", 7: "int64", 9: "bool"}  # of TensorProto.DataType
_MAX_DIMS = 6
_PANEL, _ROWS, _QUERIES = 64, 4, 4
_ALIGNMENT = 64
_SEVEN_BITS = 64
_MOST_SUMMED = (2**31 - 1) // (255 * 128)  # products of 8 bits in a sum of 32
_NOTHING = -1

CONSTANTS, SCRATCH, FIRST_OWN = 0, 1, 2  # roots; inputs and outputs of the graph come behind these


class Layout(NamedTuple):
    """What the library says of itself. lanes: floats of a vector; channels: outputs of a tile of a convolution"""

    lanes: int
    channels: int
    eight_bits: bool  # whether products with weights of 8 bits are exact


@dataclass(eq=False)
class Buffer:
    """Memory of one tensor. first, last: instructions between which it holds what is read"""

    root: int
    size_bytes: int
    offset: int = 0
    first: int = -1
    last: int = -1


@dataclass(frozen=True)
class View:
    """A tensor in a buffer.

    shape:   a size that varies is a name; strides are unknown then
    strides: in elements
    offset:  in bytes
    """

    buffer: Buffer
    dtype: str
    shape: tuple[Any, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def item_bytes(self) -> int:
        """Of an element."""
        return np.dtype(self.dtype).itemsize

    @property
    def is_dense(self) -> bool:
        """Whether its elements lie one after the other, in their order."""
        return all(
            size == 1 or stride == wanted
            for size, stride, wanted in zip(self.shape, self.strides, _dense(self.shape), strict=True)
        )


@dataclass(frozen=True)
class Instruction:
    """One operator of `kernels.c`.

    arguments: the first tensor among them is the one that it writes
    nodes:     numbers of those of the graph that it does
    macs:      multiply-adds of products, convolutions and attention; with `varying` for each of as many as that size
    """

    operator: str
    arguments: tuple[int | View | Buffer | None, ...]
    nodes: tuple[int, ...]
    macs: int = 0
    varying: str | None = None

    @property
    def tensors(self) -> tuple[View, ...]:
        """What it writes, then what it reads, and what it makes and reads again itself."""
        return tuple(argument for argument in self.arguments if isinstance(argument, View))


class Cut(NamedTuple):
    """An output of which only the first elements along an axis count, as many as a number in the scratch says."""

    axis: int
    until: str  # name of an output that was added for it


@dataclass(frozen=True)
class Plan:
    """A program and what it needs.

    words:     as `kernels.c` reads them
    constants: bytes of its own constants, weights in the order in which they are read
    varying:   names of the sizes that vary, by their numbers
    cuts:      outputs that are cut
    extra:     outputs beyond those of the graph, that cuts need
    """

    words: NDArray[np.int64]
    instructions: tuple[Instruction, ...]
    constants: NDArray[np.uint8]
    scratch_bytes: int
    roots: tuple[str, ...]
    varying: tuple[str, ...]
    outputs: Mapping[str, TensorSpec]
    cuts: Mapping[str, Cut]
    content: OnnxContent = field(repr=False)

    def name_of(self, view: View) -> str:
        """Of an input or an output of the graph, "" for what is neither."""
        root = view.buffer.root
        return self.roots[root - FIRST_OWN] if root >= FIRST_OWN else ""


def planned(
    content: OnnxContent, constants: Mapping[str, NDArray[Any]], layout: Layout, most: Mapping[str, int] | None = None
) -> Plan:
    """A program for a graph.

    most:   the largest values of sizes that vary, by their names
    errors: UnsupportedGraphError for what `kernels.c` cannot do
    """
    check_operators(content)
    try:
        return _Planner(content, constants, layout, most or {}).plan()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Of a graph that is not as its operators want it; whoever knows more of them may say what is wrong.
        raise UnsupportedGraphError(f"got a graph that the native backend cannot plan ({error!r})") from error


def _are_known(shape: Sequence[Any]) -> bool:
    """Whether there is something, and always as much."""
    return all(isinstance(size, int) and size > 0 for size in shape)


def _dense(shape: Sequence[Any]) -> tuple[int, ...]:
    """Strides of elements in their order."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size if isinstance(size, int) else 0
    return tuple(reversed(strides))


def _bits(value: float) -> int:
    """A double in a word."""
    word: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return word


def _broadcast(view: View, shape: Sequence[int]) -> View:
    """The same elements again and again where a size is 1, or missing."""
    missing = len(shape) - len(view.shape)
    sizes, strides = (1,) * missing + view.shape, (0,) * missing + view.strides
    if any(size not in (1, wanted) for size, wanted in zip(sizes, shape, strict=True)):
        raise UnsupportedGraphError(f"got {list(view.shape)} where {list(shape)} is wanted")
    strides = tuple(0 if size == 1 else stride for size, stride in zip(sizes, strides, strict=True))
    return replace(view, shape=tuple(shape), strides=strides)


def _merged(shape: Sequence[int], views: Sequence[View]) -> tuple[list[int], list[list[int]]]:
    """Sizes and strides of the same elements in as few dimensions as can be, one at least."""
    sizes: list[int] = []
    strides: list[list[int]] = [[] for _ in views]
    for d, size in enumerate(shape):
        if size == 1:
            continue
        steps = [view.strides[d] for view in views]
        if sizes and all(own[-1] == step * size for own, step in zip(strides, steps, strict=True)):
            sizes[-1] *= size
            for own, step in zip(strides, steps, strict=True):
                own[-1] = step
            continue
        sizes.append(size)
        for own, step in zip(strides, steps, strict=True):
            own.append(step)
    if not sizes:
        sizes, strides = [1], [[0] for _ in views]
    if len(sizes) > _MAX_DIMS:
        raise UnsupportedGraphError(f"got {len(sizes)} dimensions, wanted {_MAX_DIMS} at most")
    return sizes, strides


def _padded(values: Sequence[int]) -> list[int]:
    return [*values, *[0] * (_MAX_DIMS - len(values))]


class _Planner:
    """Writes the program, node by node."""

    def __init__(
        self,
        content: OnnxContent,
        constants: Mapping[str, NDArray[Any]],
        layout: Layout,
        most: Mapping[str, int],
    ) -> None:
        self._content, self._arrays, self._layout, self._most = content, constants, layout, most
        self._instructions: list[Instruction] = []
        self._constants: list[tuple[Buffer, NDArray[Any]]] = []
        self._scratch: list[Buffer] = []
        self._views: dict[str, View] = {}
        self._packed: dict[str, tuple[View, View]] = {}
        self._cuts: dict[str, Cut] = {}
        self._extra: list[str] = []
        self._varying: list[str] = []
        self._nodes: tuple[int, ...] = ()
        self._outputs: dict[str, Buffer] = {}
        self._makers: dict[str, Callable[[GraphNode], None]] = {
            **dict.fromkeys(_BINARY, self._binary),
            **dict.fromkeys(_UNARY, self._unary),
            **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Identity"), self._reshape),
            **dict.fromkeys(("ReduceSum", "ReduceMax"), self._reduce),
            **dict.fromkeys(("Softmax", "LogSoftmax"), self._softmax),
            **dict.fromkeys(("MatMul", "FusedMatMul"), self._product),
            "Transpose": self._transpose,
            "Slice": self._slice,
            "Split": self._split,
            "Gather": self._gather,
            "Expand": self._expand,
            "Concat": self._concat,
            "Pad": self._pad,
            "Where": self._where,
            "LayerNormalization": self._layer_norm,
            "Conv": lambda node: self._convolution(node, node.outputs[0], silu=False),
            "RotaryEmbedding": self._rotate,
            "MultiHeadAttention": self._cross_attention,
        }
        self._groups: dict[str, Callable[[Group], None]] = {
            "linear": self._linear,
            "attention": self._windowed_attention,
            "depthwise": self._depthwise,
            "gate": self._gate,
            "convolution": lambda group: self._convolution(content.nodes[group.nodes[0]], group.output, silu=True),
        }

    def plan(self) -> Plan:
        content = self._content
        names = list(content.inputs)
        if overridden := sorted(self._arrays.keys() & set(names)):
            raise UnsupportedGraphError(f"got the inputs {', '.join(overridden)}, which are constants as well")
        for i, name in enumerate(names):
            spec = content.specs[name]
            self._views[name] = View(Buffer(FIRST_OWN + i, 0), spec.dtype, tuple(spec.shape), _dense(spec.shape))
        groups = grouped(content, self._arrays)
        ending = {max(group.nodes): group for group in groups}
        done = {number for group in groups for number in group.nodes}
        for name in content.outputs:
            self._outputs[name] = Buffer(0, 0)
        for number, node in enumerate(content.nodes):
            if (group := ending.get(number)) is not None:
                self._nodes = group.nodes
                self._groups[group.kind](group)
            elif number not in done:
                self._nodes = (number,)
                maker = self._makers.get(node.op_type)
                if maker is None:
                    raise UnsupportedGraphError(f"got the operator {node.op_type} where the native backend has it not")
                maker(node)
        outputs = {name: self._given(name) for name in (*content.outputs, *self._extra)}
        roots = (*names, *outputs)
        for i, name in enumerate(outputs, start=FIRST_OWN + len(names)):
            self._outputs[name].root = i
        specs = {name: TensorSpec(view.shape, view.dtype) for name, view in outputs.items()}
        constants, scratch_bytes = self._placed_constants(), self._placed_scratch()
        return Plan(
            self._words(),
            tuple(self._instructions),
            constants,
            scratch_bytes,
            roots,
            tuple(self._varying),
            specs,
            self._cuts,
            content,
        )

    # What there is.

    def _view(self, name: str) -> View:
        """What a node reads, of sizes that are known."""
        view = self._any_view(name)
        if not _are_known(view.shape):
            raise UnsupportedGraphError(f"got {name!r} of {list(view.shape)}, wanted sizes that do not vary, 1 or more")
        return view

    def _any_view(self, name: str) -> View:
        if name not in self._views:
            if name not in self._arrays:
                raise UnsupportedGraphError(f"got {name!r} where the native backend has only a part of it")
            self._views[name] = self._constant(self._arrays[name])
        return self._views[name]

    def _constant(self, array: NDArray[Any]) -> View:
        buffer = Buffer(CONSTANTS, array.nbytes)
        self._constants.append((buffer, np.ascontiguousarray(array)))
        return View(buffer, array.dtype.name, array.shape, _dense(array.shape))

    def _numbers(self, name: str) -> list[int]:
        """Of a constant that says how."""
        if name not in self._arrays:
            raise UnsupportedGraphError(f"got {name!r} that varies, wanted a constant")
        return [int(value) for value in self._arrays[name].reshape(-1)]

    def _scratch_view(self, dtype: str, shape: Sequence[int]) -> View:
        buffer = Buffer(SCRATCH, math.prod(shape) * np.dtype(dtype).itemsize)
        self._scratch.append(buffer)
        return View(buffer, dtype, tuple(shape), _dense(shape))

    def _made(self, name: str, dtype: str, shape: Sequence[int]) -> View:
        """Room for what a node makes: where the caller wants it, or in the scratch."""
        if not _are_known(shape):
            raise UnsupportedGraphError(f"got {name!r} of {list(shape)}, wanted sizes that do not vary, 1 or more")
        if name in self._outputs:
            buffer = self._outputs[name]
            buffer.size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            view = View(buffer, dtype, tuple(shape), _dense(shape))
        else:
            view = self._scratch_view(dtype, shape)
        self._views[name] = view
        return view

    def _named(self, name: str, view: View) -> None:
        """Another look at what is there; what the graph gives is copied to where the caller wants it."""
        if name in self._outputs:
            self._copy(self._made(name, view.dtype, view.shape), view)
        elif name:
            self._views[name] = view

    def _given(self, name: str) -> View:
        view = self._views.get(name)
        if view is None or view.buffer is not self._outputs[name]:
            raise UnsupportedGraphError(f"got the output {name!r}, which nothing makes")
        if (spec := self._content.specs.get(name)) is not None:
            cut = self._cuts.get(name)
            said: list[Any] = list(spec.shape)  # names for sizes that vary
            if cut is not None:
                said[cut.axis] = view.shape[cut.axis]
            if spec.dtype != view.dtype or said != list(view.shape):
                raise UnsupportedGraphError(
                    f"got the output {name!r} of {view.dtype} {list(view.shape)}, the file says {spec.dtype} "
                    f"{list(spec.shape)}"
                )
        return view

    def _emit(
        self, operator: str, *arguments: int | View | Buffer | None, macs: int = 0, varying: str | None = None
    ) -> None:
        number = len(self._instructions)
        for argument in arguments:
            buffer = argument.buffer if isinstance(argument, View) else argument
            if isinstance(buffer, Buffer):
                buffer.first = number if buffer.first < 0 else buffer.first
                buffer.last = number
        self._instructions.append(Instruction(operator, arguments, self._nodes, macs, varying))

    def _copy(self, to: View, source: View) -> None:
        if to.shape != source.shape or to.dtype != source.dtype or to.item_bytes not in (1, 4, 8):
            raise UnsupportedGraphError(
                f"got {source.dtype} {list(source.shape)} where {to.dtype} {list(to.shape)} is wanted"
            )
        sizes, (to_strides, strides) = _merged(to.shape, (to, source))
        self._emit(
            "copy",
            to.item_bytes,
            len(sizes),
            *_padded(sizes),
            to,
            *_padded(to_strides),
            source,
            *_padded(strides),
        )

    def _as_dense(self, view: View) -> View:
        if view.is_dense:
            return replace(view, strides=_dense(view.shape))
        made = self._scratch_view(view.dtype, view.shape)
        self._copy(made, view)
        return made

    def _dense_floats(self, name: str) -> View:
        view = self._as_dense(self._view(name))
        if view.dtype != "float32":
            raise UnsupportedGraphError(f"got {name!r} of {view.dtype}, wanted float32")
        return view

    # Other looks at what is there.

    def _reshape(self, node: GraphNode) -> None:
        view = self._view(node.inputs[0])
        shape = self._new_shape(node, view)
        if math.prod(shape) != math.prod(view.shape):
            raise UnsupportedGraphError(f"got {node.op_type} of {list(view.shape)} to {list(shape)}")
        if node.op_type == "Reshape":
            view = self._as_dense(view)
            self._named(node.outputs[0], replace(view, shape=shape, strides=_dense(shape)))
            return
        steps = iter([stride for size, stride in zip(view.shape, view.strides, strict=True) if size != 1])
        strides = tuple(0 if size == 1 else next(steps) for size in shape)
        self._named(node.outputs[0], replace(view, shape=shape, strides=strides))

    def _new_shape(self, node: GraphNode, view: View) -> tuple[Any, ...]:
        numbers = self._numbers(node.inputs[1]) if len(node.inputs) > 1 else []
        if node.op_type == "Identity":
            return view.shape
        if node.op_type == "Unsqueeze":
            rank = len(view.shape) + len(numbers)
            added, left = {number % rank for number in numbers}, iter(view.shape)
            return tuple(1 if axis in added else next(left) for axis in range(rank))
        if node.op_type == "Squeeze":
            rank = len(view.shape)
            gone = {number % rank for number in numbers} or {i for i, size in enumerate(view.shape) if size == 1}
            return tuple(size for axis, size in enumerate(view.shape) if axis not in gone)
        kept = not node.attributes.get("allowzero", 0)
        wanted = [view.shape[i] if size == 0 and kept else size for i, size in enumerate(numbers)]
        known = math.prod(size for size in wanted if size >= 0)
        return tuple(math.prod(view.shape) // known if size < 0 else size for size in wanted)

    def _transpose(self, node: GraphNode) -> None:
        view = self._view(node.inputs[0])
        order = node.attributes.get("perm") or tuple(reversed(range(len(view.shape))))
        turned = replace(view, shape=tuple(view.shape[i] for i in order), strides=tuple(view.strides[i] for i in order))
        self._named(node.outputs[0], turned)

    def _part(self, view: View, axis: int, first: int, count: int, step: int = 1) -> View:
        shape, strides = list(view.shape), list(view.strides)
        offset = view.offset + first * strides[axis] * view.item_bytes
        shape[axis], strides[axis] = count, strides[axis] * step
        return replace(view, shape=tuple(shape), strides=tuple(strides), offset=offset)

    def _slice(self, node: GraphNode) -> None:
        source, starts, ends, *rest = node.inputs
        view = self._view(source)
        if ends not in self._arrays:
            self._cut(node, view)
            return
        firsts, lasts = self._numbers(starts), self._numbers(ends)
        axes = self._numbers(rest[0]) if rest and rest[0] else list(range(len(firsts)))
        steps = self._numbers(rest[1]) if len(rest) > 1 and rest[1] else [1] * len(firsts)
        for first, last, axis, step in zip(firsts, lasts, axes, steps, strict=True):
            if step < 1:
                raise UnsupportedGraphError(f"got a slice in steps of {step}, wanted 1 or more")
            chosen = range(view.shape[axis])[first:last:step]
            view = self._part(view, axis % len(view.shape), chosen.start, len(chosen), step)
        self._named(node.outputs[0], view)

    def _cut(self, node: GraphNode, view: View) -> None:
        """An output whose end only the run knows: given whole, and cut by the caller."""
        source, starts, ends, *rest = node.inputs
        name, axes = node.outputs[0], self._numbers(rest[0]) if rest and rest[0] else [0]
        steps = self._numbers(rest[1]) if len(rest) > 1 and rest[1] else [1]
        # What it gives is longer than the graph has it: nobody here may read that.
        read = any(name in other.inputs for other in self._content.nodes)
        if name not in self._outputs or read or self._numbers(starts) != [0] or len(axes) != 1 or steps != [1]:
            raise UnsupportedGraphError(f"got a slice of {source!r} to an end that varies, wanted an output from 0 on")
        if ends not in self._outputs:
            end = self._as_dense(self._view(ends))
            self._extra.append(ends)
            self._outputs[ends] = Buffer(0, 0)
            self._copy(self._made(ends, end.dtype, end.shape), end)
        axis = axes[0] % len(view.shape)
        said: Sequence[Any] = self._content.specs[name].shape
        if not isinstance(said[axis], str):  # whoever gives room of one size for it would take all of that
            raise UnsupportedGraphError(f"got {name!r} of {list(said)}, wanted a size that varies along axis {axis}")
        self._cuts[name] = Cut(axis, ends)
        self._named(name, view)

    def _split(self, node: GraphNode) -> None:
        view = self._view(node.inputs[0])
        axis = node.attributes.get("axis", 0) % len(view.shape)
        if len(node.inputs) > 1:
            counts = self._numbers(node.inputs[1])
        else:
            counts = [math.ceil(view.shape[axis] / len(node.outputs))] * (len(node.outputs) - 1)
            counts.append(view.shape[axis] - sum(counts))
        whole = min(counts) >= 0 and sum(counts) == view.shape[axis]
        if not whole or node.attributes.get("num_outputs", len(counts)) != len(counts):
            raise UnsupportedGraphError(f"got a Split of {list(view.shape)} into {counts} along axis {axis}")
        first = 0
        for name, count in zip(node.outputs, counts, strict=True):
            self._named(name, self._part(view, axis, first, count))
            first += count

    def _gather(self, node: GraphNode) -> None:
        view, chosen = self._view(node.inputs[0]), self._arrays.get(node.inputs[1])
        if chosen is None or chosen.ndim:
            raise UnsupportedGraphError("got a Gather of more than one constant row")
        axis = node.attributes.get("axis", 0) % len(view.shape)
        part = self._part(view, axis, range(view.shape[axis])[int(chosen)], 1)
        dropped = (tuple(value for i, value in enumerate(values) if i != axis) for values in (part.shape, part.strides))
        shape, strides = dropped
        self._named(node.outputs[0], replace(part, shape=shape, strides=strides))

    def _expand(self, node: GraphNode) -> None:
        view = self._view(node.inputs[0])
        shape = np.broadcast_shapes(view.shape, tuple(self._numbers(node.inputs[1])))
        self._named(node.outputs[0], _broadcast(view, shape))

    def _concat(self, node: GraphNode) -> None:
        parts = [self._view(name) for name in node.inputs]
        axis = node.attributes["axis"] % len(parts[0].shape)
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        to, first = self._made(node.outputs[0], parts[0].dtype, shape), 0
        for part in parts:
            self._copy(self._part(to, axis, first, part.shape[axis]), part)
            first += part.shape[axis]

    def _pad(self, node: GraphNode) -> None:
        view, pads = self._view(node.inputs[0]), self._numbers(node.inputs[1])
        rank = len(view.shape)
        some = len(node.inputs) > 3 and node.inputs[3]
        if min(pads) < 0 or len(pads) != 2 * rank or some:
            raise UnsupportedGraphError(f"got padding by {pads}, wanted constants beside it")
        shape = [size + pads[i] + pads[rank + i] for i, size in enumerate(view.shape)]
        to = self._made(node.outputs[0], view.dtype, shape)
        given = len(node.inputs) > 2 and node.inputs[2]
        value = self._view(node.inputs[2]) if given else self._constant(np.zeros((), view.dtype))
        self._copy(to, _broadcast(value, shape))
        for axis, size in enumerate(view.shape):
            to = self._part(to, axis, pads[axis], size)
        self._copy(to, view)

    # Elements.

    def _binary(self, node: GraphNode) -> None:
        x, y = (self._view(name) for name in node.inputs)
        if x.dtype != y.dtype or x.dtype not in ("float32", "int64"):
            raise UnsupportedGraphError(f"got {node.op_type} of {x.dtype} and {y.dtype}")
        if node.op_type == "Mod" and node.attributes.get("fmod", 0) != (x.dtype == "float32"):
            raise UnsupportedGraphError(f"got a Mod of {x.dtype} with fmod {node.attributes.get('fmod', 0)}")
        shape = np.broadcast_shapes(x.shape, y.shape)
        dtype = "bool" if node.op_type.startswith("Greater") else x.dtype
        to = self._made(node.outputs[0], dtype, shape)
        x, y = _broadcast(x, shape), _broadcast(y, shape)
        sizes, (_, x_strides, y_strides) = _merged(shape, (to, x, y))
        self._emit(
            "binary",
            _BINARY.index(node.op_type),
            _TYPES[x.dtype],
            len(sizes),
            *_padded(sizes),
            to,
            to.item_bytes,
            x,
            *_padded(x_strides),
            y,
            *_padded(y_strides),
        )

    def _unary(self, node: GraphNode) -> None:
        x = self._as_dense(self._view(node.inputs[0]))
        parameter, dtype = 0.0, x.dtype
        if node.op_type == "Cast":
            dtype = _CASTS.get(node.attributes["to"], "")
        elif node.op_type == "Clip":
            if (len(node.inputs) > 2 and node.inputs[2]) or node.inputs[1] not in self._arrays:
                raise UnsupportedGraphError("got a Clip with another limit than a constant least value")
            parameter = float(self._arrays[node.inputs[1]].item())
        if x.dtype not in _TYPES or dtype not in _TYPES or (node.op_type != "Cast" and dtype != "float32"):
            raise UnsupportedGraphError(f"got {node.op_type} of {x.dtype}")
        to = self._made(node.outputs[0], dtype, x.shape)
        numbers = (_UNARY.index(node.op_type), _TYPES[x.dtype], _TYPES[dtype], math.prod(x.shape))
        self._emit("unary", *numbers, to, x, _bits(parameter))

    def _where(self, node: GraphNode) -> None:
        condition, x, y = (self._view(name) for name in node.inputs)
        if condition.dtype != "bool" or x.dtype != y.dtype:
            raise UnsupportedGraphError(f"got a Where of {condition.dtype}, {x.dtype} and {y.dtype}")
        shape = np.broadcast_shapes(condition.shape, x.shape, y.shape)
        to = self._made(node.outputs[0], x.dtype, shape)
        views = [_broadcast(view, shape) for view in (condition, x, y)]
        sizes, (_, *strides) = _merged(shape, (to, *views))
        reads: list[int | View] = []
        for view, own in zip(views, strides, strict=True):
            reads += [view, *_padded(own)]
        self._emit("where", to.item_bytes, len(sizes), *_padded(sizes), to, *reads)

    def _reduce(self, node: GraphNode) -> None:
        x = self._as_dense(self._view(node.inputs[0]))
        rank = len(x.shape)
        given = self._numbers(node.inputs[1]) if len(node.inputs) > 1 else node.attributes.get("axes", range(rank))
        axes = sorted(number % rank for number in given)
        if axes != list(range(axes[0], axes[-1] + 1)) or x.dtype not in ("float32", "int64"):
            raise UnsupportedGraphError(f"got {node.op_type} of {x.dtype} over the axes {axes}")
        kept = node.attributes.get("keepdims", 1)
        shape = [1 if i in axes else size for i, size in enumerate(x.shape) if i not in axes or kept]
        outer, length, inner = (
            math.prod(part) for part in (x.shape[: axes[0]], x.shape[axes[0] : axes[-1] + 1], x.shape[axes[-1] + 1 :])
        )
        to = self._made(node.outputs[0], x.dtype, shape)
        self._emit("reduce", int(node.op_type == "ReduceMax"), _TYPES[x.dtype], outer, length, inner, to, x)

    # Rows.

    def _softmax(self, node: GraphNode) -> None:
        x = self._dense_floats(node.inputs[0])
        if node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
            raise UnsupportedGraphError(f"got {node.op_type} over another axis than the last")
        to = self._made(node.outputs[0], x.dtype, x.shape)
        self._emit("softmax", int(node.op_type == "LogSoftmax"), math.prod(x.shape[:-1]), x.shape[-1], to, x)

    def _layer_norm(self, node: GraphNode) -> None:
        x, weight, bias = (self._dense_floats(name) for name in node.inputs)
        if node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
            raise UnsupportedGraphError("got a LayerNormalization over more than the last axis")
        if not weight.shape == bias.shape == x.shape[-1:]:
            raise UnsupportedGraphError(f"got a LayerNormalization of {list(x.shape)} with {list(weight.shape)}")
        to = self._made(node.outputs[0], x.dtype, x.shape)
        epsilon = _bits(node.attributes.get("epsilon", 1e-5))
        self._emit("layer_norm", math.prod(x.shape[:-1]), x.shape[-1], epsilon, to, x, weight, bias)

    def _gate(self, group: Group) -> None:
        x, gate = (self._view(group.tensors[name]) for name in ("x", "gate"))
        if {x.dtype, gate.dtype} != {"float32"}:
            raise UnsupportedGraphError(f"got a gate of {gate.dtype} for {x.dtype}")
        shape = np.broadcast_shapes(x.shape, gate.shape)
        x, gate = _broadcast(x, shape), _broadcast(gate, shape)
        to = self._made(group.output, x.dtype, x.shape)
        sizes, (_, x_strides, gate_strides) = _merged(x.shape, (to, x, gate))
        if len(sizes) > 2 or (x_strides[-1], gate_strides[-1]) != (1, 1):
            x, gate = self._as_dense(x), self._as_dense(gate)
            sizes, x_strides, gate_strides = [math.prod(x.shape)], [1], [1]
        rows = sizes[0] if len(sizes) == 2 else 1
        self._emit("gate", rows, sizes[-1], to, x, x_strides[0], gate, gate_strides[0])

    # Products.

    def _product(self, node: GraphNode) -> None:
        x, y = (self._view(name) for name in node.inputs)
        attributes = node.attributes
        rank = len(x.shape)
        if not 2 <= rank <= 5 or len(y.shape) != rank or {x.dtype, y.dtype} != {"float32"}:
            raise UnsupportedGraphError(f"got a product of {list(x.shape)} and {list(y.shape)}")
        x, y = (
            self._turned(view, attributes.get(f"transBatch{side}", 0), attributes.get(f"trans{side}", 0))
            for view, side in ((x, "A"), (y, "B"))
        )
        if x.shape[-1] != y.shape[-2]:
            raise UnsupportedGraphError(f"got a product of {list(x.shape)} and {list(y.shape)}")
        batches = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        (m, k), n = x.shape[-2:], y.shape[-1]
        to = self._made(node.outputs[0], x.dtype, (*batches, m, n))
        x, y = _broadcast(x, (*batches, m, k)), _broadcast(y, (*batches, k, n))
        missing = 3 - len(batches)
        strides: list[int | View] = []
        for view in (to, x, y):
            strides += [view, *[0] * missing, *view.strides]
        sizes = (*[1] * missing, *batches, m, n, k)
        self._emit("product", *sizes, _bits(attributes.get("alpha", 1.0)), *strides, macs=math.prod(sizes))

    def _turned(self, view: View, batch: int, last: int) -> View:
        """As FusedMatMul does. batch: moves the first axis behind all others but the last; last: swaps the last two"""
        order = list(range(len(view.shape)))
        if batch:
            order = [*order[1:-1], order[0], order[-1]]
        if last:
            order[-2:] = reversed(order[-2:])
        return replace(view, shape=tuple(view.shape[i] for i in order), strides=tuple(view.strides[i] for i in order))

    def _linear(self, group: Group) -> None:
        x = self._dense_floats(group.tensors["x"])
        weights = self._arrays[group.tensors["weights"]]
        if weights.ndim != 2 or weights.dtype != np.int8 or x.shape[-1] != weights.shape[0]:
            raise UnsupportedGraphError(f"got weights {weights.dtype.name} {list(weights.shape)} for {list(x.shape)}")
        k, n = weights.shape
        if k > _MOST_SUMMED:
            raise UnsupportedGraphError(f"got products of {k} numbers, wanted {_MOST_SUMMED} at most")
        if not self._layout.eight_bits and np.abs(weights.astype(np.int16)).max(initial=0) > _SEVEN_BITS:
            raise UnsupportedGraphError("got weights of 8 bits, which this processor multiplies with 7 bits only")
        rows, groups = math.prod(x.shape[:-1]), -(-k // 4)
        panels, sums = self._panels(group.tensors["weights"], weights)
        scales, bias = (
            None if array is None else _of_panels(_row(array, n))
            for array in (self._arrays.get(group.tensors[name]) for name in ("scales", "bias"))
        )
        residual = None
        if group.tensors["residual"]:
            residual = self._dense_floats(group.tensors["residual"])
            if residual.shape != (*x.shape[:-1], n):
                raise UnsupportedGraphError(f"got {list(residual.shape)} to add to {[*x.shape[:-1], n]}")
        quantised = self._scratch_view("uint8", [rows * (4 * groups + (k if k % 4 else 0))])
        to = self._made(group.output, "float32", (*x.shape[:-1], n))
        self._emit(
            "linear",
            *(rows, k, n, int(group.values["silu"])),
            *(to, x, quantised),
            *(panels, sums),
            *(None if array is None else self._constant(array) for array in (scales, bias)),
            residual,
            macs=rows * k * n,
        )

    def _panels(self, name: str, weights: NDArray[np.int8]) -> tuple[View, View]:
        """A matrix as products read it, and the sums of its columns: once, though several products read it."""
        if name not in self._packed:
            k, n = weights.shape
            groups, panels = -(-k // 4), -(-n // _PANEL)
            whole = np.zeros((groups * 4, panels * _PANEL), np.int8)
            whole[:k, :n] = weights
            packed = whole.reshape(groups, 4, panels, _PANEL).transpose(2, 0, 3, 1)
            self._packed[name] = self._constant(packed), self._constant(whole.sum(axis=0, dtype=np.int32))
        return self._packed[name]

    def _convolution(self, node: GraphNode, output: str, *, silu: bool) -> None:
        x, weights = self._dense_floats(node.inputs[0]), self._arrays.get(node.inputs[1])
        attributes = node.attributes
        if weights is None or weights.ndim != 4 or weights.dtype != np.float32 or len(x.shape) != 4 or x.shape[0] != 1:
            raise UnsupportedGraphError(f"got a Conv of {list(x.shape)}, wanted one picture and constant weights")
        if weights.shape[1] != x.shape[1] or set(attributes.get("dilations", (1,))) != {1}:
            raise UnsupportedGraphError(f"got a Conv of {list(x.shape)} by {list(weights.shape)}, or with dilation")
        out, channels, height, width = weights.shape
        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        down, across = attributes.get("strides", (1, 1))
        rows = (x.shape[2] + top + bottom - height) // down + 1
        columns = (x.shape[3] + left + right - width) // across + 1
        tile = self._layout.channels
        whole = np.zeros((-(-out // tile) * tile, channels, height, width), np.float32)
        whole[:out] = weights
        packed = whole.reshape(-1, tile, channels, height, width).transpose(0, 2, 3, 4, 1)
        bias = np.zeros(len(whole), np.float32)
        if len(node.inputs) > 2 and node.inputs[2]:
            bias[:out] = self._arrays[node.inputs[2]]
        to = self._made(output, "float32", (1, out, rows, columns))
        sizes = (channels, *x.shape[2:], out, height, width, down, across, top, left, rows, columns, int(silu))
        macs = math.prod(to.shape) * math.prod(weights.shape[1:])
        self._emit("convolution", *sizes, to, x, self._constant(packed), self._constant(bias), macs=macs)

    def _depthwise(self, group: Group) -> None:
        past, new, weights, bias = (
            self._dense_floats(group.tensors[name]) for name in ("past", "new", "weights", "bias")
        )
        taps, channels = group.values["taps"], new.shape[-1]
        rows, before = new.shape[1], past.shape[1]
        if past.shape != (1, taps - 1, channels) or new.shape != (1, group.values["rows"], channels):
            raise UnsupportedGraphError(f"got a convolution over {list(past.shape)} and {list(new.shape)}")
        wanted = (1,) * (len(weights.shape) - 2) + (taps, channels)
        if weights.shape != wanted or bias.shape != (1,) * (len(bias.shape) - 1) + (channels,) or len(bias.shape) > 3:
            raise UnsupportedGraphError(f"got a convolution by {list(weights.shape)} and {list(bias.shape)}")
        to = self._made(group.output, "float32", new.shape)
        self._emit("depthwise", rows, channels, taps, before, to, past, new, weights, bias)

    # Attention.

    def _rotate(self, node: GraphNode) -> None:
        x, numbers, cosines, sines = (self._as_dense(self._view(name)) for name in node.inputs)
        # Of the tables' rows, which nobody looks after while a program runs.
        chosen = self._arrays.get(node.inputs[1])
        if chosen is None or chosen.min() < 0 or chosen.max() >= cosines.shape[0]:
            raise UnsupportedGraphError(
                f"got a RotaryEmbedding at {node.inputs[1]!r}, wanted constants within its tables"
            )
        if len(x.shape) != 4 or len(cosines.shape) != 2 or 2 * cosines.shape[-1] != x.shape[-1]:
            raise UnsupportedGraphError(f"got a RotaryEmbedding of {list(x.shape)} by {list(cosines.shape)}")
        # (batch, heads, sequence, size) and (batch, sequence): with one head the vectors lie as their numbers do.
        if x.shape[1] != 1 or math.prod(numbers.shape) != math.prod(x.shape[:-1]):
            raise UnsupportedGraphError(f"got a RotaryEmbedding of {list(x.shape)} at {list(numbers.shape)}")
        if (x.dtype, numbers.dtype) != ("float32", "int64") or cosines.shape != sines.shape:
            raise UnsupportedGraphError(f"got a RotaryEmbedding of {x.dtype} at {numbers.dtype}")
        to = self._made(node.outputs[0], x.dtype, x.shape)
        self._emit("rotate", math.prod(x.shape[:-1]), x.shape[-1], to, x, numbers, cosines, sines)

    def _windowed_attention(self, group: Group) -> None:
        names = ("query", "past_key", "new_key", "past_value", "new_value")
        views = [self._view(group.tensors[name]) for name in names]
        query, bias = views[0], self._dense_floats(group.tensors["bias"])
        queries, batch, heads, size = query.shape
        segments = []
        for key, value in ((views[1], views[2 + 1]), (views[2], views[4])):
            if key.shape != value.shape or key.strides != value.strides or key.shape[1:] != (1, heads, size):
                raise UnsupportedGraphError(f"got keys {list(key.shape)} and values {list(value.shape)}")
            segments += [key, value, key.shape[0], key.strides[0], key.strides[2]]
        keys = sum(view.shape[0] for view in views[1:3])
        if batch != 1 or bias.shape != (1, 1, queries, keys) or any(view.strides[-1] != 1 for view in views):
            raise UnsupportedGraphError(f"got attention of {list(query.shape)} with a bias of {list(bias.shape)}")
        if any(view.dtype != "float32" for view in views):
            raise UnsupportedGraphError("got attention of other numbers than float32")
        mixed = replace(query, shape=(1, queries, heads, size))
        shape = self._new_shape(self._content.nodes[group.values["shaped"]], mixed)
        if math.prod(shape) != math.prod(mixed.shape):
            raise UnsupportedGraphError(f"got attention of {list(query.shape)} as {list(shape)}")
        to = self._made(group.output, "float32", shape)
        scores = self._scratch_view("float32", [2 * _QUERIES * keys])
        self._emit(
            "attention",
            *(heads, queries, size, _bits(group.values["factor"])),
            *(to, heads * size, size),
            *(query, query.strides[0], query.strides[2]),
            *(bias, scores, 2),
            *segments,
            macs=2 * heads * queries * size * keys,
        )

    def _cross_attention(self, node: GraphNode) -> None:
        query = self._dense_floats(node.inputs[0])
        key, value = (self._any_view(name) for name in node.inputs[1:3])
        heads = node.attributes["num_heads"]
        _, queries, width = query.shape
        size, rows = width // heads, key.shape[2]
        bias = self._any_view(node.inputs[5]) if len(node.inputs) > 5 and node.inputs[5] else None
        others = [name for i, name in enumerate(node.inputs) if i in (3, 4) or i > 5]
        factor = node.attributes.get("scale", 0.0) or 1 / math.sqrt(size)
        if any(others) or query.shape[0] != 1 or (key.shape[:2], key.shape[3]) != ((1, heads), size):
            raise UnsupportedGraphError(f"got a MultiHeadAttention of {list(query.shape)} over {list(key.shape)}")
        if key.shape != value.shape or (bias is not None and bias.shape != (1, 1, queries, rows)):
            raise UnsupportedGraphError(f"got a MultiHeadAttention over {list(key.shape)} and {list(value.shape)}")
        views = [view for view in (key, value, bias) if view is not None]
        if any(view.dtype != "float32" for view in views) or width % heads:
            raise UnsupportedGraphError(f"got a MultiHeadAttention of {width} in {heads} heads, or not of float32")
        most, number = rows, rows
        if not isinstance(rows, int):
            # Strides of what varies are not known: only the caller's own memory is as it is taken to be.
            if any(view.buffer.root < FIRST_OWN or view.strides != _dense(view.shape) for view in views):
                raise UnsupportedGraphError(f"got a MultiHeadAttention over {list(key.shape)}, which is not an input")
            if rows not in self._most:
                raise UnsupportedGraphError(f"got the size {rows!r}, which nothing limits")
            if rows not in self._varying:
                self._varying.append(rows)
            most, number = self._most[rows], -1 - self._varying.index(rows)
        else:
            key, value = self._dense_floats(node.inputs[1]), self._dense_floats(node.inputs[2])
            bias = bias and self._as_dense(bias)
        to = self._made(node.outputs[0], "float32", query.shape)
        scores = self._scratch_view("float32", [2 * _QUERIES * most])
        self._emit(
            "attention",
            *(heads, queries, size, _bits(factor)),
            *(to, width, size),
            *(query, width, size),
            *(bias, scores, 1),
            *(key, value, number, size, -1),
            macs=2 * queries * width * (rows if isinstance(rows, int) else 1),
            varying=None if isinstance(rows, int) else rows,
        )

    # Where everything lies.

    def _placed_constants(self) -> NDArray[np.uint8]:
        """One block of all constants, in the order in which they are read."""
        used = sorted((pair for pair in self._constants if pair[0].first >= 0), key=lambda pair: pair[0].first)
        end = 0
        for buffer, array in used:
            buffer.offset = end
            end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        block = aligned(end)
        for buffer, array in used:
            block[buffer.offset : buffer.offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        return block

    def _placed_scratch(self) -> int:
        """Places such that what is needed at once does not overlap, the first that fits. returns: bytes of all"""
        placed: list[Buffer] = []
        for buffer in sorted((one for one in self._scratch if one.first >= 0), key=lambda one: one.first):
            alive = sorted((one for one in placed if one.last >= buffer.first), key=lambda one: one.offset)
            offset = 0
            for one in alive:
                if offset + buffer.size_bytes <= one.offset:
                    break
                offset = max(offset, -(-(one.offset + one.size_bytes) // _ALIGNMENT) * _ALIGNMENT)
            buffer.offset = offset
            placed.append(buffer)
        return max((one.offset + one.size_bytes for one in placed), default=0)

    def _words(self) -> NDArray[np.int64]:
        words: list[int] = []
        for instruction in self._instructions:
            words += [_OPERATORS.index(instruction.operator), len(instruction.arguments)]
            words += [_word(argument) for argument in instruction.arguments]
        return np.array(words, np.int64)


def _word(argument: int | View | Buffer | None) -> int:
    if isinstance(argument, View):
        return (argument.buffer.root << 32) + argument.buffer.offset + argument.offset
    if isinstance(argument, Buffer):
        return (argument.root << 32) + argument.offset
    return _NOTHING if argument is None else int(argument)


def _row(values: NDArray[Any], n: int) -> NDArray[Any]:
    """One number for each column. errors: UnsupportedGraphError where they differ between rows, or add some"""
    if values.dtype != np.float32 or values.size not in (1, n) or (values.ndim > 1 and values.size != values.shape[-1]):
        raise UnsupportedGraphError(f"got {values.dtype} {list(values.shape)} for {n} columns")
    return np.broadcast_to(values.reshape(-1), n)


def _of_panels(values: NDArray[Any]) -> NDArray[np.float32]:
    """With zeros up to a whole panel."""
    whole = np.zeros(-(-len(values) // _PANEL) * _PANEL, np.float32)
    whole[: len(values)] = values
    return whole


def aligned(size: int) -> NDArray[np.uint8]:
    """Bytes that begin at a line of the cache."""
    block = np.zeros(size + _ALIGNMENT, np.uint8)
    first = -block.ctypes.data % _ALIGNMENT
    return block[first : first + size]
