"""What a recipe trains on and is judged by: its manifests read, checked and decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from edgeasr.errors import ConfigError, ManifestError
from edgeasr.manifest import Utterance, read_manifest
from edgeasr.phones import read_dictionary
from edgeasr.tokenizer import normalize_text
from edgeasr.train.augment import WaveformAugmenter, load_noise
from edgeasr.train.data import Batch, BatchPlan, Collator, WaveformCache
from edgeasr.train.processes import Observer, Place, Progress
from edgeasr.train.recipe import Recipe
from edgeasr.train.validation import DevSet

Making = Callable[[], Batch]


@dataclass(frozen=True)
class Corpus:
    """Utterances to train on, how they become batches, and dev sets, none of which is trained on."""

    utterances: list[Utterance]
    plan: BatchPlan
    collate: Collator
    dev: list[DevSet]

    @property
    def num_utterances(self) -> int:
        return len(self.utterances)

    @property
    def hours(self) -> float:
        """Of the speech to train on."""
        return sum(u.duration_s for u in self.utterances) / 3600

    @classmethod
    def load(cls, recipe: Recipe, place: Place, observer: Observer) -> Corpus:
        """Read the manifests and decode what they list, unless it is decoded.

        raises: ManifestError or AudioFormatError for the first thing amiss; KeyboardInterrupt when asked to stop
        """
        data, rate = recipe.data, recipe.model.features.sample_rate_hz
        train = _train_utterances(recipe, observer)
        dev = dev_sets(recipe)
        _require_disjoint(train, dev)
        cache = WaveformCache(recipe.directory / "cache", train, rate)
        # Texts first: an error in one is found before hours of decoding.
        dictionary = read_dictionary(recipe.root / data.dictionary) if data.dictionary else None
        collate = Collator(cache, recipe.model, recipe.tokenizer, None, dictionary)
        decode_all([cache, *(one.cache for one in dev)], place, observer)
        noise = load_noise(recipe.resolve(data.noise), rate)
        collate.augment = WaveformAugmenter(recipe.augment, noise, rate)
        return cls(
            train,
            BatchPlan(
                [u.duration_s for u in train],
                [share(u.path, data.weights) for u in train],
                data.batch_s / place.world,
                recipe.run.seed,
                [u.speaker for u in train],
                data.session_s,
            ),
            collate,
            dev,
        )

    def batches(self, epoch: int, short_first: bool, place: Place, position: int, seed: int) -> Iterator[Making]:
        """How to make the batches of an epoch that are this process's, from a position on.

        raises: ConfigError for fewer batches than processes
        """
        world, batches = place.world, self.plan.epoch(epoch, short_first)
        require_batches(len(batches), epoch, world)
        for done in range(position, len(batches) // world):
            yield partial(self.collate, batches[done * world + place.rank], (seed, epoch, done, place.rank))

    def sample(self, count: int, seed: int) -> Iterator[Batch]:
        """Some of the utterances, each a batch, equal in all processes."""
        for i in np.random.default_rng(seed).permutation(len(self.utterances))[:count].tolist():
            yield self.collate([i], (seed, i))


def require_batches(batches: int, epoch: int, world: int) -> None:
    """raises: ConfigError where there is not one for each process"""
    if batches < world:
        raise ConfigError(
            f"got {batches} batches in epoch {epoch}, wanted one for each of {world} processes: "
            "lower data.batch_s or run.processes, or add speech"
        )


def dev_sets(recipe: Recipe) -> list[DevSet]:
    """The dev manifests, not decoded yet. raises: ManifestError"""
    folder, rate, session_s = recipe.directory / "cache", recipe.model.features.sample_rate_hz, recipe.data.session_s
    sets = [(path.stem, _dev_utterances(path)) for path in recipe.resolve(recipe.data.dev)]
    return [DevSet(name, u, WaveformCache(folder, u, rate), session_s) for name, u in sets]


def _train_utterances(recipe: Recipe, observer: Observer) -> list[Utterance]:
    data = recipe.data
    listed = [u for path in recipe.resolve(data.train) for u in read_manifest(path)]
    kept = [u for u in listed if u.duration_s <= data.max_duration_s]
    if not kept:
        raise ManifestError(
            f"got {len(listed)} utterances longer than {data.max_duration_s} s in data.train, wanted shorter ones: "
            "raise data.max_duration_s or cut them"
        )
    if len(kept) < len(listed):
        left_out = len(listed) - len(kept)
        observer.report(f"left out {left_out} utterances longer than {data.max_duration_s} s (data.max_duration_s)")
    return kept


def _dev_utterances(path: Path) -> list[Utterance]:
    utterances = read_manifest(path)
    if not any(normalize_text(u.text) for u in utterances):
        raise ManifestError(f"the dev manifest {path} has no words, wanted some to count errors against: add them")
    return utterances


def _require_disjoint(train: Iterable[Utterance], dev: Iterable[DevSet]) -> None:
    """raises: ManifestError for a recording to train on that is also one to choose models by"""
    trained_on = {u.path.resolve() for u in train}
    for one in dev:
        if shared := [u.path for u in one.utterances if u.path.resolve() in trained_on]:
            raise ManifestError(f"{shared[0]} of the dev manifest {one.name} is in data.train too: take it out of one")


def decode_all(caches: Sequence[WaveformCache], place: Place, observer: Observer) -> None:
    """Fill the caches, in the first process, and open them in all."""

    def decoded(done: int, total: int) -> None:
        if done % max(1, total // 100) == 0 or done == total:
            observer.watch(Progress("decoding", done, total))
            if observer.stop():
                raise KeyboardInterrupt
        if done % 1000 == 0 or done == total:
            observer.report(f"decoding: {done} of {total}")

    for cache in caches:
        if place.leads:
            cache.build(decoded)
    place.wait()
    for cache in caches:
        cache.open()


def share(path: Path, weights: Mapping[str, float]) -> float:
    """The smallest of the weights whose key is a part of the path."""
    return min((w for part, w in weights.items() if part in path.as_posix()), default=1.0)
