"""Prefix beam search over the phones of a lexicon, with a word language model, a frame at a time.

CTC prefix search (Graves et al. 2006, section 3.2; Hannun et al. 2014): a prefix is a history of words and a
beginning of the next one, and has one probability of paths that end in a blank and one of those that do not. Histories
that the language model does not tell apart are one, and the likelier is remembered. Before a word is complete its
likeliest completion counts (Ortmanns et al. 1996). When the phones of a word are complete, each word that sounds so
goes on as a prefix of its own, beside longer words.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ConfigError
from edgeasr.language_model import LanguageModel
from edgeasr.lexicon import ROOT, Lexicon
from edgeasr.phones import PHONES

# A phone less likely than this is as good as impossible; so a prefix that waits never becomes impossible.
_LEAST_LOG_PROB = -30.0
# Of what is added in every frame or for every word, in nats: the search multiplies probabilities.
_LARGEST_SCORE = 100.0
NO_RECORD = -1

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class SearchConfig:
    """What the search weighs and keeps.

    lm_weight:     of the language model's log-probabilities beside the acoustic ones
    word_score:    added for each word, in nats
    blank_penalty: taken from the blank in every frame, in nats: CTC is too sure of it
    beam:          prefixes so much less likely than the best are dropped, in nats
    max_prefixes:  as many are kept at most
    token_beam:    in each frame phones so much less likely than the best are not tried, in nats
    sure_blank:    in frames in which the blank is as likely as this no phone is tried
    min_conf:      a segment is taken for noise until its words have this confidence on average
    min_fit:       a sentence of a grammar is rejected where it fits what was heard less, see `GrammarDecoder`
    errors:        ConfigError for numbers that make no sense
    """

    lm_weight: float = 0.6
    word_score: float = 0.0
    blank_penalty: float = 0.7
    beam: float = 12.0
    max_prefixes: int = 150
    token_beam: float = 6.0
    sure_blank: float = 1.0
    min_conf: float = 0.25
    min_fit: float = 0.15

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("word_score", "blank_penalty"):
                if not -_LARGEST_SCORE <= value <= _LARGEST_SCORE:
                    raise ConfigError(
                        f"got {field.name} {value} for the decoder, wanted a number up to {_LARGEST_SCORE:g} or its "
                        "negative"
                    )
            elif not math.isfinite(value) or value < 0 or (field.name == "max_prefixes" and value < 1):
                raise ConfigError(f"got {field.name} {value} for the decoder, wanted a finite number above 0")
        for name in ("beam", "sure_blank"):
            if not getattr(self, name):
                raise ConfigError(f"got {name} 0 for the decoder, with which it hears nothing: wanted a higher number")


class WordModel(Protocol):
    """What the search needs of a language model, or of what takes its place.

    words: by number
    """

    @property
    def words(self) -> Sequence[str]: ...
    @property
    def start(self) -> int: ...
    @property
    def unigrams(self) -> NDArray[np.float32]: ...

    def score(self, states: Ints, words: NDArray[np.integer]) -> tuple[NDArray[np.float32], Ints]:
        """(M,) log-probabilities of words after states, and the states after those words."""


class WordGraph:
    """What streams share: the lexicon's tree, the language model, and both's scores under one configuration.

    lexicon: of the model's pronunciations; None to build it, of a language model
    gain:    (nodes,) what a prefix that goes on to a node gains by it, in nats, since the likeliest word below counts
    start:   the language model's state at a sentence's beginning
    num_places: where a prefix can be: its node, or `place_after` a word's last phone
    """

    def __init__(self, model: WordModel, config: SearchConfig, lexicon: Lexicon | None = None) -> None:
        self.model, self.config = model, config
        if lexicon is None:
            assert isinstance(model, LanguageModel)
            lexicon = lexicon_of(model)
        self.lexicon = lexicon
        self.start = model.start
        ahead = self._ahead(slice(None))
        ahead[1:] -= ahead[self.lexicon.parents]
        self.gain: NDArray[np.float32] = ahead
        self.num_places = len(self.lexicon) + int(self.lexicon.num_phones)

    def _ahead(self, nodes: int | slice) -> Any:
        """Of the likeliest word below nodes: weighted log-probability and word score; 0 where none has begun."""
        config, lexicon = self.config, self.lexicon
        weighed = lexicon.best[nodes] * np.float32(config.lm_weight) + np.float32(config.word_score)
        return np.where(lexicon.depth[nodes] == 0, np.float32(0), weighed)

    def ahead(self, node: int) -> float:
        """What the likeliest word below a node adds to the score of a prefix there, in nats."""
        return float(self._ahead(node))

    def with_beam(self, beam: float, max_prefixes: int) -> WordGraph:
        """The same tables for a search that keeps more prefixes or fewer; both as in `SearchConfig`."""
        other = copy.copy(self)
        other.config = replace(self.config, beam=beam, max_prefixes=max_prefixes)
        return other

    def children(self, nodes: Ints, states: Ints, phones: Ints) -> tuple[Ints, Ints, Ints]:  # noqa: ARG002
        """What follows nodes, as `Lexicon.children` says it. states: of the language model, for each node"""
        return self.lexicon.children(nodes, phones)

    def if_ended(self, states: Ints) -> Doubles | float:  # noqa: ARG002
        """What probabilities are worth if nothing follows, by the states of their prefixes."""
        return 1.0

    def if_last(self, states: Ints) -> Doubles:
        """What probabilities are worth if a sentence ends, by the states of their prefixes."""
        assert isinstance(self.model, LanguageModel)
        return np.exp(self.config.lm_weight * self.model.score_end(states).astype(np.float64))

    def place_after(self, phones: Ints) -> Ints:
        """Where prefixes are whose word is complete: at the root, told apart by the phone that a blank must follow."""
        return phones + len(self.lexicon)


def lexicon_of(model: LanguageModel) -> Lexicon:
    """The tree of a model's pronunciations. Errors: BundleError where there is none"""
    said = model.pronunciations
    return Lexicon.of(said.words, said.phones, len(PHONES), model.unigrams)


