"""What a device hears, as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from edgeasr.audio import AudioBlock
from edgeasr.errors import AudioFormatError
from edgeasr.firmware_bridge.source import BridgeSource

SUFFIXES = (".wav", ".flac")


def record(source: BridgeSource, path: Path, seconds: float | None = None) -> float:
    """Write a source to a file, gaps as silence, until it ends or so many seconds are written.

    returns: the seconds written
    errors:  AudioFormatError for another kind of file, and a device that sends features; OSError
    """
    if path.suffix not in SUFFIXES:
        raise AudioFormatError(f"got {path}, want a file that ends in {' or '.join(SUFFIXES)}: rename it")
    written = 0
    file: soundfile.SoundFile | None = None
    try:
        for block in source.blocks():
            if not isinstance(block, AudioBlock):
                raise AudioFormatError(f"{source.name} sends features, want samples: ask for codec=s16, ulaw or adpcm")
            if file is None:
                file = soundfile.SoundFile(path, "w", source.sample_rate_hz, 1, "PCM_16")
            left = None if seconds is None else round(seconds * source.sample_rate_hz) - written
            samples = np.concatenate([np.zeros(block.gap_samples, np.float32), block.samples])[:left]
            file.write(samples)
            written += len(samples)
            if left is not None and len(samples) >= left:
                break
    finally:
        if file is not None:
            file.close()
    return written / source.sample_rate_hz
