"""A network of words without the steps that say nothing, and with one way for each word where that is no larger.

Determinisation and the sum over the best of each (Mohri 1997): a state is a set of states of the network with what each
of them is less likely by than the best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from edgeasr.errors import GrammarError
from edgeasr.grammar_network import FINAL, Network

# What is so much less likely than another way to say the same is not worth a state of its own, in nats.
_LEAST_APART = 1e-3
# A deterministic automaton may have so many times the arcs of the network before it is given up.
_MOST_GROWTH = 4
_SMALL = 2000


class WordArc(NamedTuple):
    """A word that may follow, how likely it is, and the state after it."""

    word: str
    log_prob: float
    target: int


@dataclass(frozen=True)
class WordAutomaton:
    """What words may follow in each state; 0 is where sentences begin.

    arcs:   of each state, sorted by word
    finals: of each state the log-probability that the sentence ends there, -inf where it cannot
    """

    arcs: tuple[tuple[WordArc, ...], ...]
    finals: tuple[float, ...]

    @classmethod
    def of(cls, network: Network, source: str) -> WordAutomaton:
        """The automaton of a network. Errors: GrammarError, with `source`, where no sentence can be said"""
        steps = _Steps(network)
        found = _deterministic(steps)
        automaton = _trimmed(*(found if found is not None else _plain(steps)))
        if not any(automaton.arcs):
            raise GrammarError(f"{source}: no sentence has a word that could be said: give a public rule one")
        return automaton

    @property
    def num_arcs(self) -> int:
        return sum(map(len, self.arcs))


class _Steps:
    """The words that lead on from states of a network, through whatever says nothing."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._known: dict[int, tuple[list[WordArc], float]] = {}
        self.start, self.num_arcs = network.start, 0

    def after(self, state: int) -> tuple[list[WordArc], float]:
        """The arcs, and the log-probability of an end."""
        known = self._known.get(state)
        if known is None:
            arcs, final = [], -math.inf
            for reached, log_prob in self._network.closure(state).items():
                if reached == FINAL:
                    final = log_prob
                spoken = (arc for arc in self._network.arcs[reached] if arc.word is not None)
                arcs += [WordArc(str(arc.word), log_prob + arc.log_prob, arc.target) for arc in spoken]
            known = self._known[state] = (arcs, final)
            self.num_arcs += len(arcs)
        return known


_Found = tuple[list[list[WordArc]], list[float]]


def _plain(steps: _Steps) -> _Found:
    """States as in the network; several arcs of a state may have one word."""
    numbers, arcs, finals = {steps.start: 0}, [], []
    for state in (order := [steps.start]):
        leaving, final = steps.after(state)
        finals.append(final)
        here = []
        for word, log_prob, target in leaving:
            if target not in numbers:
                numbers[target] = len(numbers)
                order.append(target)
            here.append(WordArc(word, log_prob, numbers[target]))
        arcs.append(here)
    return arcs, finals


def _deterministic(steps: _Steps) -> _Found | None:
    """States that are sets of states of the network; None where they get too many."""
    start = frozenset({(steps.start, 0.0)})
    numbers, arcs, finals = {start: 0}, [], []
    num_arcs = 0
    for states in (order := [start]):
        by_word: dict[str, dict[int, float]] = {}
        final = -math.inf
        for state, behind in states:
            leaving, ends = steps.after(state)
            final = max(final, behind + ends)
            for word, log_prob, target in leaving:
                targets = by_word.setdefault(word, {})
                targets[target] = max(behind + log_prob, targets.get(target, -math.inf))
        finals.append(final)
        here = []
        for word, targets in by_word.items():
            best = max(targets.values())
            after = frozenset((t, round((lp - best) / _LEAST_APART) * _LEAST_APART) for t, lp in targets.items())
            if after not in numbers:
                numbers[after] = len(numbers)
                order.append(after)
            here.append(WordArc(word, best, numbers[after]))
        arcs.append(here)
        num_arcs += len(here)
        if num_arcs > _SMALL + _MOST_GROWTH * steps.num_arcs:
            return None
    return arcs, finals


def _trimmed(arcs: list[list[WordArc]], finals: list[float]) -> WordAutomaton:
    """Without the states from which no sentence ends."""
    before: list[list[int]] = [[] for _ in arcs]
    for state, leaving in enumerate(arcs):
        for arc in leaving:
            before[arc.target].append(state)
    wanted = {state for state, final in enumerate(finals) if final > -math.inf}
    waiting = list(wanted)
    while waiting:
        for state in before[waiting.pop()]:
            if state not in wanted:
                wanted.add(state)
                waiting.append(state)
    kept = sorted(wanted | {0})
    numbers = {state: number for number, state in enumerate(kept)}
    kept_arcs = tuple(
        tuple(sorted(arc._replace(target=numbers[arc.target]) for arc in arcs[state] if arc.target in wanted))
        for state in kept
    )
    return WordAutomaton(kept_arcs, tuple(finals[state] for state in kept))
