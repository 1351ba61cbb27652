"""The shipped model on the native backend: what ONNX Runtime makes of it, and when that runs in its place."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.backends.native import kernels as native_kernels_module
from edgeasr.backends.native.graph import NativeGraph
from edgeasr.bundle import Bundle, default_bundle, replace_in_bundle
from edgeasr.errors import BundleError, ConfigError, NativeCodeError, UnsupportedGraphError
from edgeasr.features import log_mel
from edgeasr.model import STEP, AcousticModel
from edgeasr.recognizer import Recognizer
from edgeasr.recording import DEMO_RECORDING, read_recording
from edgeasr.transcript import Final

FORMS, library_of, needs_compiler = (
    run_path(str(Path(__file__).with_name("native_graphs.py")))[name]
    for name in ("FORMS", "library_of", "needs_compiler")
)
CHUNKS = 250  # 40 s: the memory is written four times


@pytest.fixture(scope="module")
def bundle():
    return Bundle.load(default_bundle())


@pytest.fixture(scope="module")
def chunks(bundle):
    """The bundled clip again and again: (CHUNKS, chunk_features, num_mels)."""
    rate, size = bundle.config.features.sample_rate_hz, bundle.config.encoder.chunk_features
    features = log_mel(read_recording(DEMO_RECORDING, rate), bundle.config.features)
    return np.resize(features, (CHUNKS * size, features.shape[1])).reshape(CHUNKS, size, -1)


@pytest.fixture(scope="module")
def reference(bundle):
    return AcousticModel(bundle, backend="onnxruntime")


@pytest.fixture(scope="module")
def native(bundle):
    return AcousticModel(bundle, backend="native")


def with_library(model, form):
    """The model with its graphs in another form of the library."""
    files = model._bundle.artefact(model.artefact)
    other = model.variant(threads=1, chunk_ms=model.config.chunk_ms)
    other._step = NativeGraph(files["step"], library=library_of(form))
    other._memory = NativeGraph(files["memory"], library=library_of(form))
    return other


def heard(model, chunks, state=None):
    """Log-probabilities of tokens of each chunk, and the last state."""
    state, found = state or model.init_state(), []
    for chunk in chunks:
        emissions, state = model.step(chunk, state)
        found.append(emissions.tokens)
    return np.stack(found), state


@needs_compiler
@pytest.mark.parametrize("form", FORMS)
def test_each_step_is_that_of_onnxruntime(reference, native, chunks, form):
    """From one state. What is computed in another order moves last bits, and these now and then an integer to the next.

    In most chunks none: there the bits are all that differs. One head less in one attention moves them by 0.2.
    """
    model, state, differences = with_library(native, form), reference.init_state(), []
    for chunk in chunks:
        wanted, next_state = reference.step(chunk, state)
        found, own_state = model.step(chunk, state)
        differences.append(np.abs(found.tokens - wanted.tokens).max())
        assert np.array_equal(found.tokens.argmax(-1), wanted.tokens.argmax(-1))
        for name, array in next_state.items():
            if array.dtype == np.int64:
                np.testing.assert_array_equal(own_state[name], array)
        state = next_state
    assert state["state.bank.0.number"].max() > 3
    assert np.median(differences) < 1e-4
    assert max(differences) < 0.5


@needs_compiler
def test_a_stream_is_that_of_onnxruntime(reference, native, chunks):
    """With states of their own the roundings add up, to about 0.3; a tap that is missing makes 3."""
    chunks = chunks[:120]  # later the clip is summed up again, and which of two such is more like a third is chance
    (found, state), (wanted, wanted_state) = heard(native, chunks), heard(reference, chunks)
    assert (found.argmax(-1) == wanted.argmax(-1)).mean() > 0.99
    assert np.abs(found - wanted).max() < 1
    assert np.abs(np.exp(found) - np.exp(wanted)).max() < 0.1
    for name, array in wanted_state.items():
        if array.dtype == np.int64:
            np.testing.assert_array_equal(state[name], array)


@needs_compiler
@pytest.mark.parametrize("decoder", ["greedy", "lm"])
def test_the_words_are_those_of_onnxruntime(reference, native, decoder):
    def words(model):
        recognizer = Recognizer(model, decoder=decoder)
        recognizer.accept_waveform(read_recording(DEMO_RECORDING, 16_000), 16_000)
        recognizer.input_finished()
        events = []
        while recognizer.is_ready():
            events += recognizer.step()
        return [event.text for event in events if isinstance(event, Final)]

    assert words(native) == words(reference) != []


@needs_compiler
def test_a_state_that_is_stepped_twice_gives_the_same_twice(native, chunks):
    _, state = heard(native, chunks[:40])
    first, first_state = heard(native, chunks[40:60], state)
    again, again_state = heard(native, chunks[40:60], state)
    np.testing.assert_array_equal(first, again)
    for name, array in first_state.items():
        np.testing.assert_array_equal(array, again_state[name])


@needs_compiler
def test_threads_that_share_a_model_hear_what_one_hears(native, chunks):
    streams = [np.roll(chunks, 7 * i, axis=0)[:60] for i in range(4)]
    wanted = [heard(native, stream) for stream in streams]
    with ThreadPoolExecutor(len(streams)) as threads:
        for _ in range(2):
            for (found, state), (alone, state_alone) in zip(
                threads.map(lambda stream: heard(native, stream), streams), wanted, strict=True
            ):
                np.testing.assert_array_equal(found, alone)
                for name, array in state_alone.items():
                    np.testing.assert_array_equal(state[name], array)


@needs_compiler
def test_it_is_taken_where_nothing_else_is_asked_for(bundle):
    assert AcousticModel(bundle).backend == "native"
    assert AcousticModel(bundle, backend="onnx-int8").backend == "onnxruntime"
    assert AcousticModel(bundle, backend="onnxruntime").backend == "onnxruntime"
    assert AcousticModel(bundle, threads=2).backend == "onnxruntime"


@needs_compiler
def test_more_threads_are_for_onnxruntime_unless_it_is_asked_for(bundle, native, chunks):
    usual = AcousticModel(bundle)
    _, state = heard(usual, chunks[:10])
    on_two = usual.variant(threads=2, chunk_ms=usual.config.chunk_ms)
    assert (on_two.backend, on_two.threads) == ("onnxruntime", 2)
    found, _ = heard(on_two, chunks[10:20], state)
    wanted, _ = heard(usual, chunks[10:20], state)
    assert np.abs(found - wanted).max() < 1
    back = on_two.variant(threads=1, chunk_ms=usual.config.chunk_ms)
    assert (back.backend, back.threads) == ("native", 1)
    with pytest.raises(ConfigError, match="got 2 threads for the native backend"):
        native.variant(threads=2, chunk_ms=native.config.chunk_ms)
    with pytest.raises(ConfigError, match=r"got 2 threads for the native backend.*take onnxruntime"):
        AcousticModel(bundle, backend="native", threads=2)


@pytest.fixture
def other_library(monkeypatch, tmp_path):
    """The library of the process is looked for again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native_kernels_module.native_library.cache_clear()
    yield tmp_path
    native_kernels_module.native_library.cache_clear()


