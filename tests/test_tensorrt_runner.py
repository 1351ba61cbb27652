import ctypes
import gc
import hashlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeasr.audio import FileSource
from edgeasr.backends import cuda_runtime, load_graph
from edgeasr.backends.engine_cache import engine_folder
from edgeasr.bundle import replace_in_bundle
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.errors import AcceleratorError, ExtraMissingError
from edgeasr.model import AcousticModel
from edgeasr.profile.onnx_writer import Node, Value, serialised
from edgeasr.recognizer import Recognizer

imitated = SimpleNamespace(**run_path(str(Path(__file__).with_name("imitated_gpu.py"))))
toolchain = SimpleNamespace(**run_path(str(Path(__file__).with_name("toolchain.py"))))
edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]

pytestmark = pytest.mark.skipif(bool(toolchain.missing("gcc")), reason=str(toolchain.missing("gcc")))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return imitated.build_library(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def gpu(library, monkeypatch, tmp_path):
    """A machine with an imitated GPU, TensorRT 10.3 and an empty cache. live, taken: what is in use, was ever taken"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda_runtime, "find_library", lambda name: str(library))
    monkeypatch.setitem(sys.modules, "tensorrt", imitated.imitated_tensorrt(library))
    found = ctypes.CDLL(str(library))
    gc.collect()
    before = found.imitated_live()
    return SimpleNamespace(
        live=lambda: found.imitated_live() - before, taken=found.imitated_allocations, fail=found.imitated_fail
    )


def built(model: bytes, engine: bytes | None = None, **record) -> Path:
    """Put an engine where build_engine.sh puts it; `record` is said of it instead of the truth."""
    sha256 = hashlib.sha256(model).hexdigest()
    engine = imitated.engine_of(model) if engine is None else engine
    engine_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    path = engine_folder() / f"{sha256}.engine"
    path.write_bytes(engine)
    truth = {
        "onnx_sha256": sha256,
        "engine_sha256": hashlib.sha256(engine).hexdigest(),
        "tensorrt": imitated.VERSION,
        "compute_capability": imitated.CAPABILITY,
    }
    path.with_suffix(".json").write_text(json.dumps(truth | record))
    for one in (path, path.with_suffix(".json")):
        one.chmod(0o600)
    return path


def accumulator(size=4) -> bytes:
    """next_state.sum = x + state.sum; next_state.count = state.count, in 64 bits."""
    nodes = [
        Node("Add", ["x", "state.sum"], ["next_state.sum"]),
        Node("Identity", ["state.count"], ["next_state.count"]),
    ]
    inputs = [Value("x", [1, size]), Value("state.sum", [1, size]), Value("state.count", [1], "int64")]
    outputs = [Value("next_state.sum", [1, size]), Value("next_state.count", [1], "int64")]
    return serialised(nodes, inputs, outputs, {})


def feed(x, state, count=0):
    full = [np.full((1, 4), value, np.float32) for value in (x, state)]
    return {"x": full[0], "state.sum": full[1], "state.count": np.array([count]), "unread": np.zeros(9)}


def loaded(model):
    return load_graph("tensorrt", model, threads=1)


@pytest.mark.parametrize("narrows", [False, True], ids=["10", "8.5"])
def test_a_graph_has_the_names_and_types_of_its_onnx_file_and_computes_what_that_does(gpu, narrows):
    model = accumulator()
    built(model, imitated.engine_of(model, narrows=narrows))
    graph = loaded(model)
    row, count = TensorSpec((1, 4), "float32"), TensorSpec((1,), "int64")
    assert graph.inputs == {"x": row, "state.sum": row, "state.count": count}
    assert graph.outputs == {"next_state.sum": row, "next_state.count": count}
    first = graph.run(feed(1, 10, count=-1))
    second = graph.run(feed(2, 20, count=2**31 - 1))
    assert first["next_state.sum"].tolist() == [[11] * 4]
    assert second["next_state.sum"].tolist() == [[22] * 4]
    assert [out["next_state.count"].tolist() for out in (first, second)] == [[-1], [2**31 - 1]]
    assert first["next_state.count"].dtype == np.int64


def test_memory_on_the_device_is_taken_once_and_given_back(gpu):
    model = accumulator()
    built(model)
    before = gpu.taken()
    graph = loaded(model)
    tensors_and_stream = 5 + 1
    assert gpu.live() == tensors_and_stream
    for k in range(20):
        graph.run(feed(k, 1))
    assert (gpu.live(), gpu.taken() - before) == (tensors_and_stream, 5)
    del graph
    gc.collect()
    assert gpu.live() == 0


def test_streams_in_threads_share_a_graph(gpu):
    model = accumulator()
    built(model)
    graph = loaded(model)

    def run(k):
        state = np.zeros((1, 4), np.float32)
        for _ in range(50):
            state = graph.run(feed(k, 0) | {"state.sum": state})["next_state.sum"]
        return state.tolist()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(run, range(8))) == [[[50.0 * k] * 4] for k in range(8)]


def test_an_input_in_another_layout_is_read_too(gpu):
    model = accumulator()
    built(model)
    wide = np.arange(8, dtype=np.float32)[None]
    outputs = loaded(model).run(feed(0, 1) | {"x": wide[:, ::2]})
    assert outputs["next_state.sum"].tolist() == [[1, 3, 5, 7]]


@pytest.mark.parametrize("x", [np.zeros((1, 3), np.float32), np.zeros((1, 4))], ids=["size", "type"])
def test_an_input_that_does_not_fit_is_refused(gpu, x):
    model = accumulator()
    built(model)
    graph = loaded(model)
    with pytest.raises(AcceleratorError, match=r"got x as float\d\d \[1, \d\], wanted float32 \[1, 4\]"):
        graph.run(feed(0, 0) | {"x": x})
    assert graph.run(feed(1, 2))["next_state.sum"].tolist() == [[3] * 4]


def test_what_32_bits_do_not_hold_is_refused(gpu):
    model = accumulator()
    built(model, imitated.engine_of(model, narrows=True))
    with pytest.raises(AcceleratorError, match=r"state\.count is beyond the 32 bits"):
        loaded(model).run(feed(0, 0, count=2**31))


# What is no engine for this graph, here


def test_without_an_engine_the_script_that_builds_it_is_named(gpu, tmp_path):
    (tmp_path / "step.onnx").write_bytes(accumulator())
    with pytest.raises(AcceleratorError, match=r"no engine of step\.onnx .*: build it .* build_engine\.sh of "):
        loaded(tmp_path / "step.onnx")
    with pytest.raises(AcceleratorError, match=r"no engine of the graph .* build_engine"):
        loaded(accumulator())


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tensorrt": "8.5.2"}, r"is for TensorRT 8\.5\.2, here is 10\.3\.0: remove it and run build_engine\.sh"),
        ({"compute_capability": "7.2"}, r"is for a GPU of compute capability 7\.2, here is 8\.7: remove it"),
        ({"onnx_sha256": "0" * 64}, r"was made of a graph with SHA-256 000000000000…, wanted [0-9a-f]{12}…"),
        ({"engine_sha256": "0" * 64}, "is not what was built, by its record"),
        ({"tensorrt": "ten"}, "has 'ten' for tensorrt"),
        ({"compute_capability": 87}, "has 87 for compute_capability"),
        ({"more": ""}, "is no record of an engine"),
    ],
)
def test_what_the_record_says_is_held_against_what_is_here(gpu, record, message):
    built(accumulator(), **record)
    with pytest.raises(AcceleratorError, match=message):
        loaded(accumulator())


def test_what_trtexec_did_not_say_is_not_held_against_an_engine(gpu):
    built(accumulator(), tensorrt="", compute_capability="")
    assert loaded(accumulator()).run(feed(1, 2))["next_state.sum"].tolist() == [[3] * 4]


def test_a_record_that_is_cut_is_refused(gpu):
    built(accumulator()).with_suffix(".json").write_text("{")
    with pytest.raises(AcceleratorError, match="is no JSON"):
        loaded(accumulator())


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (b"", r"Error Code 1: magic tag\)"),
        (imitated.engine_of(accumulator(), version="10.4.0"), r"not compatible with this version\)"),
    ],
    ids=["empty", "another release"],
)
def test_what_tensorrt_cannot_load_is_told_with_its_reason(gpu, engine, why):
    built(accumulator(), engine)
    with pytest.raises(AcceleratorError, match=rf"TensorRT 10\.3\.0 cannot load .*{why}: remove it and build it again"):
        loaded(accumulator())
    assert gpu.live() == 0


def test_an_engine_of_another_graph_under_this_name_is_refused(gpu):
    built(accumulator(), imitated.engine_of(accumulator(size=5)))
    message = r"has an output of float32 \[1, 5\] for 'next_state\.sum', its graph an output of float32 \[1, 4\]"
    with pytest.raises(AcceleratorError, match=message):
        loaded(accumulator())


@pytest.mark.parametrize("which", ["folder", "engine", "record"])
def test_what_others_can_write_to_is_not_run(gpu, which):
    path = built(accumulator())
    {"folder": path.parent, "engine": path, "record": path.with_suffix(".json")}[which].chmod(0o722)
    with pytest.raises(AcceleratorError, match="others can write to it, and what is in it is run"):
        loaded(accumulator())


# A machine that lacks something


def test_without_tensorrt_it_is_named(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ExtraMissingError, match=r"TensorRT's package is not there for this Python .*docs/jetson\.md"):
        loaded(accumulator())


def test_a_release_that_does_not_know_tensors_by_name_is_refused(gpu, monkeypatch):
    old = SimpleNamespace(__version__="8.2.1", ICudaEngine=object)
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(AcceleratorError, match=r"got TensorRT 8\.2\.1, wanted 8\.5 or newer"):
        loaded(accumulator())


def test_without_cuda_it_is_named(gpu, monkeypatch):
    monkeypatch.setattr(cuda_runtime, "find_library", lambda name: None)
    monkeypatch.setattr(cuda_runtime, "_NAMES", ("libcudart.so.none",))
    with pytest.raises(AcceleratorError, match=r"got no libcudart\.so, wanted the CUDA runtime of JetPack: apt"):
        loaded(accumulator())


def test_a_gpu_that_fails_is_told_and_leaves_nothing_behind(gpu):
    built(accumulator())
    gpu.fail(2)
    with pytest.raises(AcceleratorError, match=r"CUDA's cudaDeviceGetAttribute fails \(out of memory\)"):
        loaded(accumulator())
    graph = loaded(accumulator())
    gpu.fail(719)
    with pytest.raises(AcceleratorError, match=r"CUDA's cudaMemcpyAsync fails \(unspecified launch failure\)"):
        graph.run(feed(0, 0))


# The whole chain


@pytest.fixture(scope="module")
def jetson_bundle(exported, tmp_path_factory):
    """A trained model as if exported for TensorRT: in graphs without ONNX Runtime's operators and windows."""
    graphs = {f"{part}.tensorrt.onnx": graph for part, graph in exported.onnx.items()}
    parts = {part: f"{part}.tensorrt.onnx" for part in exported.onnx}
    changes = {"artefacts": {"tensorrt-fp16": parts}, "default_artefact": "tensorrt-fp16"}
    return replace_in_bundle(exported.bundle.path, tmp_path_factory.mktemp("jetson") / "toy", changes, graphs)


def test_speech_is_heard_as_on_the_processor(gpu, jetson_bundle, exported):
    for path in jetson_bundle.artefact().values():
        built(path.read_bytes())
    heard = []
    for backend in ("tensorrt", "onnxruntime"):
        recognizer = Recognizer(jetson_bundle, backend=backend, decoder="greedy")
        assert (recognizer.model.backend, recognizer.model.artefact) == (backend, "tensorrt-fp16")
        with FileSource(exported.recording) as source:
            heard.append([(event.type, event.text) for event in recognizer.stream(source)])
    assert heard[0] == heard[1]
    assert heard[0][-1][0] == "final"
    assert heard[0][-1][1]


def test_the_command_line_says_in_one_line_what_is_missing(gpu, jetson_bundle, repository):
    clip = repository / "edgeasr" / "models" / "demo.flac"
    code, out, err = edgeasr("transcribe", clip, "--model", jetson_bundle.path, "--backend", "tensorrt", scripted=False)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("edgeasr: error: got no engine of step.tensorrt.onnx (SHA-256 ")
    with pytest.raises(AcceleratorError, match="no engine of step"):
        AcousticModel(jetson_bundle, backend="tensorrt")
