from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from edgeasr.backends import load_graph
from edgeasr.backends.choice import backends_of, chosen_artefact
from edgeasr.backends.engine_cache import engine_folder, graph_sha256
from edgeasr.errors import AcceleratorError, BundleError, ConfigError, ExtraMissingError, ProfileError
from edgeasr.onnx_reader import read_onnx
from edgeasr.profile.model_profile import profile_model
from edgeasr.profile.onnx_writer import Node, Value, serialised

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


def doubling(constant=None) -> bytes:
    """y = x + x, and a constant that nothing but its type is of use of."""
    nodes = [Node("Add", ["x", "x"], ["y"])]
    return serialised(nodes, [Value("x", [2, 3])], [Value("y", [2, 3])], {} if constant is None else {"c": constant})


X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def asked(monkeypatch):
    """What sessions are asked for, where ONNX Runtime says that it has all providers; all of them run on the CPU.

    lost: providers that it then goes on without
    """
    found = SimpleNamespace(providers=[], lost=())
    real = onnxruntime.InferenceSession

    class Session:
        def __init__(self, source, options, providers):
            found.providers.append(providers)
            self.real = real(source, options, providers=[CPU])

        def get_providers(self):
            names = [one if isinstance(one, str) else one[0] for one in found.providers[-1]]
            return [name for name in names if name not in found.lost]

        def __getattr__(self, name):
            return getattr(self.real, name)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return found


@pytest.mark.parametrize(
    ("backend", "providers"), [("onnxruntime", [CPU]), ("onnxruntime-cuda", [CUDA, CPU])], ids=["cpu", "cuda"]
)
def test_a_backend_is_its_providers_and_the_processor_for_the_rest(asked, backend, providers):
    graph = load_graph(backend, doubling(), threads=1)
    assert asked.providers == [providers]
    np.testing.assert_array_equal(graph.run({"x": X, "unread": X})["y"], 2 * X)


@pytest.mark.parametrize(("constant", "fp16"), [(np.ones(2, np.float32), "0"), (np.ones(2, np.float16), "1")])
def test_engines_are_kept_by_the_hash_of_their_graph(asked, tmp_path, monkeypatch, constant, fp16):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = doubling(constant)
    graph = load_graph("onnxruntime-tensorrt", model, threads=1)
    np.testing.assert_array_equal(graph.run({"x": X})["y"], 2 * X)
    ((name, options), *rest) = asked.providers[0]
    assert (name, rest) == (TENSORRT, [CUDA, CPU])
    engines = tmp_path / "edgeasr" / "engines"
    assert options == {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines / f"{graph_sha256(model)}.ort"),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(engines),
        "trt_fp16_enable": fp16,
        "trt_int8_enable": "0",
    }
    assert Path(options["trt_engine_cache_path"]).stat().st_mode & 0o777 == 0o700
    (tmp_path / "step.onnx").write_bytes(model)
    load_graph("onnxruntime-tensorrt", tmp_path / "step.onnx", threads=1)
    assert asked.providers[1] == asked.providers[0]


