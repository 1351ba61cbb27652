"""A word n-gram language model as a device reads it: one file, and scores of many words at once;
with how its words are said.

The file is a zip of arrays (npz, nothing pickled): the words, and for every order how many words follow each
history, those words, and log-probabilities and back-off weights as one of 256 values.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import BundleError, ConfigError
from edgeasr.ngram_estimation import END, SPECIAL_WORDS, START, WORD_BITS, Ngrams, NgramTable, find, prefix
from edgeasr.phones import PHONE_IDS, PHONES, Dictionary, Pronunciation

FORMAT_VERSION = 1
EMPTY = 0

_LEVELS = 256
_PART = 1 << 17  # n-grams at a time, so that loading needs little more memory than the model
_BUILD_AGAIN = "build the language model again"
_FILE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Halves = NDArray[np.float16]


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order, sorted by history and word.

    followers:   of each n-gram of the order below, how many words follow it
    words:       (N,) the last words
    log_probs:   (N,)
    log_backoff: (N,), or nothing for the highest order
    """

    followers: NDArray[np.uint16] | Ints
    words: NDArray[np.uint16]
    log_probs: Halves
    log_backoff: Halves


@dataclass(frozen=True)
class Pronunciations:
    """How the words of a model are said.

    words:  (N,) the word's number
    phones: (N, longest) ids of its phones, 0 after the end
    """

    words: Ints
    phones: NDArray[np.uint8]

    @classmethod
    def of(cls, words: Sequence[str], dictionary: Dictionary) -> Pronunciations:
        """Those of a dictionary. Errors: ConfigError where it has none of the words"""
        said = [(number, way) for number, word in enumerate(words) for way in dictionary.get(word, ())]
        if not said:
            raise ConfigError(f"the dictionary has none of the {len(words)} words: give one of their language")
        phones = np.zeros((len(said), max(len(way) for _, way in said)), np.uint8)
        for row, (_, way) in zip(phones, said, strict=True):
            row[: len(way)] = [PHONE_IDS[phone] for phone in way]
        return cls(np.array([number for number, _ in said], np.int64), phones)

    def check(self, num_words: int) -> None:
        """Errors: ValueError unless every row is a word's and has phones, and none after its end."""
        fits = self.phones.ndim == 2 and self.phones.dtype == np.uint8 and len(self.words) == len(self.phones) > 0
        known = fits and self.words.min() >= 0 and self.words.max() < num_words and self.phones.max() < len(PHONES)
        if not known or not self.phones[:, 0].all():
            raise ValueError("the pronunciations are not those of its words")
        if (self.phones[:, 1:].astype(bool) & (self.phones[:, :-1] == 0)).any():
            raise ValueError("a pronunciation has a gap")

    def dictionary(self, words: Sequence[str]) -> dict[str, tuple[Pronunciation, ...]]:
        """The same as a dictionary of the words."""
        ways: dict[str, list[Pronunciation]] = {}
        for number, row in zip(self.words.tolist(), self.phones, strict=True):
            ways.setdefault(words[number], []).append(tuple(PHONES[phone] for phone in row[row > 0].tolist()))
        return {word: tuple(said) for word, said in ways.items()}


