"""Estimating a back-off n-gram language model from text, and pruning it to a size.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999), then pruning by relative entropy (Stolcke 1998)
with the histories' counts in the text as their probabilities. Everything is sorted arrays: an n-gram is one uint64,
16 bits a word, its last word lowest.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ConfigError
from edgeasr.ngram_tables import END, SPECIAL_WORDS, START, UNKNOWN, WORD_BITS
from edgeasr.tokenizer import normalize_text

MAX_ORDER = 64 // WORD_BITS
MAX_WORDS = (1 << WORD_BITS) - len(SPECIAL_WORDS)

# What is written so is said otherwise, and stands otherwise in transcripts.
ABBREVIATIONS: Mapping[str, str] = {
    "dr": "doctor",
    "etc": "et cetera",
    "jr": "junior",
    "mr": "mister",
    "mrs": "missus",
    "sr": "senior",
    "st": "saint",
    "vs": "versus",
}

_WORD_MASK = np.uint64((1 << WORD_BITS) - 1)
_SHIFT = np.uint64(WORD_BITS)

_BISECTIONS = 30
_WORD = re.compile(r"[a-z']+")
_NORMAL = re.compile(rf"{_WORD.pattern}(?: {_WORD.pattern})*")

_OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

Keys = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class NgramTable:
    """All n-grams of one order.

    keys:        (N,) sorted
    log_probs:   (N,) natural logarithms of p(last word | the others)
    log_backoff: (N,) what a word costs that does not follow; 0 where nothing does
    """

    keys: Keys
    log_probs: Floats
    log_backoff: Floats


@dataclass(frozen=True)
class Frequencies:
    """How often words are said elsewhere.

    shares: of all that is said, each above 0
    weight: of them beside the text's own shares, for words without a history
    """

    shares: Mapping[str, float]
    weight: float = 0.1

    @classmethod
    def read(cls, path: Path, weight: float = 0.1) -> Frequencies:
        """A list of words, one a line, each with a space and behind it a count or a share, of any scale.

        Abbreviations count for the words that they stand for; what else is no word of transcripts is left out.

        raises: ConfigError for a file that cannot be read or is no such list
        """
        counts: dict[str, float] = {}
        for number, line in enumerate(read_sentences([path]), 1):
            try:
                written, count = line.split()
                counts[written] = float(count)
                if not 0 < counts[written] < math.inf:
                    raise ValueError
            except ValueError as error:
                raise ConfigError(
                    f"{path}, line {number}: got {line.strip()!r}, wanted a word and a number above 0"
                ) from error
        total = math.fsum(counts.values())
        shares: dict[str, float] = {}
        for written, times in counts.items():
            if _WORD.fullmatch(written):
                for word in ABBREVIATIONS.get(written, written).split():
                    shares[word] = shares.get(word, 0.0) + times / total
        if not shares:
            raise ConfigError(f"got no word of a to z in {path}, wanted one a line with how often it is said")
        return cls(shares, weight)


@dataclass(frozen=True)
class Ngrams:
    """A back-off model. words: by id, the special ones first; tables: by order, from 1"""

    words: tuple[str, ...]
    tables: tuple[NgramTable, ...]

    @property
    def num_ngrams(self) -> int:
        return sum(len(table.keys) for table in self.tables)


def estimate(
    sentences: Iterable[str],
    *,
    order: int,
    max_words: int,
    max_ngrams: int,
    frequencies: Frequencies | None = None,
) -> Ngrams:
    """A model of `sentences`, normalised as training texts are.

    max_words:   size of the vocabulary, the most frequent ones
    max_ngrams:  pruned until it has so many at most, unigrams included
    frequencies: of words in other speech or text: they count for the vocabulary as much as the text does, and for
                 words without a history instead of a uniform distribution
    errors:      ConfigError for settings out of range and for a text without words
    """
    if not 1 <= order <= MAX_ORDER:
        raise ConfigError(f"got order {order}, wanted 1 to {MAX_ORDER}")
    if not 1 <= max_words <= MAX_WORDS:
        raise ConfigError(f"got {max_words} as the number of words, wanted 1 to {MAX_WORDS}")
    words, stream = _read(sentences, max_words, frequencies)
    if max_ngrams < len(words):
        raise ConfigError(f"got {max_ngrams} n-grams at most, wanted {len(words)} or more: each word is one")
    raw = [_counted(_windows(stream, n)) for n in range(1, order + 1)]
    raw[0] = _all_words(*raw[0], len(words))
    tables = _kneser_ney(raw, _zerograms(words, frequencies), frequencies.weight if frequencies else 0.0)
    return Ngrams(words, _pruned(tables, [counts for _, counts in raw], max_ngrams))


def read_sentences(paths: Iterable[Path]) -> Iterator[str]:
    """The lines of text files in UTF-8, packed ones by their suffixes. Errors: ConfigError for what is no such file"""
    for path in paths:
        opener = _OPENERS.get(path.suffix, open)
        try:
            with opener(path, "rt", encoding="utf-8") as lines:
                yield from lines
        except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
            raise ConfigError(f"text {path}: {error}: name a text in UTF-8, plain or .gz, .bz2 or .xz") from error


def suffix(keys: Keys, order: int) -> Keys:
    """The n-grams of `order` without their first words."""
    return keys & np.uint64((1 << WORD_BITS * (order - 1)) - 1)


def prefix(keys: Keys) -> Keys:
    """The n-grams without their last words."""
    return keys >> _SHIFT


def find(keys: Keys, wanted: Keys) -> tuple[Ints, Flags]:
    """Where in `keys` each wanted one would be, and whether it is there."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def log_prob(tables: Sequence[NgramTable], keys: Keys) -> Floats:
    """log p(last word | the others) of n-grams of the order `len(tables)`, backing off where one is missing."""
    order = len(tables)
    if order == 1:
        return tables[0].log_probs[find(tables[0].keys, keys)[0]]
    at, found = find(tables[-1].keys, keys)
    result = tables[-1].log_probs[at]
    missing = ~found
    if missing.any():
        history, known = find(tables[-2].keys, prefix(keys[missing]))
        backoff = np.where(known, tables[-2].log_backoff[history], 0.0)
        result[missing] = backoff + log_prob(tables[:-1], suffix(keys[missing], order))
    return result


