"""The pool of the first summaries in half as many operators, where whole chunks make up a segment.

Then all of a chunk belongs to one segment, and what was summed up before it is one more vector, with its own weight.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir
from onnx_ir import tape

_POOL = "state.pool.0."


class _Pool(NamedTuple):
    """`edgeasr.hierarchy.SegmentPool.step` as torch exports it."""

    scores: Any  # (1, H, T)
    vectors: Any  # (1, H, T, D)
    lowest: Any
    stride: int
    count: Any  # vectors of a chunk


def align_pool(model: onnx_ir.Model) -> None:
    """Put the operators anew, unless a chunk may belong to two segments or there is no pool."""
    outputs = {value.name: i for i, value in enumerate(model.graph.outputs)}
    pool = _found({name: model.graph.outputs[i] for name, i in outputs.items()})
    if pool is None:
        return
    op = tape.Tape()
    for name, value in _built(op, pool, {value.name: value for value in model.graph.inputs}).items():
        before = model.graph.outputs[outputs[name]]
        value.shape, value.dtype = before.shape, before.dtype
        before.name, value.name = f"{name}.before", name
        model.graph.outputs[outputs[name]] = value
    model.graph.extend(op.nodes)
    model.graph.sort()


def _found(outputs: dict[str | None, Any]) -> _Pool | None:
    vector, filled = outputs.get("summary.vector"), outputs.get(f"next_{_POOL}filled")
    totals = _back(vector, ("Slice", 0), ("Reshape", 0), ("Transpose", 0), ("Div", 0), ("Add", 0))
    masked = _back(totals, ("MatMul", 0), ("Mul", 0), ("Exp", 0), ("Sub", 0))
    parts = [
        _back(masked, ("Where", 2), ("Unsqueeze", 0)),
        _back(totals, ("MatMul", 1)),
        _back(masked, ("Where", 1)),
        _back(filled, ("Sub", 1), ("Mul", 1)),
        _back(filled, ("Sub", 0), ("Add", 1)),
    ]
    if any(part is None for part in parts) or any(part.const_value is None for part in parts[2:]):
        return None
    scores, vectors, lowest, stride, count = parts
    size = int(stride.const_value.numpy())
    return None if size % int(count.const_value.numpy().item()) else _Pool(scores, vectors, lowest, size, count)


def _back(value: Any, *steps: tuple[str, int]) -> Any:
    """From a value to what it is made of: through an operator of each kind, to its input of that number; None else."""
    for kind, number in steps:
        node = None if value is None else value.producer()
        value = node.inputs[number] if node is not None and node.op_type == kind else None
    return value


def _built(op: Any, pool: _Pool, given: dict[str | None, Any]) -> dict[str, Any]:
    """Outputs of the graph by name."""

    def constant(values: Any, dtype: Any = np.int64) -> Any:
        return op.op("Constant", [], {"value": onnx_ir.tensor(np.array(values, dtype))})

    peak, weight, total, filled, number = (
        given[_POOL + name] for name in ("peak", "weight", "total", "filled", "number")
    )
    heads, head_dim = (int(size) for size in total.shape[1:])
    length = int(pool.count.const_value.numpy().item())
    last, ones = constant([2]), constant(np.ones((1, heads, length)), np.float32)
    all_scores = op.op("Concat", [op.op("Unsqueeze", [peak, last]), pool.scores], {"axis": 2})  # (1, H, 1 + T)
    highest = op.op("ReduceMax", [all_scores, last], {"keepdims": 1})
    weights = op.op("Exp", [op.op("Sub", [all_scores, highest])])
    masses = op.op("Concat", [op.op("Unsqueeze", [weight, last]), ones], {"axis": 2})
    mass = op.op("ReduceSum", [op.op("Mul", [weights, masses]), last], {"keepdims": 1})
    vectors = op.op("Concat", [op.op("Unsqueeze", [total, last]), pool.vectors], {"axis": 2})
    product = op.op("MatMul", [op.op("Unsqueeze", [weights, last]), vectors])
    summed = op.op("Squeeze", [product, last])  # (1, H, D)
    held = op.op("Add", [filled, pool.count])
    complete = op.op("GreaterOrEqual", [held, constant([pool.stride])])
    nothing = constant([0], np.float32)

    def unless_complete(empty: Any, value: Any) -> Any:
        return op.op("Where", [complete, empty, value])

    mean = op.op("Div", [summed, mass])
    return {
        "summary.vector": op.op("Reshape", [mean, constant([1, 1, heads * head_dim])]),
        "summary.number": op.op("Where", [complete, op.op("Unsqueeze", [number, constant([1])]), constant([-1])]),
        f"next_{_POOL}peak": unless_complete(pool.lowest, op.op("Squeeze", [highest, last])),
        f"next_{_POOL}weight": unless_complete(nothing, op.op("Squeeze", [mass, last])),
        f"next_{_POOL}total": unless_complete(nothing, summed),
        f"next_{_POOL}filled": unless_complete(constant([0]), held),
        f"next_{_POOL}number": op.op("Add", [number, op.op("Cast", [complete], {"to": 7})]),
    }
