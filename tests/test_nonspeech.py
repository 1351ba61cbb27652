import numpy as np
import pytest

from edgeasr.nonspeech import SilenceSource


def samples_of(source):
    blocks = list(source.blocks())
    assert [block.start_sample for block in blocks] == list(range(0, 640 * len(blocks), 640))
    return np.concatenate([block.samples for block in blocks])


def test_digital_silence_is_zero():
    samples = samples_of(SilenceSource(0.99))
    assert len(samples) == 15_840
    assert samples.dtype == np.float32
    assert not samples.any()


def test_faint_noise_has_its_level_and_is_the_same_each_time():
    samples = samples_of(SilenceSource(5.0, -70.0))
    assert 20 * np.log10(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) == pytest.approx(-70, abs=0.1)
    assert np.array_equal(samples, samples_of(SilenceSource(5.0, -70.0)))
