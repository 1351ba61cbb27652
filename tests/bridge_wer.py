"""Word error rate of speech that comes over the bridge, by codec, beside that of the same samples in files:

    .venv/bin/python tests/bridge_wer.py ../shared/speech/dev.jsonl 20

No firmware: a virtual device in this process encodes in Python, which shows what codecs and framing cost. What the C
library and the firmware make of it is measured by `firmware_emulator.py`, in QEMU. The recordings are first written as
16-bit wav at 16 kHz, which is what a microphone at a microcontroller gives.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from edgeasr.audio import FileSource, Resampler
from edgeasr.firmware_bridge.link import Link
from edgeasr.firmware_bridge.messages import Codec
from edgeasr.firmware_bridge.session import LinkConfig
from edgeasr.firmware_bridge.source import BridgeSource
from edgeasr.firmware_bridge.virtual_device import DeviceConfig, FaultConfig, FaultyLine, LoopTransport, VirtualDevice
from edgeasr.manifest import read_manifest
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.recognizer import Recognizer
from edgeasr.transcript import Final


class CountingLine(FaultyLine):
    """A line without faults that counts its bytes."""

    num_bytes = 0

    def carry(self, frame):
        self.num_bytes += len(frame)
        return super().carry(frame)


def text_of(events):
    return " ".join(event.text for event in events if isinstance(event, Final))


def over_bridge(recognizer, path, codec):
    """(text, bytes on the wire) of a file that a virtual device sends."""
    line = CountingLine(FaultConfig())
    with FileSource(path) as file:
        device = VirtualDevice(file, DeviceConfig(codec))
        with BridgeSource(Link(LoopTransport(device, line), LinkConfig(), lambda _: None), lambda _: None) as source:
            text = text_of(recognizer.stream(source))
            assert source.report() is None
    return text, line.num_bytes


def written_as_pcm(utterance, folder):
    """The path of a 16-bit wav with what the utterance's file holds."""
    with FileSource(utterance.path) as source:
        resampler = Resampler(source.sample_rate_hz, 16_000)
        parts = [resampler.process(block.samples) for block in source.blocks()]
    path = folder / f"{utterance.path.stem}.wav"
    samples = np.concatenate([*parts, resampler.flush()])
    soundfile.write(path, np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype(np.int16), 16_000)
    return path


def say(report):
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def main(manifest, limit, folder):
    recognizer = Recognizer()
    utterances = read_manifest(Path(manifest))
    utterances = utterances[:: max(1, len(utterances) // limit)][:limit]
    paths = [written_as_pcm(utterance, folder) for utterance in utterances]
    files, seconds = ErrorCounts(), sum(utterance.duration_s for utterance in utterances)
    texts = []
    for utterance, path in zip(utterances, paths, strict=True):
        with FileSource(path) as source:
            texts.append(text_of(recognizer.stream(source)))
        files += word_errors(utterance.text, texts[-1])
    say({"source": "file", "utterances": limit, "audio_s": round(seconds, 1), "wer": round(files.rate, 4)})
    for codec in Codec:
        errors, same, num_bytes = ErrorCounts(), 0, 0
        for utterance, path, text in zip(utterances, paths, texts, strict=True):
            heard, sent = over_bridge(recognizer, path, codec)
            errors += word_errors(utterance.text, heard)
            same, num_bytes = same + (heard == text), num_bytes + sent
        report = {"source": codec.name.lower(), "wer": round(errors.rate, 4), "same_transcripts": same}
        say(report | {"kbit_s": round(num_bytes * 8 / seconds / 1000, 1)})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(sys.argv[1], int(sys.argv[2]), Path(temporary))
