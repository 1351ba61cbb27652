"""Utterances to batches: decoded once, drawn anew each epoch, and a pure function of (seed, epoch, step)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeasr.config import ModelConfig
from edgeasr.corpora.decoding import decode
from edgeasr.errors import ConfigError, ManifestError
from edgeasr.features import num_frames
from edgeasr.manifest import Utterance
from edgeasr.phones import Dictionary, pronounce
from edgeasr.sessions import joined
from edgeasr.tokenizer import Tokenizer, normalize_text
from edgeasr.train.augment import WaveformAugmenter
from edgeasr.train.features import log_mel

Decoded = Callable[[int, int], None]  # gets how many of how many are done

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 0.9


# An utterance, or several that are heard one after another.
Row = int | tuple[int, ...]


class Batch(NamedTuple):
    """Padded features and targets."""

    features: Tensor  # (B, T, M) log-mel, T a multiple of the encoder's chunk
    frames: Tensor  # (B,) encoder frames that hold speech
    targets: Tensor  # (B, U) token ids
    target_lengths: Tensor  # (B,)
    phones: Tensor  # (B, P) phone ids; P is 0 for a model without phones
    phone_lengths: Tensor  # (B,)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch(*(part.to(device, non_blocking=True) for part in self))


class Waveforms(Protocol):
    """Utterances with what is heard in them, (num_samples,) float32 in [-1, 1]."""

    sample_rate_hz: int

    @property
    def utterances(self) -> Sequence[Utterance]: ...

    def __getitem__(self, index: int) -> NDArray[np.float32]: ...


def waveform_of(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """Samples of 16 bits as numbers in [-1, 1]."""
    waveform: NDArray[np.float32] = pcm.astype(np.float32)
    return waveform / np.float32(32768)


class WaveformCache:
    """All utterances of some manifests as 16-bit samples in one memory-mapped file, shared by all processes."""

    def __init__(self, folder: Path, utterances: Sequence[Utterance], sample_rate_hz: int) -> None:
        listing = "\n".join(f"{u.path}\t{u.duration_s}" for u in utterances) + f"\n{sample_rate_hz}"
        name = hashlib.sha256(listing.encode()).hexdigest()[:16]
        self.sample_rate_hz = sample_rate_hz
        self.utterances = utterances
        self.samples_path, self.ends_path = folder / f"{name}.s16", folder / f"{name}.ends.npy"

    def build(self, decoded: Decoded) -> None:
        """Decode everything, unless a finished cache is there.

        raises: AudioFormatError naming a bad file; ManifestError for a duration that is not the file's
        """
        if self._is_finished():
            return
        self.samples_path.parent.mkdir(parents=True, exist_ok=True)
        self.ends_path.unlink(missing_ok=True)
        partial = self.samples_path.with_suffix(".partial")
        ends = []
        with partial.open("wb") as file:
            for i, utterance in enumerate(self.utterances):
                path, said_s = utterance.path, utterance.duration_s
                file.write(decode(path, path, said_s, self.sample_rate_hz).tobytes())
                ends.append(file.tell() // 2)
                decoded(i + 1, len(self.utterances))
        partial.replace(self.samples_path)
        partial = self.ends_path.with_suffix(".partial.npy")
        np.save(partial, np.array(ends, np.int64))
        partial.replace(self.ends_path)

    def open(self) -> None:
        """Map the finished cache."""
        self._samples = np.memmap(self.samples_path, np.int16, mode="r")
        self._ends = np.load(self.ends_path, allow_pickle=False)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        start = self._ends[index - 1] if index else 0
        return waveform_of(self._samples[start : self._ends[index]])

    def _is_finished(self) -> bool:
        """The file of ends is written last; the samples may have been cut short since."""
        try:
            ends = np.load(self.ends_path, allow_pickle=False)
            return len(ends) == len(self.utterances) and self.samples_path.stat().st_size == 2 * int(ends[-1])
        except (OSError, ValueError, EOFError):
            return False


@dataclass(frozen=True)
class BatchPlan:
    """Which utterances make up each batch of an epoch."""

    durations_s: Sequence[float]
    shares: Sequence[float]  # chance of each utterance to be drawn in an epoch
    batch_s: float
    seed: int
    speakers: Sequence[str] = ()
    session_s: float = 0.0  # above 0: neighbours of one speaker are joined to sessions of up to that

    def epoch(self, epoch: int, short_first: bool) -> list[list[Row]]:
        """Batches of rows: similar lengths together, in random order (or by length).

        Of the durations given, each batch has at most batch_s with its padding, or one row.
        """
        rng = np.random.default_rng([self.seed, epoch])
        drawn = np.flatnonzero(rng.random(len(self.shares)) < np.asarray(self.shares)).tolist()
        rows: list[Row] = self._sessions(drawn, rng) if self.session_s else list(drawn)
        lengths = np.array([self._length(row) for row in rows])
        jittered = lengths * rng.uniform(0.9, 1.1, len(rows))
        batches: list[list[Row]] = []
        longest = 0.0
        for i in np.argsort(jittered).tolist():
            longest = max(longest, lengths[i])
            if not batches or longest * (len(batches[-1]) + 1) > self.batch_s:
                batches.append([])
                longest = lengths[i]
            batches[-1].append(rows[i])
        if not short_first:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches

    def _length(self, row: Row) -> float:
        row = _members(row)
        return sum(self.durations_s[i] for i in row) + _LONGEST_PAUSE_S * (len(row) - 1)

    def _sessions(self, drawn: list[int], rng: np.random.Generator) -> list[Row]:
        """Utterances of one speaker in their order, up to lengths that differ from session to session."""
        sessions: list[list[int]] = []
        limit = 0.0
        for i in sorted(drawn, key=lambda i: self.speakers[i]):
            fits = bool(sessions) and self._length((*sessions[-1], i)) <= limit
            if fits and self.speakers[i] and self.speakers[sessions[-1][-1]] == self.speakers[i]:
                sessions[-1].append(i)
                continue
            sessions.append([i])
            limit = rng.uniform(0.3, 1.0) * self.session_s
        return [tuple(session) for session in sessions]


class Collator:
    """Indices to a batch: decode, augment, features, padding."""

    def __init__(
        self,
        cache: Waveforms,
        model: ModelConfig,
        tokenizer: Tokenizer,
        augment: WaveformAugmenter | None,
        dictionary: Dictionary | None = None,
    ) -> None:
        self.cache, self.model, self.augment = cache, model, augment
        self.between = [] if tokenizer.has_pieces else tokenizer.encode(" ")
        self.targets = [_encode(utterance, tokenizer) for utterance in cache.utterances]
        self.phones = [_pronounce(utterance, dictionary) for utterance in cache.utterances]

    def __call__(self, rows: Sequence[Row], seed: Sequence[int]) -> Batch:
        """The batch of these rows; the same seed gives the same batch. A session sounds alike from end to end."""
        rng = np.random.default_rng(list(seed))
        waveforms = []
        for row in rows:
            waveform = self._waveform(_members(row), rng)
            waveforms.append(self.augment(waveform, rng) if self.augment else waveform)
        features, frames = batch_features(waveforms, self.model)
        targets = [_one_after_another(self.targets, _members(row), self.between) for row in rows]
        phones = [_one_after_another(self.phones, _members(row), []) for row in rows]
        return Batch(features, frames, *_padded(targets), *_padded(phones))

    def _waveform(self, members: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
        if len(members) == 1:
            return self.cache[members[0]]
        pauses = rng.uniform(_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S, len(members) - 1) * self.cache.sample_rate_hz
        return joined([self.cache[i] for i in members], pauses.astype(int).tolist())


def _one_after_another(table: Sequence[list[int]], members: tuple[int, ...], between: list[int]) -> list[int]:
    ids = list(table[members[0]])
    for i in members[1:]:
        ids += between + table[i]
    return ids


def _members(row: Row) -> tuple[int, ...]:
    return (row,) if isinstance(row, int) else row


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids side by side, (B, longest), and their lengths, (B,)."""
    ids = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True), torch.tensor([len(row) for row in rows])


