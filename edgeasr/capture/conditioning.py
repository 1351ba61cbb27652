"""Sound as microphones give it, made more like what the model was trained on: without an offset, and not too quiet."""

from __future__ import annotations

import numpy as np

from edgeasr.audio import Waveform

_STEP_S = 0.04  # an offset and a gain are found anew so often
_OFFSET_S = 0.5  # time constant of the mean

# Levels as mean squares of 40 ms. Measured (docs/capture.md): words are heard as well at any level above this one.
_QUIET = 10**-3.5  # speech whose loudest moments are below -35 dBFS is raised
_LARGEST_GAIN = 10**1.5  # by 30 dB at most
_ABOVE_NOISE = 10.0  # what is 10 dB above the noise counts as speech
_NOISE_RISE = 1.02  # a step: the noise is the lowest level, and may rise by 2 dB a second
_FORGET = 0.998  # a step: loud speech is remembered for 20 s
_ATTACK, _RELEASE = 0.5, 0.05  # of the way to another gain, a step: down at once, up slowly
_LEAST = 1e-11  # -110 dBFS: no microphone is more silent; what is gives no hint


class OffsetFilter:
    """Takes the mean of the last half second out, as a high-pass filter of 0.3 Hz."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._step = max(1, round(_STEP_S * sample_rate_hz))
        self._decay = float(np.exp(-_STEP_S / _OFFSET_S))
        self.offset: float | None = None  # of late; None before the first sample

    def process(self, samples: Waveform) -> Waveform:
        """(num_samples,) float32, as many as came."""
        if self.offset is None:
            self.offset = float(samples[: self._step].mean())
        parts = []
        for at in range(0, len(samples), self._step):
            part = samples[at : at + self._step]
            before, share = self.offset, len(part) / self._step
            self.offset += (1 - self._decay**share) * (float(part.mean()) - before)
            parts.append(part - np.linspace(before, self.offset, len(part), dtype=np.float32))
        return np.concatenate(parts)


class SlowGain:
    """Raises speech that is quieter than the model hears well; lowers nothing, and leaves the rest as it is.

    The level is that of the loudest speech of the last twenty seconds; noise alone changes nothing.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._step = max(1, round(_STEP_S * sample_rate_hz))
        self._noise = self._level = 0.0
        self.gain = 1.0

    def process(self, samples: Waveform) -> Waveform:
        """(num_samples,) float32, as many as came."""
        parts = []
        for at in range(0, len(samples), self._step):
            part = samples[at : at + self._step]
            before = self.gain
            self._listen(part)
            parts.append(part if before == self.gain == 1 else part * self._ramp(before, len(part)))
        return np.clip(np.concatenate(parts), -1, 1)

    def _ramp(self, before: float, length: int) -> Waveform:
        return np.linspace(before, self.gain, length, dtype=np.float32)

    def _listen(self, part: Waveform) -> None:
        power = float(part @ part) / len(part)
        if power < _LEAST:
            return
        self._noise = min(power, self._noise * _NOISE_RISE) if self._noise else power
        if power > _ABOVE_NOISE * self._noise:
            self._level = max(power, self._level * _FORGET)
        if not self._level:
            return
        wanted = min(max(1.0, (_QUIET / self._level) ** 0.5), _LARGEST_GAIN)
        self.gain += (_ATTACK if wanted < self.gain else _RELEASE) * (wanted - self.gain)
        if self.gain < 1.001:
            self.gain = 1.0
