"""Log-mel features in C, beside those of numpy."""

import shutil

import numpy as np
import pytest

from edgeasr.config import FeatureConfig
from edgeasr.errors import NativeCodeError
from edgeasr.features import LogMel, log_mel
from edgeasr.log_mel_native import NativeLogMel, _native, _reversed_bits, fastest_log_mel

NARROW = FeatureConfig(sample_rate_hz=8000, num_mels=23, win_length=201, hop_length=79, fft_length=256, high_hz=3700.0)
WIDE = FeatureConfig(num_mels=128, win_length=1024, hop_length=256, fft_length=1024, low_hz=0.0, high_hz=8000.0)

needs_compiler = pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler")


def sounds(count):
    """Noise; a loud tone, beside which most bands are quiet; next to nothing; silence."""
    rng = np.random.default_rng(count)
    tone = np.sin(0.3 * np.arange(count))
    return [
        sound.astype(np.float32)
        for sound in (0.3 * rng.standard_normal(count), tone, 1e-4 * rng.standard_normal(count), np.zeros(count))
    ]


@needs_compiler
@pytest.mark.parametrize("config", [FeatureConfig(), NARROW, WIDE], ids=["usual", "narrow", "wide"])
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 16, 17, 40])
def test_c_and_numpy_give_the_same(config, frames):
    native = NativeLogMel(config)
    for sound in sounds((frames - 1) * config.hop_length + config.win_length + 3):
        found, wanted = native(sound), log_mel(sound, config)
        assert found.shape == wanted.shape == (frames, config.num_mels)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-6)


@needs_compiler
@pytest.mark.parametrize("samples", [0, 1, 399])
def test_less_than_a_window_gives_no_frame(samples):
    assert NativeLogMel(FeatureConfig())(np.zeros(samples, np.float32)).shape == (0, 80)


@needs_compiler
def test_what_lies_apart_in_memory_is_read_as_it_is():
    config, sound = FeatureConfig(), sounds(4000)[0]
    apart = np.repeat(sound, 2)[::2]
    np.testing.assert_array_equal(NativeLogMel(config)(apart), NativeLogMel(config)(sound))


@needs_compiler
def test_it_is_taken_where_transforms_are_of_a_power_of_two():
    assert isinstance(fastest_log_mel(FeatureConfig()), NativeLogMel)
    config, sound = FeatureConfig(fft_length=500), sounds(2000)[0]
    other = fastest_log_mel(config)
    assert not isinstance(other, NativeLogMel)
    np.testing.assert_array_equal(other(sound), log_mel(sound, config))


def test_without_a_compiler_numpy_computes_them(monkeypatch):
    def none(*_):
        raise NativeCodeError("found no C compiler")

    _native.cache_clear()
    monkeypatch.setattr("edgeasr.log_mel_native.packaged_library", none)
    sound = sounds(3000)[0]
    np.testing.assert_array_equal(LogMel(FeatureConfig()).accept_waveform(sound), log_mel(sound, FeatureConfig()))
    _native.cache_clear()


def test_bits_in_the_other_order():
    assert _reversed_bits(8).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    assert _reversed_bits(1).tolist() == [0]
