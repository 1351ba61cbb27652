"""Sentences of text said by unit selection: stretches of training speech, put together inside the encoder.

Text has many more words than recordings have. A sentence becomes the phones of its words, and these the longest
stretches of phones that occur in training speech, chosen at random among their equals (unit selection, Hunt and Black
1996). What is put together is not sound but the output of the encoder's lower blocks, which look back a few seconds
only and cost most; the upper blocks hear the whole, as they would hear speech, errors of the phones included.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeasr.config import FrozenConfig, require
from edgeasr.encoder import Encoder
from edgeasr.errors import ConfigError
from edgeasr.letter_to_sound import completed
from edgeasr.ngram_estimation import normal_sentence, read_sentences
from edgeasr.phones import PHONE_IDS, Dictionary, Pronunciation
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.augment import warp_bands
from edgeasr.train.ctc_alignment import Alignment, Ints, align
from edgeasr.train.data import Batch
from edgeasr.train.frame_files import FrameFile, FrameWriter, Halves, HeardRow

Bytes = NDArray[np.uint8]

_BLANK_ID = 0
_BETWEEN = 0  # in the place of a phone: the end of a recording, which no unit holds
# CTC says a phone in few of the frames in which it sounds: so many more belong to the first one and to the last.
_AROUND_FRAMES = 2
_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class UnitConfig(FrozenConfig):
    """How sentences are said; ranges are drawn from uniformly, their ends included."""

    passes: int = 3  # over the training speech, each time augmented anew
    longest_phones: tuple[int, int] = (4, 15)  # of a unit; shorter ones change voices more often
    first_pronunciation: float = 0.7  # chance that a word is said in the first way, before all ways are drawn from
    words: tuple[int, int] = (3, 34)  # of a sentence; others are left out
    pause_frames: tuple[int, int] = (3, 19)  # before and behind a sentence
    shard_sentences: int = 2_000  # some 2.5 hours
    batch_frames: int = 4_000  # that go through the upper blocks together, or one sentence
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("longest_phones", "words", "pause_frames"):
            low, high = getattr(self, name)
            least = 0 if name == "pause_frames" else 1
            require(least <= low <= high, f"{name} is from {low} to {high}: wanted {least} or more, the lower first")
        require(
            0 <= self.first_pronunciation <= 1,
            f"first_pronunciation is {self.first_pronunciation}: it must be a probability, in [0, 1]",
        )
        for name in ("passes", "shard_sentences", "batch_frames"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be positive")
        require(self.seed >= 0, f"seed is {self.seed}: it must not be negative")


class Heard(NamedTuple):
    """What the encoder makes of the output of its lower blocks."""

    outputs: Tensor  # (B, T, C), behind the last norm
    log_probs: Tensor  # (B, T, V)
    phones: Tensor | None  # (B, T, P), in a model that has them


class Listener:
    """An encoder in two halves: its lower blocks, and everything above them."""

    def __init__(self, encoder: Encoder, bf16: bool = False) -> None:
        self.encoder = encoder.eval()
        self.config = encoder.config
        self._device = encoder.feature_mean.device
        self._bf16 = bf16

    @torch.no_grad()
    def lower(self, features: Tensor) -> Tensor:
        """Log-mel features (B, T, M) to the output of the lower blocks, (B, T / 4, C)."""
        state = self.encoder.init_state(len(features), slots=0)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            lower, *_ = self.encoder.run_lower(features.to(self._device), state, self.config.encoder.chunk_frames)
        return lower.float().cpu()

    @torch.no_grad()
    def above(self, lower: Tensor) -> Heard:
        """lower: (B, T, C), T a multiple of the chunk"""
        encoder, state = self.encoder, self.encoder.init_state(len(lower), slots=0)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            output = encoder.run_above(lower.to(self._device), state, self.config.encoder.chunk_frames).output
            phones = encoder.emit_phones(output)
            log_probs, outputs = encoder.emit(output), encoder.norm(output)
        return Heard(outputs.float().cpu(), log_probs.cpu(), None if phones is None else phones.cpu())


def begun(alignment: Alignment, tokens: Ints) -> Ints:
    """The token that begins in each frame, else the blank, (T,)."""
    labels = np.full(len(alignment.heard), _BLANK_ID)
    labels[alignment.starts()] = tokens
    return labels


# The pool


class PoolPass:
    """One pass over training speech, written utterance by utterance; those that do not fit their text are left out."""

    def __init__(self, listener: Listener, vocal_tract: tuple[float, float], writer: FrameWriter) -> None:
        self.left_out = 0
        self._listener, self._vocal_tract, self._writer = listener, vocal_tract, writer
        self._phones: list[Bytes] = []
        self._bounds: list[Ints] = []

    def hear(self, batch: Batch, rng: np.random.Generator) -> None:
        """Augmented utterances, each with its phones and tokens."""
        features, config = batch.features, self._listener.config
        if self._vocal_tract[0] < self._vocal_tract[1]:
            factors = torch.from_numpy(rng.uniform(*self._vocal_tract, len(features)).astype(np.float32))
            features = warp_bands(features, factors, config.features)
        lower = self._listener.lower(features)
        heard = self._listener.above(lower)
        assert heard.phones is not None
        for row, frames in enumerate(batch.frames.tolist()):
            tokens = batch.targets[row, : batch.target_lengths[row]].numpy()
            phones = batch.phones[row, : batch.phone_lengths[row]].numpy()
            emitted = heard.log_probs[row, :frames].numpy()
            said = align(heard.phones[row, :frames].numpy(), phones) if len(phones) else None
            spelt = align(emitted, tokens) if said else None
            if said is None or spelt is None:
                self.left_out += 1
                continue
            self._bounds.append(self._writer.num_frames + _bounds(said))
            self._phones.append(np.append(phones, _BETWEEN).astype(np.uint8))
            outputs, kept = heard.outputs[row, :frames].numpy(), lower[row, :frames].numpy()
            self._writer.add(HeardRow(outputs, begun(spelt, tokens), emitted[:, _BLANK_ID], kept))

    def finish(self) -> None:
        """raises: ConfigError where no utterance fits its text"""
        if not self._phones:
            raise ConfigError(
                f"got {self.left_out} utterances that are too short for their texts, wanted some that can be aligned: "
                "look at data.train and data.dictionary"
            )
        phones, bounds = np.concatenate(self._phones), np.concatenate(self._bounds)
        self._writer.finish(self._listener.config.encoder.d_model, phones=phones, bounds=bounds)


def _bounds(said: Alignment) -> Ints:
    """Where each phone begins and, last, where the last one ends, (U + 1,): half-way between neighbours."""
    starts, ends = said.starts(), said.ends()
    first = max(0, int(starts[0]) - _AROUND_FRAMES)
    last = min(len(said.heard), int(ends[-1]) + _AROUND_FRAMES)
    return np.array([first, *((ends[:-1] + starts[1:]) // 2).tolist(), last])


class Unit(NamedTuple):
    """A stretch of the phones of a pool."""

    at: int
    length: int


class UnitPool:
    """Training speech as phones that can be looked up, and what the lower blocks make of it.

    phones: (N,) ids of all recordings, one after another, each with a 0 behind it
    bounds: (N,) the first frame of each phone, and at a 0 one behind the last frame of the phone before it
    """

    def __init__(self, passes: Sequence[FrameFile], longest_phones: int) -> None:
        """raises: BundleError for files of which something is missing"""
        self._lower = [one.lower() for one in passes]
        self._offsets = np.cumsum([0, *(len(lower) for lower in self._lower[:-1])]).tolist()
        pairs = list(zip(passes, self._offsets, strict=True))
        self.phones: Bytes = np.concatenate([one.more["phones"] for one in passes])
        self.bounds: Ints = np.concatenate([one.more["bounds"] + offset for one, offset in pairs])
        self._starts = np.concatenate([one.starts + offset for one, offset in pairs])
        self._ends = np.concatenate([one.ends + offset for one, offset in pairs])
        last = np.flatnonzero(self.phones == _BETWEEN)
        self._speech = np.stack([self.bounds[np.concatenate([[0], last[:-1] + 1])], self.bounds[last]], axis=1)
        # The array of suffixes, each cut off at the longest unit: what begins alike lies together.
        padded = np.concatenate([self.phones, np.zeros(longest_phones - 1, np.uint8)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, longest_phones)
        suffixes = np.ascontiguousarray(windows).view(f"S{longest_phones}")[:, 0]
        self._order = np.argsort(suffixes, kind="stable")
        self._suffixes = suffixes[self._order]
        self._longest = longest_phones

    def units(self, phones: bytes, longest_phones: tuple[int, int], rng: np.random.Generator) -> list[Unit] | None:
        """Units that spell the phones, each the longest up to a length that is drawn, at random among its equals.

        returns: None for phones among which is one that the pool lacks
        """
        found: list[Unit] = []
        at = 0
        while at < len(phones):
            limit = int(rng.integers(longest_phones[0], longest_phones[1] + 1))
            length, first, behind = self.longest(phones[at : at + limit])
            if not length:
                return None
            found.append(Unit(int(self._order[rng.integers(first, behind)]), length))
            at += length
        return found

    def longest(self, phones: bytes) -> tuple[int, int, int]:
        """How many of the phones, of the first on, occur together; and the suffixes that begin so, first to behind."""
        phones = phones[: self._longest]
        place = int(np.searchsorted(self._suffixes, np.bytes_(phones)))
        neighbours = self._suffixes[max(0, place - 1) : place + 1]
        length = max((_common(phones, bytes(one)) for one in neighbours), default=0)
        if not length:
            return 0, 0, 0
        low, high = phones[:length], phones[:length].ljust(self._longest, b"\xff")
        first = int(np.searchsorted(self._suffixes, np.bytes_(low)))
        return length, first, int(np.searchsorted(self._suffixes, np.bytes_(high), side="right"))

    def frames(self, unit: Unit) -> Halves:
        """What the lower blocks made of a unit, (T, C)."""
        return self._slice(int(self.bounds[unit.at]), int(self.bounds[unit.at + unit.length]))

    def silence(self, frames: int, rng: np.random.Generator, *, before: bool) -> Halves:
        """Up to so many frames from before or behind the speech of a recording, (T, C)."""
        row = int(rng.integers(len(self._ends)))
        begin, end = (int(bound) for bound in self._speech[row])
        if before:
            return self._slice(max(int(self._starts[row]), begin - frames), begin)
        return self._slice(end, min(int(self._ends[row]), end + frames))

    def _slice(self, start: int, end: int) -> Halves:
        number = bisect_right(self._offsets, start) - 1
        offset = self._offsets[number]
        return self._lower[number][start - offset : end - offset]


def _common(a: bytes, b: bytes) -> int:
    """The length of what both begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


