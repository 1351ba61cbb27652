"""The words of a decoder as a tree of their phones: what may follow what, and which words begin alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.bits import bit_count
from edgeasr.errors import BundleError

ROOT = 0
MAX_PHONES = 64  # a set of them is a bit each of an integer
_BITS = np.uint64(1) << np.arange(MAX_PHONES, dtype=np.uint64)
_BITS_BEFORE = _BITS - np.uint64(1)
_NO_BIT = np.array(0, np.uint64)  # of no dimension: numpy takes half a microsecond less for it than for a number

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lexicon:
    """A tree with a node for every beginning of a pronunciation, the empty one at the root; built by `of`.

    Nodes are numbered by depth, and children of a node one after the other, by phone.

    num_phones:  () the blank among them
    phones_next: (nodes,) a bit for every phone that leads on
    first_child: (nodes,)
    depth:       (nodes,) phones from the root
    first_word:  (nodes + 1,) index into `words` of the first that ends at a node
    words:       numbers of the words, by the node at which they end
    best:        (nodes,) the highest value of the words that go through a node
    likeliest:   (nodes,) that word
    """

    num_phones: Ints
    phones_next: NDArray[np.uint64]
    first_child: NDArray[np.int32]
    depth: NDArray[np.uint8]
    first_word: NDArray[np.int32]
    words: NDArray[np.uint16] | NDArray[np.uint32]
    best: NDArray[np.float32]
    likeliest: NDArray[np.uint16] | NDArray[np.uint32]

    @classmethod
    def of(
        cls, words: NDArray[Any], pronunciations: NDArray[np.uint8], num_phones: int, values: NDArray[np.float32]
    ) -> Lexicon:
        """The tree of pronunciations.

        words:          (N,) number of the word of each pronunciation; a word may have several, words may share one
        pronunciations: (N, longest) phone ids, 0 after the end
        values:         one a word, the higher the likelier
        errors:         BundleError where there is no pronunciation, an empty one or an impossible phone
        """
        possible = num_phones <= MAX_PHONES and len(words) and pronunciations.max() < num_phones
        if not possible or not pronunciations[:, 0].all():
            raise BundleError(
                f"got {len(words)} pronunciations, wanted one or more, none empty, of phones below {num_phones}: "
                "build the language model again"
            )
        # As texts, which end at a 0, they are sorted in one go.
        order = np.ascontiguousarray(pronunciations).view(f"S{pronunciations.shape[1]}").ravel().argsort(kind="stable")
        label, parent, depth, ends_at = _nodes(pronunciations[order])
        by_node = ends_at.argsort(kind="stable")
        words, ends_at = words[order][by_node], ends_at[by_node]
        best, likeliest = _best_below(words, ends_at, parent, depth, values)
        phones_next, first_child = _children(label, parent)
        return cls(
            num_phones=np.array(num_phones, np.int64),
            phones_next=phones_next,
            first_child=first_child,
            depth=depth,
            first_word=np.searchsorted(ends_at, np.arange(len(label) + 1)).astype(np.int32),
            words=words.astype(_numbers_below(len(values))),
            best=best,
            likeliest=likeliest,
        )

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def parents(self) -> NDArray[np.int32]:
        """(nodes - 1,) of all nodes but the root."""
        return np.arange(len(self), dtype=np.int32).repeat(bit_count(self.phones_next))

    def children(self, nodes: Ints, phones: Ints) -> tuple[Ints, Ints, Ints]:
        """What follows nodes by one of some phones. returns: (K,) index into `nodes`, phone, child"""
        phones_next = self.phones_next[nodes]
        leads_on = (phones_next[:, None] & _BITS[phones]) != _NO_BIT
        # One after the other in a flat array they are found in a fraction of the time.
        which, phone = np.divmod(leads_on.ravel().nonzero()[0], len(phones))
        earlier = phones_next[which] & _BITS_BEFORE[phones][phone]
        return which, phones[phone], np.add(self.first_child[nodes][which], bit_count(earlier), dtype=np.int64)

    def child(self, nodes: Ints, phones: Ints) -> Ints:
        """(N,) what each phone leads to from each node; it must lead on there."""
        earlier = self.phones_next[nodes] & _BITS_BEFORE[phones]
        return np.add(self.first_child[nodes], bit_count(earlier), dtype=np.int64)

    def words_of(self, nodes: Ints) -> tuple[Ints, NDArray[Any]]:
        """The words that end at nodes: for each the index into `nodes`, and the word."""
        after = self.first_word[1:][nodes]
        counts = after - self.first_word[nodes]
        which = np.arange(len(nodes)).repeat(counts)
        # The words of a node lie one after the other: count on to its last.
        after -= counts.cumsum(dtype=counts.dtype)
        return which, self.words[after[which] + np.arange(len(which))]


def _nodes(spelt: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.uint8], Ints]:
    """The tree of sorted pronunciations: label, parent and depth of every node, and the node of every pronunciation."""
    labels, parents = [np.zeros(1, np.uint8)], [np.zeros(1, np.int32)]
    node = np.zeros(len(spelt), np.int64)
    new = np.zeros(len(spelt), np.bool_)
    new[0] = True
    count = 1
    for phones in spelt.T:
        new[1:] |= phones[1:] != phones[:-1]
        here = phones > 0
        begins = new & here
        labels.append(phones[begins])
        parents.append(node[begins].astype(np.int32))
        node = np.where(here, count - 1 + begins.cumsum(), node)
        count += len(labels[-1])
    depth = np.repeat(np.arange(len(labels), dtype=np.uint8), [len(label) for label in labels])
    return np.concatenate(labels), np.concatenate(parents), depth, node


def _children(label: NDArray[np.uint8], parent: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """The phones that lead on from every node, and its first child; the root, where nothing leads on."""
    phones_next, first_child = np.zeros(len(label), np.uint64), np.zeros(len(label), np.int32)
    parents, first = np.unique(parent[1:], return_index=True)
    bits = np.uint64(1) << label[1:].astype(np.uint64)
    phones_next[parents] = np.bitwise_or.reduceat(bits, first)
    first_child[parents] = first + 1
    return phones_next, first_child


def _best_below(
    words: Ints,
    ends_at: Ints,
    parent: NDArray[np.int32],
    depth: NDArray[np.uint8],
    values: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.uint16] | NDArray[np.uint32]]:
    """For every node the highest value of the words that go through it, and that word; of equals the first."""
    ranked = np.lexsort((np.arange(len(values)), -values))
    rank = np.empty(len(values), np.int64)
    rank[ranked] = np.arange(len(values))
    best = np.full(len(parent), len(values), np.int64)
    np.minimum.at(best, ends_at, rank[words])
    last = len(parent)
    while last > 1:
        first = int(np.searchsorted(depth, depth[last - 1]))
        np.minimum.at(best, parent[first:last], best[first:last])
        last = first
    likeliest = ranked[best]
    return values[likeliest], likeliest.astype(_numbers_below(len(values)))


def _numbers_below(count: int) -> np.dtype[Any]:
    """The type of numbers of words: 16 bits are enough for a language model's."""
    return np.dtype(np.uint16 if count <= 1 << 16 else np.uint32)
