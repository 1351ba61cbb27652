"""A grammar for the beam search: its states take the place of a language model's, each with a lexicon of its own.

The search knows one tree of pronunciations. So the words that may follow a state hang below a code of that state in it,
and states that are followed by the same words share them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeasr.bits import as_index
from edgeasr.grammar_automaton import WordAutomaton
from edgeasr.grammar_network import Network
from edgeasr.lexicon import ROOT, Lexicon
from edgeasr.lexicon_search import SearchConfig, WordGraph
from edgeasr.phones import PHONE_IDS, PHONES
from edgeasr.pronouncing import Ways

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

_NUM_DIGITS = len(PHONES) - 1


class AutomatonModel:
    """An automaton in the place of a language model; what that calls words are here arcs.

    States that are followed by the same words with the same weights are of one class and share its arcs.

    words:    what is said on each arc
    start:    the state at a sentence's beginning
    class_of: (states,) and classes: the arcs of each, whose targets mean nothing
    """

    def __init__(self, automaton: WordAutomaton) -> None:
        numbers: dict[tuple[tuple[str, float], ...], int] = {}
        labels = [tuple((arc.word, arc.log_prob) for arc in arcs) for arcs in automaton.arcs]
        self.class_of: Ints = np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int64)
        self.classes = list(numbers)
        self.start = 0
        self.words: Sequence[str] = [word for arcs in self.classes for word, _ in arcs]
        self._log_probs: Floats = np.array([log_prob for arcs in self.classes for _, log_prob in arcs], np.float32)
        sizes = np.array([len(arcs) for arcs in self.classes], np.int64)
        first_arc = sizes.cumsum() - sizes
        first_target = sizes[self.class_of].cumsum() - sizes[self.class_of]
        self._shift: Ints = first_target - first_arc[self.class_of]
        self._targets: Ints = np.array([arc.target for arcs in automaton.arcs for arc in arcs], np.int64)
        self.finals: Floats = np.array(automaton.finals, np.float32)

    @property
    def unigrams(self) -> Floats:
        """(arcs,) log-probability of each."""
        return self._log_probs

    def score(self, states: Ints, words: NDArray[np.integer]) -> tuple[Floats, Ints]:
        """As of a language model; the arcs must be of the states' classes."""
        arcs = self._shift.take(as_index(states)) + words
        return self._log_probs.take(as_index(words)), self._targets.take(as_index(arcs))


class GrammarGraph(WordGraph):
    """A grammar's tables for the search.

    network: reads the tags of a sentence
    ways:    how each word of the grammar is said
    finals:  (states,) log-probability that a sentence ends there
    """

    def __init__(
        self,
        network: Network,
        automaton: WordAutomaton,
        ways: Ways,
        config: SearchConfig,
    ) -> None:
        self.network = network
        model = AutomatonModel(automaton)
        lexicon, roots = _forest(model, ways)
        super().__init__(model, config, lexicon)
        self._root_of: Ints = roots[model.class_of]
        self.finals = model.finals
        self._num_phones: Ints = np.array([len(ways[word][0]) for word in model.words], np.int64)

    def children(self, nodes: Ints, states: Ints, phones: Ints) -> tuple[Ints, Ints, Ints]:
        return self.lexicon.children(np.where(nodes == ROOT, self._root_of.take(as_index(states)), nodes), phones)

    def num_phones_of(self, arcs: Sequence[int]) -> int:
        """Of the words on arcs, each by its first pronunciation."""
        return int(self._num_phones[list(arcs)].sum())


def _forest(model: AutomatonModel, ways: Ways) -> tuple[Lexicon, Ints]:
    """The pronunciations of every class below its code, and the nodes at the ends of the codes."""
    num_digits = max(1, math.ceil(math.log(len(model.classes), _NUM_DIGITS)))
    codes = np.array([_code(number, num_digits) for number in range(len(model.classes))], np.uint8)
    arc_classes = [number for number, arcs in enumerate(model.classes) for _ in arcs]
    spelt = {word: [bytes(PHONE_IDS[phone] for phone in way) for way in said] for word, said in ways.items()}
    said = [
        (arc, codes[arc_classes[arc]].tobytes() + way) for arc, word in enumerate(model.words) for way in spelt[word]
    ]
    longest = max(len(way) for _, way in said)
    phones = np.frombuffer(b"".join(way.ljust(longest, b"\0") for _, way in said), np.uint8).reshape(-1, longest)
    arcs = np.array([arc for arc, _ in said], np.int64)
    lexicon = Lexicon.of(arcs, phones, len(PHONES), model.unigrams)
    depth = np.maximum(lexicon.depth, num_digits) - np.uint8(num_digits)
    return replace(lexicon, depth=depth), _roots(model, lexicon, codes.astype(np.int64))


def _roots(model: AutomatonModel, lexicon: Lexicon, codes: Ints) -> Ints:
    """The node at the end of each class's code; a leaf for a class that nothing follows. codes: (classes, digits)"""
    followed = np.array([bool(arcs) for arcs in model.classes])
    roots = np.full(len(codes), int(lexicon.phones_next.argmin()), np.int64)
    nodes = np.full(followed.sum(), ROOT, np.int64)
    for digits in codes[followed].T:
        nodes = lexicon.child(nodes, digits)
    roots[followed] = nodes
    return roots


def _code(number: int, num_digits: int) -> list[int]:
    """A number written in phones, none of them blank."""
    digits = []
    for _ in range(num_digits):
        number, digit = divmod(number, _NUM_DIGITS)
        digits.append(digit + 1)
    return digits
