"""Speech at every rate, number of channels and encoding that microphones have, beside 16 kHz mono. Run by `make soak`.

Each recording goes through the bytes of the format, a feed, the ring and the channel mix, as from a live source. Rates
below 16 kHz have lost the upper band before they are captured: they are held against 16 kHz mono without it, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import reduce
from pathlib import Path

import numpy as np
import soundfile
import soxr

from edgeasr.capture.conditioned import ConditionedSource
from edgeasr.capture.feed import FeedSource
from edgeasr.capture.pcm import PcmFormat
from edgeasr.firmware_bridge.transport import TransportEnded
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.transcript import Final

SPEECH = Path(__file__).parents[2] / "shared" / "speech"
RATE_HZ = 16_000
REFERENCE = PcmFormat(RATE_HZ, 1, "s16")
RATES = [PcmFormat(rate) for rate in (8_000, 11_025, 22_050, 44_100, 96_000)]
CHANNELS = [PcmFormat(48_000, channels) for channels in range(1, 9)]
ENCODINGS = [PcmFormat(RATE_HZ, 1, encoding) for encoding in ("s24", "s32", "f32", "ulaw", "alaw", "u8")]


class BytesFeed:
    """Bytes that were written beforehand."""

    name, may_return = "bytes", False

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, timeout_s: float) -> bytes:
        del timeout_s
        if self._at >= len(self._data):
            raise TransportEnded
        self._at += 10_007  # no whole number of frames
        return self._data[self._at - 10_007 : self._at]

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""


def encoded(samples: np.ndarray, pcm: PcmFormat, live: tuple[int, ...]) -> bytes:
    """Mono samples of 16 kHz as bytes of a format; live: the channels that carry them, the others are silent."""
    resampled = soxr.resample(samples, RATE_HZ, pcm.sample_rate_hz)
    frames = np.zeros((len(resampled), pcm.channels))
    frames[:, list(live)] = np.clip(resampled, -1, 1 - 2**-15)[:, None]
    if pcm.encoding == "s24":
        return (frames * 2**23).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    if pcm.encoding in ("ulaw", "alaw"):
        path = Path("/dev/shm", f"edgeasr-{pcm.encoding}.raw")
        soundfile.write(path, frames, pcm.sample_rate_hz, format="RAW", subtype=pcm.encoding.upper())
        data = path.read_bytes()
        path.unlink()
        return data
    scale, dtype = {"s16": (2**15, "<i2"), "s32": (2**31, "<i4"), "f32": (1, "<f4"), "u8": (2**7, "u1")}[pcm.encoding]
    return (frames * scale + (128 if pcm.encoding == "u8" else 0)).astype(dtype).tobytes()


def words(recognizer: Recognizer, data: bytes, pcm: PcmFormat) -> str:
    with ConditionedSource(FeedSource(BytesFeed(data), pcm)) as source:
        return " ".join(event.text for event in recognizer.stream(source) if isinstance(event, Final))


def main() -> None:
    """Print one JSON object: word error rates, and how many words differ from those of 16 kHz mono."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=6, help="of the recordings of dev.jsonl, so many are left out")
    parser.add_argument("--decoder", choices=("greedy", "lm"), default="greedy")
    options = parser.parse_args()
    lines = [json.loads(line) for line in (SPEECH / "dev.jsonl").read_text().splitlines()[:: options.every]]
    audio = []
    for line in lines:
        samples, rate_hz = soundfile.read(SPEECH / line["audio_filepath"], dtype="float32")
        audio.append(soxr.resample(samples, rate_hz, RATE_HZ))
    recognizer = Recognizer(load_model(), decoder=options.decoder)

    def heard(pcm: PcmFormat, live: tuple[int, ...]) -> list[str]:
        return [words(recognizer, encoded(samples, pcm, live), pcm) for samples in audio]

    def band_rate(rate_hz: int) -> float:
        """Word error rate of 16 kHz mono from which what this rate cannot hold was taken."""
        kept = [soxr.resample(soxr.resample(samples, RATE_HZ, rate_hz), rate_hz, RATE_HZ) for samples in audio]
        texts = [words(recognizer, encoded(samples, REFERENCE, (0,)), REFERENCE) for samples in kept]
        return float(reduce(ErrorCounts.__add__, map(word_errors, (line["text"] for line in lines), texts)).rate)

    wanted = heard(REFERENCE, (0,))
    report = {}
    cases = [(pcm, tuple(range(pcm.channels))) for pcm in (REFERENCE, *RATES, *CHANNELS, *ENCODINGS)]
    cases += [(PcmFormat(48_000, 8), (5,)), (PcmFormat(48_000, 2), (1,))]
    for pcm, live in cases:
        texts = heard(pcm, live)
        against = reduce(ErrorCounts.__add__, map(word_errors, (line["text"] for line in lines), texts))
        differing = reduce(ErrorCounts.__add__, map(word_errors, wanted, texts))
        name = str(pcm) if len(live) == pcm.channels else f"{pcm}, sound in channel {live[0] + 1} alone"
        report[name] = {"wer": round(against.rate, 4), "differs": round(differing.rate, 4)}
        if pcm.sample_rate_hz < RATE_HZ:
            report[name]["wer_of_band"] = round(band_rate(pcm.sample_rate_hz), 4)
        print(name, report[name], file=sys.stderr, flush=True)
    print(
        json.dumps(
            {
                "decoder": options.decoder,
                "recordings": len(lines),
                "seconds": round(sum(map(len, audio)) / RATE_HZ),
                **report,
            }
        )
    )


if __name__ == "__main__":
    main()