class WordRecord(NamedTuple):
    """A word on a path, and the record before it.

    start_frame, end_frame: from its first phone to after the first frame of its last
    log_conf:               mean over its phones of the highest log-probability of each
    log_odds:               of the path so far, weights of the words included, against the likeliest phones
    """

    word: int
    previous: int
    start_frame: int
    end_frame: int
    log_conf: float
    log_odds: float


# As `WordRecord._make`, without a call of Python's for each.
new_record = partial(tuple.__new__, WordRecord)

# Rows of what is known of a prefix.
NODE, STATE, LABEL, KEY, RECORD, FIRST, LAST = range(7)
BLANK, TOKEN, SOUNDS, SOUND = range(4)


class Heard(NamedTuple):
    """A frame.

    log_probs: (P,) none below the least
    probs:     (P,) their exponentials, with the blank's penalty
    blank:     the first of them
    best:      logarithm of the highest of them
    phones:    (K,) those to try
    """

    log_probs: Doubles
    probs: Doubles
    blank: float
    best: float
    phones: Ints


def heard_frames(log_probs: NDArray[np.floating[Any]], config: SearchConfig) -> list[Heard]:
    """Frames made ready for the search, all at once. log_probs: (T, P)"""
    raised = np.maximum(log_probs, _LEAST_LOG_PROB, dtype=np.float64)
    weighed = raised.copy()
    weighed[:, 0] -= config.blank_penalty
    best = weighed.max(axis=1)
    tried = weighed > best[:, None] - config.token_beam
    tried[:, 0] = False
    tried[raised[:, 0] > math.log(config.sure_blank)] = False
    probs = np.exp(weighed)
    phones = [likely.nonzero()[0] for likely in tried]
    return list(map(Heard, raised, probs, probs[:, 0].tolist(), best.tolist(), phones))


class _Candidates(NamedTuple):
    """Prefixes after a frame: first those that stayed, then those longer by a phone, then words that it completed.

    source: which prefix each comes from
    now:    (4, M) node, state, last phone and key of each
    probs:  (2, M) of paths that end in a blank, and that do not
    words:  of the third kind, each one's word
    bounds: where the second and the third kind begin
    """

    source: Ints
    now: Ints
    probs: Doubles
    words: Ints
    bounds: tuple[int, int]


