import numpy as np
import pytest

from edgeasr.firmware_bridge.drift import AdaptiveResampler, DriftCorrector, DriftEstimator

RATE = 16_000
HOUR_S = 3600


def arrivals(ppm, seconds, jitter_s=0.03, rate=RATE):
    """(position, true host time of its end, arrival) of each block of a device whose clock is fast by ppm."""
    rng, block_s, base_s = np.random.default_rng(0), 0.1, 1000.0
    block = round(block_s * rate)
    for i in range(1, round(seconds / block_s) + 1):
        heard_s = base_s + i * block / (rate * (1 + ppm * 1e-6))
        yield i * block, heard_s, heard_s + rng.uniform(0, jitter_s)


class TestEstimator:
    @pytest.mark.parametrize("ppm", [-200, 0, 35, 200])
    def test_finds_drift_and_time_over_an_hour_of_jitter(self, ppm):
        estimator, worst_s = DriftEstimator(RATE), 0.0
        for position, heard_s, arrival_s in arrivals(ppm, HOUR_S):
            estimator.add(position, arrival_s)
            if estimator.is_ready:
                worst_s = max(worst_s, abs(estimator.host_s(position) - heard_s))
        assert worst_s < 0.002
        assert estimator.drift * 1e6 == pytest.approx(-ppm, abs=2)

    def test_is_not_ready_before_twenty_seconds(self):
        estimator = DriftEstimator(RATE)
        ready = []
        for position, _, arrival_s in arrivals(200, 40):
            estimator.add(position, arrival_s)
            ready.append(estimator.is_ready)
        assert ready.index(True) * 0.1 == pytest.approx(20.0, abs=0.2)

    def test_follows_a_clock_that_changes_with_the_temperature(self):
        estimator, shift_s, worst_s = DriftEstimator(RATE), 0.0, 0.0
        for position, heard_s, arrival_s in arrivals(100, HOUR_S):
            shift_s += 0.1 * 20e-6 * np.sin(2 * np.pi * position / RATE / HOUR_S)
            estimator.add(position, arrival_s + shift_s)
            if estimator.is_ready:
                worst_s = max(worst_s, abs(estimator.host_s(position) - heard_s - shift_s))
        assert worst_s < 0.005

    def test_is_not_misled_by_a_host_that_stalls(self):
        estimator, worst_s = DriftEstimator(RATE), 0.0
        for i, (position, heard_s, arrival_s) in enumerate(arrivals(200, 1200)):
            stall_s = 0.8 if i // 50 % 10 == 3 else 0.0  # whole buckets come late
            estimator.add(position, arrival_s + stall_s)
            if estimator.is_ready:
                worst_s = max(worst_s, abs(estimator.host_s(position) - heard_s))
        assert worst_s < 0.02

    def test_does_not_take_a_file_sent_at_once_for_a_clock(self):
        estimator = DriftEstimator(RATE)
        for position, _, _ in arrivals(0, 600):
            estimator.add(position, position / RATE / 50)
        assert not estimator.is_ready


class TestResampler:
    def sine(self, hz, positions):
        return np.sin(2 * np.pi * hz * np.asarray(positions) / RATE).astype(np.float32)

    def run(self, samples, speeds, block=320):
        resampler = AdaptiveResampler()
        parts = [
            resampler.process(samples[i : i + block], speeds[turn % len(speeds)])
            for turn, i in enumerate(range(0, len(samples), block))
        ]
        return np.concatenate([*parts, resampler.flush()])

    @pytest.mark.parametrize("block", [1, 7, 320, 100_000])
    def test_is_the_identity_at_speed_one(self, block):
        samples = np.random.default_rng(0).uniform(-1, 1, 5000).astype(np.float32)
        np.testing.assert_array_equal(self.run(samples, [1.0], block), samples)

    @pytest.mark.parametrize("hz", [100, 1000, 5000])
    @pytest.mark.parametrize("speed", [0.9998, 1.0002, 1.001])
    def test_moves_the_signal_by_its_speed(self, hz, speed):
        output = self.run(self.sine(hz, np.arange(RATE)), [speed])
        assert len(output) == pytest.approx(RATE / speed, abs=2)
        inner = slice(20, -40)
        np.testing.assert_allclose(output[inner], self.sine(hz, speed * np.arange(len(output)))[inner], atol=2e-3)

    def test_does_not_depend_on_the_length_of_blocks(self):
        samples = self.sine(440, np.arange(8000))
        whole = self.run(samples, [1.0002], 8000)
        np.testing.assert_allclose(self.run(samples, [1.0002], 33), whole, atol=1e-5)

    def test_has_no_steps_where_the_speed_changes(self):
        output = self.run(self.sine(200, np.arange(RATE)), [1.0005, 0.9995])
        assert np.abs(np.diff(output[30:-60])).max() < 2 * np.pi * 200 / RATE * 1.01


