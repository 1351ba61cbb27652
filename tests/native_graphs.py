"""Small graphs run by the native backend, in each form that its C has on this processor, and by ONNX Runtime."""

import platform
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgeasr.backends.native.kernels import NativeLibrary
from edgeasr.backends.native.session import NativeSession

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler: apt-get install gcc libc6-dev"
)


def _forms() -> dict[str, tuple[str, ...]]:
    """Flags by what they make of `kernels.c`: products with instructions for them or without, vectors of all widths."""
    forms = {"best": (), "portable": ("-DEDGEASR_PORTABLE",)}
    cpuinfo = Path("/proc/cpuinfo")
    features = cpuinfo.read_text() if platform.machine() == "x86_64" and cpuinfo.is_file() else ""
    if "avx512_vnni" in features:
        forms["avx512"] = ("-DEDGEASR_NO_VNNI",)
    if "avx512f" in features:
        forms["avx2"] = ("-mno-avx512f",)
    if "avx" in features:
        forms["narrow"] = ("-mno-avx",)
    return forms


FORMS = _forms()


@cache
def library_of(form: str) -> NativeLibrary:
    """The library in one of its forms."""
    return NativeLibrary(FORMS[form])


@pytest.fixture(params=FORMS)
def library(request) -> NativeLibrary:
    """Each form that this processor can run."""
    return library_of(request.param)


def node(op_type: str, inputs: str, outputs: str, **attributes):
    """An operator; names are parted by spaces, "-" for one that is left out."""
    from onnx import helper

    read, given = (["" if name == "-" else name for name in names.split()] for names in (inputs, outputs))
    fused = op_type in ("FusedMatMul", "RotaryEmbedding", "MultiHeadAttention")
    return helper.make_node(op_type, read, given, domain="com.microsoft" if fused else "", **attributes)


def model(
    nodes: Sequence,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray | None],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 18,
) -> bytes:
    """A graph. inputs, outputs: arrays as they are in it; None for an output that nobody knows yet"""
    from onnx import helper, numpy_helper

    def info(name, array):
        if array is None:
            return helper.make_empty_tensor_value_info(name)
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info(*item) for item in inputs.items()],
        [info(*item) for item in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def with_size(content: bytes, name: str, axis: int, size: str | int) -> bytes:
    """The same graph, whose input or output the file says to be of another size; a word for one that varies."""
    import onnx

    graph = onnx.load_from_string(content)
    for value in (*graph.graph.input, *graph.graph.output):
        if value.name == name:
            dim = value.type.tensor_type.shape.dim[axis]
            dim.Clear()
            setattr(dim, "dim_param" if isinstance(size, str) else "dim_value", size)
    return graph.SerializeToString()


def run_onnxruntime(content: bytes, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))


def both(
    library: NativeLibrary,
    nodes: Sequence,
    inputs: Mapping[str, np.ndarray],
    outputs: str,
    constants: Mapping[str, np.ndarray] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the native backend and ONNX Runtime give, output by output, of one type and shape."""
    names = outputs.split()
    wanted = run_onnxruntime(model(nodes, inputs, dict.fromkeys(names), constants), inputs)
    exact = model(nodes, inputs, dict(zip(names, wanted, strict=True)), constants)
    found = NativeSession(exact, library=library).run(None, inputs)
    assert [(one.dtype, one.shape) for one in found] == [(one.dtype, one.shape) for one in wanted]
    return list(zip(found, wanted, strict=True))


def planned_operators(content: bytes, library: NativeLibrary) -> list[str]:
    """Of kernels.c, in the order in which they run."""
    return [one.operator for one in NativeSession(content, library=library).plan.instructions]


def assert_same(library, nodes, inputs, outputs, constants=None):
    """Bit for bit."""
    for found, wanted in both(library, nodes, inputs, outputs, constants):
        np.testing.assert_array_equal(found, wanted)


def assert_close(library, nodes, inputs, outputs, constants=None, **tolerance):
    """But for the last bits of floats. tolerance: rtol, atol"""
    for found, wanted in both(library, nodes, inputs, outputs, constants):
        np.testing.assert_allclose(found, wanted, **{"rtol": 1e-5, "atol": 1e-6} | tolerance)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    """Of the standard normal distribution."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    """A row of int64."""
    return np.array(values, np.int64)