def batch_features(waveforms: Sequence[NDArray[np.float32]], model: ModelConfig) -> tuple[Tensor, Tensor]:
    """Features of waveforms, padded with silence to whole chunks as the recogniser pads the end of a stream.

    returns: (B, T, M) and the encoder frames of each row, (B,)
    """
    config, encoder = model.features, model.encoder
    chunk = encoder.chunk_features
    frames = [max(1, num_frames(len(w), config)) for w in waveforms]
    padded = -(-max(frames) // chunk) * chunk
    samples = np.zeros((len(waveforms), (padded - 1) * config.hop_length + config.win_length), np.float32)
    for row, waveform in zip(samples, waveforms, strict=True):
        row[: len(waveform)] = waveform[: len(row)]
    lengths = torch.tensor([-(-n // encoder.subsampling) for n in frames])
    return log_mel(torch.from_numpy(samples), config), lengths


def _pronounce(utterance: Utterance, dictionary: Dictionary | None) -> list[int]:
    """Phone ids of the text; none without a dictionary."""
    if dictionary is None:
        return []
    try:
        return pronounce(normalize_text(utterance.text), dictionary)
    except ConfigError as error:
        raise ManifestError(f"{utterance.path}: {error}") from error


def _encode(utterance: Utterance, tokenizer: Tokenizer) -> list[int]:
    """Token ids of the text in its plain form."""
    if any(char.isdigit() for char in utterance.text):
        raise ManifestError(f"{utterance.path}: the text {utterance.text[:40]!r} has digits: spell numbers out")
    text = normalize_text(utterance.text)
    if not text:
        raise ManifestError(f"{utterance.path}: the text is empty: leave the line out of the training manifest")
    try:
        return tokenizer.encode(text)
    except ConfigError as error:
        raise ManifestError(f"{utterance.path}: {error}") from error
