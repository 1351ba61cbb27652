"""Whether somebody speaks: the level of the log-mel frames over a floor that adapts, and what the model hears.

Nothing reads the samples a second time. State and cost are constant: a noise floor keeps a few minima.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgeasr.config import FeatureConfig, FrozenConfig, require
from edgeasr.features import Floats, analysis_window, mel_edges_hz

SILENT_DBFS = -100.0
# Bands are looked at in so many groups: noise that only hisses does not hide a vowel.
_NUM_GROUPS = 16
_LEAST_MINIMUM = 0.2  # of the mean of a group that is so narrow that its minima say little


@dataclass(frozen=True)
class ActivityConfig(FrozenConfig):
    """How the floor follows, and what counts as voice.

    window_s, windows: the floor is the least of so many windows; it follows a louder background within all of them
    slack_s:           the model hears a sound late and only for a moment: what it heard counts for so long
    bias, per_db, per_share: the log-odds of voice are bias + per_db * excess_db + per_share * heard; fitted, see
                       docs/endpoints.md
    errors:            ConfigError for durations or numbers of windows that are not positive
    """

    window_s: float = 1.0
    windows: int = 8
    slack_s: float = 0.4
    bias: float = -4.0
    per_db: float = 0.15
    per_share: float = 5.8

    def __post_init__(self) -> None:
        for name in ("window_s", "windows", "slack_s"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be positive")


class Activity(NamedTuple):
    """What the latest chunk sounded like.

    end_s:     of the chunk, in stream time
    level_db:  dBFS of its bands' energy, -100 for nothing at all
    floor_db:  dBFS of the background
    excess_db: of the group of bands that is farthest above its floor; below 0 for none
    heard:     share of the frames, in the chunk of late that had most, that the model did not take for a pause
    speech:    probability that somebody spoke
    """

    end_s: float = 0.0
    level_db: float = SILENT_DBFS
    floor_db: float = SILENT_DBFS
    excess_db: float = 0.0
    heard: float = 0.0
    speech: float = 0.0

    @property
    def snr_db(self) -> float:
        """Level over floor."""
        return self.level_db - self.floor_db


class NoiseFloor:
    """Minimum statistics (Martin 2001, "Noise power spectral density estimation based on optimal smoothing and minimum
    statistics"), of whole chunks, so that no smoothing is needed.

    spread: (G,) standard deviation of a power over its mean, where the background is stationary
    """

    def __init__(self, config: ActivityConfig, spread: Floats, chunk_s: float) -> None:
        self._window_s = config.window_s
        self._minima: deque[Floats] = deque(maxlen=config.windows)
        self._closed = self._lowest = np.full(len(spread), np.inf, np.float32)  # of closed windows, of the open one
        self._open_s = 0.0
        # The least of n normal variables lies about sqrt(2 ln n) - 0.5 deviations below their mean.
        count = max(2.0, config.window_s * config.windows / chunk_s)
        below = max(0.0, math.sqrt(2 * math.log(count)) - 0.5)
        self._bias: Floats = (1 / np.maximum(1 - below * spread, _LEAST_MINIMUM)).astype(np.float32)

    def accept(self, powers: Floats, chunk_s: float) -> Floats:
        """The floor after one more chunk. powers: (G,); returns: (G,)"""
        self._lowest = np.minimum(self._lowest, powers)
        floor = np.minimum(self._closed, self._lowest)
        self._open_s += chunk_s
        if self._open_s >= self._window_s:
            self._minima.append(self._lowest)
            self._closed = np.minimum.reduce(self._minima)
            self._lowest, self._open_s = np.full_like(powers, np.inf), 0.0
        # Before there are many chunks the least is not far from the mean; the floor is never above what is heard.
        return np.minimum(floor * self._bias, np.maximum(floor, powers))


class VoiceActivity:
    """Follows one stream, a chunk at a time: `accept_features` before the model's step, `accept_heard` after it.

    features: of the model
    chunk_s:  of its chunks; later ones may be longer
    last:     the latest chunk
    """

    def __init__(self, features: FeatureConfig, chunk_s: float, config: ActivityConfig | None = None) -> None:
        self._config, self._features = config or ActivityConfig(), features
        self._groups = band_groups(features)
        bandwidths = self._groups.sum(axis=0)
        spread = 1 / np.sqrt(np.maximum(1.0, bandwidths * chunk_s))
        self._floor = NoiseFloor(self._config, spread, chunk_s)
        self._silent = features.floor * bandwidths
        self._scale = power_scale(features)
        self._heard: deque[float] = deque(maxlen=max(1, math.ceil(self._config.slack_s / chunk_s)))
        self.last = Activity()

    @property
    def heard(self) -> float:
        """What the model heard of late, see `Activity`."""
        return max(self._heard, default=0.0)

    def accept_features(self, frames: Floats, end_s: float) -> Activity:
        """What a chunk sounds like, as far as it is known before the model has heard it.

        frames: (T, num_mels) log-mel; end_s: of the chunk, in stream time
        """
        # As `mean` has it, which takes three times as long for so few frames.
        powers: Floats = np.add.reduce(np.exp(frames)) / np.float32(len(frames)) @ self._groups
        floor = self._floor.accept(powers, len(frames) * self._features.hop_s)
        excess_db = 10 * math.log10(float((powers / floor).max()))
        self.last = self._judged(Activity(end_s, self._dbfs(powers), self._dbfs(floor), excess_db))
        return self.last

    def accept_heard(self, share: float) -> Activity:
        """The same chunk, with the share of its frames in which the model heard something."""
        self._heard.append(share)
        self.last = self._judged(self.last)
        return self.last

    def _judged(self, activity: Activity) -> Activity:
        config, heard = self._config, self.heard
        odds = config.bias + config.per_db * activity.excess_db + config.per_share * heard
        return activity._replace(heard=heard, speech=1 / (1 + math.exp(-odds)))

    def _dbfs(self, powers: Floats) -> float:
        power = float((powers - self._silent).sum()) * self._scale
        return max(SILENT_DBFS, 10 * math.log10(power)) if power > 0 else SILENT_DBFS


def band_groups(features: FeatureConfig) -> Floats:
    """Sums of neighbouring bands, each times its width: a sum of unit triangles, so that every frequency counts once.

    returns: (num_mels, G) Hz
    """
    edges = mel_edges_hz(features)
    widths = (edges[2:] - edges[:-2]) / 2
    group = np.arange(features.num_mels) * min(_NUM_GROUPS, features.num_mels) // features.num_mels
    return np.where(group[:, None] == np.arange(group[-1] + 1), widths[:, None], 0.0).astype(np.float32)


def power_scale(features: FeatureConfig) -> float:
    """What makes a mean square of samples of the sum of all groups (Parseval, half of the spectrum twice)."""
    return float(2 / (features.fft_length * np.square(analysis_window(features)).sum()))
