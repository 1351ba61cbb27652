"""What a stream is made of before the model: samples or feature frames that wait, and chunks of features from them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import TypeVar

import numpy as np

from edgeasr.audio import Resampler, Waveform
from edgeasr.config import ModelConfig
from edgeasr.errors import AudioFormatError
from edgeasr.features import Floats, LogMel

# A causal model emits sounds late, so that the end of a recording is heard only in the silence after it: by the bundled
# model up to 0.22 s after the voice, measured where recordings were cut there (docs/endpoints.md). In encoder frames.
_LATEST_EMISSION = 8
# No model is waited for longer.
LONGEST_FLUSH_S = 1.2


def flush_s(config: ModelConfig) -> float:
    """Silence after the last sample in which a model emits what it heard: its delay, and what a window reaches on."""
    features = config.features
    overlap_s = (features.win_length - features.hop_length) / features.sample_rate_hz
    return _LATEST_EMISSION * config.frame_s + overlap_s


class _FrontEnd(ABC):
    """Rows that wait, samples or frames.

    num_put, num_taken: rows so far
    """

    def __init__(self, config: ModelConfig, needed: int) -> None:
        self._config = config
        self._queue = _Queue()
        self._needed = needed  # rows of the next chunk

    @property
    def num_put(self) -> int:
        return self._queue.num_put

    @property
    def num_taken(self) -> int:
        return self._queue.num_taken

    def is_ready(self) -> bool:
        """Whether there are rows for a chunk."""
        return len(self._queue) >= self._needed

    def change_chunk(self, config: ModelConfig) -> None:
        """From the next one on, chunks of the length that this config has; it differs in nothing else."""
        self._needed += self._chunk_rows(config) - self._chunk_rows(self._config)
        self._config = config

    @staticmethod
    @abstractmethod
    def _chunk_rows(config: ModelConfig) -> int:
        """Rows by which a chunk of this config moves on."""


class WaveformFrontEnd(_FrontEnd):
    """Samples of any rate in, chunks of log-mel out; rows are samples at the model's rate."""

    def __init__(self, config: ModelConfig) -> None:
        # The first window reaches beyond the first hop; after it, chunks of features need chunks of samples.
        super().__init__(config, config.chunk_samples + config.features.win_length - config.features.hop_length)
        self._rate_hz = config.features.sample_rate_hz
        self._resampler: Resampler | None = None
        self._source_hz = 0
        self._log_mel = LogMel(config.features)

    @staticmethod
    def _chunk_rows(config: ModelConfig) -> int:
        return config.chunk_samples

    @property
    def heard_s(self) -> float:
        """Time of the samples so far; those still in the resampler count after finish()."""
        return self.num_put / self._rate_hz

    def accept(self, waveform: Waveform, sample_rate_hz: int) -> None:
        """Take samples, copied where they have to wait. errors: AudioFormatError, and nothing is taken"""
        samples = self._resampler_from(sample_rate_hz).process(waveform)
        self._queue.put(samples.copy() if samples is waveform else samples)

    def accept_silence(self, num_samples: int, sample_rate_hz: int) -> None:
        """Take time in which nothing was heard."""
        if num_samples > 0:
            self.accept(np.zeros(num_samples, np.float32), sample_rate_hz)

    def finish(self) -> None:
        """Take what the resampler holds back."""
        if self._resampler is not None:
            self._queue.put(self._resampler.flush())

    def accept_tail(self) -> None:
        """Fill up with silence to whole chunks that reach flush_s beyond the last sample."""
        wanted = len(self._queue) + round(flush_s(self._config) * self._rate_hz)
        chunks = max(0, math.ceil((wanted - self._needed) / self._config.chunk_samples))
        padding = self._needed + chunks * self._config.chunk_samples - len(self._queue)
        self._queue.put(np.zeros(padding, np.float32))

    def accept_silent_chunk(self) -> None:
        """Make another chunk ready, where none is."""
        self._queue.put(np.zeros(self._needed - len(self._queue), np.float32))

    def take(self) -> Floats:
        """The next chunk, when ready. returns: (chunk_features, num_mels)"""
        samples = self._queue.take(self._needed)
        self._needed = self._config.chunk_samples
        return self._log_mel.accept_waveform(samples)

    def _resampler_from(self, sample_rate_hz: int) -> Resampler:
        """The resampler of this rate; samples of another are complete when it changes."""
        if self._resampler is None or sample_rate_hz != self._source_hz:
            resampler = Resampler(sample_rate_hz, self._rate_hz)
            self.finish()
            self._resampler, self._source_hz = resampler, sample_rate_hz
        return self._resampler


