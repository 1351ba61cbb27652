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
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeasr.bits import as_index
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
    ahead:   (nodes,) the weighted log-probability of the likeliest word below, and its word score
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
        self.ahead: NDArray[np.float32] = self.lexicon.best * np.float32(config.lm_weight)
        self.ahead += np.float32(config.word_score)
        self.ahead[ROOT] = 0.0
        self.num_places = len(self.lexicon) + int(self.lexicon.num_phones)

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


# Rows of what is known of a prefix.
NODE, STATE, LABEL, KEY, RECORD, FIRST, LAST = range(7)
BLANK, TOKEN, SOUNDS, SOUND = range(4)


class Heard(NamedTuple):
    """A frame.

    log_probs: (P,) none below the least
    weighed:   (P,) the same with the blank's penalty
    probs:     (P,) its exponentials
    best:      the highest of `weighed`
    phones:    (K,) those to try
    """

    log_probs: Doubles
    weighed: Doubles
    probs: Doubles
    best: float
    phones: Ints


def heard_frames(log_probs: NDArray[np.floating[Any]], config: SearchConfig) -> list[Heard]:
    """Frames made ready for the search, all at once. log_probs: (T, P)"""
    raised = np.maximum(log_probs.astype(np.float64), _LEAST_LOG_PROB)
    weighed = raised.copy()
    weighed[:, 0] -= config.blank_penalty
    best = weighed.max(axis=1)
    tried = weighed > best[:, None] - config.token_beam
    tried[:, 0] = False
    rows = zip(raised, weighed, np.exp(weighed), best.tolist(), tried, strict=True)
    return [Heard(one, light, probs, top, likely.nonzero()[0]) for one, light, probs, top, likely in rows]


class _Candidates(NamedTuple):
    """Prefixes after a frame: first those that stayed, then those longer by a phone, then words that it completed.

    source: which prefix each comes from
    now:    (4, M) node, state, last phone and key of each
    blank:  probabilities of paths that end in a blank; only the first kind has such
    token:  those of the other paths
    words:  of the third kind, each one's word
    bounds: where the second and the third kind begin
    """

    source: Ints
    now: Ints
    blank: Doubles
    token: Doubles
    words: Ints
    bounds: tuple[int, int]


