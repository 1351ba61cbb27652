"""pocketsphinx 5 with the models that it brings, as a baseline. Importing this needs the extra `benchmarks`."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from pocketsphinx import Decoder

from edgeasr.audio import Waveform, block_length
from edgeasr.measurement import BLOCK_MS


class Pocketsphinx:
    """US English acoustic model, dictionary and trigram of the package, default settings.

    streamed: blocks as a microphone gives them; else whole utterances, the cepstra of each normalised by its own
              mean, by which it errs less
    """

    sample_rate_hz = 16_000

    def __init__(self, *, streamed: bool = False) -> None:
        self.name = f"pocketsphinx {version('pocketsphinx')}"
        self.details = f"its own models and settings, {'streamed' if streamed else 'whole utterances'}"
        self._streamed = streamed
        self._decoder = Decoder(samprate=self.sample_rate_hz, loglevel="FATAL")

    def transcribe(self, waveform: Waveform) -> str:
        pcm = np.clip(np.rint(waveform * 32768), -32768, 32767).astype("<i2").tobytes()
        block_bytes = 2 * block_length(self.sample_rate_hz, BLOCK_MS) if self._streamed else len(pcm)
        self._decoder.start_utt()
        for first in range(0, len(pcm), block_bytes):
            self._decoder.process_raw(pcm[first : first + block_bytes], full_utt=not self._streamed)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""
