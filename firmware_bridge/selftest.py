"""The link against itself: every message, every codec and every fault, in this process and without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from edgeasr.audio import AudioBlock, AudioSource, Waveform
from edgeasr.features import Floats, LogMel
from edgeasr.firmware_bridge.feature_codec import DEFAULT_SCALE
from edgeasr.firmware_bridge.frame import Frame, FrameReader, FrameWriter
from edgeasr.firmware_bridge.link import Link
from edgeasr.firmware_bridge.messages import MESSAGES, Codec, IntField, Message
from edgeasr.firmware_bridge.session import LinkConfig
from edgeasr.firmware_bridge.source import BridgeSource
from edgeasr.firmware_bridge.virtual_device import (
    FEATURES,
    RATE_HZ,
    DeviceConfig,
    FaultConfig,
    FaultyLine,
    LoopTransport,
    VirtualDevice,
)

FAULTS = {
    "bit errors": FaultConfig(bit_errors=1e-4),
    "dropped frames": FaultConfig(drop=0.05),
    "duplicated frames": FaultConfig(duplicate=0.05),
    "reordered frames": FaultConfig(reorder=0.05),
    "truncated frames": FaultConfig(truncate=0.05),
}
# Signal over noise that each codec keeps of the test sound, in dB.
_LEAST_SNR_DB = {Codec.S16: 150.0, Codec.ULAW: 30.0, Codec.ADPCM: 15.0}
_MOST_FEATURE_ERROR = DEFAULT_SCALE.step_nats / 2 + 1e-3  # half a level, where nothing is clipped


class Check(NamedTuple):
    """What was tried, and what came of it."""

    name: str
    passed: bool
    detail: str


class SoundSource(AudioSource):
    """A sweep with pauses: deterministic, and no two frames of it are alike."""

    name, sample_rate_hz, duration_s = "sweep", RATE_HZ, None

    def __init__(self, seconds: float = 20.0) -> None:
        times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
        envelope = np.maximum(0.02, np.sin(2 * np.pi * 0.7 * times))
        sweep = 0.5 * envelope * np.sin(2 * np.pi * (200 + 40 * times) * times)
        self.samples: Waveform = (np.rint(sweep * 2**15) * 2**-15).astype(np.float32)

    def blocks(self) -> Iterator[AudioBlock]:
        for start in range(0, len(self.samples), 1600):
            yield AudioBlock(self.samples[start : start + 1600], start)

    def close(self) -> None:
        """Nothing is open."""


class Heard(NamedTuple):
    """What came through: samples with NaN for gaps, or frames, and the report of losses."""

    samples: Waveform
    features: Floats
    report: str | None


def checks() -> Iterator[Check]:
    """All of them, as they are done."""
    for message in MESSAGES.values():
        yield _message_check(message)
    for codec in _LEAST_SNR_DB:
        yield _codec_check(codec)
    yield _features_check()
    for name, faults in FAULTS.items():
        yield _fault_check(name, faults)


def hear(source: SoundSource, codec: Codec, faults: FaultConfig) -> Heard:
    """A source through a virtual device, a line with faults and the host's side."""
    device = VirtualDevice(source, DeviceConfig(codec))
    link = Link(LoopTransport(device, FaultyLine(faults)), LinkConfig(), _keep_quiet)
    samples, features = [np.zeros(0, np.float32)], [np.zeros((0, FEATURES.num_mels), np.float32)]
    with BridgeSource(link, _keep_quiet) as heard:
        for block in heard.blocks():
            if isinstance(block, AudioBlock):
                samples += [np.full(block.gap_samples, np.nan, np.float32), block.samples]
            else:
                features.append(block.features)
        samples[0] = np.full(heard.origin or 0, np.nan, np.float32)
        return Heard(np.concatenate(samples), np.concatenate(features), heard.report())


def _keep_quiet(line: str) -> None:
    del line


def _message_check(message: type[Message]) -> Check:
    """The lowest and highest value of every field, there and back."""
    values = []
    for end in (0, 1):
        fields = {
            name: field.bounds[end] if isinstance(field, IntField) else ("ä\0z" if field.text else b"\0\1\xff") * end
            for name, field in message.wire_fields().items()
        }
        values.append(message(**fields))
    writer, reader = FrameWriter(), FrameReader()
    items = [item for value in values for item in reader.accept(writer.encode(value))]
    back = [item.message for item in items if isinstance(item, Frame)]
    return Check(f"message {message.title()}", back == values, f"{len(back)} of {len(values)} came back")


def _codec_check(codec: Codec) -> Check:
    source = SoundSource()
    heard = hear(source, codec, FaultConfig()).samples
    if len(heard) != len(source.samples):
        return Check(f"codec {codec.name}", False, f"{len(heard)} samples of {len(source.samples)}")
    noise = float(np.sum((heard - source.samples) ** 2))
    snr_db = 10 * np.log10(float(np.sum(source.samples**2)) / noise) if noise else np.inf
    return Check(f"codec {codec.name}", bool(snr_db >= _LEAST_SNR_DB[codec]), f"{snr_db:.1f} dB")


def _features_check() -> Check:
    source = SoundSource()
    heard, wanted = (
        hear(source, Codec.FEATURES, FaultConfig()).features,
        LogMel(FEATURES).accept_waveform(source.samples),
    )
    if heard.shape != wanted.shape:
        return Check("codec FEATURES", False, f"{len(heard)} frames of {len(wanted)}")
    worst = float(np.abs(heard - wanted).max())
    return Check("codec FEATURES", worst <= _MOST_FEATURE_ERROR, f"within {worst:.2f} nats")


def _fault_check(name: str, faults: FaultConfig) -> Check:
    """What is handed on is what was sent, in its place; what is not is a gap, and reported."""
    source = SoundSource()
    heard = hear(source, Codec.S16, faults)
    there = np.flatnonzero(~np.isnan(heard.samples))
    in_place = there[there < len(source.samples)]
    same = len(in_place) == len(there) and np.array_equal(heard.samples[there], source.samples[there])
    kept = len(there) / len(source.samples)
    passed = bool(same and heard.report and kept > 0.5)
    return Check(f"line with {name}", passed, f"{kept:.1%} heard, {'all of it right' if same else 'some of it WRONG'}")
