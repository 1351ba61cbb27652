"""Models as they are exported, on the native backend."""

# ruff: noqa: E402 - torch is looked for before the modules that import it
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs the extra `train`")

from edgeasr.backends.native.session import NativeSession
from edgeasr.converters.export import export
from edgeasr.model import AcousticModel

pytestmark = run_path(str(Path(__file__).with_name("native_graphs.py")))["needs_compiler"]

CHUNKS = 110  # of 4 frames: 55 summaries of 8, of which the bank keeps 4


@pytest.fixture(scope="module")
def made(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chunks") / "toy-model"
    return export(
        exported.checkpoint, folder, ["onnx-int8"], exported.recording, chunk_lengths_ms=[320, 120, 80]
    ).bundle


@pytest.fixture(scope="module")
def features(exported):
    """(CHUNKS * chunk_features, num_mels) around the mean that the encoder expects."""
    config = exported.encoder.config
    shape = (CHUNKS * config.encoder.chunk_features, config.features.num_mels)
    return np.random.default_rng(0).normal(-8.0, 4.0, shape).astype(np.float32)


def test_the_steps_of_a_small_encoder_are_those_of_onnxruntime(made, features):
    """Sizes are no multiples of vectors here: 24 features, 2 heads of 12, 4 channels."""
    native, reference = (AcousticModel(made, backend=backend) for backend in ("native", "onnxruntime"))
    state, differences = reference.init_state(), []
    for chunk in np.split(features, CHUNKS):
        wanted, next_state = reference.step(chunk, state)
        found, own_state = native.step(chunk, state)
        differences.append(np.abs(found.tokens - wanted.tokens).max())
        assert own_state.keys() == next_state.keys()
        for name, array in next_state.items():
            if array.dtype == np.int64:
                np.testing.assert_array_equal(own_state[name], array)
        state = next_state
    assert state["state.bank.0.number"].min() > 40
    assert np.median(differences) < 1e-4
    assert max(differences) < 0.5


# Three frames make up no segment of eight: those are pooled by other operators.
@pytest.mark.parametrize("chunk_ms", [80, 120, 160, 320])
def test_chunks_of_another_length_are_heard(made, features, chunk_ms):
    native, reference = (
        AcousticModel(made, backend=backend).variant(threads=1, chunk_ms=chunk_ms)
        for backend in ("native", "onnxruntime")
    )
    assert (native.backend, reference.backend) == ("native", "onnxruntime")
    state, differences = reference.init_state(), []
    rows = chunk_ms // 10
    for chunk in np.split(features[: len(features) // rows * rows], len(features) // rows):
        wanted, next_state = reference.step(chunk, state)
        differences.append(np.abs(native.step(chunk, state)[0].tokens - wanted.tokens).max())
        state = next_state
    assert np.median(differences) < 1e-4
    assert max(differences) < 0.5


def test_nothing_is_allocated_twice(made):
    """Scratch memory is used again: it is less than all that is made."""
    plan = NativeSession(made.artefact("onnx-int8")["step"], {"held_slots": 9}).plan
    made_bytes = sum(buffer.size_bytes for buffer in _scratch(plan))
    assert 0 < plan.scratch_bytes < made_bytes / 2


def _scratch(plan):
    from edgeasr.backends.native.program import SCRATCH
    from edgeasr.backends.native.tensors import Buffer, View

    arguments = [argument for one in plan.instructions for argument in one.arguments]
    buffers = [one.buffer if isinstance(one, View) else one for one in arguments if isinstance(one, View | Buffer)]
    return {id(buffer): buffer for buffer in buffers if buffer.root == SCRATCH}.values()
