"""A grammar of sentences: rules of words, sequences, alternatives, repeats and tags, as JSGF writes them.

`grammar_parser.py` reads it from a file, `grammar_network.py` makes it a network of words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edgeasr.errors import GrammarError


class Place(NamedTuple):
    """Where something stands in a file; both count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


# Expansions are told apart by where they stand, not by what they say.
@dataclass(frozen=True, eq=False)
class Expansion:
    """What a rule may be said as."""


@dataclass(frozen=True, eq=False)
class Token(Expansion):
    """A word, in the form of `normalize_text`."""

    word: str
    place: Place


@dataclass(frozen=True, eq=False)
class RuleReference(Expansion):
    """What another rule says."""

    name: str
    place: Place


@dataclass(frozen=True, eq=False)
class Sequence(Expansion):
    """One after the other; without parts it says nothing, as <NULL> does."""

    parts: tuple[Expansion, ...]


@dataclass(frozen=True, eq=False)
class Alternatives(Expansion):
    """One of the parts; without parts it can never be said, as <VOID>.

    weights: how likely each is beside the others; they need not add up to 1
    """

    parts: tuple[Expansion, ...]
    weights: tuple[float, ...]

    @property
    def log_probs(self) -> tuple[float, ...]:
        """Of each part; the weights made to add up to 1."""
        total = math.fsum(self.weights)
        return tuple(math.log(weight / total) if weight else -math.inf for weight in self.weights)


@dataclass(frozen=True, eq=False)
class Optional(Expansion):
    """A part that may be left out."""

    part: Expansion


@dataclass(frozen=True, eq=False)
class Repeat(Expansion):
    """A part any number of times; not none of them if it `is_required`."""

    part: Expansion
    is_required: bool


@dataclass(frozen=True, eq=False)
class Tagged(Expansion):
    """A part that, when it is said, reports a tag."""

    part: Expansion
    tag: str


@dataclass(frozen=True, eq=False)
class Rule:
    """A name and what it stands for; a sentence is one of a public rule."""

    name: str
    is_public: bool
    expansion: Expansion
    place: Place


@dataclass(frozen=True)
class Grammar:
    """Rules by name.

    source: what errors call it, a file's path say
    errors: GrammarError for a rule that is not there, and where none is public
    """

    name: str
    rules: Mapping[str, Rule]
    source: str = field(default="the grammar")

    def __post_init__(self) -> None:
        for rule in self.rules.values():
            for reference in _references(rule.expansion):
                if reference.name not in self.rules:
                    raise self.error(reference.place, self._missing(reference.name))
        if not self.public_rules:
            raise GrammarError(f"{self.source}: no rule is public: write `public` before those that are sentences")

    @property
    def public_rules(self) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules.values() if rule.is_public)

    @property
    def words(self) -> dict[str, Place]:
        """Every word, and where it stands first."""
        words: dict[str, Place] = {}
        for rule in self.rules.values():
            for part in parts_of(rule.expansion):
                if isinstance(part, Token):
                    words.setdefault(part.word, part.place)
        return words

    def error(self, place: Place, message: str) -> GrammarError:
        return GrammarError(f"{self.source}, {place}: {message}")

    def _missing(self, name: str) -> str:
        import difflib

        near = difflib.get_close_matches(name, self.rules, 1)
        hint = f"; did you mean <{near[0]}>?" if near else ""
        return f"there is no rule <{name}>: write it, or take its name out{hint}"


def inner_parts(expansion: Expansion) -> tuple[Expansion, ...]:
    """What an expansion is made of, in order."""
    if isinstance(expansion, Sequence | Alternatives):
        return expansion.parts
    return (expansion.part,) if isinstance(expansion, Optional | Repeat | Tagged) else ()


def parts_of(expansion: Expansion) -> Iterator[Expansion]:
    """An expansion and all that is within it."""
    waiting = [expansion]
    while waiting:
        part = waiting.pop()
        yield part
        waiting.extend(reversed(inner_parts(part)))


def _references(expansion: Expansion) -> Iterator[RuleReference]:
    return (part for part in parts_of(expansion) if isinstance(part, RuleReference))
