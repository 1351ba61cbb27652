"""Codecs of AUDIO: 16-bit samples, u-law (ITU-T G.711) and IMA ADPCM (IMA Digital Audio Focus Group, 1992).

Each frame decodes on its own: an ADPCM frame begins with the state that its decoder starts from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.firmware_bridge.messages import (
    ADPCM_HEADER_SIZE,
    ADPCM_MAX_STEP_INDEX,
    Audio,
    Codec,
    ProtocolError,
    Status,
)

Pcm = NDArray[np.int16]

MAX_SAMPLES = 65535  # what Audio.num_samples can say

_ULAW_BIAS = 132  # of 16-bit samples
_ULAW_CLIP = 32635

# IMA's table of step sizes, and how the index moves on with the magnitude of a code.
STEP_SIZES = (
    *(7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97),
    *(107, 118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796),
    *(876, 963, 1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871),
    *(5358, 5894, 6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623),
    *(27086, 29794, 32767),
)
INDEX_MOVES = (-1, -1, -1, -1, 2, 4, 6, 8)


def _change(step: int, code: int) -> int:
    """How far a code moves the predictor."""
    change = step >> 3
    for bit, part in ((4, step), (2, step >> 1), (1, step >> 2)):
        change += part if code & bit else 0
    return -change if code & 8 else change


def _next_index(step_index: int, code: int) -> int:
    return max(0, min(ADPCM_MAX_STEP_INDEX, step_index + INDEX_MOVES[code & 7]))


# By step index and code.
_CHANGES = [[_change(step, code) for code in range(16)] for step in STEP_SIZES]
_NEXT_INDEX = [[_next_index(step_index, code) for code in range(16)] for step_index in range(len(STEP_SIZES))]


class AdpcmState(NamedTuple):
    """What an ADPCM coder knows of the past: the last decoded sample, and an index into STEP_SIZES."""

    predictor: int = 0
    step_index: int = 0

    def after(self, code: int) -> AdpcmState:
        """The state when a code of four bits was decoded; its predictor is the sample."""
        sample = self.predictor + _CHANGES[self.step_index][code]
        return AdpcmState(max(-32768, min(32767, sample)), _NEXT_INDEX[self.step_index][code])

    def code_of(self, sample: int) -> int:
        """The code that brings the predictor near to a sample."""
        step, difference = STEP_SIZES[self.step_index], sample - self.predictor
        code = 8 if difference < 0 else 0
        difference = abs(difference)
        for bit, part in ((4, step), (2, step >> 1), (1, step >> 2)):
            if difference >= part:
                code |= bit
                difference -= part
        return code


class AudioEncoder:
    """Samples in, AUDIO out; the ADPCM state goes on from frame to frame, so that each starts near its samples."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._state = AdpcmState()

    def encode(self, pcm: Pcm) -> Audio:
        """The next samples as a message.

        pcm:    (num_samples,) int16
        errors: ProtocolError for more samples than a frame can hold
        """
        if self._codec == Codec.ADPCM:
            data, self._state = encode_adpcm(pcm, self._state)
            return Audio(self._codec, len(pcm), data)
        return encode_audio(pcm, self._codec)


def encode_audio(pcm: Pcm, codec: Codec) -> Audio:
    """Samples as a message that needs no other; ADPCM starts from the first sample.

    pcm:    (num_samples,) int16
    errors: ProtocolError for FEATURES, which is no codec of samples
    """
    if codec == Codec.S16:
        data = pcm.astype("<i2").tobytes()
    elif codec == Codec.ULAW:
        data = encode_ulaw(pcm)
    elif codec == Codec.ADPCM:
        data, _ = encode_adpcm(pcm, AdpcmState(int(pcm[0]) if len(pcm) else 0))
    else:
        raise ProtocolError(f"got codec {codec} for samples, wanted S16, ULAW or ADPCM", Status.BAD_ARG)
    return Audio(codec, len(pcm), data)


def decode_audio(audio: Audio) -> Pcm:
    """The samples of a message.

    returns: (num_samples,) int16
    errors:  ProtocolError for an unknown codec, data of another length than num_samples asks for, and an ADPCM
             state that cannot be
    """
    sizes = {
        Codec.S16: 2 * audio.num_samples,
        Codec.ULAW: audio.num_samples,
        Codec.ADPCM: ADPCM_HEADER_SIZE + (audio.num_samples + 1) // 2,
    }
    if audio.codec not in sizes:
        raise ProtocolError(f"got audio with codec {audio.codec}, wanted S16, ULAW or ADPCM")
    codec = Codec(audio.codec)
    if len(audio.data) != sizes[codec]:
        raise ProtocolError(
            f"got {len(audio.data)} bytes for {audio.num_samples} samples of {codec.name}, wanted {sizes[codec]}",
            Status.BAD_LENGTH,
        )
    if codec == Codec.S16:
        return np.frombuffer(audio.data, "<i2").astype(np.int16)
    if codec == Codec.ULAW:
        return decode_ulaw(audio.data)
    return decode_adpcm(audio.data, audio.num_samples)


def encode_ulaw(pcm: Pcm) -> bytes:
    """u-law bytes of 16-bit samples: those that libsndfile gives."""
    samples = pcm.astype(np.int32)
    magnitude = np.minimum(np.where(samples < 0, -samples, samples), _ULAW_CLIP) + _ULAW_BIAS
    segment = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (segment + 3)) & 15
    sign = np.where(samples < 0, 0x80, 0)
    codes: NDArray[np.int32] = ~(sign | (segment << 4) | mantissa) & 0xFF
    return codes.astype(np.uint8).tobytes()


def decode_ulaw(data: bytes) -> Pcm:
    """16-bit samples of u-law bytes."""
    return ULAW_SAMPLES[np.frombuffer(data, np.uint8)]


def _ulaw_samples() -> Pcm:
    codes = ~np.arange(256) & 0xFF
    magnitude = ((2 * (codes & 15) + 33) << ((codes >> 4) & 7)) - 33
    return np.where(codes & 0x80, -4 * magnitude, 4 * magnitude).astype(np.int16)


ULAW_SAMPLES = _ulaw_samples()


def encode_adpcm(pcm: Pcm, state: AdpcmState) -> tuple[bytes, AdpcmState]:
    """A block: the state that it starts from, then two codes a byte, the low half first.

    returns: the block, and the state behind it
    """
    header = state.predictor.to_bytes(2, "little", signed=True) + bytes([state.step_index, 0])
    codes = []
    for sample in pcm.tolist():
        code = state.code_of(sample)
        codes.append(code)
        state = state.after(code)
    codes += [0] * (len(codes) % 2)
    return header + bytes(low | high << 4 for low, high in zip(codes[::2], codes[1::2], strict=True)), state


def decode_adpcm(block: bytes, num_samples: int) -> Pcm:
    """The samples of a block. errors: ProtocolError for a header that no encoder writes"""
    state = AdpcmState(int.from_bytes(block[:2], "little", signed=True), block[2])
    if state.step_index > ADPCM_MAX_STEP_INDEX or block[3] != 0:
        raise ProtocolError(
            f"an ADPCM block has step index {block[2]} and reserved byte {block[3]}, wanted 0 to "
            f"{ADPCM_MAX_STEP_INDEX} and 0"
        )
    samples = []
    for byte in block[ADPCM_HEADER_SIZE:]:
        for code in (byte & 15, byte >> 4):
            state = state.after(code)
            samples.append(state.predictor)
    return np.array(samples[:num_samples], np.int16)
