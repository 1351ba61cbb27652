"""Bare samples: bytes without a header, of a format that somebody has to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeasr.audio import MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ, Waveform
from edgeasr.errors import ConfigError

MAX_CHANNELS = 64

_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PcmFormat:
    """Interleaved samples.

    encoding: one of ENCODINGS; little-endian where it has no name of its own for the other order
    errors:   ConfigError for a rate, a number of channels or an encoding that there is not
    """

    sample_rate_hz: int = 16_000
    channels: int = 1
    encoding: str = "s16"

    def __post_init__(self) -> None:
        if not MIN_SAMPLE_RATE_HZ <= self.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
            raise ConfigError(
                f"got samples at {self.sample_rate_hz} Hz, want {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz"
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ConfigError(f"got {self.channels} channels, want 1 to {MAX_CHANNELS}")
        if self.encoding not in ENCODINGS:
            raise ConfigError(f"got samples as {self.encoding!r}, want one of {', '.join(ENCODINGS)}")

    @classmethod
    def parse(cls, text: str) -> PcmFormat:
        """RATE[:CHANNELS[:ENCODING]], such as 48000:2:s24. errors: ConfigError"""
        rate, *rest = text.split(":")
        channels, *encoding = rest or ["1"]
        if not rate.isdecimal() or not channels.isdecimal() or len(encoding) > 1:
            raise ConfigError(f"got samples as {text!r}, want RATE[:CHANNELS[:ENCODING]] such as 48000:2:s24")
        return cls(int(rate), int(channels), *encoding)

    @property
    def sample_bytes(self) -> int:
        """Of one channel."""
        return ENCODINGS[self.encoding][0]

    @property
    def frame_bytes(self) -> int:
        """Of all channels."""
        return self.channels * self.sample_bytes

    def __str__(self) -> str:
        return f"{self.sample_rate_hz}:{self.channels}:{self.encoding}"


def decode_pcm(data: bytes | bytearray | memoryview, pcm: PcmFormat) -> Waveform:
    """Frames of whole samples.

    data:    a whole number of frames
    returns: (num_samples, channels) float32 in [-1, 1]; floats beyond are clipped, those that are no number are 0
    """
    decode = ENCODINGS[pcm.encoding][1]
    return decode(np.frombuffer(data, np.uint8)).reshape(-1, pcm.channels)


def _integers(dtype: str) -> Callable[[_Bytes], Waveform]:
    scale = np.float32(2.0 ** (1 - 8 * np.dtype(dtype).itemsize))

    def decode(data: _Bytes) -> Waveform:
        samples: Waveform = data.view(dtype).astype(np.float32) * scale
        return samples

    return decode


def _floats(data: _Bytes) -> Waveform:
    finite = np.nan_to_num(data.view("<f4"), nan=0.0, posinf=1.0, neginf=-1.0)
    samples: Waveform = np.clip(finite, -1, 1).astype(np.float32, copy=False)
    return samples


def _packed_24(data: _Bytes) -> Waveform:
    """Three bytes a sample, as the upper ones of four."""
    words = np.zeros((len(data) // 3, 4), np.uint8)
    words[:, 1:] = data.reshape(-1, 3)
    return words.reshape(-1).view("<i4").astype(np.float32) * np.float32(2**-31)


def _unsigned(data: _Bytes) -> Waveform:
    return (data.astype(np.float32) - 128) * np.float32(2**-7)


def _from_table(table: Waveform) -> Callable[[_Bytes], Waveform]:
    return lambda data: table[data]


def _ulaw_table() -> Waveform:
    """G.711 mu-law, of every byte."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return (np.where(code & 0x80, -magnitude, magnitude) * 2.0**-15).astype(np.float32)


def _alaw_table() -> Waveform:
    """G.711 A-law, of every byte."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = ((code >> 4) & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = np.where(exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) * 2.0**-15).astype(np.float32)


# Bytes of a sample, and what they mean.
ENCODINGS: dict[str, tuple[int, Callable[[_Bytes], Waveform]]] = {
    "s16": (2, _integers("<i2")),
    "s16be": (2, _integers(">i2")),
    "s24": (3, _packed_24),
    "s32": (4, _integers("<i4")),
    "f32": (4, _floats),
    "u8": (1, _unsigned),
    "ulaw": (1, _from_table(_ulaw_table())),
    "alaw": (1, _from_table(_alaw_table())),
}
