"""Which uses of operators the native backend has: whatever an attribute changes is known here, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeasr.errors import UnsupportedGraphError
from edgeasr.onnx_reader import GraphNode, OnnxContent

_STANDARD, _MICROSOFT = "", "com.microsoft"
# Between these the operators below mean the same; older ones have, say, axes in attributes and not in inputs.
_OPSETS = range(18, 23)

# What an attribute may be: anything, which is looked at where it counts; or one value that means nothing special.
_Check = Callable[[Any], bool]


def _any(value: Any) -> bool:
    del value
    return True


def _only(*wanted: Any) -> _Check:
    return lambda value: value in wanted


_SWITCHES = dict.fromkeys(("transA", "transB", "transBatchA", "transBatchB"), _any)
_KNOWN: Mapping[str, tuple[str, Mapping[str, _Check]]] = {
    **dict.fromkeys(
        ("Add", "Sub", "Mul", "Div", "Greater", "GreaterOrEqual", "Less", "Equal", "And", "Max", "Where"),
        (_STANDARD, {}),
    ),
    **dict.fromkeys(("Exp", "Log", "Sigmoid", "Cos", "Sin", "Clip", "Tanh", "Neg", "Floor", "Not"), (_STANDARD, {})),
    **dict.fromkeys(("Identity", "Squeeze", "Unsqueeze", "Slice", "Expand"), (_STANDARD, {})),
    **dict.fromkeys(("DynamicQuantizeLinear", "MatMulInteger", "MatMul"), (_STANDARD, {})),
    **dict.fromkeys(("ReduceSum", "ReduceMax"), (_STANDARD, {"keepdims": _any, "noop_with_empty_axes": _only(0)})),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Concat", "Gather", "GatherElements"), (_STANDARD, {"axis": _any})),
    "Mod": (_STANDARD, {"fmod": _any}),
    "Cast": (_STANDARD, {"to": _any, "saturate": _any}),  # the latter is for floats of 8 bits
    "Reshape": (_STANDARD, {"allowzero": _any}),
    "Transpose": (_STANDARD, {"perm": _any}),
    "Split": (_STANDARD, {"axis": _any, "num_outputs": _any}),
    "Pad": (_STANDARD, {"mode": _only(b"constant")}),
    "LayerNormalization": (_STANDARD, {"axis": _any, "epsilon": _any, "stash_type": _only(1)}),
    "Conv": (
        _STANDARD,
        {
            "auto_pad": _only(b"NOTSET", b""),
            "dilations": _any,
            "group": _only(1),
            "kernel_shape": _any,
            "pads": _any,
            "strides": _any,
        },
    ),
    "FusedMatMul": (_MICROSOFT, {"alpha": _any, **_SWITCHES}),
    "RotaryEmbedding": (
        _MICROSOFT,
        {
            **dict.fromkeys(("interleaved", "num_heads", "rotary_embedding_dim", "is_packed_batching"), _only(0)),
            "scale": _only(1.0),
        },
    ),
    "MultiHeadAttention": (
        _MICROSOFT,
        {"num_heads": _any, "scale": _any, "unidirectional": _only(0), "mask_filter_value": _any},  # without a mask
    ),
}


def check_operators(content: OnnxContent) -> None:
    """errors: UnsupportedGraphError for an operator, an attribute or a version that is not known"""
    opset = content.opsets.get(_STANDARD, content.opsets.get("ai.onnx"))
    if opset not in _OPSETS:
        raise UnsupportedGraphError(f"got opset {opset}, the native backend has {_OPSETS[0]} to {_OPSETS[-1]}")
    for node in content.nodes:
        _check(node)


def _check(node: GraphNode) -> None:
    domain, known = _KNOWN.get(node.op_type, ("", None))
    if known is None or domain != node.domain.replace("ai.onnx", _STANDARD):
        raise UnsupportedGraphError(f"got the operator {node.op_type}, which the native backend has not")
    for name, value in node.attributes.items():
        if name not in known or not known[name](value):
            raise UnsupportedGraphError(f"got {node.op_type} with {name} {value!r}, which the native backend has not")
