"""Two clocks that disagree: the device counts samples, the host counts seconds, and crystals differ by up to 200 ppm.

A recogniser takes audio as it comes, so that no buffer grows; but its times are counted in samples, and after an hour
at 200 ppm they are 720 ms away from the host's. `DriftEstimator` finds the device's rate in the host's time, and
`DriftCorrector` stretches the stream by it, so that one second of the stream is one second of the host.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.audio import Waveform
from edgeasr.features import Floats

BUCKET_S = 5.0  # of which the observation with the least delay counts
WINDOW_BUCKETS = 120  # ten minutes: long against jitter, short against a board that warms up
READY_BUCKETS = 4
MAX_DRIFT = 1e-3  # crystals and even bare RC oscillators that are trimmed stay within; a file sent at once does not

DEADBAND_S = 4e-3  # below it the stream is left as it is, to the bit
HORIZON_S = 10.0  # in which an error is made good
MAX_CORRECTION = 2e-3  # change of speed, at most

_PHASES = 512  # between two samples; what lies between phases is interpolated
_KAISER_BETA = 8.0  # side lobes of the window below -80 dB


class DriftEstimator:
    """Host time of each sample of a device, from when blocks arrived.

    A block arrives when its last sample was heard, and some transport later: the least delay of a bucket is nearly free
    of jitter, and the median slope of all pairs of buckets (Theil 1950, Sen 1968) ignores buckets that were held up.
    What remains unknown is the constant part of the delay.

    rate_hz: nominal
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        # Of each bucket: nominal time of a sample, and by how much its arrival was later.
        self._buckets: deque[tuple[float, float]] = deque(maxlen=WINDOW_BUCKETS)
        self._bucket_end_s = -np.inf
        self._least: tuple[float, float] | None = None
        self._slope, self._middle_s, self._offset_s = 0.0, 0.0, 0.0

    def add(self, position: int, arrival_s: float) -> None:
        """A block that ends before sample `position`, counted over gaps, came at arrival_s of the host's clock."""
        nominal_s = position / self._rate_hz
        if nominal_s >= self._bucket_end_s:
            if self._least is not None:
                self._buckets.append(self._least)
                self._fit()
            self._least, self._bucket_end_s = None, nominal_s + BUCKET_S
        if self._least is None or arrival_s - nominal_s < self._least[1]:
            self._least = (nominal_s, arrival_s - nominal_s)

    @property
    def drift(self) -> float:
        """Seconds that the host counts more than the device, a second of the device; 1e-6 is a ppm."""
        return self._slope

    def restart(self) -> None:
        """The device began to count anew: what was seen before says nothing of the delay, only of the drift."""
        self._buckets.clear()
        self._least, self._bucket_end_s = None, -np.inf

    @property
    def is_ready(self) -> bool:
        """Whether there is enough to go by, and the device has a clock that keeps time."""
        return len(self._buckets) >= READY_BUCKETS and abs(self._slope) < MAX_DRIFT

    def host_s(self, position: int) -> float:
        """When sample `position` was heard, by the host's clock, plus the least delay of the transport."""
        nominal_s = position / self._rate_hz
        return nominal_s + self._offset_s + self._slope * (nominal_s - self._middle_s)

    def _fit(self) -> None:
        times, delays = np.array(self._buckets).T
        first, second = np.triu_indices(len(times), k=1)
        if len(times) >= READY_BUCKETS:
            self._slope = float(np.median((delays[second] - delays[first]) / (times[second] - times[first])))
        self._middle_s = float(times.mean())
        self._offset_s = float(np.median(delays - self._slope * (times - self._middle_s)))