# Sentences


class Script:
    """The sentences of a text in an order that is random, and without end: behind the last comes another order."""

    def __init__(self, path: Path, config: UnitConfig) -> None:
        """raises: ConfigError for a file that cannot be read or has no sentence of such a length"""
        least, most = config.words
        texts = (normal_sentence(line) for line in read_sentences([path]))
        self.sentences = [text for text in texts if least <= len(text.split()) <= most]
        if not self.sentences:
            raise ConfigError(
                f"got a text without sentences of {least} to {most} words, {path}, wanted one sentence a line: "
                "name another text"
            )
        self._config = config

    def shard(self, number: int) -> list[str]:
        """The sentences of a shard."""
        size, total, seed = self._config.shard_sentences, len(self.sentences), self._config.seed
        orders: dict[int, Ints] = {}
        chosen = []
        for place in range(number * size, (number + 1) * size):
            again, at = divmod(place, total)
            if again not in orders:
                orders[again] = np.random.default_rng([seed, again]).permutation(total)
            chosen.append(self.sentences[orders[again][at]])
        return chosen


@dataclass(frozen=True)
class _Said:
    """A sentence, and what the lower blocks made of its parts, mapped."""

    text: str
    parts: Sequence[Halves]

    @property
    def frames(self) -> int:
        return sum(map(len, self.parts))