def _read(
    sentences: Iterable[str], max_words: int, frequencies: Frequencies | None
) -> tuple[tuple[str, ...], NDArray[np.uint64]]:
    """The vocabulary, and the text as ids with a start and an end around each sentence."""
    texts = [text for sentence in sentences if (text := normal_sentence(sentence))]
    counts = Counter(word for text in texts for word in text.split())
    if not counts:
        raise ConfigError("got a text without words, wanted sentences, one a line")
    shares: Mapping[str, float] = counts
    if frequencies:
        total, others = counts.total(), frequencies.shares
        shares = {word: counts[word] / total + others.get(word, 0.0) for word in {*counts, *others}}
    ranked = sorted(shares, key=lambda word: (-shares[word], word))[:max_words]
    words = (*SPECIAL_WORDS, *ranked)
    ids = {word: number for number, word in enumerate(words)}
    stream: list[int] = []
    for text in texts:
        stream.append(START)
        stream.extend([ids.get(word, UNKNOWN) for word in text.split()])
        stream.append(END)
    return words, np.array(stream, np.uint64)


def normal_sentence(sentence: str) -> str:
    """`normalize_text`, and quickly where there is nothing to do."""
    text = sentence.strip()
    return text if _NORMAL.fullmatch(text) else normalize_text(text)


def _windows(stream: NDArray[np.uint64], order: int) -> Keys:
    """Every n-gram of the text; none goes on into the next sentence."""
    length = max(0, len(stream) - order + 1)
    keys = np.zeros(length, np.uint64)
    within = np.ones(length, np.bool_)
    for position in range(order):
        word = stream[position : position + length]
        keys = keys << _SHIFT | word
        if position:
            within &= word != START
    return keys[within]


def _counted(keys: Keys) -> tuple[Keys, Ints]:
    unique, counts = np.unique(keys, return_counts=True)
    return unique, counts.astype(np.int64)


def _zerograms(words: Sequence[str], frequencies: Frequencies | None) -> Floats:
    """What is known of words without any text: uniform but for their frequencies elsewhere; of all but the start."""
    uniform = np.full(len(words), 1.0 / (len(words) - 1))
    if not frequencies:
        return uniform
    least = min(frequencies.shares.values())
    special = len(SPECIAL_WORDS)
    known = np.array([frequencies.shares.get(word, least) for word in words[special:]])
    uniform[special:] = known / known.sum() * uniform[special:].sum()
    return uniform


def _kneser_ney(raw: Sequence[tuple[Keys, Ints]], zerograms: Floats, weight: float) -> list[NgramTable]:
    tables: list[NgramTable] = []
    for order in range(1, len(raw) + 1):
        keys, counts = raw[order - 1] if order == len(raw) else _continuations(raw, order)
        counts = np.where(keys == START, 0, counts) if order == 1 else counts
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        starts, group = _groups(prefix(keys))
        total = np.add.reduceat(counts, starts).astype(np.float64)
        backoff = np.add.reduceat(discounts, starts) / total
        if order == 1:
            lower = zerograms
        else:
            below = tables[-1]
            lower = np.exp(below.log_probs[find(below.keys, suffix(keys, order))[0]])
            history, _ = find(below.keys, prefix(keys[starts]))
            below.log_backoff[history] = np.log(backoff)
        probs = (counts - discounts) / total[group] + backoff[group] * lower
        if order == 1:
            probs = (1 - weight) * probs + weight * zerograms
            probs[START] = 1e-20
        tables.append(NgramTable(keys, np.log(probs), np.zeros(len(keys))))
    return tables