class AdaptiveResampler:
    """Samples at a rate that differs by parts per million and may change with each block: windowed-sinc interpolation
    (Smith and Gossett 1984). At speed 1 from the start the output is the input, to the bit.
    """

    HALF_TAPS = 16  # and the output trails the input by as many samples

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new signal."""
        self._waiting: Waveform = np.zeros(self.HALF_TAPS, np.float32)
        self._next = float(self.HALF_TAPS)  # where in `waiting` the next output lies

    def process(self, samples: Waveform, speed: float) -> Waveform:
        """The next samples. speed: of input a sample of output, near 1"""
        self._waiting = np.concatenate([self._waiting, samples])
        room = len(self._waiting) - self.HALF_TAPS - self._next
        count = max(0, int(np.ceil(room / speed)))
        positions = self._next + speed * np.arange(count)
        output = self._at(positions)
        self._next += speed * count
        passed = int(self._next) - self.HALF_TAPS
        self._waiting = self._waiting[passed:]
        self._next -= passed
        return output

    def flush(self) -> Waveform:
        """The samples still inside; then a new signal begins."""
        rest = self.process(np.zeros(self.HALF_TAPS, np.float32), 1.0)
        self.reset()
        return rest

    def _at(self, positions: NDArray[np.floating[Any]]) -> Waveform:
        whole = positions.astype(np.int64)
        if (positions == whole).all():
            return self._waiting[whole]
        phase = (positions - whole) * _PHASES
        lower = phase.astype(np.int64)
        table, between = _interpolation_table(self.HALF_TAPS), (phase - lower)[:, None].astype(np.float32)
        kernel = table[lower] * (1 - between) + table[lower + 1] * between
        reach = np.arange(1 - self.HALF_TAPS, self.HALF_TAPS + 1)
        resampled: Waveform = np.einsum("nk,nk->n", self._waiting[whole[:, None] + reach], kernel)
        return resampled


@lru_cache
def _interpolation_table(half_taps: int) -> NDArray[np.float32]:
    """Weights of the 2 half_taps samples around a point, for each of _PHASES + 1 places between two samples."""
    places = np.arange(_PHASES + 1)[:, None] / _PHASES
    distance = places - np.arange(1 - half_taps, half_taps + 1)
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0, 1 - (distance / half_taps) ** 2)))
    weights = np.sinc(distance) * window
    table: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return table


class DriftCorrector:
    """A device's blocks in, blocks in the host's time out.

    produced: samples out so far, gaps counted; for features the samples that they stand for
    """

    def __init__(self, rate_hz: int) -> None:
        self.estimator = DriftEstimator(rate_hz)
        self.produced = 0
        self._rate_hz = rate_hz
        self._resampler = AdaptiveResampler()
        self._origin_s: float | None = None  # host time of the stream's beginning
        self._following = False

    def gap(self, position: int, gap_samples: int) -> tuple[Waveform, int]:
        """Before a block at `position` samples are missing. returns: the rest before the gap, and the gap's length"""
        rest = self._resampler.flush()
        self.produced += len(rest)
        if self._following:
            gap_samples = max(0, round(self._target(position) - self.produced))
        self.produced += gap_samples
        return rest, gap_samples

    def samples(self, position: int, samples: Waveform, arrival_s: float) -> Waveform:
        """Samples that end before `position`, which is counted over gaps; trails the input by 1 ms."""
        error_s = self._error_s(position, arrival_s, AdaptiveResampler.HALF_TAPS, len(samples))
        stretch = self.estimator.drift + error_s / HORIZON_S if self._following else 0.0
        stretched = self._resampler.process(samples, 1 / (1 + float(np.clip(stretch, -MAX_CORRECTION, MAX_CORRECTION))))
        self.produced += len(stretched)
        return stretched

    def features(self, position: int, features: Floats, hop: int, arrival_s: float) -> Floats:
        """Frames that end before `position`; where the stream is off by most of a hop, one is repeated or left out."""
        error = self._error_s(position, arrival_s, 0, len(features) * hop) * self._rate_hz
        if self._following and error > 0.75 * hop:
            features = np.concatenate([features, features[-1:]])
        elif self._following and error < -0.75 * hop and len(features) > 1:
            features = features[:-1]
        self.produced += len(features) * hop
        return features

    def flush(self) -> Waveform:
        """The samples still inside, at the end."""
        rest = self._resampler.flush()
        self.produced += len(rest)
        return rest

    def _error_s(self, position: int, arrival_s: float, inside: int, coming: int) -> float:
        """By how much the stream is behind the host's time, were the coming samples left as they are."""
        self.estimator.add(position, arrival_s)
        if not self.estimator.is_ready:
            return 0.0
        if self._origin_s is None:
            self._origin_s = self.estimator.host_s(0)
        error_s = (self._target(position) - self.produced - inside - coming) / self._rate_hz
        self._following = self._following or abs(error_s) > DEADBAND_S
        return error_s

    def _target(self, position: int) -> float:
        """The sample of the stream that belongs to a sample of the device."""
        assert self._origin_s is not None
        return (self.estimator.host_s(position) - self._origin_s) * self._rate_hz