class FeatureFrontEnd(_FrontEnd):
    """Log-mel frames, computed elsewhere as the model's own front end would have; rows are frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.encoder.chunk_features)
        self._silence_s = 0.0  # of gaps, less than a frame, not taken yet

    @staticmethod
    def _chunk_rows(config: ModelConfig) -> int:
        return config.encoder.chunk_features

    @property
    def heard_s(self) -> float:
        """Time from the first window's first sample to the last one's last."""
        features = self._config.features
        overlap_s = (features.win_length - features.hop_length) / features.sample_rate_hz
        return self.num_put * features.hop_s + overlap_s if self.num_put else 0.0

    def accept(self, features: Floats) -> None:
        """Take frames, copied. errors: AudioFormatError for another shape or type or what is not finite"""
        num_mels = self._config.features.num_mels
        if features.ndim != 2 or features.shape[1] != num_mels or features.dtype != np.float32:
            raise AudioFormatError(
                f"got features of shape {features.shape} and type {features.dtype}, want (T, {num_mels}) float32: "
                "compute them as edgeasr.features does, for this model"
            )
        if not np.isfinite(features).all():
            raise AudioFormatError(
                f"got features with a NaN or infinite value after {self.heard_s:.2f} s, want log energies: "
                "add the floor before the logarithm"
            )
        self._queue.put(features.copy())

    def accept_silence(self, num_samples: int, sample_rate_hz: int) -> None:
        """Take time in which nothing was heard; what is no whole frame is kept for the next time."""
        config = self._config.features
        self._silence_s += num_samples / sample_rate_hz
        # Sums of durations round: what is short of a frame by less than a sample is one.
        num_frames = int(self._silence_s / config.hop_s + 1 / config.hop_length)
        self._silence_s -= num_frames * config.hop_s
        self._queue.put(self._silent(num_frames))

    def finish(self) -> None:
        """Nothing is held back."""

    def accept_tail(self) -> None:
        """Fill up with silence to whole chunks that reach flush_s beyond the last window, one more frame than for
        samples: the sender may have had some that did not fill another window.
        """
        tail = math.ceil(flush_s(self._config) / self._config.features.hop_s) + 1
        chunks = math.ceil((len(self._queue) + tail) / self._needed)
        self._queue.put(self._silent(chunks * self._needed - len(self._queue)))

    def accept_silent_chunk(self) -> None:
        """Make another chunk ready, where none is."""
        self._queue.put(self._silent(self._needed - len(self._queue)))

    def take(self) -> Floats:
        """The next chunk, when ready. returns: (chunk_features, num_mels)"""
        return self._queue.take(self._needed)

    def _silent(self, num_frames: int) -> Floats:
        config = self._config.features
        return np.full((num_frames, config.num_mels), np.log(np.float32(config.floor)), np.float32)


FrontEnd = WaveformFrontEnd | FeatureFrontEnd
FrontEndT = TypeVar("FrontEndT", WaveformFrontEnd, FeatureFrontEnd)


class _Queue:
    """Rows that wait for a step, samples or frames: blocks in, chunks out, and no copy that grows."""

    def __init__(self) -> None:
        self._blocks: deque[Floats] = deque()
        self._offset = 0  # rows already taken of the first block
        self.num_put = 0
        self.num_taken = 0

    def __len__(self) -> int:
        return self.num_put - self.num_taken

    def put(self, rows: Floats) -> None:
        if len(rows):
            self._blocks.append(rows)
            self.num_put += len(rows)

    def take(self, num_rows: int) -> Floats:
        """The oldest rows, as many as asked for; there must be that many."""
        self.num_taken += num_rows
        parts = []
        while num_rows:
            part = self._blocks[0][self._offset : self._offset + num_rows]
            parts.append(part)
            num_rows -= len(part)
            self._offset += len(part)
            if self._offset == len(self._blocks[0]):
                self._blocks.popleft()
                self._offset = 0
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
