"""Parity: every artefact against torch, chunk by chunk over whole recordings; and its time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from edgeasr.converters.artefacts import KINDS
from edgeasr.encoder import Encoder
from edgeasr.errors import BundleError
from edgeasr.features import LogMel
from edgeasr.model import AcousticModel
from edgeasr.recording import read_recording

Floats = NDArray[np.float32]
Outputs = tuple[Floats, ...]

_LONGEST_S = 60.0
_TIMED_CHUNKS = 200


@dataclass(frozen=True)
class Parity:
    """How close an artefact's emissions are to torch's."""

    artefact: str
    chunks: int
    max_difference: float  # of a probability, over all frames and tokens
    snr_db: float  # power of torch's log-probabilities over that of the difference
    agreement: float  # share of frames with the same most likely token, or phone where these agree less
    worst_chunk: int  # where the largest difference is
    chunk_ms: int

    def enforce(self) -> None:
        """raises: BundleError where the artefact is out of its tolerance"""
        wanted = KINDS[self.artefact].tolerance
        # NaN, which compares with nothing, is out of tolerance too.
        close = self.max_difference <= wanted.max_difference and self.snr_db >= wanted.min_snr_db
        if not (close and self.agreement >= wanted.min_agreement):
            raise BundleError(
                f"{self.artefact} does not match torch: in chunks of {self.chunk_ms} ms got a difference of "
                f"{self.max_difference:.2g} (chunk {self.worst_chunk}), an SNR of {self.snr_db:.1f} dB and "
                f"{self.agreement:.2%} agreement, wanted at most {wanted.max_difference:g}, at least "
                f"{wanted.min_snr_db:g} dB and {wanted.min_agreement:.1%}: leave {self.artefact} out or train on"
            )


class Reference(NamedTuple):
    """Speech, and what torch makes of it in chunks of one length.

    features: (T, num_mels), T a multiple of chunk_features
    outputs:  log-probabilities of tokens, and of phones if there are any, of each chunk
    """

    features: Floats
    outputs: Sequence[Outputs]


@torch.no_grad()
def torch_reference(encoder: Encoder, features: Floats) -> Reference:
    """Step torch over features, as of `Reference`."""
    state, chunk, outputs = encoder.init_state(1), encoder.config.encoder.chunk_features, []
    for start in range(0, len(features), chunk):
        found, state = encoder.step(torch.from_numpy(features[start : start + chunk])[None], state)
        outputs.append(tuple(tensor[0].numpy() for tensor in (found.final, found.phones) if tensor is not None))
    return Reference(features, outputs)


def parity(expected: Reference, model: AcousticModel) -> Parity:
    """Step an artefact, with a state of its own, over what torch heard."""
    difference, power, noise, same = [], [], [], []  # of each chunk
    chunk, state = model.config.encoder.chunk_features, model.init_state()
    for i, wanted in enumerate(expected.outputs):
        emissions, state = model.step(expected.features[i * chunk : (i + 1) * chunk], state)
        found = tuple(array for array in emissions if array is not None)
        # (chunk_frames, V), and phones behind the tokens
        reference, result = (np.concatenate(outputs, axis=-1) for outputs in (wanted, found))
        difference.append(np.abs(np.exp(reference) - np.exp(result)).max())
        power.append(np.square(reference, dtype=np.float64).mean())
        noise.append(np.square(reference - result, dtype=np.float64).mean())
        same.append(_same_best(wanted, found))
    return Parity(
        artefact=model.artefact,
        chunks=len(difference),
        max_difference=float(np.max(difference)),
        snr_db=10 * float(np.log10(np.mean(power) / np.maximum(np.mean(noise), 1e-20))),
        agreement=float(np.mean(same, axis=0).min()),
        worst_chunk=int(np.argmax(difference)),
        chunk_ms=model.config.chunk_ms,
    )


def median_step_ms(model: AcousticModel, features: Floats) -> float:
    """Median time of a chunk, up to 200 of them in a row; the memory's graph falls into one of 25 chunks.

    features: as of `Reference`
    """
    chunk, state, times_s = model.config.encoder.chunk_features, model.init_state(), []
    for start in range(0, len(features), chunk)[:_TIMED_CHUNKS]:
        began_s = time.perf_counter()
        _, state = model.step(features[start : start + chunk], state)
        times_s.append(time.perf_counter() - began_s)
    return float(np.median(times_s)) * 1e3


def _same_best(wanted: Outputs, found: Outputs) -> list[float]:
    """Of each output the share of frames with the same most likely token or phone."""
    return [float((a.argmax(-1) == b.argmax(-1)).mean()) for a, b in zip(wanted, found, strict=True)]


def speech_features(recordings: Sequence[Path], encoder: Encoder) -> Floats:
    """Log-mel of recordings in one stream, repeated where too short to fill the memory, padded to whole chunks.

    returns: (T, num_mels)
    errors:  AudioFormatError for what is no recording
    """
    config = encoder.config
    waveform = np.concatenate([read_recording(path, config.features.sample_rate_hz) for path in recordings])
    step = config.chunk_samples
    length = max(len(waveform), _wanted_chunks(encoder) * step)
    padded = -(-length // step) * step + config.features.win_length - config.features.hop_length
    repeated = np.resize(waveform, length) if len(waveform) else waveform
    return LogMel(config.features).accept_waveform(np.pad(repeated, (0, padded - len(repeated))))


def _wanted_chunks(encoder: Encoder) -> int:
    """Enough to read what every level remembers, as far as a minute of speech goes."""
    config = encoder.config
    frames = max([config.encoder.left_context, *config.encoder.level_spans]) * 3
    return -(-min(frames, round(_LONGEST_S / config.frame_s)) // config.encoder.chunk_frames)
