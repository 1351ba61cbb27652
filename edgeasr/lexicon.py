"""The words of a decoder as a tree of their phones: what may follow what, and which words begin alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import BundleError

ROOT = 0
Ints = NDArray[np.int64]


class Lexicon:
    """A tree with a node for every beginning of a pronunciation, the empty one at the root.

    words:          (N,) number of the word of each pronunciation; a word may have several, words may share one
    pronunciations: (N, longest) phone ids, 0 after the end
    num_phones:     the blank among them
    errors:         BundleError where there is none, an empty one or an impossible phone

    label: (nodes,) the phone that leads to a node; the blank for the root
    depth: (nodes,) phones from the root
    """

    def __init__(self, words: Ints, pronunciations: NDArray[np.uint8], num_phones: int) -> None:
        if not len(words) or not pronunciations[:, 0].all() or pronunciations.max() >= num_phones:
            raise BundleError(
                f"got {len(words)} pronunciations, wanted one or more, none empty, of phones below {num_phones}: "
                "build the language model again"
            )
        order = np.lexsort(pronunciations.T[::-1])
        spelt = pronunciations[order]
        nodes = _numbered(spelt)
        num_nodes = int(nodes.max()) + 1
        present = spelt > 0
        self.num_phones = num_phones
        self.label = np.zeros(num_nodes, np.int32)
        self.label[nodes[present]] = spelt[present]
        self.depth = np.zeros(num_nodes, np.int32)
        self.parent = np.zeros(num_nodes, np.int32)
        above = np.zeros(len(spelt), np.int64)
        for position in range(spelt.shape[1]):
            here = present[:, position]
            self.depth[nodes[here, position]] = position + 1
            self.parent[nodes[here, position]] = above[here]
            above = np.where(here, nodes[:, position], above)
        by_node = np.argsort(above, kind="stable")
        self._words = words[order][by_node]
        self._ends_at = above[by_node]
        self._first_word = np.searchsorted(self._ends_at, np.arange(num_nodes + 1)).astype(np.int32)
        # Searched rather than looked up: a table of nodes by phones is many times as large.
        edges = self.parent[1:].astype(np.int64) * num_phones + self.label[1:]
        by_edge = np.argsort(edges)
        self._edges = edges[by_edge]
        self._child = (by_edge + 1).astype(np.int32)

    def __len__(self) -> int:
        return len(self.label)

    def children(self, nodes: NDArray[Any], phones: NDArray[Any]) -> NDArray[np.int32]:
        """The nodes after a phone, ROOT where there is none. nodes, phones: of shapes that go together"""
        wanted = nodes * self.num_phones + phones
        at = np.minimum(self._edges.searchsorted(wanted), len(self._edges) - 1)
        children: NDArray[np.int32] = np.where(self._edges[at] == wanted, self._child[at], ROOT)
        return children

    def words_of(self, nodes: Ints) -> tuple[Ints, Ints]:
        """The words that end at nodes: for each the index into `nodes`, and the word."""
        first = self._first_word[nodes]
        counts = self._first_word[nodes + 1] - first
        which = np.repeat(np.arange(len(nodes)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return which, self._words[first[which] + within]

    def best_below(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """For every node the highest value of the words that go through it, and that word. values: one a word"""
        best = np.full(len(self), -np.inf, np.float32)
        word = np.zeros(len(self), np.int32)
        rising = np.argsort(values[self._words], kind="stable")
        # Of several values for one place the last stays, which is the highest.
        best[self._ends_at[rising]] = values[self._words[rising]]
        word[self._ends_at[rising]] = self._words[rising]
        for depth in range(int(self.depth.max()), 0, -1):
            nodes = np.flatnonzero(self.depth == depth)
            nodes = nodes[np.argsort(best[nodes], kind="stable")]
            parents = self.parent[nodes]
            higher = best[nodes] > best[parents]
            best[parents[higher]] = best[nodes[higher]]
            word[parents[higher]] = word[nodes[higher]]
        return best, word


def _numbered(spelt: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The node at every position of sorted pronunciations: a new one wherever a beginning is new."""
    new = np.ones(spelt.shape, np.bool_)
    new[1:] = np.logical_or.accumulate(spelt[1:] != spelt[:-1], axis=1)
    new &= spelt > 0
    numbers = np.cumsum(new.ravel(), dtype=np.int32).reshape(spelt.shape) * new
    nodes: NDArray[np.int32] = np.maximum.accumulate(numbers, axis=0)
    return nodes