def _continuations(raw: Sequence[tuple[Keys, Ints]], order: int) -> tuple[Keys, Ints]:
    """In how many words' company an n-gram was seen; how often, where nothing can stand before it."""
    keys, counts = raw[order - 1]
    after, contexts = _counted(suffix(raw[order][0], order + 1))
    adjusted = counts.copy()
    at, _ = find(keys, after)
    inner = keys[at] >> np.uint64(WORD_BITS * (order - 1)) != START
    adjusted[at[inner]] = contexts[inner]
    return keys, adjusted


def _all_words(keys: Keys, counts: Ints, vocabulary_size: int) -> tuple[Keys, Ints]:
    """Counts of the whole vocabulary, of those special words too that did not occur."""
    everything = np.zeros(vocabulary_size, np.int64)
    everything[keys.astype(np.int64)] = counts
    return np.arange(vocabulary_size, dtype=np.uint64), everything


def _discounts(counts: Ints) -> Floats:
    """What is taken from counts of 0, 1, 2 and more (Chen and Goodman 1999, eq. 26)."""
    n1, n2, n3, n4 = (max(1, int((counts == n).sum())) for n in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    wanted = (0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    # A small text can give nonsense: fall back on a middling value inside what a count allows.
    return np.array([d if 0 < d < n else 0.6 * (n > 0) for n, d in enumerate(wanted)])


def _groups(sorted_keys: Keys) -> tuple[Ints, Ints]:
    """Where runs of equal keys start, and the run of each key."""
    new = np.ones(len(sorted_keys), np.bool_)
    new[1:] = sorted_keys[1:] != sorted_keys[:-1]
    return np.flatnonzero(new), np.cumsum(new) - 1


def _pruned(tables: Sequence[NgramTable], counts: Sequence[Ints], max_ngrams: int) -> tuple[NgramTable, ...]:
    """The n-grams whose loss is highest, `max_ngrams` of them at most."""
    losses = [_losses(tables[:n], counts[n - 2]) for n in range(2, len(tables) + 1)]
    histories = [find(low.keys, prefix(high.keys))[0] for low, high in pairwise(tables)]
    kept = _kept(len(tables[0].keys), histories, losses, -np.inf)
    if sum(map(len, kept)) > max_ngrams:
        low, high = np.log(1e-14), np.log(max(float(loss.max(initial=0)) for loss in losses) + 1e-13)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            kept = _kept(len(tables[0].keys), histories, losses, np.exp(middle))
            fits = sum(map(np.count_nonzero, kept)) <= max_ngrams
            low, high = (low, middle) if fits else (middle, high)
        kept = _kept(len(tables[0].keys), histories, losses, np.exp(high))
    return _renormalised(tables, kept)


def _losses(tables: Sequence[NgramTable], history_counts: Ints) -> Floats:
    """By how much the model's entropy would rise without each n-gram of the highest order (Stolcke 1998, eq. 3)."""
    table, below = tables[-1], tables[-2]
    order = len(tables)
    starts, group = _groups(prefix(table.keys))
    log_p, log_q = table.log_probs, log_prob(tables[:-1], suffix(table.keys, order))
    p, q = np.exp(log_p), np.exp(log_q)
    left_p = np.maximum(1 - np.add.reduceat(p, starts), 1e-9)[group]
    left_q = np.maximum(1 - np.add.reduceat(q, starts), 1e-9)[group]
    log_alpha, log_alpha_without = np.log(left_p / left_q), np.log((left_p + p) / (left_q + q))
    gain = p * (log_q + log_alpha_without - log_p) + left_p * (log_alpha_without - log_alpha)
    history, _ = find(below.keys, prefix(table.keys))
    history_probs = history_counts / max(1, history_counts.sum())
    losses: Floats = -gain * history_probs[history]
    return losses


def _kept(num_words: int, histories: Sequence[Ints], losses: Sequence[Floats], threshold: float) -> list[Flags]:
    """Which n-grams stay: those worth it, and the histories of longer ones that stay."""
    kept: list[Flags] = []
    for n in range(len(losses) - 1, -1, -1):
        keep = losses[n] > threshold
        if kept:
            keep[histories[n + 1][kept[0]]] = True
        kept.insert(0, keep)
    return [np.ones(num_words, np.bool_), *kept]


def _renormalised(tables: Sequence[NgramTable], kept: Sequence[Flags]) -> tuple[NgramTable, ...]:
    """The n-grams that stay, with the back-off weights that make every history sum to 1 again."""
    result: list[NgramTable] = []
    for order, (table, keep) in enumerate(zip(tables, kept, strict=True), 1):
        keys = table.keys[keep]
        if order > 1 and len(keys):
            log_q = log_prob(result, suffix(keys, order))
            starts, _ = _groups(prefix(keys))
            left_p = np.maximum(1 - np.add.reduceat(np.exp(table.log_probs[keep]), starts), 1e-9)
            left_q = np.maximum(1 - np.add.reduceat(np.exp(log_q), starts), 1e-9)
            history, _ = find(result[-1].keys, prefix(keys[starts]))
            result[-1].log_backoff[history] = np.log(left_p / left_q)
        if len(keys):
            result.append(NgramTable(keys, table.log_probs[keep], np.zeros(len(keys))))
    return tuple(result)
