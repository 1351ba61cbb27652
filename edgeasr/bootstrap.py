"""Confidence intervals of error rates, by the bootstrap.

Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004: the test set
is drawn again and again from itself, with replacement, and the rates of these sets are spread as those of other
test sets of its kind would be. What is drawn must be independent. Utterances of one speaker are not, so whole speakers
are drawn where there are several.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.metrics import ErrorCounts

METHOD = "percentile bootstrap (Bisani and Ney 2004)"
CONFIDENCE = 0.95
SAMPLES = 1000
SEED = 0


class Interval(NamedTuple):
    """Bounds that hold the middle CONFIDENCE of what was drawn."""

    low: float
    high: float


class Units(NamedTuple):
    """What is drawn: "speaker" or "utterance", and the errors of each."""

    kind: str
    counts: tuple[ErrorCounts, ...]


class Comparison(NamedTuple):
    """Of two systems on the same units.

    difference:  interval of the second's rate less the first's
    first_wins:  share of the drawn sets on which the first's rate is lower (Bisani and Ney's probability of
                 improvement)
    """

    difference: Interval
    first_wins: float


def units_of(counts: Iterable[tuple[str, ErrorCounts]]) -> Units:
    """Units of utterances, each given with its speaker: the speakers if several are named, else the utterances.

    An utterance without a speaker ("") stands for itself.
    """
    listed = list(counts)
    if len({speaker for speaker, _ in listed if speaker}) < 2:
        return Units("utterance", tuple(count for _, count in listed))
    pooled: dict[tuple[str, int], ErrorCounts] = {}
    for number, (speaker, count) in enumerate(listed):
        key = (speaker, 0 if speaker else number)
        pooled[key] = pooled.get(key, ErrorCounts()) + count
    return Units("speaker", tuple(pooled.values()))


def rate_interval(units: Sequence[ErrorCounts]) -> Interval | None:
    """The interval of the error rate; None for fewer than two units, of which nothing can be said."""
    return _interval(_drawn_rates(units)) if len(units) > 1 else None


def compare(first: Sequence[ErrorCounts], second: Sequence[ErrorCounts]) -> Comparison | None:
    """Two systems on the same units in the same order, drawn together; None for fewer than two units."""
    if len(first) != len(second):
        raise ValueError(f"got {len(first)} and {len(second)} units: compare systems on the same ones")
    if len(first) < 2:
        return None
    differences = _drawn_rates(second) - _drawn_rates(first)
    return Comparison(_interval(differences), float(np.mean(differences > 0)))


def _drawn_rates(units: Sequence[ErrorCounts]) -> NDArray[np.float64]:
    """(SAMPLES,) rates of sets drawn from units, the same draws for the same number of units; NaN without words."""
    errors = np.array([unit.errors for unit in units])
    lengths = np.array([unit.reference_length for unit in units])
    generator = np.random.default_rng(SEED)
    rates = np.full(SAMPLES, np.nan)
    for i in range(SAMPLES):
        drawn = generator.integers(len(units), size=len(units))
        if length := lengths[drawn].sum():
            rates[i] = errors[drawn].sum() / length
    return rates


def _interval(values: NDArray[np.float64]) -> Interval:
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(values, [outside, 100 - outside])
    return Interval(float(low), float(high))
