"""Programs of `kernels.c`, and what writes them, instruction by instruction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends.native.tensors import (
    ALIGNMENT,
    Buffer,
    View,
    aligned,
    are_known,
    dense_strides,
    merged,
    padded,
)
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import UnsupportedGraphError
from edgeasr.onnx_reader import OnnxContent

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
    "gather",
)
_NOTHING = -1

CONSTANTS, SCRATCH, FIRST_OWN = 0, 1, 2  # roots; inputs and outputs of the graph come behind these


class Layout(NamedTuple):
    """What the library says of itself. lanes: floats of a vector; channels: outputs of a tile of a convolution"""

    lanes: int
    channels: int
    eight_bits: bool  # whether products with weights of 8 bits are exact


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


class Builder:
    """A program as it grows.

    content, arrays: the graph, and what its constants hold
    most:     the largest values of sizes that vary
    views:    tensors that are there, by their names
    outputs:  where the caller wants what the graph gives
    cuts, extra, varying: as of Plan
    packed:   weights of products, by their names
    nodes:    numbers of those that are being done
    """

    def __init__(
        self, content: OnnxContent, constants: Mapping[str, NDArray[Any]], layout: Layout, most: Mapping[str, int]
    ) -> None:
        self.content, self.arrays, self.layout, self.most = content, constants, layout, most
        self.views: dict[str, View] = {}
        self.outputs: dict[str, Buffer] = {}
        self.packed: dict[str, tuple[View, View]] = {}
        self.cuts: dict[str, Cut] = {}
        self.extra: list[str] = []
        self.varying: list[str] = []
        self.nodes: tuple[int, ...] = ()
        self.instructions: list[Instruction] = []
        self._constants: list[tuple[Buffer, NDArray[Any]]] = []
        self._scratch: list[Buffer] = []

    def view(self, name: str) -> View:
        """What a node reads, of sizes that are known."""
        view = self.any_view(name)
        if not are_known(view.shape):
            raise UnsupportedGraphError(f"got {name!r} of {list(view.shape)}, wanted sizes that do not vary, 1 or more")
        return view

    def any_view(self, name: str) -> View:
        if name not in self.views:
            if name not in self.arrays:
                raise UnsupportedGraphError(f"got {name!r} where the native backend has only a part of it")
            self.views[name] = self.constant(self.arrays[name])
        return self.views[name]

    def constant(self, array: NDArray[Any]) -> View:
        buffer = Buffer(CONSTANTS, array.nbytes)
        self._constants.append((buffer, np.ascontiguousarray(array)))
        return View(buffer, array.dtype.name, array.shape, dense_strides(array.shape))

    def numbers(self, name: str) -> list[int]:
        """Of a constant that says how."""
        if name not in self.arrays:
            raise UnsupportedGraphError(f"got {name!r} that varies, wanted a constant")
        return [int(value) for value in self.arrays[name].reshape(-1)]

    def scratch_view(self, dtype: str, shape: Sequence[int]) -> View:
        buffer = Buffer(SCRATCH, math.prod(shape) * np.dtype(dtype).itemsize)
        self._scratch.append(buffer)
        return View(buffer, dtype, tuple(shape), dense_strides(shape))

    def made(self, name: str, dtype: str, shape: Sequence[int]) -> View:
        """Room for what a node makes: where the caller wants it, or in the scratch."""
        if not are_known(shape):
            raise UnsupportedGraphError(f"got {name!r} of {list(shape)}, wanted sizes that do not vary, 1 or more")
        if name in self.outputs:
            buffer = self.outputs[name]
            buffer.size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            view = View(buffer, dtype, tuple(shape), dense_strides(shape))
        else:
            view = self.scratch_view(dtype, shape)
        self.views[name] = view
        return view

    def named(self, name: str, view: View) -> None:
        """Another look at what is there; what the graph gives is copied to where the caller wants it."""
        if name in self.outputs:
            self.copy(self.made(name, view.dtype, view.shape), view)
        elif name:
            self.views[name] = view

    def given(self, name: str) -> View:
        view = self.views.get(name)
        if view is None or view.buffer is not self.outputs[name]:
            raise UnsupportedGraphError(f"got the output {name!r}, which nothing makes")
        if (spec := self.content.specs.get(name)) is not None:
            cut = self.cuts.get(name)
            said: list[Any] = list(spec.shape)  # names for sizes that vary
            if cut is not None:
                said[cut.axis] = view.shape[cut.axis]
            if spec.dtype != view.dtype or said != list(view.shape):
                raise UnsupportedGraphError(
                    f"got the output {name!r} of {view.dtype} {list(view.shape)}, the file says {spec.dtype} "
                    f"{list(spec.shape)}"
                )
        return view

    def emit(
        self, operator: str, *arguments: int | View | Buffer | None, macs: int = 0, varying: str | None = None
    ) -> None:
        number = len(self.instructions)
        for argument in arguments:
            buffer = argument.buffer if isinstance(argument, View) else argument
            if isinstance(buffer, Buffer):
                buffer.first = number if buffer.first < 0 else buffer.first
                buffer.last = number
        self.instructions.append(Instruction(operator, arguments, self.nodes, macs, varying))

    def copy(self, to: View, source: View) -> None:
        if to.shape != source.shape or to.dtype != source.dtype or to.item_bytes not in (1, 4, 8):
            raise UnsupportedGraphError(
                f"got {source.dtype} {list(source.shape)} where {to.dtype} {list(to.shape)} is wanted"
            )
        sizes, (to_strides, strides) = merged(to.shape, (to, source))
        self.emit(
            "copy",
            to.item_bytes,
            len(sizes),
            *padded(sizes),
            to,
            *padded(to_strides),
            source,
            *padded(strides),
        )

    def as_dense(self, view: View) -> View:
        if view.is_dense:
            return replace(view, strides=dense_strides(view.shape))
        made = self.scratch_view(view.dtype, view.shape)
        self.copy(made, view)
        return made

    def dense_floats(self, name: str) -> View:
        view = self.as_dense(self.view(name))
        if view.dtype != "float32":
            raise UnsupportedGraphError(f"got {name!r} of {view.dtype}, wanted float32")
        return view

    def placed_constants(self) -> NDArray[np.uint8]:
        """One block of all constants, in the order in which they are read."""
        used = sorted((pair for pair in self._constants if pair[0].first >= 0), key=lambda pair: pair[0].first)
        end = 0
        for buffer, array in used:
            buffer.offset = end
            end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        block = aligned(end)
        for buffer, array in used:
            block[buffer.offset : buffer.offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        return block

    def placed_scratch(self) -> int:
        """Places such that what is needed at once does not overlap, the first that fits. returns: bytes of all"""
        placed: list[Buffer] = []
        for buffer in sorted((one for one in self._scratch if one.first >= 0), key=lambda one: one.first):
            alive = sorted((one for one in placed if one.last >= buffer.first), key=lambda one: one.offset)
            offset = 0
            for one in alive:
                if offset + buffer.size_bytes <= one.offset:
                    break
                offset = max(offset, -(-(one.offset + one.size_bytes) // ALIGNMENT) * ALIGNMENT)
            buffer.offset = offset
            placed.append(buffer)
        return max((one.offset + one.size_bytes for one in placed), default=0)

    def words(self) -> NDArray[np.int64]:
        words: list[int] = []
        for instruction in self.instructions:
            words += [_OPERATORS.index(instruction.operator), len(instruction.arguments)]
            words += [_word(argument) for argument in instruction.arguments]
        return np.array(words, np.int64)


def _word(argument: int | View | Buffer | None) -> int:
    if isinstance(argument, View):
        return (argument.buffer.root << 32) + argument.buffer.offset + argument.offset
    if isinstance(argument, Buffer):
        return (argument.root << 32) + argument.offset
    return _NOTHING if argument is None else int(argument)
