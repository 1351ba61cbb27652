"""Log-mel features on the wire: int8 steps of equal size, predicted from their neighbours and Rice-coded.

Rice (1979), "Some practical universal noiseless coding techniques", JPL 79-22. The prediction is linear in three
neighbours, with the weights of least squares on speech in quarters. The coding of the int8 levels is lossless.

`rates` measures what a step costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.firmware_bridge.messages import (
    DEFAULT_FEATURE_OFFSET,
    DEFAULT_FEATURE_STEP,
    FEATURE_OFFSET_UNIT,
    FEATURE_STEP_UNIT,
    RICE_ESCAPE_BITS,
    RICE_ESCAPE_ONES,
    RICE_MAX_PARAMETER,
    RICE_PARAMETER_BITS,
    FeatureCoding,
    Features,
    ProtocolError,
    Status,
)

Floats = NDArray[np.float32]
Levels = NDArray[np.int8]


class FeatureScale(NamedTuple):
    """log_mel = level * step / 1024 + offset / 256, in nats."""

    step: int = DEFAULT_FEATURE_STEP
    offset: int = DEFAULT_FEATURE_OFFSET

    @property
    def step_nats(self) -> float:
        """Distance of two levels."""
        return self.step / FEATURE_STEP_UNIT

    @property
    def offset_nats(self) -> float:
        """The value of level 0."""
        return self.offset / FEATURE_OFFSET_UNIT


DEFAULT_SCALE = FeatureScale()


def quantize(log_mel: Floats, scale: FeatureScale = DEFAULT_SCALE) -> Levels:
    """The nearest levels, the upper of two; what is beyond them is cut off. log_mel: (T, M)"""
    levels = np.floor((log_mel - scale.offset_nats) / scale.step_nats + 0.5)
    cut: Levels = np.clip(levels, -128, 127).astype(np.int8)
    return cut


def dequantize(levels: Levels, scale: FeatureScale) -> Floats:
    """The values of levels. levels: (T, M)"""
    return (levels * np.float32(scale.step_nats) + np.float32(scale.offset_nats)).astype(np.float32)


def encode_features(
    log_mel: Floats, scale: FeatureScale = DEFAULT_SCALE, coding: FeatureCoding = FeatureCoding.RICE
) -> Features:
    """Frames as a message that needs no other.

    log_mel: (T, M) float32, T and M up to 255
    errors:  ProtocolError for more frames than a message can hold
    """
    return encode_levels(quantize(log_mel, scale), scale, coding)


def encode_levels(levels: Levels, scale: FeatureScale, coding: FeatureCoding) -> Features:
    """Quantised frames as a message. levels: (T, M)"""
    num_frames, num_mels = levels.shape
    data = levels.tobytes() if coding == FeatureCoding.RAW else rice_encode(levels)
    return Features(num_mels, num_frames, coding, scale.step, scale.offset, data)


def decode_features(features: Features) -> Floats:
    """The frames of a message, in nats.

    returns: (T, M) float32
    errors:  as those of `decode_levels`
    """
    return dequantize(decode_levels(features), FeatureScale(features.step, features.offset))


def decode_levels(features: Features) -> Levels:
    """The int8 levels of a message, (T, M).

    errors: ProtocolError for no mels, a step of 0, an unknown coding, and data that does not hold what was announced
    """
    if features.num_mels == 0 or features.step == 0:
        raise ProtocolError(f"got features with {features.num_mels} mels and step {features.step}, wanted 1 or more")
    shape = (features.num_frames, features.num_mels)
    if features.coding == FeatureCoding.RICE:
        return rice_decode(features.data, *shape)
    if features.coding != FeatureCoding.RAW:
        raise ProtocolError(f"got features with coding {features.coding}, wanted 0 (raw) or 1 (Rice)")
    if len(features.data) != shape[0] * shape[1]:
        raise ProtocolError(
            f"got {len(features.data)} bytes for {shape[0]} frames of {shape[1]} mels, wanted one for each value",
            Status.BAD_LENGTH,
        )
    return np.frombuffer(features.data, np.int8).reshape(shape)


def rice_encode(levels: Levels) -> bytes:
    """The bytes of frames. levels: (T, M)"""
    bits = []
    for codes in _folded(levels):
        k = _best_parameter(codes)
        bits.append(format(k, f"0{RICE_PARAMETER_BITS}b"))
        bits += [_rice_code(code, k) for code in codes.tolist()]
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big") if text else b""


def _folded(levels: Levels) -> NDArray[np.int64]:
    """The errors of the prediction as numbers from 0: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4."""
    errors = levels.astype(np.int64) - _predictions(levels.astype(np.int64))
    return np.where(errors >= 0, 2 * errors, -2 * errors - 1)


def _predictions(levels: NDArray[np.int64]) -> NDArray[np.int64]:
    """What each value is expected to be, from the frame before and the mel below."""
    predicted = np.zeros_like(levels)
    predicted[:1, 1:] = levels[:1, :-1]
    predicted[1:, :1] = levels[:-1, :1]
    predicted[1:, 1:] = _plane(levels[:-1, 1:], levels[1:, :-1], levels[:-1, :-1])
    return predicted


def _plane(before: NDArray[np.int64], below: NDArray[np.int64], both: NDArray[np.int64]) -> NDArray[np.int64]:
    plane: NDArray[np.int64] = np.clip((3 * before + 3 * below - 2 * both + 2) >> 2, -128, 127)
    return plane


def _sizes(codes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Bits of each code."""
    quotients = codes >> k
    escaped = RICE_ESCAPE_ONES + RICE_ESCAPE_BITS
    return np.where(quotients >= RICE_ESCAPE_ONES, escaped, quotients + 1 + k)


