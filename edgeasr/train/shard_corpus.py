"""A corpus in shards, read as streams: it need not fit the disk, only what waits to be drawn is held."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from numpy import float32
from numpy.typing import NDArray

from edgeasr.config import ModelConfig
from edgeasr.corpora.decoding import decode
from edgeasr.corpora.shards import Sample, Shard, find_shards
from edgeasr.errors import ConfigError, ManifestError
from edgeasr.manifest import Utterance
from edgeasr.phones import Dictionary, pronounce, read_dictionary
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.augment import WaveformAugmenter, load_noise
from edgeasr.train.corpus import Making, decode_all, dev_sets, require_batches, share
from edgeasr.train.data import Batch, Collator, waveform_of
from edgeasr.train.processes import Observer, Place
from edgeasr.train.recipe import Recipe
from edgeasr.train.shard_plan import Reading, ShardPlan, Take
from edgeasr.train.validation import DevSet


@dataclass(frozen=True)
class Held:
    """A sample that was read and waits, with what the index says of it."""

    sample: Sample
    utterance: Utterance


class HeldWaveforms:
    """Held samples as the utterances of a batch."""

    def __init__(self, held: Sequence[Held], sample_rate_hz: int) -> None:
        self.utterances: Sequence[Utterance] = [one.utterance for one in held]
        self.sample_rate_hz = sample_rate_hz
        self._held = held

    def __getitem__(self, index: int) -> NDArray[float32]:
        utterance, audio = self._held[index].utterance, self._held[index].sample.audio
        return waveform_of(decode(io.BytesIO(audio), utterance.path, utterance.duration_s, self.sample_rate_hz))


@dataclass(frozen=True)
class Maker:
    """Held samples to a batch."""

    model: ModelConfig
    tokenizer: Tokenizer
    augment: WaveformAugmenter
    dictionary: Dictionary | None

    def __call__(self, held: Sequence[Held], seed: Sequence[int]) -> Batch:
        """The batch of these samples; the same seed gives the same batch, as of a manifest's utterances."""
        waveforms = HeldWaveforms(held, self.model.features.sample_rate_hz)
        collate = Collator(waveforms, self.model, self.tokenizer, self.augment, self.dictionary)
        return collate(range(len(held)), seed)


@dataclass(frozen=True)
class ShardCorpus:
    """Shards to train on, how they become batches, and dev sets."""

    shards: tuple[Shard, ...]
    plan: ShardPlan
    make: Maker
    dev: list[DevSet]

    @property
    def num_utterances(self) -> int:
        """Not longer than data.max_duration_s."""
        return sum(d <= self.plan.max_duration_s for shard in self.shards for d in shard.durations_s)

    @property
    def hours(self) -> float:
        """Of the speech to train on."""
        limit_s = self.plan.max_duration_s
        return sum(d for shard in self.shards for d in shard.durations_s if d <= limit_s) / 3600

    @classmethod
    def load(cls, recipe: Recipe, place: Place, observer: Observer) -> ShardCorpus:
        """Read the index of the shards, look the words up, and decode the dev sets.

        raises: ManifestError, AudioFormatError or ConfigError for the first thing amiss; KeyboardInterrupt when asked
            to stop
        """
        data, rate = recipe.data, recipe.model.features.sample_rate_hz
        listed = find_shards(data.shards, recipe.root)
        if len(listed.shards) < place.world:
            raise ConfigError(
                f"got {len(listed.shards)} shards in data.shards, wanted one or more for each of {place.world} "
                "processes: write smaller ones (edgeasr corpus shard --shard-mb)"
            )
        dictionary = read_dictionary(recipe.root / data.dictionary) if data.dictionary else None
        _require_known(sorted(listed.words), recipe.tokenizer, dictionary)
        dev = dev_sets(recipe)
        decode_all([one.cache for one in dev], place, observer)
        augment = WaveformAugmenter(recipe.augment, load_noise(recipe.resolve(data.noise), rate), rate)
        plan = ShardPlan(
            [shard.durations_s for shard in listed.shards],
            [share(shard.path, data.weights) for shard in listed.shards],
            data.batch_s / place.world,
            data.buffer_s,
            data.max_duration_s,
            recipe.run.seed,
        )
        corpus = cls(listed.shards, plan, Maker(recipe.model, recipe.tokenizer, augment, dictionary), dev)
        corpus._report_left_out(observer)
        return corpus

    def _report_left_out(self, observer: Observer) -> None:
        """raises: ManifestError where nothing is left"""
        listed, limit_s = sum(len(shard.durations_s) for shard in self.shards), self.plan.max_duration_s
        if not self.num_utterances:
            raise ManifestError(
                f"got {listed} utterances longer than {limit_s} s in data.shards, wanted shorter ones: "
                "raise data.max_duration_s"
            )
        if left_out := listed - self.num_utterances:
            observer.report(f"left out {left_out} utterances longer than {limit_s} s (data.max_duration_s)")

    def batches(self, epoch: int, short_first: bool, place: Place, position: int, seed: int) -> Iterator[Making]:
        """How to make the batches of an epoch that are this process's, from a position on; shards are read meanwhile.

        raises: ConfigError for fewer batches than processes; ManifestError for a damaged shard
        """
        readings = self.plan.epoch(epoch, short_first, place.world)
        mine = readings[place.rank]
        require_batches(sum(len(reading.batches) for reading in readings), epoch, place.world)
        for done, held in enumerate(self._read(mine, position), position):
            yield partial(self.make, held, (seed, epoch, done, place.rank))

    def sample(self, count: int, seed: int) -> Iterator[Batch]:
        """The first utterances of the first shards, each a batch, equal in all processes."""
        takes = [Take(i, k) for i, shard in enumerate(self.shards) for k in range(len(shard.durations_s))]
        limit_s = self.plan.max_duration_s
        wanted = [take for take in takes if self.shards[take.shard].durations_s[take.sample] <= limit_s][:count]
        in_order = Reading(list(range(len(self.shards))), [[take] for take in wanted])
        for i, held in enumerate(self._read(in_order, 0)):
            yield self.make(held, (seed, i))

    def _read(self, reading: Reading, position: int) -> Iterator[list[Held]]:
        """The samples of each batch from a position on. Shards of which nothing is wanted any more are not opened."""
        wanted = {take for batch in reading.batches[position:] for take in batch}
        needed = {take.shard for take in wanted}
        stream = self._samples([shard for shard in reading.shards if shard in needed])
        waiting: dict[Take, Held] = {}
        for batch in reading.batches[position:]:
            while not all(take in waiting for take in batch):
                take, held = next(stream)
                if take in wanted:
                    waiting[take] = held
            yield [waiting.pop(take) for take in batch]
        # To its end: only then it is known that the last shard is whole.
        for _ in stream:
            pass

    def _samples(self, shards: Sequence[int]) -> Iterator[tuple[Take, Held]]:
        for number in shards:
            shard = self.shards[number]
            for i, sample in enumerate(shard.samples()):
                path = Path(f"{shard.path}/{sample.name}")
                said = Utterance(path, shard.durations_s[i], sample.text, sample.speaker, sample.source)
                yield Take(number, i), Held(sample, said)


def _require_known(words: Sequence[str], tokenizer: Tokenizer, dictionary: Dictionary | None) -> None:
    """raises: ManifestError for a word without tokens or, where phones are learnt, without a pronunciation"""
    for word in words:
        try:
            tokenizer.encode(word)
            if dictionary is not None:
                pronounce(word, dictionary)
        except ConfigError as error:
            raise ManifestError(f"data.shards: {error}") from error