class TestCorrector:
    rate = 1000  # samples a second, so that an hour is done in seconds

    def run(self, ppm, seconds=HOUR_S, jitter_s=0.03):
        """(device seconds, error in seconds) after each block: where the stream is against where it should be."""
        corrector, errors = DriftCorrector(self.rate), []
        for position, heard_s, arrival_s in arrivals(ppm, seconds, rate=self.rate, jitter_s=jitter_s):
            corrector.samples(position, np.zeros(100, np.float32), arrival_s)
            inside = AdaptiveResampler.HALF_TAPS
            errors.append((position / self.rate, (corrector.produced + inside) / self.rate - (heard_s - 1000.0)))
        return np.array(errors)

    @pytest.mark.parametrize("ppm", [-200, 200])
    def test_keeps_an_hour_at_200_ppm_within_20_ms(self, ppm):
        errors = self.run(ppm)
        assert abs(HOUR_S * ppm * 1e-6) == pytest.approx(0.72)  # what it would be
        assert np.abs(errors[:, 1]).max() < 0.02
        assert np.abs(errors[errors[:, 0] > 60, 1]).max() < 0.008

    def test_leaves_samples_alone_where_clocks_agree(self):
        corrector = DriftCorrector(RATE)
        samples = np.random.default_rng(0).uniform(-1, 1, 60 * RATE).astype(np.float32)
        parts = [
            corrector.samples(position, samples[position - 1600 : position], arrival_s)
            for position, _, arrival_s in arrivals(0, 60)
        ]
        np.testing.assert_array_equal(np.concatenate([*parts, corrector.flush()]), samples)

    def test_makes_good_in_a_gap_what_is_left(self):
        corrector = DriftCorrector(self.rate)
        position = 0
        for position, _, arrival_s in arrivals(200, 300, rate=self.rate):
            corrector.samples(position, np.zeros(100, np.float32), arrival_s)
        _, gap = corrector.gap(position + 60_000, 60_000)
        assert gap == pytest.approx(60_000 / 1.0002, abs=6)
        assert corrector.produced / self.rate == pytest.approx(360 / 1.0002, abs=0.003)

    @pytest.mark.parametrize("ppm", [-200, 200])
    def test_repeats_or_leaves_out_frames_of_features(self, ppm):
        corrector, errors, lengths = DriftCorrector(RATE), [], set()
        for position, heard_s, arrival_s in arrivals(ppm, 1800):
            frames = corrector.features(position, np.zeros((10, 80), np.float32), 160, arrival_s)
            lengths.add(len(frames))
            errors.append(corrector.produced / RATE - (heard_s - 1000.0))
        assert np.abs(errors).max() < 0.02
        assert lengths == ({9, 10} if ppm > 0 else {10, 11})

    def test_goes_on_from_the_drift_that_it_knew_when_the_device_restarts(self):
        estimator = DriftEstimator(RATE)
        for position, _, arrival_s in arrivals(200, 120):
            estimator.add(position, arrival_s)
        estimator.restart()
        assert not estimator.is_ready
        assert estimator.drift * 1e6 == pytest.approx(-200, abs=20)
