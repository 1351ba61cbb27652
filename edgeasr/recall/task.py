"""Associative recall: pairs of a key and a value somewhere among distractors; later a key is shown, its value is asked.

A vector is (is a pair, is a question, key one-hot, value one-hot). Distractors have keys and values as pairs have
them, and are told apart by the flag alone; a question has a key and no value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeasr.errors import ConfigError

_MOST_QUESTIONS = 64


class Streams(NamedTuple):
    """Streams, and what they ask.

    inputs:   (B, T, input_size)
    pair_at:  (B, Q) int64, where the pair of each question is
    asked_at: (B, Q) int64, where the question is
    answer:   (B, Q) int64, the value of that pair
    """

    inputs: Tensor
    pair_at: Tensor
    asked_at: Tensor
    answer: Tensor


@dataclass(frozen=True)
class RecallTask:
    """Sizes of the task. The keys of a stream's pairs differ, and their values are independent of each other.

    spread: vectors among which the pairs of a stream are
    asked:  how many of the pairs a test asks for, so that their order says nothing
    """

    num_keys: int = 4
    num_values: int = 8
    pairs: int = 3
    spread: int = 100
    asked: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.asked <= self.pairs <= min(self.num_keys, self.spread):
            raise ConfigError(
                f"got {self.pairs} pairs of which {self.asked} are asked, {self.num_keys} keys and {self.spread} "
                "places: wanted at most as many pairs as keys and as places, and no more asked than there are"
            )

    @property
    def input_size(self) -> int:
        """Channels of a vector."""
        return 2 + self.num_keys + self.num_values

    @property
    def chance(self) -> float:
        """Accuracy of a guess among all values."""
        return 1 / self.num_values

    def at_distance(self, distance: int, batch: int, generator: torch.Generator) -> Streams:
        """Streams in which each question comes exactly `distance` vectors after its pair.

        Before the pairs come up to `spread` distractors, so that pairs are anywhere in a segment of a hierarchy.
        """
        if distance < self.spread:
            raise ConfigError(
                f"got a distance of {distance}, where pairs are spread over {self.spread} vectors: wanted no less, "
                "since a question must not fall on a pair"
            )
        lead = torch.randint(self.spread, (batch, 1), generator=generator)
        pair_at = lead + _sample(batch, self.spread, self.pairs, generator)
        which = _sample(batch, self.pairs, self.asked, generator)
        asked_at = pair_at.gather(1, which) + distance
        return self._streams(2 * self.spread + distance, pair_at, which, asked_at, generator)

    def anywhere(self, spread: int, length: int, batch: int, generator: torch.Generator) -> Streams:
        """Streams of `length` vectors for training: pairs as in a test, over `spread` vectors, then questions anywhere.

        A question asks for any of the pairs; there are up to 64, in half of the places that are left at most, about as
        many in each doubling of the distance.
        """
        first = 2 * spread
        questions = min(_MOST_QUESTIONS, (length - first) // 2)
        if questions < 1:
            raise ConfigError(f"got streams of {length} vectors for pairs over {spread}: wanted {first + 2} or more")
        lead = torch.randint(spread, (batch, 1), generator=generator)
        pair_at = lead + _sample(batch, spread, self.pairs, generator)
        which = torch.randint(self.pairs, (batch, questions), generator=generator)
        distances = spread + torch.arange(length - first)
        asked_at = first + _sample(batch, length - first, questions, generator, weight=1 / distances)
        return self._streams(length, pair_at, which, asked_at, generator)

    def _streams(
        self, length: int, pair_at: Tensor, which: Tensor, asked_at: Tensor, generator: torch.Generator
    ) -> Streams:
        """pair_at: (B, pairs); which: (B, Q) pair of each question; asked_at: (B, Q)"""
        batch = pair_at.shape[0]
        key = torch.randint(self.num_keys, (batch, length), generator=generator)
        value = torch.randint(self.num_values, (batch, length), generator=generator)
        keys = _sample(batch, self.num_keys, self.pairs, generator)
        key = key.scatter(1, pair_at, keys).scatter(1, asked_at, keys.gather(1, which))
        is_pair = torch.zeros(batch, length).scatter(1, pair_at, 1.0)[..., None]
        is_question = torch.zeros(batch, length).scatter(1, asked_at, 1.0)[..., None]
        values = F.one_hot(value, self.num_values) * (1 - is_question)
        inputs = torch.cat([is_pair, is_question, F.one_hot(key, self.num_keys).float(), values], dim=-1)
        pair_at = pair_at.gather(1, which)
        return Streams(inputs, pair_at, asked_at, value.gather(1, pair_at))


def _sample(batch: int, numbers: int, count: int, generator: torch.Generator, weight: Tensor | float = 1.0) -> Tensor:
    """(B, count) different numbers below `numbers` a row, drawn one after another with these weights.

    source: Efraimidis and Spirakis 2006, by exponential waiting times
    """
    waits = -torch.rand(batch, numbers, generator=generator).clamp_min(1e-30).log() / weight
    return waits.argsort(dim=1)[:, :count]
