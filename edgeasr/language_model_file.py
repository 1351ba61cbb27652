"""The file of a language model: a zip of arrays (npz, nothing pickled), 2 to 3 bytes an n-gram.

It holds the words, and for every order how many words follow each history, those words, and log-probabilities and
back-off weights as one of 64 values, of single words as one of 256; and how the words are said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.array_files import Arrays, packed_arrays, read_arrays
from edgeasr.language_model import Pronunciations, Words
from edgeasr.ngram_estimation import Ngrams, NgramTable, find, prefix
from edgeasr.ngram_tables import LEVELS, SPECIAL_WORDS, WORD_BITS, NgramTables, OrderedNgrams
from edgeasr.phones import Dictionary

FORMAT_VERSION = 1

# A tenth smaller than with 256, and no word is heard differently.
_FEW_LEVELS = 64

_BUILD_AGAIN = "build the language model again"


def packed(ngrams: Ngrams, dictionary: Dictionary) -> bytes:
    """The file of a model. dictionary: pronunciations of its words; one without any is never heard"""
    words = ngrams.words[len(SPECIAL_WORDS) :]
    said = Pronunciations.of(words, dictionary)
    arrays: dict[str, Any] = {
        "format": np.array([FORMAT_VERSION, len(ngrams.tables)], np.int64),
        "words": np.frombuffer("\n".join(words).encode(), np.uint8),
        "said_words": said.words,
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
                previous.log_backoff[followed], _FEW_LEVELS
            )
        levels = LEVELS if number == 1 else _FEW_LEVELS
        arrays[f"prob{number}"], arrays[f"prob_values{number}"] = _coded(table.log_probs, levels)
        previous = table
    return packed_arrays(arrays)


def unpacked(content: bytes, name: str) -> tuple[Words, Pronunciations, NgramTables]:
    """What a file holds. Errors: BundleError for one that is damaged or something else; name: what it calls it"""
    return read_arrays(content, _checked, name=f"language model {name}", writer="`edgeasr lm build`", mend=_BUILD_AGAIN)


def _coded(values: NDArray[np.float64], most: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Each value as the nearest of so many: three quarters are spread as the values are, a quarter evenly."""
    levels = np.unique(values)
    if len(levels) > most:
        even = most // 4
        common = np.quantile(values, (np.arange(most - even) + 0.5) / (most - even))
        levels = np.unique(np.concatenate([common, np.linspace(levels[0], levels[-1], even)]))
    codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, values)
    return codes.astype(np.uint8), levels.astype(np.float32)


def _checked(arrays: Arrays) -> tuple[Words, Pronunciations, NgramTables]:
    """Errors: KeyError or ValueError for arrays that are no model."""
    version, num_orders = (int(value) for value in arrays["format"])
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, wanted {FORMAT_VERSION}")
    words = Words.of(bytes(arrays["words"]).decode().split("\n"))
    said = Pronunciations(arrays["said_words"], np.ascontiguousarray(arrays["said_phones"].T))
    said.check(len(words))
    size = len(SPECIAL_WORDS) + len(words)
    orders: list[OrderedNgrams] = []
    followers: NDArray[Any] = np.array([size])
    for number in range(1, num_orders + 1):
        following = arrays[f"followers{number + 1}"] if number < num_orders else None
        orders.append(_order(arrays, number, size, followers, following))
        if following is not None:
            followers = following
    return words, said, NgramTables.from_orders(orders)


def _order(
    arrays: Arrays, number: int, size: int, followers: NDArray[Any], following: NDArray[Any] | None
) -> OrderedNgrams:
    """The n-grams of an order. followers, following: how many follow each of the order below, and each of this one"""
    last = np.arange(size, dtype=np.uint16)
    if number > 1:
        last = np.ascontiguousarray(arrays[f"words{number}"].T).view(np.uint16).ravel()
    log_probs, prob_levels = _decoded(arrays, "prob", number)
    if followers.sum() != len(last) or (last >= size).any() or len(log_probs) != len(last):
        raise ValueError(f"the {number}-grams do not fit together")
    if following is None:
        no_levels = np.zeros(0, np.float32)
        return OrderedNgrams(followers, last, log_probs, np.zeros(0, np.uint8), prob_levels, no_levels)
    log_backoff, backoff_levels = _decoded(arrays, "backoff", number)
    if len(following) != len(last) or len(log_backoff) != np.count_nonzero(following):
        raise ValueError(f"got {len(log_backoff)} back-off weights that are not those of {len(last)} {number}-grams")
    return OrderedNgrams(followers, last, log_probs, log_backoff, prob_levels, backoff_levels)


def _decoded(arrays: Arrays, name: str, number: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The codes and the 256 values of an order, fewer filled up."""
    codes, values = arrays[f"{name}{number}"], arrays[f"{name}_values{number}"]
    known = values.ndim == codes.ndim == 1 and len(values) <= LEVELS and np.isfinite(values).all()
    if not known or codes.dtype != np.uint8 or (len(codes) and codes.max() >= len(values)):
        raise ValueError(f"{name}{number} has a code without a value")
    levels = np.zeros(LEVELS, np.float32)
    levels[: len(values)] = values
    return codes, levels
