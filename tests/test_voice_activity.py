import math

import numpy as np
import pytest

from edgeasr.config import FeatureConfig, ModelConfig
from edgeasr.errors import ConfigError
from edgeasr.features import log_mel
from edgeasr.voice_activity import SILENT_DBFS, ActivityConfig, VoiceActivity, band_groups

RATE = 16_000
FEATURES = FeatureConfig()
CHUNK_S = ModelConfig().chunk_s
ROWS = ModelConfig().encoder.chunk_features


def noise(level_dbfs, seconds, seed=0):
    samples = np.random.default_rng(seed).standard_normal(round(seconds * RATE), np.float32)
    return samples * np.float32(10 ** (level_dbfs / 20))


def follow(waveform, activity=None):
    """What every chunk of a waveform sounded like."""
    activity = activity or VoiceActivity(FEATURES, CHUNK_S)
    frames = log_mel(waveform, FEATURES)
    chunks = frames[: len(frames) // ROWS * ROWS].reshape(-1, ROWS, FEATURES.num_mels)
    return [activity.accept_features(chunk, (i + 1) * CHUNK_S) for i, chunk in enumerate(chunks)]


@pytest.mark.parametrize("amplitude", [0.5, 0.01])
@pytest.mark.parametrize("hz", [150, 440, 1000, 5000])
def test_level_of_a_sine_is_its_mean_square(amplitude, hz):
    sine = amplitude * np.sin(2 * np.pi * hz * np.arange(RATE) / RATE)
    expected = 20 * math.log10(amplitude / math.sqrt(2))
    assert [one.level_db for one in follow(sine.astype(np.float32))] == pytest.approx([expected] * 6, abs=0.1)


@pytest.mark.parametrize("level_dbfs", [-20, -50, -70])
def test_level_and_floor_of_noise_are_what_the_bands_hold_of_it(level_dbfs):
    heard = follow(noise(level_dbfs, 20))
    in_band = level_dbfs + 10 * math.log10((FEATURES.high_hz - FEATURES.low_hz) / (RATE / 2))
    assert np.mean([one.level_db for one in heard]) == pytest.approx(in_band, abs=0.2)
    assert [one.floor_db for one in heard[20:]] == pytest.approx([in_band] * len(heard[20:]), abs=1.0)
    assert max(one.excess_db for one in heard) < 3.0


def test_digital_silence_has_the_least_level():
    (one, *_) = follow(np.zeros(RATE, np.float32))
    assert (one.level_db, one.floor_db, one.excess_db, one.snr_db) == (SILENT_DBFS, SILENT_DBFS, 0.0, 0.0)


def test_floor_follows_a_background_within_the_windows_and_no_voice():
    config = ActivityConfig()
    memory_s = config.window_s * config.windows
    quiet, loud = noise(-60, 10), noise(-40, 2 * memory_s, seed=1)
    heard = follow(np.concatenate([quiet, loud, noise(-60, 2, seed=2)]))
    at = {round(one.end_s, 2): one for one in heard}
    early, late, after = (min(at, key=lambda time_s: abs(time_s - wanted)) for wanted in (12, 10 + memory_s + 2, 27))
    assert at[early].floor_db == pytest.approx(-60.2, abs=1.0)
    assert at[early].snr_db == pytest.approx(20, abs=1.5)
    assert at[late].floor_db == pytest.approx(-40.2, abs=1.0)
    assert at[after].floor_db == pytest.approx(-60.2, abs=2.0)


def test_a_voice_that_pauses_does_not_raise_the_floor():
    sine = np.sin(2 * np.pi * 300 * np.arange(RATE * 4 // 5) / RATE).astype(np.float32) * np.float32(0.1)
    spoken = np.concatenate([np.concatenate([sine, np.zeros(RATE * 2 // 5, np.float32)]) for _ in range(25)])
    heard = follow(spoken + noise(-60, len(spoken) / RATE))
    assert max(one.floor_db for one in heard if one.end_s > 1.2) < -55


def test_excess_is_that_of_the_loudest_group():
    """A hiss of 1 kHz near 5 kHz, as loud as the noise: 3 dB in all, far more where it is."""
    sine = np.sin(2 * np.pi * 5000 * np.arange(RATE) / RATE).astype(np.float32) * np.float32(0.001 * math.sqrt(2))
    heard = follow(np.concatenate([noise(-60, 3), noise(-60, 1, seed=1) + sine]))
    assert heard[-1].snr_db == pytest.approx(3.2, abs=0.8)
    assert heard[-1].excess_db > 9


def test_what_the_model_heard_counts_for_a_while():
    activity = VoiceActivity(FEATURES, CHUNK_S)
    silent = log_mel(np.zeros(RATE, np.float32), FEATURES)[:ROWS]
    shares = []
    for heard in (0.0, 0.6, 0.1, 0.0, 0.0, 0.0):
        activity.accept_features(silent, 0.0)
        shares.append(activity.accept_heard(heard).heard)
    assert shares == [0.0, 0.6, 0.6, 0.6, 0.1, 0.0]


def test_speech_is_likelier_the_louder_and_the_more_is_heard():
    activity = VoiceActivity(FEATURES, CHUNK_S)
    sine = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    follow(noise(-60, 2), activity)
    odds = [activity.accept_heard(0.0).speech]
    for amplitude, heard in ((0.01, 0.0), (0.1, 0.0), (0.1, 0.5)):
        activity.accept_features(log_mel(sine * np.float32(amplitude), FEATURES)[:ROWS], 0.0)
        odds.append(activity.accept_heard(heard).speech)
    assert odds == sorted(odds)
    assert odds[0] < 0.1
    assert odds[-1] > 0.9


def test_every_frequency_counts_once():
    groups = band_groups(FEATURES)
    assert groups.shape == (80, 16)
    assert ((groups > 0).sum(axis=1) == 1).all()
    assert groups.sum() == pytest.approx(FEATURES.high_hz - FEATURES.low_hz, rel=0.03)


def test_fewer_bands_make_fewer_groups():
    assert band_groups(FeatureConfig(num_mels=10)).shape == (10, 10)


def test_state_is_bounded():
    activity = VoiceActivity(FEATURES, CHUNK_S)
    follow(noise(-60, 60), activity)
    floor = activity._floor
    assert len(floor._minima) == ActivityConfig().windows


@pytest.mark.parametrize("name", ["window_s", "windows", "slack_s"])
def test_an_impossible_config_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        ActivityConfig(**{name: 0})
