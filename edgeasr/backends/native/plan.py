"""From a graph of ONNX to a program of `kernels.c`: what runs in which order, on what, and where it lies.

Shapes are known beforehand, so nothing is decided while a program runs. What only looks at a tensor in another way
(transposes, slices, reshapes and the like) becomes strides; scratch memory is used again once nobody reads it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from edgeasr.backends.native import attention, elements, products, views
from edgeasr.backends.native.operators import check_operators
from edgeasr.backends.native.patterns import Group, grouped
from edgeasr.backends.native.program import FIRST_OWN, Builder, Layout, Plan
from edgeasr.backends.native.tensors import Buffer, View, dense_strides
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import UnsupportedGraphError
from edgeasr.onnx_reader import GraphNode, OnnxContent

# What writes the instructions of an operator of the graph, by its type; of several at once, by the kind of group.
_OF_NODES: Mapping[str, Callable[[Builder, GraphNode], None]] = {
    **dict.fromkeys(elements.BINARY, elements.binary),
    **dict.fromkeys(elements.UNARY, elements.unary),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Identity"), views.reshape),
    **dict.fromkeys(("ReduceSum", "ReduceMax"), elements.reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), elements.softmax),
    **dict.fromkeys(("MatMul", "FusedMatMul"), products.product),
    "Transpose": views.transpose,
    "Slice": views.cut_out,
    "Split": views.split,
    "Gather": views.gather,
    "GatherElements": elements.gather,
    "Expand": views.expand,
    "Concat": views.concat,
    "Pad": views.pad,
    "Where": elements.where,
    "LayerNormalization": elements.layer_norm,
    "Conv": products.convolution,
    "RotaryEmbedding": attention.rotate,
    "MultiHeadAttention": attention.cross_attention,
}
_OF_GROUPS: Mapping[str, Callable[[Builder, Group], None]] = {
    "linear": products.linear,
    "attention": attention.windowed_attention,
    "depthwise": products.depthwise,
    "gate": elements.gate,
    "convolution": products.convolution_with_silu,
}


def planned(
    content: OnnxContent, constants: Mapping[str, NDArray[Any]], layout: Layout, most: Mapping[str, int] | None = None
) -> Plan:
    """A program for a graph.

    most:   the largest values of sizes that vary, by their names
    errors: UnsupportedGraphError for what `kernels.c` cannot do
    """
    check_operators(content)
    try:
        return _planned(content, Builder(content, constants, layout, most or {}))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Of a graph that is not as its operators want it; whoever knows more of them may say what is wrong.
        raise UnsupportedGraphError(f"got a graph that the native backend cannot plan ({error!r})") from error


def _planned(content: OnnxContent, b: Builder) -> Plan:
    names = content.inputs
    if overridden := sorted(b.arrays.keys() & set(names)):
        raise UnsupportedGraphError(f"got the inputs {', '.join(overridden)}, which are constants as well")
    for root, name in enumerate(names, start=FIRST_OWN):
        spec = content.specs[name]
        b.views[name] = View(Buffer(root, 0), spec.dtype, tuple(spec.shape), dense_strides(spec.shape))
    b.outputs = {name: Buffer(0, 0) for name in content.outputs}
    _write(content, b)
    outputs = {name: b.given(name) for name in (*content.outputs, *b.extra)}
    for root, name in enumerate(outputs, start=FIRST_OWN + len(names)):
        b.outputs[name].root = root
    # The words say where everything lies, so they come last.
    constants, scratch_bytes = b.placed_constants(), b.placed_scratch()
    return Plan(
        b.words(),
        tuple(b.instructions),
        constants,
        scratch_bytes,
        roots=(*names, *outputs),
        varying=tuple(b.varying),
        outputs={name: TensorSpec(view.shape, view.dtype) for name, view in outputs.items()},
        cuts=b.cuts,
        content=content,
    )


def _write(content: OnnxContent, b: Builder) -> None:
    """The instructions of all operators; a group's where the last of its nodes stands."""
    groups = grouped(content, b.arrays)
    ending = {max(group.nodes): group for group in groups}
    done = {number for group in groups for number in group.nodes}
    for number, node in enumerate(content.nodes):
        if (group := ending.get(number)) is not None:
            b.nodes = group.nodes
            _OF_GROUPS[group.kind](b, group)
        elif number not in done:
            b.nodes = (number,)
            write = _OF_NODES.get(node.op_type)
            if write is None:
                raise UnsupportedGraphError(f"got the operator {node.op_type} where the native backend has it not")
            write(b, node)