@dataclass(frozen=True)
class Speaker:
    """Says sentences, and hears what was said."""

    pool: UnitPool
    listener: Listener
    tokenizer: Tokenizer
    dictionary: Dictionary
    config: UnitConfig

    def say_all(self, texts: Sequence[str], rng: np.random.Generator) -> Iterator[HeardRow]:
        """The sentences that can be said, of similar lengths together.

        Left out are those with a word that nobody knows to say, with a phone that the pool lacks, or so short that the
        tokens do not fit.
        """
        ways = completed(sorted({word for text in texts for word in text.split()}), self.dictionary)
        said = [one for text in texts if (one := self._said(text, ways, rng)) is not None]
        said.sort(key=lambda one: one.frames)
        at = 0
        while at < len(said):
            rows = min(_ROWS_AT_ONCE, max(1, self.config.batch_frames // said[at].frames))
            yield from self._heard(said[at : at + rows])
            at += rows

    def phones(self, text: str, ways: Mapping[str, tuple[Pronunciation, ...]], rng: np.random.Generator) -> bytes:
        """Ids of the phones of a text, each word in a way that is drawn; none for one with a word without any way."""
        ids = bytearray()
        for word in text.split():
            if word not in ways:
                return b""
            first = len(ways[word]) == 1 or rng.random() < self.config.first_pronunciation
            way = ways[word][0 if first else int(rng.integers(len(ways[word])))]
            ids.extend(PHONE_IDS[phone] for phone in way)
        return bytes(ids)

    def _said(self, text: str, ways: Mapping[str, tuple[Pronunciation, ...]], rng: np.random.Generator) -> _Said | None:
        phones = self.phones(text, ways, rng)
        units = self.pool.units(phones, self.config.longest_phones, rng) if phones else None
        if units is None:
            return None
        low, high = self.config.pause_frames
        before, behind = rng.integers(low, high + 1, 2).tolist()
        start = self.pool.silence(before, rng, before=True)
        end = self.pool.silence(behind, rng, before=False)
        return _Said(text, [start, *map(self.pool.frames, units), end])

    def _heard(self, said: Sequence[_Said]) -> Iterator[HeardRow]:
        chunk = self.listener.config.encoder.chunk_frames
        padded = -(-max(one.frames for one in said) // chunk) * chunk
        lower = np.stack(
            [
                np.concatenate(one.parts)[np.minimum(np.arange(padded), one.frames - 1)].astype(np.float32)
                for one in said
            ]
        )
        heard = self.listener.above(torch.from_numpy(lower))
        for row, one in enumerate(said):
            tokens, emitted = np.array(self.tokenizer.encode(one.text)), heard.log_probs[row, : one.frames].numpy()
            spelt = align(emitted, tokens)
            if spelt is not None:
                outputs = heard.outputs[row, : one.frames].numpy()
                yield HeardRow(outputs, begun(spelt, tokens), emitted[:, _BLANK_ID])


def write_shard(path: Path, number: int, script: Script, speaker: Speaker) -> int:
    """Say the sentences of a shard into a file; the same number says the same. returns: frames"""
    rng = np.random.default_rng([speaker.config.seed, number, len(script.sentences)])
    with FrameWriter(path) as writer:
        for row in speaker.say_all(script.shard(number), rng):
            writer.add(row)
        writer.finish(speaker.listener.config.encoder.d_model)
    return writer.num_frames
