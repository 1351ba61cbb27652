"""One channel of several: the mean of those that carry sound."""

from __future__ import annotations

import numpy as np

from edgeasr.audio import Waveform

# Energy in a channel beside the loudest one, below which it carries no sound: 30 dB. Microphones of an array differ by
# less; an input without a microphone, or with a muted one, by more.
_LIVE = 1e-3
# The mean of channels of opposite sign is silence: so far below the channels themselves, that is what they are.
_CANCELLED = 1e-2
_DECAY = 0.98  # of what was heard before, a block
_HEARD = 1e-7  # mean square of a sample; -70 dBFS: below it a block says nothing about channels


class ChannelMix:
    """Frames of several channels to samples of one.

    The mean of all channels until more is known. A channel counts as live by its energy of late (40 ms blocks: two
    seconds), without its mean; where the live ones cancel each other out the loudest one is taken alone, as from an
    adapter that puts a balanced microphone on left and right. Weights change in steps of a tenth, not at once.

    channels: of the frames
    """

    def __init__(self, channels: int) -> None:
        self._weights = np.full(channels, np.float32(1 / channels))
        self._wanted = self._weights
        self._energy = np.zeros(channels)
        self._mixed = 0.0

    @property
    def weights(self) -> Waveform:
        """Of the channels, (channels,)."""
        return self._weights

    def mix(self, frames: Waveform) -> Waveform:
        """
        frames:  (num_samples, channels), not empty
        returns: (num_samples,), never a view of frames
        """
        if frames.shape[1] == 1:
            return frames[:, 0].copy()
        self._listen(frames)
        self._weights = self._weights + np.float32(0.1) * (self._wanted - self._weights)
        mixed: Waveform = frames @ self._weights
        return mixed

    def _listen(self, frames: Waveform) -> None:
        centred = frames - frames.mean(axis=0)
        energy = np.einsum("tc,tc->c", centred, centred) / len(frames)
        if energy.max() < _HEARD:
            return
        self._energy = _DECAY * self._energy + energy
        live = self._energy > _LIVE * self._energy.max()
        mean = centred[:, live].mean(axis=1)
        self._mixed = _DECAY * self._mixed + float(mean @ mean) / len(mean)
        if self._mixed < _CANCELLED * self._energy[live].mean():
            live = np.arange(len(live)) == self._energy.argmax()
        self._wanted = (live / live.sum()).astype(np.float32)