def test_scales_in_a_graph_ask_for_int8(asked):
    nodes = [Node("QuantizeLinear", ["x", "s", "z"], ["q"]), Node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    constants = {"s": np.array(0.5, np.float32), "z": np.array(0, np.int8)}
    model = serialised(nodes, [Value("x", [2, 3])], [Value("y", [2, 3])], constants)
    load_graph("onnxruntime-tensorrt", model, threads=1)
    assert asked.providers[0][0][1]["trt_int8_enable"] == "1"


@pytest.mark.parametrize(("backend", "provider"), [("onnxruntime-cuda", CUDA), ("onnxruntime-tensorrt", TENSORRT)])
def test_a_provider_that_is_not_there_is_named(asked, monkeypatch, backend, provider):
    asked.lost = (provider,)
    with pytest.raises(ExtraMissingError, match=rf"no {provider} \(its libraries cannot be loaded\): put NVIDIA's"):
        load_graph(backend, doubling(), threads=1)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(ExtraMissingError, match=rf"no {provider} \(this build has CPUExecutionProvider\): put"):
        load_graph(backend, doubling(), threads=1)


def test_a_folder_of_engines_that_others_write_to_is_refused(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine_folder().mkdir(parents=True)
    engine_folder().chmod(0o777)
    with pytest.raises(AcceleratorError, match="others can write to it"):
        load_graph("onnxruntime-tensorrt", doubling(), threads=1)


def test_a_folder_that_cannot_be_made_is_named(asked, tmp_path, monkeypatch):
    (tmp_path / "edgeasr").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(AcceleratorError, match=r"engines cannot be made .*: set XDG_CACHE_HOME"):
        load_graph("onnxruntime-tensorrt", doubling(), threads=1)


def test_what_is_no_graph_is_refused_as_ever(asked):
    for backend in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        with pytest.raises(BundleError, match="export the bundle again"):
            load_graph(backend, b"no model", threads=1)


def test_sizes_and_types_are_read_from_a_file():
    specs = read_onnx(doubling()).specs
    runtime = load_graph("onnxruntime", doubling(), threads=1)
    assert specs == {**runtime.inputs, **runtime.outputs}


def bundle_of(*kinds):
    return SimpleNamespace(path="a", artefacts={kind: {} for kind in kinds}, default_artefact=kinds[0])


@pytest.mark.parametrize(
    ("kinds", "backend", "chosen"),
    [
        (("onnx-int8", "onnx-fp32"), None, ("onnx-int8", "onnxruntime")),
        (("onnx-int8", "onnx-fp32"), "onnxruntime", ("onnx-int8", "onnxruntime")),
        (("onnx-int8", "onnx-fp32"), "native", ("onnx-int8", "native")),
        (("onnx-fp32", "onnx-int8"), "native", ("onnx-int8", "native")),
        (("onnx-int8", "onnx-fp32"), "onnxruntime-cuda", ("onnx-fp32", "onnxruntime-cuda")),
        (("onnx-fp32", "tensorrt-fp16"), "onnxruntime-cuda", ("tensorrt-fp16", "onnxruntime-cuda")),
        (("onnx-fp32", "tensorrt-fp16"), "tensorrt", ("tensorrt-fp16", "tensorrt")),
        (("tensorrt-int8", "tensorrt-fp16"), "tensorrt", ("tensorrt-int8", "tensorrt")),
        (("tensorrt-int8", "tensorrt-fp16"), "tensorrt-fp16", ("tensorrt-fp16", "onnxruntime")),
        (("tensorrt-fp16",), None, ("tensorrt-fp16", "onnxruntime")),
    ],
)
def test_a_gpu_gets_what_was_made_for_it(kinds, backend, chosen):
    assert chosen_artefact(bundle_of(*kinds), backend) == chosen


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "tensorrt", "litert-int8"])
def test_what_no_artefact_is_for_is_refused(backend):
    message = f"has onnx-int8, which native, onnxruntime can run, and nothing for backend '{backend}'"
    with pytest.raises(BundleError, match=message):
        chosen_artefact(bundle_of("onnx-int8"), backend)


def test_a_backend_that_is_none_is_told_from_one_that_does_not_fit():
    message = r"got backend .tpu., wanted one of .*tflite, torch, or an artefact of the bundle: onnx-int8"
    with pytest.raises(ConfigError, match=message):
        chosen_artefact(bundle_of("onnx-int8"), "tpu")
    assert backends_of("other-fp32") == ()


def test_operators_are_counted_on_the_processor():
    model = SimpleNamespace(artefact="onnx-fp32", backend="onnxruntime-cuda")
    with pytest.raises(ProfileError, match="got backend onnxruntime-cuda, wanted native or onnxruntime"):
        profile_model(model, bundle_of("onnx-fp32"), Path("demo.flac"))
