"""A grammar as a network of words: what may follow what, and what was said by it.

States are made on demand: one stands for "say this, then go on there", so what two rules end alike with is there once,
and a rule that ends with itself is a circle (right recursion). Any other recursion has no end and is refused.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from edgeasr import grammar as g
from edgeasr.errors import GrammarError

# States of a network, which take some 200 bytes each; far more than is of use.
MAX_STATES = 200_000
_HALF = math.log(0.5)
FINAL = 0


class Arc(NamedTuple):
    """From one state to another, by a word or by none; tag and rule are reported where it is taken."""

    target: int
    log_prob: float = 0.0
    word: str | None = None
    tag: str | None = None
    rule: str | None = None


class Reading(NamedTuple):
    """How words are said by a grammar: the public rule, and the tags in the order in which they were met."""

    rule: str
    tags: tuple[str, ...]


class Network:
    """Arcs by state; a sentence is a way from `start` to FINAL.

    errors: GrammarError for recursion that is not at the end of its rule, and for a grammar that expands to too much
    """

    def __init__(self, grammar: g.Grammar) -> None:
        check_recursion(grammar)
        self._grammar = grammar
        self.arcs: list[list[Arc]] = [[], []]
        self.start = 1
        self._alike = _Alike()
        self._known: dict[tuple[g.Expansion, int], int] = {}
        self._waiting: list[tuple[g.Expansion, int, int]] = []
        public = grammar.public_rules
        for rule in public:
            then = self._state(rule.expansion, FINAL)
            self.arcs[self.start].append(Arc(then, -math.log(len(public)), rule=rule.name))
        while self._waiting:
            self._expand(*self._waiting.pop())

    def closure(self, state: int) -> dict[int, float]:
        """The states that are reached without a word, with the log-probability of the likeliest way."""
        best: dict[int, float] = {}
        waiting = [(0.0, state)]
        while waiting:
            cost, state = heappop(waiting)
            if state in best:
                continue
            best[state] = -cost
            for arc in self.arcs[state]:
                if arc.word is None and arc.target not in best and arc.log_prob > -math.inf:
                    heappush(waiting, (cost - arc.log_prob, arc.target))
        return best

    def read(self, words: Sequence[str]) -> Reading | None:
        """The likeliest way to say words, or None where there is none."""
        ways: dict[int, _Way] = {self.start: _Way(0.0, None)}
        for word in words:
            ways = self._through(word, self._without_word(ways))
        way = self._without_word(ways).get(FINAL)
        if way is None:
            return None
        arcs = list(_arcs_of(way))
        rule = next(arc.rule for arc in arcs if arc.rule is not None)
        return Reading(rule, tuple(arc.tag for arc in arcs if arc.tag is not None))

    def _through(self, word: str, ways: dict[int, _Way]) -> dict[int, _Way]:
        longer: dict[int, _Way] = {}
        for state, way in ways.items():
            for arc in self.arcs[state]:
                if arc.word == word and _is_better(way.log_prob + arc.log_prob, longer.get(arc.target)):
                    longer[arc.target] = _Way(way.log_prob + arc.log_prob, (way, arc))
        return longer

    def _without_word(self, ways: dict[int, _Way]) -> dict[int, _Way]:
        """Ways that go on without a word; of equally likely ones what the grammar writes first."""
        best: dict[int, _Way] = {}
        order = count()
        waiting: list[tuple[float, int, int, _Way]] = []
        for state, way in ways.items():
            heappush(waiting, (-way.log_prob, next(order), state, way))
        while waiting:
            _, _, state, way = heappop(waiting)
            if state in best:
                continue
            best[state] = way
            for arc in self.arcs[state]:
                log_prob = way.log_prob + arc.log_prob
                if arc.word is None and arc.target not in best and log_prob > -math.inf:
                    heappush(waiting, (-log_prob, next(order), arc.target, _Way(log_prob, (way, arc))))
        return best

    def _state(self, expansion: g.Expansion, then: int) -> int:
        """The state from which an expansion leads to another state."""
        expansion = self._alike.first(expansion)
        known = self._known.get((expansion, then))
        if known is not None:
            return known
        if len(self.arcs) >= MAX_STATES:
            raise GrammarError(
                f"{self._grammar.source}: written out, its rules have more than {MAX_STATES} places for a word: "
                "name long rules less often"
            )
        state = self._known[expansion, then] = len(self.arcs)
        self.arcs.append([])
        self._waiting.append((expansion, then, state))
        return state

    def _expand(self, expansion: g.Expansion, then: int, state: int) -> None:
        self.arcs[state] += self._arcs(expansion, then, state)

    def _arcs(self, expansion: g.Expansion, then: int, state: int) -> list[Arc]:
        """What leads away from the state of an expansion."""
        match expansion:
            case g.Token(word=word):
                return [Arc(then, word=word)]
            case g.RuleReference(name=name):
                return [Arc(self._state(self._grammar.rules[name].expansion, then))]
            case g.Sequence(parts=parts):
                return [Arc(functools.reduce(lambda after, part: self._state(part, after), reversed(parts), then))]
            case g.Alternatives(parts=parts, log_probs=log_probs):
                return [Arc(self._state(part, then), log_prob) for part, log_prob in zip(parts, log_probs, strict=True)]
            case g.Optional(part=part):
                return [Arc(self._state(part, then), _HALF), Arc(then, _HALF)]
            case g.Repeat(part=part, is_required=True):
                return [Arc(self._state(part, self._state(g.Repeat(part, is_required=False), then)))]
            case g.Repeat(part=part):
                return [Arc(self._state(part, state), _HALF), Arc(then, _HALF)]
            case g.Tagged(part=part, tag=tag):
                self.arcs.append([Arc(then, tag=tag)])
                return [Arc(self._state(part, len(self.arcs) - 1))]
        raise AssertionError(expansion)


class _Alike:
    """Expansions that say the same, wherever they are written."""

    def __init__(self) -> None:
        self._firsts: dict[Hashable, g.Expansion] = {}
        self._found: dict[g.Expansion, g.Expansion] = {}

    def first(self, expansion: g.Expansion) -> g.Expansion:
        """The first expansion met that says what this one says."""
        found = self._found.get(expansion)
        if found is None:
            parts = tuple(self.first(part) for part in g.inner_parts(expansion))
            key = (type(expansion), parts, _own(expansion))
            found = self._found[expansion] = self._firsts.setdefault(key, expansion)
        return found


def _own(expansion: g.Expansion) -> Hashable:
    """What an expansion says beside its parts."""
    match expansion:
        case g.Token(word=word):
            return word
        case g.RuleReference(name=name):
            return name
        case g.Alternatives(weights=weights):
            return weights
        case g.Repeat(is_required=is_required):
            return is_required
        case g.Tagged(tag=tag):
            return tag
    return None


class _Way(NamedTuple):
    """A way through a network. last: the way before its last arc, and that arc"""

    log_prob: float
    last: tuple[_Way, Arc] | None


def _is_better(log_prob: float, known: _Way | None) -> bool:
    return log_prob > -math.inf and (known is None or log_prob > known.log_prob)


def _arcs_of(way: _Way) -> Iterator[Arc]:
    arcs = []
    while way.last is not None:
        way, arc = way.last
        arcs.append(arc)
    return reversed(arcs)


def check_recursion(grammar: g.Grammar) -> None:
    """Errors: GrammarError where a rule names itself, at once or through others, other than at its end"""
    named = {
        name: [part for part in g.parts_of(rule.expansion) if isinstance(part, g.RuleReference)]
        for name, rule in grammar.rules.items()
    }
    followed = {name: {reference.name for reference in references} for name, references in named.items()}
    try:
        TopologicalSorter(followed).prepare()
    except CycleError:
        for name, rule in grammar.rules.items():
            last = set(_last(rule.expansion))
            for reference in named[name]:
                if reference not in last and (back := _path(followed, reference.name, name)):
                    circle = " -> ".join(f"<{rule}>" for rule in (name, *back))
                    raise grammar.error(
                        reference.place, f"a rule may name itself only at its end ({circle}): write it with * or +"
                    ) from None


def _last(expansion: g.Expansion) -> Iterator[g.RuleReference]:
    """The references after which an expansion is over."""
    if isinstance(expansion, g.RuleReference):
        yield expansion
    elif isinstance(expansion, g.Sequence):
        yield from _last(expansion.parts[-1]) if expansion.parts else ()
    elif isinstance(expansion, g.Alternatives | g.Optional):
        for part in g.inner_parts(expansion):
            yield from _last(part)


def _path(followed: dict[str, set[str]], start: str, end: str) -> list[str] | None:
    """Rules from one to another, each named by the one before; None where there is no way."""
    before: dict[str, str | None] = {start: None}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name == end:
            path = []
            step: str | None = name
            while step is not None:
                path.append(step)
                step = before[step]
            return path[::-1]
        for other in sorted(followed[name] - before.keys()):
            before[other] = name
            waiting.append(other)
    return None
