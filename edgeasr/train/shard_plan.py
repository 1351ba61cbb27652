"""The order in which shards are read and drawn from: a pure function of the index, the seed and the epoch."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Take(NamedTuple):
    """A sample: which shard of the list, and which of its samples."""

    shard: int
    sample: int


@dataclass(frozen=True)
class Reading:
    """What one process reads in an epoch."""

    shards: list[int]  # in this order, each from start to end
    batches: list[list[Take]]


@dataclass(frozen=True)
class ShardPlan:
    """Which samples make up each batch of an epoch, in every process.

    A process reads its shards one after another into a buffer, and draws batches of neighbouring lengths from that.
    """

    durations_s: Sequence[Sequence[float]]  # by shard
    shares: Sequence[float]  # by shard: chance of each of its samples to be drawn in an epoch
    batch_s: float  # in one process
    buffer_s: float
    max_duration_s: float
    seed: int

    def epoch(self, epoch: int, short_first: bool, world: int) -> list[Reading]:
        """What each of `world` processes reads: equally many batches, each of at most batch_s with its padding."""
        rng = np.random.default_rng([self.seed, epoch])
        readings = []
        for shards in self._dealt(rng, world):
            drawn = (take for shard in shards for take in self._drawn(shard, rng))
            readings.append(Reading(shards, self._batches(drawn, short_first, rng)))
        least = min(len(reading.batches) for reading in readings)
        return [Reading(reading.shards, reading.batches[:least]) for reading in readings]

    def _dealt(self, rng: np.random.Generator, world: int) -> list[list[int]]:
        """The shards in random order, each to the process that has least so far."""
        dealt: list[list[int]] = [[] for _ in range(world)]
        held_s = [0.0] * world
        for shard in rng.permutation(len(self.durations_s)).tolist():
            poorest = held_s.index(min(held_s))
            dealt[poorest].append(shard)
            held_s[poorest] += sum(self.durations_s[shard]) * self.shares[shard]
        return dealt

    def _drawn(self, shard: int, rng: np.random.Generator) -> list[Take]:
        durations_s = np.asarray(self.durations_s[shard])
        wanted = (rng.random(len(durations_s)) < self.shares[shard]) & (durations_s <= self.max_duration_s)
        return [Take(shard, i) for i in np.flatnonzero(wanted).tolist()]

    def _batches(self, drawn: Iterable[Take], short_first: bool, rng: np.random.Generator) -> list[list[Take]]:
        """Batches out of a buffer that is full of what comes next: from a random one on to those that are longer.

        With short_first the buffer is emptied from the shortest on, and filled again.
        """
        batches: list[list[Take]] = []
        buffer: list[tuple[float, Take]] = []
        held_s = 0.0
        for take in drawn:
            length_s = self.durations_s[take.shard][take.sample]
            insort(buffer, (length_s, take))
            held_s += length_s
            if held_s >= self.buffer_s:
                least_s = 0.0 if short_first else self.buffer_s
                while buffer and held_s >= least_s:
                    held_s -= self._move(buffer, batches, short_first, rng)
        while buffer:
            self._move(buffer, batches, short_first, rng)
        return batches

    def _move(
        self,
        buffer: list[tuple[float, Take]],
        batches: list[list[Take]],
        short_first: bool,
        rng: np.random.Generator,
    ) -> float:
        """A batch from the buffer to the batches. returns: its seconds"""
        first = 0 if short_first else int(rng.integers(len(buffer)))
        last = first + 1
        while last < len(buffer) and buffer[last][0] * (last + 1 - first) <= self.batch_s:
            last += 1
        if last == len(buffer):
            while first and buffer[-1][0] * (last - first + 1) <= self.batch_s:
                first -= 1
        taken = buffer[first:last]
        del buffer[first:last]
        batches.append([take for _, take in taken])
        return sum(length_s for length_s, _ in taken)
