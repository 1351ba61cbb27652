"""Short forms for rules of onnxscript's rewriter."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray
from onnxscript.rewriter import MatchResult


def as_array(value: Any) -> NDArray[Any]:
    """Of a constant."""
    found: NDArray[Any] = value.const_value.numpy()
    return found


def is_constant(value: Any) -> bool:
    """Whether the graph has it, not the caller."""
    return value.const_value is not None


def require(holds: bool, reason: str) -> MatchResult:
    """What a rule's `check` says."""
    result = MatchResult()
    return result if holds else result.fail(reason)


def constant(op: Any, values: Any) -> Any:
    """A tensor in the graph; whole numbers are int64, as shapes and axes are."""
    return op.Constant(value=onnx_ir.tensor(np.asarray(values)))
