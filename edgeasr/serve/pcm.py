"""Interleaved PCM of any width and number of channels, in pieces that may end anywhere, as mono samples."""

from __future__ import annotations

import numpy as np

from edgeasr.audio import Waveform, mix_down
from edgeasr.errors import AudioFormatError

WIDTHS = (1, 2, 3, 4)
MAX_CHANNELS = 32


class PcmDecoder:
    """Little-endian integers, those of one byte unsigned, as in a wav file.

    width:    bytes of a sample, 1 to 4
    channels: are mixed down
    errors:   AudioFormatError for any other
    """

    def __init__(self, width: int, channels: int) -> None:
        if width not in WIDTHS:
            raise AudioFormatError(f"got samples of {width} bytes, want 1, 2, 3 or 4: send 16-bit samples")
        if not 1 <= channels <= MAX_CHANNELS:
            raise AudioFormatError(f"got {channels} channels, want 1 to {MAX_CHANNELS}: send one")
        self._width, self._channels = width, channels
        self._rest = b""

    def decode(self, pcm: bytes) -> Waveform:
        """The samples that are complete now. returns: (num_samples,) float32 in [-1, 1], possibly none"""
        pcm = self._rest + pcm
        frame_bytes = self._width * self._channels
        whole = len(pcm) // frame_bytes * frame_bytes
        self._rest = pcm[whole:]
        samples = _integers(pcm[:whole], self._width) * np.float32(2.0 ** (1 - 8 * self._width))
        return mix_down(samples.reshape(-1, self._channels))


def _integers(pcm: bytes, width: int) -> Waveform:
    """(num_samples,) float32, whole numbers of `width` bytes around 0."""
    if width == 1:
        return np.frombuffer(pcm, np.uint8).astype(np.float32) - np.float32(128)
    if width == 3:
        parts = np.frombuffer(pcm, np.uint8).reshape(-1, 3)
        padded = np.zeros((len(parts), 4), np.uint8)
        padded[:, 1:] = parts  # 256 times as much, sign included
        return padded.view("<i4")[:, 0].astype(np.float32) * np.float32(2**-8)
    return np.frombuffer(pcm, f"<i{width}").astype(np.float32)
