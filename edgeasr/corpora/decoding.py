"""Audio files as samples to train on."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from edgeasr.corpora.checking import differs, openable
from edgeasr.errors import AudioFormatError, ManifestError


def decode(file: Path | BinaryIO, name: object, said_s: float, sample_rate_hz: int) -> NDArray[np.int16]:
    """The mean of the channels at a rate, in 16 bits.

    name:   for messages
    said_s: how long it is to be
    raises: AudioFormatError for what cannot be decoded; ManifestError for audio of another length
    """
    try:
        opened = openable(file) if isinstance(file, Path) else file
        samples, rate = soundfile.read(opened, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioFormatError(f"cannot read {name}: {error}: mend the file or leave it out") from error
    if not np.isfinite(samples).all():
        raise AudioFormatError(f"{name} has samples that are no numbers: mend the file or leave it out")
    mono = soxr.resample(samples.mean(axis=1), rate, sample_rate_hz)
    found_s = len(mono) / sample_rate_hz
    if not len(mono):
        raise AudioFormatError(f"{name} has no samples: leave it out")
    if differs(found_s, said_s):
        raise ManifestError(f"{name} lasts {found_s:.2f} s, its manifest says {said_s:.2f} s: mend the duration")
    pcm: NDArray[np.int16] = (np.clip(mono, -1, 32767 / 32768) * 32768).astype(np.int16)
    return pcm
