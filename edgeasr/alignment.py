"""Where a hypothesis differs from its reference, word by word."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from edgeasr.metrics import import_jiwer
from edgeasr.tokenizer import normalize_text


class AlignedWord(NamedTuple):
    """A word of the reference and what became of it: None there is an insertion, None here a deletion."""

    reference: str | None
    hypothesis: str | None

    @property
    def is_hit(self) -> bool:
        return self.reference == self.hypothesis


def align_words(reference: str, hypothesis: str) -> tuple[AlignedWord, ...]:
    """The alignment with the fewest edits, the one that `metrics.word_errors` counts.

    Both texts are normalised first.
    errors: ExtraMissingError without jiwer
    """
    spoken, heard = normalize_text(reference).split(), normalize_text(hypothesis).split()
    chunks = import_jiwer().process_words(" ".join(spoken), " ".join(heard)).alignments[0]
    pairs: list[AlignedWord] = []
    for chunk in chunks:
        left = spoken[chunk.ref_start_idx : chunk.ref_end_idx]
        right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        pairs += itertools.starmap(AlignedWord, itertools.zip_longest(left, right))
    return tuple(pairs)


def aligned_lines(pairs: Iterable[AlignedWord], width: int) -> Iterator[tuple[str, str]]:
    """The alignment for reading, a line of the reference and the one of the hypothesis below it at a time.

    Words that differ are in capitals, missing ones are stars, as in NIST's sclite.
    width: characters a line; only a single longer word exceeds it
    """
    upper, lower = "", ""
    for pair in pairs:
        cells = [pair.reference or "", pair.hypothesis or ""]
        length = max(map(len, cells))
        left, right = (_shown(cell, length, pair) for cell in cells)
        if upper and len(upper) + length > width:
            yield upper.rstrip(), lower.rstrip()
            upper, lower = "", ""
        upper, lower = f"{upper}{left} ", f"{lower}{right} "
    if upper:
        yield upper.rstrip(), lower.rstrip()


def _shown(word: str, length: int, pair: AlignedWord) -> str:
    if not word:
        return "*" * length
    return (word if pair.is_hit else word.upper()).ljust(length)


@dataclass
class EditCounts:
    """How often each edit was needed; deletions and insertions by word."""

    substitutions: Counter[AlignedWord] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)
    insertions: Counter[str] = field(default_factory=Counter)

    def add(self, pairs: Iterable[AlignedWord]) -> None:
        for pair in pairs:
            if pair.reference is None:
                assert pair.hypothesis is not None
                self.insertions[pair.hypothesis] += 1
            elif pair.hypothesis is None:
                self.deletions[pair.reference] += 1
            elif not pair.is_hit:
                self.substitutions[pair] += 1
