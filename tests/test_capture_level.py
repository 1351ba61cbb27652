"""How loud a microphone is, what is said about it, and what is done about it."""

import numpy as np
import pytest

from edgeasr.audio import AudioBlock
from edgeasr.capture.conditioned import ConditionedSource
from edgeasr.capture.conditioning import OffsetFilter, SlowGain
from edgeasr.capture.level import Level, LevelWatch

RATE = 16_000
BLOCK = 640


def noise(seconds, level_db, seed=3):
    """Of so many dBFS, float32."""
    return np.random.default_rng(seed).normal(0, 10 ** (level_db / 20), round(seconds * RATE)).astype(np.float32)


def speech(seconds, level_db):
    """Sound and pauses of half a second each, the pauses 30 dB below."""
    samples = noise(seconds, level_db)
    samples[np.arange(len(samples)) // (RATE // 2) % 2 == 1] *= 0.0316
    return samples


def through(stage, samples, block=BLOCK):
    return np.concatenate([stage.process(samples[at : at + block]) for at in range(0, len(samples), block)])


def level_db(samples):
    return 10 * np.log10(np.mean(samples.astype(np.float64) ** 2))


class TestLevel:
    def test_is_in_decibels_of_full_scale(self):
        level = Level.of(np.tile(np.array([0.6, -0.4], np.float32), 500))
        assert level.offset == pytest.approx(0.1)
        assert level.rms_db == pytest.approx(20 * np.log10(0.5), abs=0.01)
        assert level.peak_db == pytest.approx(20 * np.log10(0.6), abs=0.01)
        assert level.clipped == 0

    def test_of_silence_is_finite(self):
        assert Level.of(np.zeros(100, np.float32))[:2] == (-100, -100)

    def test_counts_samples_at_full_scale(self):
        assert Level.of(np.array([1, -1, 0.5, 0.998], np.float32)).clipped == 0.5

    @pytest.mark.parametrize(
        ("rms_db", "clipped", "bar"),
        [
            (-80, 0, "▕    ▏ -80 dB "),
            (-30, 0, "▕██  ▏ -30 dB "),
            (-13.1, 0, "▕███▏▏ -13 dB "),
            (0, 0.1, "▕████▏   0 dB!"),
        ],
    )
    def test_is_drawn_as_a_bar(self, rms_db, clipped, bar):
        assert Level(rms_db, 0, clipped, 0).bar(4) == bar


class TestWatch:
    def said(self, *parts):
        """What is said of sound, given in blocks of 0.1 s."""
        said = []
        watch = LevelWatch(lambda: "USB", said.append)
        samples = np.concatenate(parts)
        for at in range(0, len(samples), RATE // 10):
            watch.accept(Level.of(samples[at : at + RATE // 10]), 0.1)
        return said

    def test_says_nothing_of_speech_or_of_a_quiet_room(self):
        assert self.said(speech(20, -20), noise(20, -75), speech(20, -50)) == []

    def test_says_once_that_it_is_muted(self):
        muted = np.zeros(30 * RATE, np.float32)
        (said,) = self.said(speech(5, -20), muted, speech(5, -20), muted)
        assert said.startswith("USB gives no sound at all: is it muted")

    def test_a_sound_that_never_moves_is_none(self):
        assert len(self.said(np.full(12 * RATE, 0.04, np.float32))) == 1
        assert self.said(np.zeros(9 * RATE, np.float32)) == []

    def test_says_it_again_after_a_minute_without(self):
        muted = np.zeros(12 * RATE, np.float32)
        assert len(self.said(muted, noise(70, -50), muted)) == 2

    def test_says_that_it_is_too_loud(self):
        (said,) = self.said(np.clip(speech(10, -3), -1, 1))
        assert "turn its gain down" in said

    def test_says_that_it_is_off_zero(self):
        (said,) = self.said(speech(10, -30) + np.float32(0.1))
        assert said.startswith("USB has an offset")


class TestOffset:
    def test_is_taken_out_from_the_first_sample_on(self):
        samples = noise(5, -30)
        cleaned = through(OffsetFilter(RATE), samples + np.float32(0.2))
        assert abs(cleaned[:BLOCK].mean()) < 0.01
        assert abs(cleaned.mean()) < 1e-3
        assert level_db(cleaned - samples) < -40

    def test_of_another_size_is_followed(self):
        cleaned = through(OffsetFilter(RATE), np.concatenate([noise(3, -40), noise(3, -40) + np.float32(0.3)]))
        assert abs(cleaned[-RATE:].mean()) < 3e-3

    def test_that_is_none_changes_little(self):
        samples = noise(5, -20)
        assert level_db(through(OffsetFilter(RATE), samples) - samples) < level_db(samples) - 25


class TestGain:
    @pytest.mark.parametrize("loudness_db", [-34, -20, -6])
    def test_of_speech_that_is_loud_enough_is_one(self, loudness_db):
        samples = np.clip(speech(20, loudness_db), -1, 1)
        np.testing.assert_array_equal(through(SlowGain(RATE), samples), samples)

    @pytest.mark.parametrize("loudness_db", [-45, -55])
    def test_raises_quiet_speech_within_seconds(self, loudness_db):
        raised = through(SlowGain(RATE), speech(20, loudness_db))
        assert level_db(raised[16 * RATE : 16 * RATE + RATE // 2]) == pytest.approx(-35, abs=1)

    def test_is_thirty_decibels_at_most(self):
        stage = SlowGain(RATE)
        through(stage, speech(30, -70))
        assert 20 * np.log10(stage.gain) == pytest.approx(30, abs=0.1)

    def test_of_noise_alone_is_one(self):
        samples = noise(60, -60)
        np.testing.assert_array_equal(through(SlowGain(RATE), samples), samples)

    def test_goes_when_somebody_speaks_up(self):
        stage = SlowGain(RATE)
        through(stage, speech(20, -55))
        assert stage.gain > 5
        loud = through(stage, speech(2, -15))
        assert stage.gain == 1
        assert np.abs(loud).max() <= 1

    def test_does_not_depend_on_the_length_of_blocks(self):
        samples = speech(10, -50)
        np.testing.assert_allclose(
            through(SlowGain(RATE), samples, 640), through(SlowGain(RATE), samples, 16_000), rtol=1e-6
        )


class Away:
    """A source of one block, heard or not."""

    name, sample_rate_hz, drops, backlog_s = "USB", RATE, True, 0.0

    def __init__(self, is_away):
        self.is_away = is_away

    def blocks(self):
        for k in range(12):
            yield AudioBlock(np.zeros(RATE, np.float32), k * RATE, k)


def test_a_conditioned_source_keeps_time_and_does_not_call_an_absent_microphone_muted():
    for is_away, warnings in ((False, 1), (True, 0)):
        said, levels = [], []
        blocks = list(ConditionedSource(Away(is_away), said.append, levels.append).blocks())
        assert [(block.start_sample, block.gap_samples) for block in blocks] == [(k * RATE, k) for k in range(12)]
        assert len(said) == warnings
        assert len(levels) == 12
