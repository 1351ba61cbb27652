# ruff: noqa: E402 - what the picture needs is looked for before the modules that import it
import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="attention is computed by torch, of the extra `train`")
pytest.importorskip("matplotlib", reason="pictures need the extra `profile`")

from edgeasr.memory_plot import draw, memory_attention, trace
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer

CHUNKS = 24  # of 4 frames: 12 summaries of 8 frames, of which the bank keeps 4


@pytest.fixture(scope="module")
def features(exported):
    config = exported.encoder.config
    shape = (CHUNKS * config.encoder.chunk_features, config.features.num_mels)
    return np.random.default_rng(0).normal(-8.0, 4.0, shape).astype(np.float32)


def test_attention_is_shared_out_over_what_the_bank_holds(exported, features):
    shares = memory_attention(exported.encoder, features)
    assert shares.shape == (CHUNKS, 1 + 12)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    for chunk, row in enumerate(shares):
        complete = chunk * 4 // 8
        held = range(max(0, complete - 4), complete)
        assert np.flatnonzero(row[1:]).tolist() == list(held)
    assert shares[0].tolist() == [1.0] + [0.0] * 12


def test_watching_leaves_no_hooks_and_no_trace_in_what_is_emitted(exported, features):
    chunk = torch.from_numpy(features)[None, : exported.encoder.config.encoder.chunk_features]
    before = exported.encoder.step(chunk, exported.encoder.init_state(1))[0].final
    memory_attention(exported.encoder, features)
    assert torch.equal(exported.encoder.step(chunk, exported.encoder.init_state(1))[0].final, before)
    assert not any(block.reader._forward_hooks for block in exported.encoder.upper)


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_a_recording_is_drawn(exported, tmp_path, seconds):
    rate = exported.encoder.config.features.sample_rate_hz
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "a.wav", rng.normal(0, 0.1, int(seconds * rate)), rate)
    recognizer = Recognizer(AcousticModel(exported.bundle), decoder="greedy")
    found = trace(recognizer, exported.encoder, tmp_path / "a.wav")
    assert len(found.waveform) == int(seconds * rate)
    # The recogniser adds silence at the end, in which a summary or two may become complete.
    assert len(found.admissions) - (found.attention.shape[1] - 1) in (0, 1, 2)
    draw(found, tmp_path / "memory.png")
    picture = matplotlib_image(tmp_path / "memory.png")
    assert picture.shape[:2] == (1080, 1680)
    assert picture.std() > 0.05


def matplotlib_image(path):
    import matplotlib.image

    return matplotlib.image.imread(path)