class LanguageModel:
    """A back-off n-gram model (Katz 1987), read by `load` or from bytes by `from_bytes`.

    A state is the longest history that matters, as a number: `start` is a sentence's beginning, EMPTY is no history.

    words:          a word's number is its index here
    pronunciations: how they are said
    """

    def __init__(self, words: tuple[str, ...], pronunciations: Pronunciations, orders: tuple[_Order, ...]) -> None:
        self.words, self.pronunciations = words, pronunciations
        self.order = len(orders)
        # The empty history is node 0, so that an n-gram's node is its index and 1. The longest n-grams are no states.
        first = np.concatenate([[0], np.cumsum([len(order.words) for order in orders])])
        num_states = int(first[-2]) + 1
        self._keys = np.empty(first[-1], np.int64)
        self._log_probs = np.concatenate([order.log_probs for order in orders])
        self._log_backoff = np.concatenate([np.zeros(1, np.float16), *(order.log_backoff for order in orders)])
        self._shorter = np.zeros(num_states, np.int32)
        self._after = np.zeros(first[-1], np.int32)
        has_followers = np.zeros(num_states, np.bool_)
        for number, order in enumerate(orders):
            histories = np.arange(len(order.followers), dtype=np.int32) + (int(first[number - 1]) + 1 if number else 0)
            has_followers[histories] = order.followers > 0
            keys = self._keys[first[number] : first[number + 1]]
            keys[:] = np.repeat(histories, order.followers)
            keys <<= WORD_BITS
            keys |= order.words
        for number, order in enumerate(orders):
            nodes = np.arange(first[number], first[number + 1], dtype=np.int32) + 1
            shorter = np.zeros(len(nodes), np.int32)
            if number:
                for part in range(0, len(nodes), _PART):
                    here = slice(part, part + _PART)
                    histories = self._keys[nodes[here] - 1] >> WORD_BITS
                    longest = self._shorter[histories].astype(np.int64)
                    shorter[here] = self._scored(longest, order.words[here].astype(np.int64), int(first[number]))[1]
            if number < len(orders) - 1:
                self._shorter[nodes] = shorter
                self._after[nodes - 1] = np.where(has_followers[nodes], nodes, shorter)
            else:
                self._after[nodes - 1] = shorter
        self.start = int(self._after[START])

    @classmethod
    def load(cls, path: str | Path) -> LanguageModel:
        """Read a file. Errors: BundleError for one that is missing, damaged or something else."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise BundleError(f"language model {path}: {error.strerror or error}: check the path") from error
        return cls.from_bytes(content, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "given as bytes") -> LanguageModel:
        """A model from a file's content. Errors: as for `load`; name: what they call it"""
        if not zipfile.is_zipfile(io.BytesIO(content)):
            raise BundleError(f"language model {name}: not a file that `edgeasr lm build` wrote: {_BUILD_AGAIN}")
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls(*_unpacked(arrays))
        except _FILE_ERRORS as error:
            raise BundleError(f"language model {name}: no readable model ({error}): {_BUILD_AGAIN}") from error

    @property
    def num_ngrams(self) -> int:
        return len(self._keys)

    @property
    def unigrams(self) -> Floats:
        """(words,) log-probabilities without a history."""
        return self._log_probs[len(SPECIAL_WORDS) : len(SPECIAL_WORDS) + len(self.words)].astype(np.float32)

    def score(self, states: Ints, words: Ints) -> tuple[Floats, Ints]:
        """(M,) log-probabilities of words after states, and the states after those words."""
        return self._scored(states, words + len(SPECIAL_WORDS))

    def score_end(self, states: Ints) -> Floats:
        """(M,) log-probabilities that a sentence ends here."""
        return self._scored(states, np.full(len(states), END))[0]

    def _scored(self, states: Ints, ids: Ints, below: int | None = None) -> tuple[Floats, Ints]:
        """below: only the first so many n-grams count"""
        keys = self._keys[:below]
        log_probs = np.zeros(len(states), np.float32)
        after = np.zeros(len(states), np.int64)
        waiting = np.arange(len(states))
        for _ in range(self.order):
            wanted = states << WORD_BITS | ids
            at = keys.searchsorted(wanted)
            np.minimum(at, len(keys) - 1, out=at)
            found = keys[at] == wanted
            done = waiting[found]
            log_probs[done] += self._log_probs[at[found]]
            after[done] = self._after[at[found]]
            if len(done) == len(waiting):
                break
            missing = ~found
            waiting, states, ids = waiting[missing], states[missing], ids[missing]
            log_probs[waiting] += self._log_backoff[states]
            states = self._shorter[states].astype(np.int64)
        return log_probs, after


