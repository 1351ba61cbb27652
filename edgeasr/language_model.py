"""A word n-gram language model as a device reads it: scores of many words at once; with how its words are said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import BundleError, ConfigError
from edgeasr.ngram_tables import EMPTY, END, SPECIAL_WORDS, START, NgramTables
from edgeasr.phones import PHONE_IDS, PHONES, Dictionary, Pronunciation

__all__ = ["EMPTY", "LanguageModel", "Pronunciations", "Words"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Words(Sequence[str]):
    """Words by number, as one text. letters: in UTF-8; ends: (N,) where each word ends there"""

    letters: NDArray[np.uint8]
    ends: NDArray[np.uint32]

    @classmethod
    def of(cls, words: Sequence[str]) -> Words:
        spelt = [word.encode() for word in words]
        ends = np.cumsum([len(word) for word in spelt], dtype=np.uint32)
        return cls(np.frombuffer(b"".join(spelt), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"word {number} of {len(self)}")
        number %= len(self)
        start = int(self.ends[number - 1]) if number else 0
        return self.letters[start : int(self.ends[number])].tobytes().decode()


@dataclass(frozen=True, eq=False)
class Pronunciations:
    """How the words of a model are said.

    words:  (N,) the word's number
    phones: (N, longest) ids of its phones, 0 after the end
    """

    words: NDArray[np.uint16]
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
        return cls(np.array([number for number, _ in said], np.uint16), phones)

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


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A back-off n-gram model (Katz 1987), read by `load` or from bytes by `from_bytes`.

    A state is the longest history that matters, as a number: `start` is a sentence's beginning, EMPTY is no history.

    words:          a word's number is its index here
    pronunciations: how they are said
    """

    words: Words
    pronunciations: Pronunciations
    ngrams: NgramTables

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
        # What reads the file is not needed where its tables were kept.
        from edgeasr.language_model_file import unpacked

        return cls(*unpacked(content, name))

    @property
    def order(self) -> int:
        return self.ngrams.order

    @property
    def num_ngrams(self) -> int:
        return int(self.ngrams.size)

    @property
    def start(self) -> int:
        _, after = self.ngrams.score(np.zeros(1, np.int64), np.array([START]))
        return int(after[0])

    @property
    def unigrams(self) -> Floats:
        """(words,) log-probabilities without a history."""
        return self.ngrams.unigrams(len(SPECIAL_WORDS) + len(self.words))[len(SPECIAL_WORDS) :]

    def score(self, states: Ints, words: NDArray[np.integer]) -> tuple[Floats, Ints]:
        """(M,) log-probabilities of words after states, and the states after those words."""
        return self.ngrams.score(states, words.astype(np.int64) + len(SPECIAL_WORDS))

    def score_end(self, states: Ints) -> Floats:
        """(M,) log-probabilities that a sentence ends here."""
        return self.ngrams.score(states, np.full(len(states), END))[0]
