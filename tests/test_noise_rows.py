from itertools import islice

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.train import noise_rows as module
from edgeasr.train.augment import WaveformAugmenter
from edgeasr.train.checkpoint import Checkpoint
from edgeasr.train.noise_rows import noise_rows
from edgeasr.train.recipe import AugmentConfig
from edgeasr.train.unit_selection import Listener

RATE_HZ = 16_000
UNTOUCHED = dict.fromkeys(("noise", "reverb", "equalizer", "band_limit", "codec"), 0.0)
SAME = AugmentConfig(speed=(1.0, 1.0), gain_db=(-6.0, -6.0), **UNTOUCHED)


@pytest.fixture(scope="module")
def listener(trained) -> Listener:
    return Listener(Checkpoint.load(trained.recipe.directory / "best.safetensors").encoder())


@pytest.fixture
def heard(monkeypatch):
    """Waveforms that became features."""
    waveforms = []
    made = module.batch_features

    def batch_features(some, model):
        waveforms.extend(some)
        return made(some, model)

    monkeypatch.setattr(module, "batch_features", batch_features)
    return waveforms


def test_noise_says_nothing_and_is_the_same_each_time(listener):
    augment = WaveformAugmenter(AugmentConfig(), [np.ones(RATE_HZ, np.float32)], RATE_HZ)
    rows, again = (list(islice(noise_rows(listener, augment, 4), 10)) for _ in range(2))
    for row, twin in zip(rows, again, strict=True):
        frames = len(row.labels)
        assert not row.labels.any()
        assert row.outputs.shape == (frames, listener.config.encoder.d_model)
        assert row.blanks.shape == (frames,)
        np.testing.assert_array_equal(row.outputs, twin.outputs)
    assert len({len(row.labels) for row in rows}) > 1


def test_noise_is_of_the_recordings_and_of_all_levels(listener, heard):
    tone = np.sin(0.3 * np.arange(RATE_HZ), dtype=np.float32)
    list(islice(noise_rows(listener, WaveformAugmenter(SAME, [tone], RATE_HZ), 1), 160))
    assert len(heard) == 160
    seconds = [len(waveform) / RATE_HZ for waveform in heard]
    assert 5 <= min(seconds) < 10
    assert 20 < max(seconds) <= 25
    assert len(set(seconds)) == 20
    peaks_db = 20 * np.log10([np.abs(waveform).max() for waveform in heard])
    assert -40.1 < peaks_db.min() < -35
    assert -5 < peaks_db.max() < 0.1
    # A sine has a crest factor of sqrt(2), what is Gaussian has more.
    coloured = [np.abs(one).max() / np.sqrt(np.square(one).mean()) > 2 for one in heard]
    assert np.mean(coloured) == pytest.approx(0.15, abs=0.08)


def test_without_recordings_all_noise_is_coloured(listener, heard):
    list(islice(noise_rows(listener, WaveformAugmenter(SAME, [], RATE_HZ), 1), 8))
    assert all(np.abs(one).max() / np.sqrt(np.square(one).mean()) > 2 for one in heard)