class _Longer(NamedTuple):
    """Prefixes that get longer: which one each comes from, phone, node, state, probability."""

    source: Ints
    phone: Ints
    node: Ints
    state: Ints
    prob: Doubles


class _Ended(NamedTuple):
    """Words that are complete: which longer prefix each comes from, the word, state and probability after it."""

    source: Ints
    word: Ints
    state: Ints
    prob: Doubles


class PrefixSearch:
    """The prefixes of one stream.

    whole:   (7, N) int64: node of the lexicon, state of the language model, last phone, all three as one number,
             last record, first and last frame of the word that has begun (or ended)
    parts:   (4, N) float64: probabilities of paths that end in a blank, and that do not, up to a factor; the sum over
             the word's phones of the highest log-probability of each, and that of the last phone
    records: words by number, earlier ones first
    behind:  how much likelier the best prefix is than the likeliest phones, or blanks, of all frames, in nats: below 0;
             added to logarithms of `scores` it makes them odds

    Few prefixes are kept, so a frame's time is that of the calls of numpy, whatever the number of prefixes.
    `lexicon_native.py` does the same without them.
    """

    def __init__(self, graph: WordGraph) -> None:
        self.use(graph)
        self.begin(graph.start)

    def use(self, graph: WordGraph) -> None:
        """Search from the next frame on with another beam. graph: the same tables"""
        self.graph = graph
        self._least = math.exp(-graph.config.beam)

    def begin(self, state: int) -> None:
        """Forget all prefixes and begin with an empty one."""
        self.behind = 0.0
        self.records: list[WordRecord] = []
        key = state * self.graph.num_places + self.graph.place_after(np.zeros(1, np.int64))
        self.whole: Ints = np.array([[ROOT], [state], [0], key, [NO_RECORD], [0], [0]], np.int64)
        self.parts: Doubles = np.array([[1.0], [0.0], [0.0], [0.0]])

    @property
    def scores(self) -> Doubles:
        """(N,) probability of each prefix, up to a factor."""
        scores: Doubles = self.parts[BLANK] + self.parts[TOKEN]
        return scores

    def accept_frames(self, log_probs: NDArray[np.floating[Any]], frames: Sequence[int]) -> None:
        """Take frames. log_probs: (T, P); frames: T numbers"""
        for heard, frame in zip(heard_frames(log_probs, self.graph.config), frames, strict=True):
            self.accept(heard, frame)

    def accept(self, heard: Heard, frame: int) -> None:
        """Take one frame."""
        self.behind -= heard.best
        if len(heard.phones):
            candidates = self._candidates(heard)
            self._advance(candidates, *self._selected(candidates), heard.log_probs, frame)
        else:
            self._wait(heard, frame)

    def _wait(self, heard: Heard, frame: int) -> None:
        """A frame in which no prefix gets longer."""
        stay = self._stay(heard, self.scores)
        total = stay[BLANK] + stay[TOKEN]
        best = _highest(total)
        self.behind += math.log(best)
        kept = total > best * self._least
        np.divide(stay, best, out=self.parts[:SOUNDS])
        if not kept.all():
            self.keep(kept)
        _hold(self.whole, self.parts, heard.log_probs, frame)

    def _stay(self, heard: Heard, scores: Doubles) -> Doubles:
        """(2, N) probabilities of the present prefixes after a frame, if none gets longer. scores: those before it"""
        token = self.parts[TOKEN]
        stay = np.empty((2, len(token)))
        np.multiply(scores, heard.blank, out=stay[BLANK])
        np.multiply(token, heard.probs[self.whole[LABEL]], out=stay[TOKEN])
        return stay

    def _candidates(self, heard: Heard) -> _Candidates:
        """All prefixes that a frame may make of the present ones, but those far behind."""
        graph, scores = self.graph, self.scores
        stay = self._stay(heard, scores)
        total = stay[BLANK] + stay[TOKEN]
        longer, floor = self._longer(heard, scores, _highest(total))
        ended = self._ended(longer, floor)
        stays = (total > floor).nonzero()[0]
        num_stays = len(stays)
        num_both = num_stays + len(longer.prob)
        size = num_both + len(ended.prob)
        ends = longer.phone[ended.source]
        now = np.empty((RECORD, size), np.int64)
        now[:, :num_stays] = self.whole[:RECORD].take(stays, axis=1)
        now[NODE, num_stays:num_both], now[NODE, num_both:] = longer.node, ROOT
        now[STATE, num_stays:num_both], now[STATE, num_both:] = longer.state, ended.state
        now[LABEL, num_stays:num_both], now[LABEL, num_both:] = longer.phone, ends
        np.multiply(now[STATE, num_stays:], graph.num_places, out=now[KEY, num_stays:])
        now[KEY, num_stays:num_both] += longer.node
        now[KEY, num_both:] += graph.place_after(ends)
        probs = np.zeros((2, size))
        probs[:, :num_stays] = stay.take(stays, axis=1)
        probs[TOKEN, num_stays:num_both], probs[TOKEN, num_both:] = longer.prob, ended.prob
        source = np.concatenate((stays, longer.source, longer.source[ended.source]))
        return _Candidates(source, now, probs, ended.word, (num_stays, num_both))

    def _longer(self, heard: Heard, scores: Doubles, best: float) -> tuple[_Longer, float]:
        """The present prefixes with one more phone, after the same phone only from a blank, but those far behind.

        scores:  of the present prefixes
        best:    the highest probability of a prefix that does not get longer
        returns: also the probability that is far behind the best of all
        """
        node, state, label = self.whole[:KEY]
        source, phone, child = self.graph.children(node, state, heard.phones)
        from_blank = label[source] == phone
        prob = np.where(from_blank, self.parts[BLANK][source], scores[source])
        prob *= heard.probs[phone]
        prob *= np.exp(self.graph.gain[child], dtype=np.float64)
        floor = max(best, _highest(prob)) * self._least
        kept = (prob > floor).nonzero()[0]
        source = source[kept]
        return _Longer(source, phone[kept], child[kept], state[source], prob[kept]), floor

    def _ended(self, longer: _Longer, floor: float) -> _Ended:
        """The words whose phones are complete, but those far behind."""
        graph, node = self.graph, longer.node
        source, word = graph.lexicon.words_of(node)
        log_probs, state = graph.model.score(longer.state[source], word)
        # The likeliest word below the node has counted so far.
        log_probs = log_probs - graph.lexicon.best[node][source]
        log_probs *= graph.config.lm_weight
        prob = longer.prob[source]
        prob *= np.exp(log_probs, dtype=np.float64)
        kept = (prob > floor).nonzero()[0]
        return _Ended(source[kept], word[kept], state[kept], prob[kept])

    def _selected(self, candidates: _Candidates) -> tuple[Ints, Doubles]:
        """The likeliest candidates, in order, with their probabilities; those that are the same prefix add up."""
        most, probs, keys = self.graph.config.max_prefixes, candidates.probs, candidates.now[KEY]
        order = np.lexsort((-(probs[BLANK] + probs[TOKEN]), keys))
        keys = keys[order]
        new = np.empty(len(keys), np.bool_)
        new[0] = True
        np.not_equal(keys[1:], keys[:-1], out=new[1:])
        likeliest = order[new]
        same = np.empty(len(keys), np.intp)
        same[order] = new.cumsum() - 1
        # In the order of candidates, whoever searches: `lexicon_kernels.c` adds up the same.
        both = np.bincount(same, probs[BLANK]), np.bincount(same, probs[TOKEN])
        probs.fill(0.0)
        probs[BLANK][likeliest], probs[TOKEN][likeliest] = both
        total = probs[BLANK] + probs[TOKEN]
        best = _highest(total)
        kept = (total > best * self._least).nonzero()[0]
        if len(kept) > most:
            # Of equals the first, as there.
            kept = np.sort(kept[(-total[kept]).argsort(kind="stable")[:most]])
        both = probs.take(kept, axis=1)
        both /= best
        self.behind += math.log(best)
        return kept, both

    def _advance(self, candidates: _Candidates, chosen: Ints, both: Doubles, heard: Doubles, frame: int) -> None:
        """Make the chosen candidates the present prefixes. both: (2, N) probabilities; heard: (P,) log-probabilities"""
        source = candidates.source[chosen]
        whole, parts = self.whole.take(source, axis=1), self.parts.take(source, axis=1)
        parts[:SOUNDS] = both
        longer_from, ended_from = chosen.searchsorted(candidates.bounds).tolist()
        _hold(whole[:, :longer_from], parts[:, :longer_from], heard, frame)
        before = whole[NODE, longer_from:].copy()
        whole[:RECORD] = candidates.now.take(chosen, axis=1)
        begins = before == ROOT
        np.copyto(whole[FIRST, longer_from:], frame, where=begins)
        whole[LAST, longer_from:] = frame + 1
        sound = heard[whole[LABEL, longer_from:]]
        parts[SOUND, longer_from:] = sound
        sounds = parts[SOUNDS, longer_from:]
        np.copyto(sounds, 0.0, where=begins)
        sounds += sound
        if ended_from < len(chosen):
            words = candidates.words[chosen[ended_from:] - candidates.bounds[1]]
            num_phones = self.graph.lexicon.depth[before[ended_from - longer_from :]] + 1
            log_odds = np.log(parts[TOKEN, ended_from:]) + self.behind
            self._record(whole[RECORD:, ended_from:], parts[SOUNDS, ended_from:] / num_phones, log_odds, words)
        self.whole, self.parts = whole, parts

    def _record(self, whole: Ints, log_conf: Doubles, log_odds: Doubles, words: Ints) -> None:
        """Remember the words that have ended. whole: (3, N) last record, first and last frame"""
        number = len(self.records)
        columns = zip(words.tolist(), *whole.tolist(), log_conf.tolist(), log_odds.tolist(), strict=True)
        self.records += map(new_record, columns)
        whole[0] = np.arange(number, len(self.records))

    def keep(self, wanted: NDArray[np.bool_]) -> None:
        """Drop all other prefixes. wanted: (N,)"""
        self.whole, self.parts = self.whole[:, wanted], self.parts[:, wanted]

    def keep_through(self, record: int) -> None:
        """Drop the prefixes that do not go through a record."""
        through = {last: record in self.path(last, NO_RECORD) for last in set(self.whole[RECORD].tolist())}
        self.keep(np.array([through[last] for last in self.whole[RECORD].tolist()], np.bool_))

    def path(self, record: int, after: int) -> list[int]:
        """Records from one back to, and without, an earlier one; to the beginning for NO_RECORD."""
        path = []
        while record not in (after, NO_RECORD):
            path.append(record)
            record = self.records[record].previous
        return path

    def common_record(self, earlier: int) -> int:
        """The last record through which all prefixes go, or NO_RECORD. earlier: a record of which that is known"""
        known = set(self.whole[RECORD].tolist())
        if earlier in known:
            return earlier
        # The latest first: heaps have their least on top.
        ends: list[int] = [-record for record in known]
        heapify(ends)
        while len(ends) > 1:
            previous = self.records[-heappop(ends)].previous
            if previous == earlier:
                return earlier
            if previous not in known:
                known.add(previous)
                heappush(ends, -previous)
        return -ends[0]

    def forget(self, record: int) -> None:
        """Drop a record that all prefixes go through, all before it, and those that none goes through."""
        wanted: set[int] = set()
        for last in set(self.whole[RECORD].tolist()):
            wanted.update(self.path(last, record))
        number = {old: new for new, old in enumerate(sorted(wanted))}
        number[record] = number[NO_RECORD] = NO_RECORD
        kept = [self.records[old] for old in sorted(wanted)]
        self.records = [old._replace(previous=number[old.previous]) for old in kept]
        self.whole[RECORD] = [number[last] for last in self.whole[RECORD].tolist()]


def _highest(values: Doubles) -> float:
    """0 for none. `max` takes ten times as long for so few."""
    return float(values[values.argmax()]) if len(values) else 0.0


def _hold(whole: Ints, parts: Doubles, heard: Doubles, frame: int) -> None:
    """What stays: the last phone of an unfinished word, where it is still heard, lasts longer."""
    held = parts[TOKEN] > parts[BLANK]
    held &= whole[NODE] != ROOT
    if np.count_nonzero(held):
        np.copyto(whole[LAST], frame + 1, where=held)
        gain = heard[whole[LABEL]]
        gain -= parts[SOUND]
        np.maximum(gain, 0.0, out=gain)
        gain *= held
        parts[SOUNDS:] += gain