def packed(ngrams: Ngrams, dictionary: Dictionary) -> bytes:
    """The file of a model. dictionary: pronunciations of its words; one without any is never heard"""
    words = ngrams.words[len(SPECIAL_WORDS) :]
    said = Pronunciations.of(words, dictionary)
    arrays: dict[str, Any] = {
        "format": np.array([FORMAT_VERSION, len(ngrams.tables)], np.int64),
        "words": np.frombuffer("\n".join(words).encode(), np.uint8),
        "said_words": said.words.astype(np.uint16),
        "said_phones": said.phones.T.copy(),
    }
    previous: NgramTable | None = None
    for number, table in enumerate(ngrams.tables, 1):
        if previous is not None:
            history, _ = find(previous.keys, prefix(table.keys))
            followers = np.bincount(history, minlength=len(previous.keys))
            arrays[f"followers{number}"] = followers.astype(np.uint16)
            last = (table.keys & np.uint64((1 << WORD_BITS) - 1)).astype(np.uint16)
            arrays[f"words{number}"] = last.view(np.uint8).reshape(-1, 2).T.copy()
            followed = followers > 0
            arrays[f"backoff{number - 1}"], arrays[f"backoff_values{number - 1}"] = _coded(
                previous.log_backoff[followed]
            )
        arrays[f"prob{number}"], arrays[f"prob_values{number}"] = _coded(table.log_probs)
        previous = table
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _coded(values: NDArray[np.float64]) -> tuple[NDArray[np.uint8], Floats]:
    """Each value as the nearest of 256: three quarters are spread as the values are, a quarter evenly."""
    levels = np.unique(values)
    if len(levels) > _LEVELS:
        even = _LEVELS // 4
        common = np.quantile(values, (np.arange(_LEVELS - even) + 0.5) / (_LEVELS - even))
        levels = np.unique(np.concatenate([common, np.linspace(levels[0], levels[-1], even)]))
    codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, values)
    return codes.astype(np.uint8), levels.astype(np.float32)


def _unpacked(arrays: Mapping[str, NDArray[Any]]) -> tuple[tuple[str, ...], Pronunciations, tuple[_Order, ...]]:
    """Errors: KeyError or ValueError for arrays that are no model."""
    version, num_orders = (int(value) for value in arrays["format"])
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, wanted {FORMAT_VERSION}")
    words = tuple(bytes(arrays["words"]).decode().split("\n"))
    said = Pronunciations(arrays["said_words"].astype(np.int64), np.ascontiguousarray(arrays["said_phones"].T))
    said.check(len(words))
    orders: list[_Order] = []
    size = len(SPECIAL_WORDS) + len(words)
    followers: NDArray[Any] = np.array([size])
    last = np.arange(size, dtype=np.uint16)
    for number in range(1, num_orders + 1):
        if number > 1:
            followers = arrays[f"followers{number}"]
            last = np.ascontiguousarray(arrays[f"words{number}"].T).view(np.uint16).ravel()
            if len(followers) != len(orders[-1].words) or followers.sum() != len(last) or (last >= size).any():
                raise ValueError(f"the {number}-grams do not fit together")
        log_backoff = np.zeros(len(last) if number < num_orders else 0, np.float16)
        if number < num_orders:
            followed = arrays[f"followers{number + 1}"] > 0
            log_backoff[followed] = _decoded(arrays, f"backoff{{}}{number}")
        log_probs = _decoded(arrays, f"prob{{}}{number}")
        if len(log_probs) != len(last):
            raise ValueError(f"got {len(log_probs)} probabilities of {len(last)} {number}-grams")
        orders.append(_Order(followers, last, log_probs, log_backoff))
    return words, said, tuple(orders)


def _decoded(arrays: Mapping[str, NDArray[Any]], name: str) -> Halves:
    values: Halves = arrays[name.format("_values")].astype(np.float16)
    codes = arrays[name.format("")]
    if not np.isfinite(values).all() or (len(codes) and codes.max() >= len(values)):
        raise ValueError(f"{name.format('')} has a code without a value")
    decoded: Halves = values[codes]
    return decoded
