"""What phones may follow what, and how likely: an n-gram model of phones as the graph of a sequence criterion.

    python -m edgeasr.train.phone_graph words.dict train.jsonl --text sentences.txt.xz --output phones.npz

Texts are said as the dictionary says them; each different one counts once, so a phrase that a corpus repeats does not
rule it. Sentences with words that the dictionary has not are passed over.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ConfigError
from edgeasr.manifest import read_manifest
from edgeasr.ngram_estimation import Ngrams, estimate, log_prob, prefix, read_sentences
from edgeasr.ngram_tables import END, START, WORD_BITS
from edgeasr.phones import PHONE_IDS, PHONES, Dictionary, read_dictionary
from edgeasr.tokenizer import normalize_text

ORDER = 3
MAX_NGRAMS = 60_000
EVERY = 10

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PhoneGraph:
    """A deterministic graph: every state has an arc for each phone and can be the end; state 0 is the start.

    None of this is impossible. A state is what the model remembers, up to `order - 1` phones, the last of which is the
    label of every arc that leads to it.

    labels: (S,) the last phone, 0 in the start alone
    probs:  (S, P) of the next phone; column 0: that nothing follows. Rows sum to 1
    next:   (S, P) where each phone leads; column 0 means nothing
    errors: ConfigError where that is not so
    """

    labels: NDArray[np.int32]
    probs: Probabilities
    next: NDArray[np.int32]

    def __post_init__(self) -> None:
        states, phones = self.probs.shape if self.probs.ndim == 2 else (0, 0)
        fits = states > 0 and self.next.shape == (states, phones) and self.labels.shape == (states,)
        if not fits or not self._is_sound():
            raise ConfigError(
                f"got a graph of phones with {len(self.labels)} states that does not hold together: build it again"
            )

    def _is_sound(self) -> bool:
        inner = (self.next >= 0) & (self.next < len(self.labels))
        if not inner.all() or not (self.probs > 0).all():
            return False
        labelled = self.labels[0] == 0 and (self.labels[self.next[:, 1:]] == np.arange(1, self.num_phones)).all()
        return bool(labelled and np.allclose(self.probs.sum(axis=1), 1))

    @property
    def num_phones(self) -> int:
        """P, the blank among them."""
        return int(self.probs.shape[1])

    def log_prob(self, phones: Sequence[int]) -> float:
        """Of these phones and nothing after them."""
        state, total = 0, 0.0
        for phone in phones:
            total += float(np.log(self.probs[state, phone]))
            state = int(self.next[state, phone])
        return total + float(np.log(self.probs[state, 0]))

    @classmethod
    def of(cls, ngrams: Ngrams) -> Self:
        """The graph of a back-off model whose words are phones in lower case."""
        ids = {word: number for number, word in enumerate(ngrams.words)}
        words = {phone: ids[name.lower()] for name, phone in PHONE_IDS.items() if name.lower() in ids}
        phone_of = {number: phone for phone, number in words.items()}
        histories = sorted(_histories(ngrams, words.values()), key=lambda h: (phone_of.get(h[-1], 0), h))
        index = {history: state for state, history in enumerate(histories)}
        probs = np.zeros((len(histories), len(PHONES)))
        following = np.zeros(probs.shape, np.int32)
        columns = [0, *words]
        for state, history in enumerate(histories):
            after = [END, *words.values()]
            probs[state, columns] = np.exp(_log_probs(ngrams, history, after))
            following[state, columns[1:]] = [index[_longest((*history, word), index)] for word in after[1:]]
        labels = np.array([phone_of.get(history[-1], 0) for history in histories], np.int32)
        return cls(labels, probs / probs.sum(axis=1, keepdims=True), following)

    def save(self, path: Path) -> None:
        """Write atomically. Errors: OSError"""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, labels=self.labels, probs=self.probs, next=self.next)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. raises: ConfigError for a file that is missing, or another"""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(arrays["labels"], arrays["probs"], arrays["next"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"cannot read the graph of phones {path}: {error}: make one with edgeasr.train.phone_graph"
            ) from error


History = tuple[int, ...]


def _histories(ngrams: Ngrams, phones: Iterable[int]) -> set[History]:
    """The start, every phone, and what else the model knows something to follow."""
    spoken = set(phones)
    found: set[History] = {(START,), *((phone,) for phone in spoken)}
    for length, table in enumerate(ngrams.tables[1:], 1):
        for key in np.unique(prefix(table.keys)).tolist():
            found.add(tuple(key >> WORD_BITS * place & (1 << WORD_BITS) - 1 for place in reversed(range(length))))
    return {history for history in found if spoken.issuperset(history[history[0] == START :])}


def _log_probs(ngrams: Ngrams, history: History, words: Sequence[int]) -> NDArray[Any]:
    """Of each word after a history."""
    key = 0
    for word in history:
        key = key << WORD_BITS | word
    keys = np.array(words, np.uint64) | np.uint64(key << WORD_BITS)
    return log_prob(ngrams.tables[: len(history) + 1], keys)


def _longest(history: History, known: Iterable[History]) -> History:
    """The longest end of a history that is known."""
    return next(history[i:] for i in range(len(history)) if history[i:] in known)


def build(texts: Iterable[str], dictionary: Dictionary, max_ngrams: int = MAX_NGRAMS, order: int = ORDER) -> PhoneGraph:
    """The graph of what is said in normalised texts.

    max_ngrams: pruned to so many n-grams
    raises:     ConfigError where a text is said in no way, or the settings are out of range
    """
    spoken = (said for text in dict.fromkeys(texts) if (said := _spoken(text, dictionary)))
    # Every phone on its own: none is impossible, whatever the texts.
    every = (phone.lower() for phone in PHONES[1:])
    ngrams = estimate(chain(every, spoken), order=order, max_words=len(PHONES) - 1, max_ngrams=max_ngrams)
    return PhoneGraph.of(ngrams)


def _spoken(text: str, dictionary: Dictionary) -> str:
    """The phones of a text in lower case, as the words of a sentence; nothing for one that has an unknown word."""
    words = text.split()
    if not all(word in dictionary for word in words):
        return ""
    return " ".join(phone.lower() for word in words for phone in dictionary[word][0])


def texts_of(manifests: Sequence[Path], texts: Sequence[Path], every: int) -> Iterator[str]:
    """Normalised texts of manifests, and every so-manieth sentence of text files. raises: ManifestError, ConfigError"""
    spoken = (utterance.text for path in manifests for utterance in read_manifest(path))
    for text in chain(spoken, islice(read_sentences(texts), 0, None, every)):
        if normal := normalize_text(text):
            yield normal


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("dictionary", type=Path, help="in the format of the CMU dictionary")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, action="append", default=[], help="one sentence a line, plain or packed")
    parser.add_argument("--every", type=int, default=EVERY, help="take every so-manieth sentence; %(default)s")
    parser.add_argument("--ngrams", type=int, default=MAX_NGRAMS, help="prune to so many; %(default)s")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    texts = texts_of(given.manifests, given.text, given.every)
    graph = build(texts, read_dictionary(given.dictionary), given.ngrams)
    graph.save(given.output)
    print(f"{len(graph.labels)} states in {given.output}")  # noqa: T201 - a command line


if __name__ == "__main__":
    main()