class PrefixSearch:
    """The prefixes of one stream.

    whole:   (7, N) int64: node of the lexicon, state of the language model, last phone, all three as one number,
             last record, first and last frame of the word that has begun (or ended)
    parts:   (4, N) float64: probabilities of paths that end in a blank, and that do not, up to a factor; the sum over
             the word's phones of the highest log-probability of each, and that of the last phone
    records: words by number, earlier ones first
    behind:  how much likelier the best prefix is than the likeliest phones, or blanks, of all frames, in nats: below 0;
             added to logarithms of `scores` it makes them odds
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
        parts = self.parts
        blank = (parts[BLANK] + parts[TOKEN]) * heard.probs[0]
        token = parts[TOKEN] * heard.probs.take(as_index(self.whole[LABEL]))
        total = blank + token
        best = total.max()
        self.behind += math.log(best)
        kept = total > best * self._least
        np.divide((blank, token), best, out=parts[:SOUNDS])
        if not kept.all():
            self.keep(kept)
        _hold(self.whole, self.parts, heard.log_probs, frame)

    def _candidates(self, heard: Heard) -> _Candidates:
        """All prefixes that a frame may make of the present ones, but those far behind."""
        graph = self.graph
        node, state, label, _ = now = self.whole[:RECORD]
        node, label = as_index(node), as_index(label)
        blank, token = self.parts[:SOUNDS]
        total = blank + token
        stay_blank, stay_token = total * heard.probs[0], token * heard.probs.take(label)
        stay = stay_blank + stay_token
        which, column, child = graph.children(node, state, heard.phones)
        phone = heard.phones.take(column)
        grown = np.where(label.take(which) == phone, blank.take(which), total.take(which))
        gained = graph.ahead.take(as_index(child)) - graph.ahead.take(node).take(which)
        grown *= np.exp(heard.weighed.take(phone) + gained)
        floor = max(stay.max(), grown.max(initial=0.0)) * self._least
        stays, longer = (stay > floor).nonzero()[0], (grown > floor).nonzero()[0]
        which, child, phone, grown = which.take(longer), child.take(longer), phone.take(longer), grown.take(longer)
        states = state.take(which)
        of, words, after, ended = self._completed(states, child, grown, floor)
        ends = phone.take(of)
        places = np.concatenate([child, graph.place_after(ends)])
        states = np.concatenate([states, after])
        keys = states * graph.num_places + places
        nodes = np.concatenate([child, np.full(len(of), ROOT)])
        longer_now = np.array([nodes, states, np.concatenate([phone, ends]), keys])
        return _Candidates(
            source=np.concatenate([stays, which, which.take(of)]),
            now=np.concatenate([now.take(stays, axis=1), longer_now], axis=1),
            blank=stay_blank.take(stays),
            token=np.concatenate([stay_token.take(stays), grown, ended]),
            words=words,
            bounds=(len(stays), len(stays) + len(which)),
        )

    def _completed(self, state: Ints, node: Ints, grown: Doubles, floor: float) -> tuple[Ints, Ints, Ints, Doubles]:
        """Words whose phones are complete: which prefix each comes from, the word, the state and probability."""
        graph = self.graph
        which, words = graph.lexicon.words_of(node)
        log_probs, after = graph.model.score(state.take(which), words)
        promised = graph.ahead.take(as_index(node.take(which)))
        gained = graph.config.lm_weight * log_probs + (graph.config.word_score - promised)
        ended = grown.take(which) * np.exp(gained, dtype=np.float64)
        kept = (ended > floor).nonzero()[0]
        return which.take(kept), words.take(kept), after.take(kept), ended.take(kept)

    def _selected(self, candidates: _Candidates) -> tuple[Ints, Doubles]:
        """The likeliest candidates, in order, with their probabilities; those that are the same prefix add up."""
        most, num_stays = self.graph.config.max_prefixes, candidates.bounds[0]
        both = np.zeros((2, len(candidates.token)))
        both[0, :num_stays], both[1] = candidates.blank, candidates.token
        keys = candidates.now[KEY]
        order = np.lexsort((-(both[0] + both[1]), keys))
        keys = keys.take(order)
        new = np.ones(len(keys), np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=new[1:])
        first = new.nonzero()[0]
        both = np.add.reduceat(both.take(order, axis=1), first, axis=1)
        total = both[0] + both[1]
        best = total.max()
        kept = (total > best * self._least).nonzero()[0]
        if len(kept) > most:
            kept = kept.take(total.take(kept).argpartition(-most)[-most:])
        chosen = order.take(first.take(kept))
        by_kind = chosen.argsort()
        both = both.take(kept.take(by_kind), axis=1)
        both /= best
        self.behind += math.log(best)
        return chosen.take(by_kind), both

    def _advance(self, candidates: _Candidates, chosen: Ints, both: Doubles, heard: Doubles, frame: int) -> None:
        """Make the chosen candidates the present prefixes. both: (2, N) probabilities; heard: (P,) log-probabilities"""
        source = candidates.source.take(chosen)
        whole, parts = self.whole.take(source, axis=1), self.parts.take(source, axis=1)
        parts[:SOUNDS] = both
        longer_from, ended_from = chosen.searchsorted(candidates.bounds).tolist()
        _hold(whole[:, :longer_from], parts[:, :longer_from], heard, frame)
        depth = self.graph.lexicon.depth.take(as_index(whole[NODE, ended_from:])) + 1
        goes_on = whole[NODE, longer_from:] != ROOT
        whole[FIRST, longer_from:][~goes_on] = frame
        whole[LAST, longer_from:] = frame + 1
        whole[:RECORD] = candidates.now.take(chosen, axis=1)
        sounds = heard.take(as_index(whole[LABEL, longer_from:]))
        parts[SOUND, longer_from:] = sounds
        parts[SOUNDS, longer_from:] *= goes_on
        parts[SOUNDS, longer_from:] += sounds
        words = candidates.words.take(chosen[ended_from:] - candidates.bounds[1])
        log_odds = np.log(parts[TOKEN, ended_from:]) + self.behind
        self._record(whole[RECORD:, ended_from:], parts[SOUNDS, ended_from:] / depth, log_odds, words)
        self.whole, self.parts = whole, parts

    def _record(self, whole: Ints, log_conf: Doubles, log_odds: Doubles, words: Ints) -> None:
        """Remember the words that have ended. whole: (3, N) last record, first and last frame"""
        number = len(self.records)
        self.records += map(WordRecord, words.tolist(), *whole.tolist(), log_conf.tolist(), log_odds.tolist())
        whole[0] = range(number, len(self.records))

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

    def common_record(self) -> int:
        """The last record through which all prefixes go, or NO_RECORD."""
        known = set(self.whole[RECORD].tolist())
        # The latest first: heaps have their least on top.
        ends: list[int] = [-record for record in known]
        heapify(ends)
        while len(ends) > 1:
            previous = self.records[-heappop(ends)].previous
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


def _hold(whole: Ints, parts: Doubles, heard: Doubles, frame: int) -> None:
    """What stays: the last phone of an unfinished word, where it is still heard, lasts longer."""
    held = ((parts[TOKEN] > parts[BLANK]) & (whole[NODE] != ROOT)).nonzero()[0]
    if len(held):
        whole[LAST, held] = frame + 1
        gain = np.maximum(heard.take(as_index(whole[LABEL, held])) - parts[SOUND].take(held), 0.0)
        parts[SOUNDS:, held] += gain