def without_compiler(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    return r"found no C compiler .*: apt-get install gcc libc6-dev"


def with_a_broken_one(folder, monkeypatch):
    compiler = folder / "cc"
    compiler.write_text("#!/bin/sh\necho 'no headers' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    return r"cannot compile kernels.c \(no headers\): apt-get install gcc libc6-dev"


@pytest.mark.parametrize("missing", [without_compiler, with_a_broken_one])
def test_without_a_compiler_onnxruntime_hears_instead(bundle, chunks, other_library, monkeypatch, missing):
    message = missing(other_library, monkeypatch)
    model = AcousticModel(bundle)
    assert model.backend == "onnxruntime"
    assert np.isfinite(heard(model, chunks[:2])[0]).all()
    with pytest.raises(NativeCodeError, match=message):
        AcousticModel(bundle, backend="native")


@pytest.fixture
def changed(tmp_path):
    """The shipped bundle with another step; `change` gets it as a model of the package `onnx`."""
    onnx = pytest.importorskip("onnx", reason="graphs are changed with onnx, of the extra `train`")

    def write(change):
        shipped = Bundle.load(default_bundle())
        graph = onnx.load(shipped.artefact("onnx-int8")[STEP])
        change(graph)
        files = {shipped.artefacts["onnx-int8"][STEP]: graph.SerializeToString()}
        return Bundle.load(replace_in_bundle(default_bundle(), tmp_path / "changed", {}, files).path)

    return write


def with_softplus(graph):
    """An operator that is not known before the last one."""
    from onnx import helper

    last = next(node for node in graph.graph.node if node.op_type == "LogSoftmax")
    name, last.output[0] = last.output[0], "before"
    graph.graph.node.append(helper.make_node("Softplus", ["before"], ["behind"]))
    graph.graph.node.append(helper.make_node("LogSoftmax", ["behind"], [name], axis=-1))


@needs_compiler
def test_a_graph_with_an_operator_that_is_not_known_is_for_onnxruntime(changed, chunks):
    bundle = changed(with_softplus)
    model = AcousticModel(bundle)
    assert model.backend == "onnxruntime"
    assert np.isfinite(heard(model, chunks[:2])[0]).all()
    with pytest.raises(UnsupportedGraphError, match="got the operator Softplus, which the native backend has not"):
        AcousticModel(bundle, backend="native")


@needs_compiler
def test_a_damaged_file_is_no_reason_to_fall_back(changed):
    def cut(graph):
        constant = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
        constant.raw_data = constant.raw_data[:-1]

    bundle = changed(cut)
    for backend in (None, "native"):
        with pytest.raises(BundleError, match=r"constant .* is damaged .*: export the bundle again"):
            AcousticModel(bundle, backend=backend)


@needs_compiler
@pytest.mark.parametrize("content", [b"", b"no model at all", b"\xff" * 64])
def test_a_file_that_is_no_model(tmp_path, content):
    (tmp_path / "step.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"got .*step.onnx.* wanted an ONNX model"):
        NativeGraph(tmp_path / "step.onnx")
