"""The n-grams of a back-off model as flat tables that are searched where they lie, in memory or in a mapped file.

A history that something follows has a number; EMPTY is the history of no words. All n-grams of all orders are one
list, sorted by history and last word, so that a word's own n-gram is at the word's id. The list is cut into blocks of
16. A block is found by the full keys of first n-grams, and within it 4 bits of a history tell its n-grams apart, since
histories are numbered without gaps. So an n-gram takes 4 bytes: 4 bits of its history, 16 of its word, one that is set
where nothing follows it, a spare one, and 10 bits of its log-probability. The key alone differs from what is looked
for by 0, so in a block the least of all exclusive ors tells whether it is there, and what is known of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeasr.bits import bit_count

UNKNOWN, START, END = 0, 1, 2
SPECIAL_WORDS = ("<unk>", "<s>", "</s>")
WORD_BITS = 16
EMPTY = 0

# A log-probability or back-off weight is one of so many values for each order.
LEVELS = 256

_BLOCK = 16
_BLOCK_BITS = 4
_LEVEL_BITS = 10  # an order, up to 4, and one of its levels
_KEY_SHIFT = 32 - WORD_BITS - _BLOCK_BITS
# Arrays without dimensions: numpy takes half a microsecond less for one than for a number.
_LEVEL_MASK = np.array((1 << _LEVEL_BITS) - 1, np.uint32)
_NOT_FOUND = np.array(1 << _KEY_SHIFT, np.uint32)  # from here on keys differ
_NOT_FOLLOWED = np.array(1 << _KEY_SHIFT - 1, np.uint32)
_TO_HISTORY = np.array(_LEVEL_BITS, np.uint32)
_TO_KEY, _TO_ENTRY = np.array(WORD_BITS), np.array(_KEY_SHIFT)
# Of a block, the n-grams before each one.
_BEFORE = ((1 << np.arange(_BLOCK)) - 1).astype(np.uint16)
MAX_HISTORIES = 1 << 32 - _LEVEL_BITS
_PART = 1 << 13  # histories at a time, so that loading needs little more memory than the tables

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class OrderedNgrams:
    """The n-grams of one order, sorted by history and word.

    followers:     of each n-gram of the order below, how many words follow it
    words:         (N,) ids of the last words
    log_probs:     (N,) levels
    log_backoff:   levels of those that something follows; none for the highest order
    prob_levels, backoff_levels: (256,) natural logarithms
    """

    followers: NDArray[np.uint16] | Ints
    words: NDArray[np.uint16]
    log_probs: Codes
    log_backoff: Codes
    prob_levels: Floats
    backoff_levels: Floats


@dataclass(frozen=True, eq=False)
class NgramTables:
    """The tables; built by `from_orders`.

    size:        () number of n-grams
    entries:     (blocks, 16) uint32: key within the block, whether nothing follows, order and level of the
                 log-probability
    first_keys:  (blocks,) history and word of the first n-gram of a block
    followed:    (blocks,) uint16, a bit for each n-gram that is a history
    first_number: (blocks,) of the first history of a block, or of the next that has one
    histories:   (histories,) uint32: the longest shorter history, order and level of the back-off weight
    prob_levels, backoff_levels: (orders * 256,) natural logarithms
    """

    size: Ints
    entries: NDArray[np.uint32]
    first_keys: Ints
    followed: NDArray[np.uint16]
    first_number: NDArray[np.int32]
    histories: NDArray[np.uint32]
    prob_levels: Floats
    backoff_levels: Floats

    @classmethod
    def from_orders(cls, orders: Sequence[OrderedNgrams]) -> NgramTables:
        """errors: ValueError for more histories than can be numbered"""
        sizes = [len(order.words) for order in orders]
        num_blocks = -(-sum(sizes) // _BLOCK)
        followed = _followed(orders, num_blocks)
        next_number = 1 + bit_count(followed).cumsum(dtype=np.int32)
        num_histories = int(next_number[-1])
        if num_histories > MAX_HISTORIES:
            raise ValueError(f"{num_histories} histories, wanted {MAX_HISTORIES} at most")
        entries, first_keys = _entries(orders, num_blocks)
        tables = cls(
            size=np.array(sum(sizes), np.int64),
            entries=entries,
            first_keys=first_keys,
            followed=followed,
            first_number=next_number - bit_count(followed).astype(np.int32),
            histories=np.zeros(num_histories, np.uint32),
            prob_levels=np.concatenate([order.prob_levels for order in orders]),
            # EMPTY is the history of order 0; to go on from it costs nothing.
            backoff_levels=np.concatenate([np.zeros(LEVELS, np.float32), *(o.backoff_levels for o in orders[:-1])]),
        )
        tables._link(orders)
        return tables

    @property
    def order(self) -> int:
        return len(self.prob_levels) // LEVELS

    def unigrams(self, num_words: int) -> Floats:
        """(num_words,) log-probabilities of the first words without a history."""
        log_probs: Floats = self.prob_levels[self.entries.ravel()[:num_words] & _LEVEL_MASK]
        return log_probs

    def score(self, histories: Ints, words: Ints) -> tuple[Floats, Ints]:
        """(M,) log-probabilities of words, by their ids, after histories, and the histories that they make."""
        chain, links = self._chain(histories, self.order)
        block, place, differ = self._nearest(chain, words)
        each = np.arange(len(words))
        nearest = (differ < _NOT_FOUND).argmax(axis=0)
        nearest *= len(words)
        nearest += each
        log_probs: Floats = self.prob_levels[differ.take(nearest) & _LEVEL_MASK]
        backoffs = np.zeros(differ.shape, np.float32)
        np.add.accumulate(self.backoff_levels[links & _LEVEL_MASK], out=backoffs[1:])
        log_probs += backoffs.take(nearest)
        return log_probs, self._after(block, place, differ, each)

    def _chain(self, histories: Ints, order: int) -> tuple[Ints, NDArray[np.uint32]]:
        """Histories and their ever shorter ends, (order, M), and what links each to the next, (order - 1, M).

        order: longer n-grams are not looked for
        """
        chain = np.zeros((order, len(histories)), np.int64)
        links = np.empty((order - 1, len(histories)), np.uint32)
        if order > 1:
            chain[0] = histories
        for shorter in range(1, order):
            links[shorter - 1] = self.histories[chain[shorter - 1]]
            chain[shorter] = links[shorter - 1] >> _TO_HISTORY
        return chain, links

    def _nearest(self, chain: Ints, words: Ints) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint32]]:
        """Where words after histories would be: (order, M) block, place in it, difference to the n-gram there."""
        keys = chain << _TO_KEY
        keys |= words
        block = self.first_keys[1:].searchsorted(keys, "right")
        differ = self.entries.take(block, axis=0)
        keys <<= _TO_ENTRY
        differ ^= keys.astype(np.uint32)[..., None]
        place = differ.argmin(axis=-1)
        first = np.arange(0, differ.size, _BLOCK).reshape(place.shape)
        first += place
        return block, place, differ.take(first)

    def _after(self, block: NDArray[np.intp], place: NDArray[np.intp], differ: NDArray[np.uint32], each: Ints) -> Ints:
        """The first of the n-grams that is a history, or EMPTY. each: (M,) counts the words"""
        goes_on = differ < _NOT_FOLLOWED
        nearest = goes_on.argmax(axis=0)
        nearest *= len(each)
        nearest += each
        block = block.take(nearest)
        earlier = self.followed[block] & _BEFORE[place.take(nearest)]
        number: Ints = np.add(self.first_number[block], bit_count(earlier), dtype=np.int64)
        number *= goes_on.take(nearest)
        return number

    def _history_of(self, histories: Ints, words: Ints, order: int) -> Ints:
        """The longest history of n-grams of an order, or shorter ones, that words make after histories."""
        chain, _ = self._chain(histories, order)
        return self._after(*self._nearest(chain, words), np.arange(len(words)))

    def _link(self, orders: Sequence[OrderedNgrams]) -> None:
        """Find the shorter history of every history, those of lower orders first."""
        first = 1
        for number, order in enumerate(orders[:-1], 1):
            count = len(order.log_backoff)
            here = self.histories[first : first + count]
            here[:] = order.log_backoff
            here |= np.uint32(number * LEVELS)
            if number > 1:
                words = order.words[orders[number].followers > 0]
                before = _histories(orders, number)[orders[number].followers > 0]
                for part in _parts(count):
                    longest = (self.histories[before[part]] >> _LEVEL_BITS).astype(np.int64)
                    shorter = self._history_of(longest, words[part].astype(np.int64), number - 1)
                    here[part] |= shorter.astype(np.uint32) << np.uint32(_LEVEL_BITS)
            first += count


def _followed(orders: Sequence[OrderedNgrams], num_blocks: int) -> NDArray[np.uint16]:
    """(blocks,) which n-grams are histories, a bit for each, the first lowest."""
    flags = np.zeros(num_blocks * _BLOCK, np.bool_)
    last = 0
    for order in orders[1:]:
        flags[last : last + len(order.followers)] = order.followers > 0
        last += len(order.followers)
    return np.packbits(flags, bitorder="little").view("<u2").astype(np.uint16)


def _entries(orders: Sequence[OrderedNgrams], num_blocks: int) -> tuple[NDArray[np.uint32], Ints]:
    entries, first_keys = np.empty(num_blocks * _BLOCK, np.uint32), np.empty(num_blocks, np.int64)
    last = 0
    for number, order in enumerate(orders, 1):
        first, last = last, last + len(order.words)
        histories = _histories(orders, number)
        begins = slice(-first % _BLOCK, None, _BLOCK)
        keys = histories[begins].astype(np.int64) << WORD_BITS | order.words[begins]
        first_keys[-(-first // _BLOCK) : -(-first // _BLOCK) + len(keys)] = keys
        histories &= np.uint32(_BLOCK - 1)
        histories <<= np.uint32(WORD_BITS)
        histories |= order.words
        histories <<= np.uint32(_KEY_SHIFT)
        histories |= order.log_probs
        histories |= np.uint32((number - 1) * LEVELS)
        histories |= _NOT_FOLLOWED if number == len(orders) else _NOT_FOLLOWED * (orders[number].followers == 0)
        entries[first:last] = histories
    # The last block is filled up with what is not found before its own.
    entries[last:] = entries[last - 1]
    return entries.reshape(-1, _BLOCK), first_keys


def _histories(orders: Sequence[OrderedNgrams], number: int) -> NDArray[np.uint32]:
    """(N,) the history of every n-gram of an order."""
    followers = orders[number - 1].followers
    if number == 1:
        return np.zeros(int(followers.sum()), np.uint32)
    followed = followers[followers > 0]
    first = 1 + sum(len(order.log_backoff) for order in orders[: number - 2])
    return np.repeat(np.arange(first, first + len(followed), dtype=np.uint32), followed)


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _PART):
        yield slice(start, start + _PART)