def _best_parameter(codes: NDArray[np.int64]) -> int:
    sizes = [int(_sizes(codes, k).sum()) for k in range(RICE_MAX_PARAMETER + 1)]
    return sizes.index(min(sizes))


def _rice_code(code: int, k: int) -> str:
    quotient = code >> k
    if quotient >= RICE_ESCAPE_ONES:
        return "1" * RICE_ESCAPE_ONES + format(code, f"0{RICE_ESCAPE_BITS}b")
    rest = format(code & ((1 << k) - 1), f"0{k}b") if k else ""
    return "1" * quotient + "0" + rest


def rice_decode(data: bytes, num_frames: int, num_mels: int) -> Levels:
    """The levels of Rice-coded bytes, (num_frames, num_mels).

    errors: ProtocolError, TRUNCATED where the data ends too early, BAD_LENGTH for bytes and MALFORMED for bits after
            the last code, MALFORMED also for a level that no int8 holds
    """
    bits = _BitReader(data)
    frames: list[list[int]] = []
    for t in range(num_frames):
        k = bits.take(RICE_PARAMETER_BITS)
        frame: list[int] = []
        for m in range(num_mels):
            level = _prediction(frames[-1] if frames else None, frame) + _unfolded(bits.take_code(k))
            if not -128 <= level <= 127:
                raise ProtocolError(f"frame {t}, mel {m} of coded features is {level}: no int8, the data is damaged")
            frame.append(level)
        frames.append(frame)
    bits.finish()
    return np.array(frames, np.int8).reshape(num_frames, num_mels)


def _prediction(before: list[int] | None, frame: list[int]) -> int:
    """`_predictions` for the next value of a frame."""
    m = len(frame)
    if before is None:
        return frame[-1] if frame else 0
    if not frame:
        return before[0]
    return max(-128, min(127, (3 * before[m] + 3 * frame[-1] - 2 * before[m - 1] + 2) >> 2))


def _unfolded(code: int) -> int:
    return -(code + 1) // 2 if code & 1 else code // 2


class _BitReader:
    """Bits of bytes, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(format(byte, "08b") for byte in data)
        self._position = 0

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        end = self._position + count
        if end > len(self._bits):
            raise ProtocolError("coded features end within a code: the data is damaged or cut off", Status.TRUNCATED)
        bits, self._position = self._bits[self._position : end], end
        return int(bits, 2) if bits else 0

    def take_code(self, k: int) -> int:
        """The number of the next code."""
        ones = 0
        while ones < RICE_ESCAPE_ONES and self.take(1):
            ones += 1
        if ones == RICE_ESCAPE_ONES:
            return self.take(RICE_ESCAPE_BITS)
        return ones << k | self.take(k)

    def finish(self) -> None:
        """Check that only padding is left."""
        rest = self._bits[self._position :]
        if len(rest) >= 8:
            raise ProtocolError(f"coded features have {len(rest) // 8} bytes too many", Status.BAD_LENGTH)
        if "1" in rest:
            raise ProtocolError("the padding of coded features is not zero: the data is damaged")
