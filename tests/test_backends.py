# ruff: noqa: E402 - onnx is looked for before it is used
import logging
import subprocess
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the graphs are built with onnx, of the extra `train`")

from onnx import TensorProto, helper

from edgeasr.backends import load_graph
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import BundleError


def graph_bytes(shape=(2, 3)) -> bytes:
    """y = x + x, count = n."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Identity", ["n"], ["count"])],
        "double",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("n", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


@pytest.fixture(params=["bytes", "path"])
def graph(request, tmp_path):
    content = graph_bytes()
    if request.param == "path":
        (tmp_path / "step.onnx").write_bytes(content)
        return load_graph("onnxruntime", tmp_path / "step.onnx", threads=1)
    return load_graph("onnxruntime", content, threads=1)


def test_a_graph_says_what_it_reads_and_gives(graph):
    assert graph.inputs == {"x": TensorSpec((2, 3), "float32"), "n": TensorSpec((1,), "int64")}
    assert graph.outputs == {"y": TensorSpec((2, 3), "float32"), "count": TensorSpec((1,), "int64")}


def test_a_graph_is_run_by_names_and_ignores_what_it_does_not_read(graph):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = {"state.other": np.zeros(9), "n": np.array([7]), "x": x}
    outputs = graph.run(given)
    assert list(outputs) == ["y", "count"]
    np.testing.assert_array_equal(outputs["y"], 2 * x)
    assert outputs["count"].tolist() == [7]
    np.testing.assert_array_equal(given["x"], np.arange(6).reshape(2, 3))


def test_a_size_that_varies_is_no_number():
    varying = load_graph("onnxruntime", graph_bytes(("time", 3)), threads=1)
    assert varying.inputs["x"] == TensorSpec(("time", 3), "float32")


@pytest.mark.parametrize("content", [b"", b"no model", graph_bytes()[:-20]], ids=["empty", "text", "cut"])
def test_what_is_no_model_is_refused(content, tmp_path):
    with pytest.raises(BundleError, match=r"ONNX Runtime cannot load the model \(.*export the bundle again"):
        load_graph("onnxruntime", content, threads=1)
    path = tmp_path / "step.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"ONNX Runtime cannot load {path}"):
        load_graph("onnxruntime", path, threads=1)


def test_what_runs_seldom_keeps_no_memory_to_work_in():
    parts = {part: load_graph("onnxruntime", graph_bytes(), 1, part) for part in ("step", "memory")}
    kept = {part: graph._session.get_session_options().enable_cpu_mem_arena for part, graph in parts.items()}
    assert kept == {"step": True, "memory": False}


def test_an_unknown_backend_is_refused():
    with pytest.raises(BundleError, match="unknown backend 'tpu': known backends are native, onnxruntime"):
        load_graph("tpu", b"", threads=1)


def test_the_backends_import_no_runtime_before_a_graph_is_loaded():
    code = "import sys, edgeasr.backends; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_loading_says_nothing(caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        load_graph("onnxruntime", graph_bytes(), threads=2)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
