"""What each way of sending speech costs: bits on the wire, and words that are then heard wrong.

    python -m edgeasr.firmware_bridge.rates ../shared/speech/dev.jsonl --every 6

prints the table of docs/firmware-protocol.md. Every frame goes through its bytes and back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edgeasr.audio import FileSource, Resampler, Waveform
from edgeasr.config import FeatureConfig
from edgeasr.errors import ManifestError
from edgeasr.features import log_mel
from edgeasr.firmware_bridge.codec import AudioEncoder, decode_audio
from edgeasr.firmware_bridge.feature_codec import FeatureScale, decode_features, encode_features
from edgeasr.firmware_bridge.frame import Frame, FrameReader, FrameWriter
from edgeasr.firmware_bridge.messages import (
    DEFAULT_FEATURE_OFFSET,
    FEATURE_STEP_UNIT,
    Audio,
    Codec,
    FeatureCoding,
    Features,
    Message,
)
from edgeasr.manifest import Utterance, read_manifest
from edgeasr.metrics import ErrorCounts, character_errors, word_errors
from edgeasr.recognizer import Recognizer
from edgeasr.transcript import Final

AUDIO_FRAME_MS = 20
FEATURE_FRAMES = 10  # in a message
STEPS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0)  # nats

# The messages of a recording; None for one that does not travel.
Sender = Callable[[Waveform], Iterator[Message]] | None


def audio_sender(codec: Codec, sample_rate_hz: int) -> Sender:
    """AUDIO of a codec."""

    def send(waveform: Waveform) -> Iterator[Message]:
        encoder, size = AudioEncoder(codec), sample_rate_hz * AUDIO_FRAME_MS // 1000
        pcm = np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)
        for start in range(0, len(pcm), size):
            yield encoder.encode(pcm[start : start + size])

    return send


def feature_sender(step_nats: float, config: FeatureConfig, coding: FeatureCoding = FeatureCoding.RICE) -> Sender:
    """FEATURES of a step."""
    scale = FeatureScale(round(step_nats * FEATURE_STEP_UNIT), DEFAULT_FEATURE_OFFSET)

    def send(waveform: Waveform) -> Iterator[Message]:
        features = log_mel(waveform, config)
        for start in range(0, len(features), FEATURE_FRAMES):
            yield encode_features(features[start : start + FEATURE_FRAMES], scale, coding)

    return send


def hear(recognizer: Recognizer, waveform: Waveform, send: Sender) -> tuple[str, int]:
    """What is heard of a recording, and the bytes that it took."""
    recognizer.reset()
    texts: list[str] = []
    num_bytes = 0
    if send is None:
        recognizer.accept_waveform(waveform, recognizer.model.config.features.sample_rate_hz)
    else:
        writer, reader = FrameWriter(), FrameReader()
        for message in send(waveform):
            wire = writer.encode(message)
            num_bytes += len(wire)
            for item in reader.accept(wire):
                assert isinstance(item, Frame)
                _accept(recognizer, item.message)
            texts += _finals(recognizer)
    recognizer.input_finished()
    return " ".join([*texts, *_finals(recognizer)]), num_bytes


def _accept(recognizer: Recognizer, message: Message) -> None:
    if isinstance(message, Features):
        recognizer.accept_features(decode_features(message))
    elif isinstance(message, Audio):
        waveform = decode_audio(message).astype(np.float32) / np.float32(32768)
        recognizer.accept_waveform(waveform, recognizer.model.config.features.sample_rate_hz)


def _finals(recognizer: Recognizer) -> list[str]:
    texts = []
    while recognizer.is_ready():
        texts += [event.text for event in recognizer.step() if isinstance(event, Final)]
    return texts


def measure(recognizer: Recognizer, spoken: Sequence[tuple[str, Waveform]], send: Sender) -> tuple[float, float, float]:
    """kbit/s, WER and CER. spoken: texts and recordings at the model's rate"""
    words = characters = ErrorCounts()
    num_bytes = 0
    for text, waveform in spoken:
        heard, size = hear(recognizer, waveform, send)
        words += word_errors(text, heard)
        characters += character_errors(text, heard)
        num_bytes += size
    duration_s = sum(len(waveform) for _, waveform in spoken) / recognizer.model.config.features.sample_rate_hz
    return 8 * num_bytes / duration_s / 1000, words.rate, characters.rate


def _read(utterance: Utterance, sample_rate_hz: int) -> Waveform:
    with FileSource(utterance.path) as source:
        resampler = Resampler(source.sample_rate_hz, sample_rate_hz)
        parts = [resampler.process(block.samples) for block in source.blocks()]
    return np.concatenate([*parts, resampler.flush()])


def _senders(config: FeatureConfig) -> dict[str, Sender]:
    names = {Codec.S16: "s16", Codec.ULAW: "u-law", Codec.ADPCM: "IMA ADPCM"}
    audio = {name: audio_sender(codec, config.sample_rate_hz) for codec, name in names.items()}
    raw = {"features, 0.1 nats, int8": feature_sender(0.1, config, FeatureCoding.RAW)}
    rice = {f"features, {step:g} nats, Rice": feature_sender(step, config) for step in STEPS}
    return {"the file itself": None, **audio, **raw, **rice}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; prints one row of the table after another."""
    parser = argparse.ArgumentParser(prog="python -m edgeasr.firmware_bridge.rates")
    parser.add_argument("manifest", type=Path, help="speech with its texts")
    parser.add_argument("--every", type=int, default=1, help="take one utterance of so many")
    given = parser.parse_args(arguments)
    recognizer = Recognizer()
    config = recognizer.model.config.features
    utterances = read_manifest(given.manifest)[:: given.every]
    if not utterances:
        raise ManifestError(f"{given.manifest} has no utterances: nothing can be measured")
    spoken = [(utterance.text, _read(utterance, config.sample_rate_hz)) for utterance in utterances]
    sys.stdout.write("| sent as | kbit/s | WER | CER |\n|---|---|---|---|\n")
    for name, send in _senders(config).items():
        kbits, wer, cer = measure(recognizer, spoken, send)
        sys.stdout.write(f"| {name} | {f'{kbits:.1f}' if send else ''} | {wer:.3f} | {cer:.3f} |\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
