"""Prefix beam search over the phones of a lexicon, with a word language model, a frame at a time.

CTC prefix search (Graves et al. 2006, section 3.2; Hannun et al. 2014): a prefix is a history of words and a
beginning of the next one, and has one probability of paths that end in a blank and one of those that do not. Histories
that the language model does not tell apart are one, and the likelier is remembered. Before a word is complete its
likeliest completion counts (Ortmanns et al. 1996). When the phones of a word are complete, each word that sounds so
goes on as a prefix of its own, beside longer words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ConfigError
from edgeasr.language_model import LanguageModel
from edgeasr.lexicon import ROOT, Lexicon
from edgeasr.phones import PHONES

# A phone less likely than this is as good as impossible; it keeps sums of impossible things finite.
_LEAST_LOG_PROB = -30.0
_IMPOSSIBLE = -1e30
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
    errors:        ConfigError for numbers that make no sense
    """

    lm_weight: float = 0.6
    word_score: float = 0.0
    blank_penalty: float = 0.7
    beam: float = 12.0
    max_prefixes: int = 150
    token_beam: float = 6.0
    min_conf: float = 0.25

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = -math.inf if field.name in ("word_score", "blank_penalty") else 0.0
            if not math.isfinite(value) or value < least or (field.name == "max_prefixes" and value < 1):
                raise ConfigError(f"got {field.name} {value} for the decoder, wanted a finite number above 0")


class WordGraph:
    """What streams share: the lexicon's tree, the language model, and both's scores under one configuration.

    ahead: (nodes,) the weighted log-probability of the likeliest word below, and its word score
    likeliest: (nodes,) that word
    """

    def __init__(self, model: LanguageModel, config: SearchConfig) -> None:
        self.model, self.config = model, config
        self.lexicon = Lexicon(model.pronunciations.words, model.pronunciations.phones, len(PHONES))
        scores = (config.lm_weight * model.unigrams + config.word_score).astype(np.float32)
        ahead, self.likeliest = self.lexicon.best_below(scores)
        self.ahead = ahead.astype(np.float64)
        self.ahead[ROOT] = 0.0
        # As a child, the root stands for a phone that cannot follow.
        self.ahead_of_child = self.ahead.copy()
        self.ahead_of_child[ROOT] = _IMPOSSIBLE


class WordRecord(NamedTuple):
    """A word on a path, and the record before it.

    start_frame, end_frame: from its first phone to after the first frame of its last
    log_conf:               mean over its phones of the highest log-probability of each
    """

    word: int
    previous: int
    start_frame: int
    end_frame: int
    log_conf: float


# Rows of what is known of a prefix.
NODE, STATE, RECORD, FIRST, LAST, LABEL = range(6)
BLANK, TOKEN, SOUNDS, SOUND = range(4)


class _Candidates(NamedTuple):
    """Prefixes after a frame: first those that stayed, then those longer by a phone, then words that it completed.

    source:             which prefix each comes from
    node, state, label: where it is now, and its last phone
    blank, token:       its log-probabilities
    words:              of the third kind, each one's word
    bounds:             where the second and the third kind begin
    """

    source: Ints
    node: Ints
    state: Ints
    label: Ints
    blank: Doubles
    token: Doubles
    words: Ints
    bounds: tuple[int, int]


class PrefixSearch:
    """The prefixes of one stream.

    whole:   (6, N) int64: node of the lexicon, state of the language model, last record, first and last frame of the
             word that has begun (or ended), last phone
    parts:   (4, N) float64: log-probabilities of paths that end in a blank, and that do not; the sum over the
             word's phones of the highest log-probability of each, and that of the last phone
    records: words by number, earlier ones first
    """

    def __init__(self, graph: WordGraph) -> None:
        self.graph = graph
        self.begin(graph.model.start)

    def begin(self, state: int) -> None:
        """Forget all prefixes and begin with an empty one."""
        self.records: list[WordRecord] = []
        self.whole: Ints = np.array([[ROOT], [state], [NO_RECORD], [0], [0], [0]], np.int64)
        self.parts: Doubles = np.array([[0.0], [_IMPOSSIBLE], [0.0], [0.0]])

    @property
    def scores(self) -> Doubles:
        """(N,) log-probability of each prefix, up to a constant."""
        scores: Doubles = np.logaddexp(self.parts[BLANK], self.parts[TOKEN])
        return scores

    def accept(self, log_probs: NDArray[np.floating[Any]], frame: int) -> None:
        """Take one frame. log_probs: (P,)"""
        lp = np.maximum(log_probs.astype(np.float64), _LEAST_LOG_PROB)
        heard = lp.copy()
        lp[0] -= self.graph.config.blank_penalty
        candidates = self._candidates(lp)
        self._advance(candidates, *self._selected(candidates), heard, frame)

    def _candidates(self, lp: Doubles) -> _Candidates:
        """All prefixes that a frame may make of the present ones, but those far behind."""
        graph, (node, state), (blank, token) = self.graph, self.whole[:2], self.parts[:2]
        label = self.whole[LABEL]
        total = np.logaddexp(blank, token)
        stay_blank, stay_token = total + lp[0], token + lp[label]
        phones = np.flatnonzero(lp > lp.max() - graph.config.token_beam)
        phones = phones[phones != 0]
        longer = np.where(label[:, None] == phones, blank[:, None], total[:, None]) + lp[phones]
        child = graph.lexicon.children(node[:, None], phones)
        longer += graph.ahead_of_child[child] - graph.ahead[node][:, None]
        floor = max(stay_blank.max(), stay_token.max(), longer.max(initial=_IMPOSSIBLE)) - graph.config.beam
        stays = np.flatnonzero(np.maximum(stay_blank, stay_token) > floor)
        row, column = np.nonzero(longer > floor)
        grown, reached = longer[row, column], child[row, column].astype(np.int64)
        which, words, after, ended = self._completed(state[row], reached, grown, floor)
        return _Candidates(
            source=np.concatenate([stays, row, row[which]]),
            node=np.concatenate([node[stays], reached, np.full(len(which), ROOT)]),
            state=np.concatenate([state[stays], state[row], after]),
            label=np.concatenate([label[stays], phones[column], phones[column[which]]]),
            blank=np.concatenate([stay_blank[stays], np.full(len(row) + len(which), _IMPOSSIBLE)]),
            token=np.concatenate([stay_token[stays], grown, ended]),
            words=words,
            bounds=(len(stays), len(stays) + len(row)),
        )

    def _completed(self, state: Ints, node: Ints, grown: Doubles, floor: float) -> tuple[Ints, Ints, Ints, Doubles]:
        """Words whose phones are complete: which prefix each comes from, the word, the state and log-probability."""
        graph = self.graph
        which, words = graph.lexicon.words_of(node)
        log_probs, after = graph.model.score(state[which], words)
        gained = graph.config.lm_weight * log_probs + graph.config.word_score - graph.ahead[node[which]]
        ended = grown[which] + gained
        kept = ended > floor
        return which[kept], words[kept], after[kept], ended[kept]

    def _selected(self, candidates: _Candidates) -> tuple[Ints, Doubles, Doubles]:
        """The likeliest candidates, in order, with their log-probabilities; those that are the same prefix add up."""
        config, lexicon = self.graph.config, self.graph.lexicon
        keys = (candidates.state * len(lexicon) + candidates.node) * lexicon.num_phones + candidates.label
        order = np.lexsort((-np.logaddexp(candidates.blank, candidates.token), keys))
        keys = keys[order]
        new = np.ones(len(keys), np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=new[1:])
        first = np.flatnonzero(new)
        blank = np.logaddexp.reduceat(candidates.blank[order], first)
        token = np.logaddexp.reduceat(candidates.token[order], first)
        total = np.logaddexp(blank, token)
        best = total.max()
        kept = np.flatnonzero(total > best - config.beam)
        if len(kept) > config.max_prefixes:
            kept = kept[np.argpartition(-total[kept], config.max_prefixes)[: config.max_prefixes]]
        chosen = order[first[kept]]
        by_kind = np.argsort(chosen)
        kept = kept[by_kind]
        return chosen[by_kind], blank[kept] - best, token[kept] - best

    def _advance(
        self, candidates: _Candidates, chosen: Ints, blank: Doubles, token: Doubles, heard: Doubles, frame: int
    ) -> None:
        """Make the chosen candidates the present prefixes. heard: (P,) log-probabilities"""
        source = candidates.source[chosen]
        whole, parts = self.whole[:, source], self.parts[:, source]
        parts[BLANK], parts[TOKEN] = blank, token
        longer_from, ended_from = np.searchsorted(chosen, candidates.bounds)
        _hold(whole[:, :longer_from], parts[:, :longer_from], heard, frame)
        depth = self.graph.lexicon.depth[whole[NODE, ended_from:]] + 1
        begun = whole[NODE, longer_from:] == ROOT
        whole[FIRST, longer_from:] = np.where(begun, frame, whole[FIRST, longer_from:])
        whole[LAST, longer_from:] = frame + 1
        for row, values in zip((NODE, STATE, LABEL), candidates[1:4], strict=True):
            whole[row] = values[chosen]
        parts[SOUND, longer_from:] = heard[whole[LABEL, longer_from:]]
        sums = np.where(begun, 0.0, parts[SOUNDS, longer_from:])
        parts[SOUNDS, longer_from:] = sums + parts[SOUND, longer_from:]
        words = candidates.words[chosen[ended_from:] - candidates.bounds[1]]
        self._record(whole[:, ended_from:], parts[SOUNDS, ended_from:] / depth, words)
        self.whole, self.parts = whole, parts

    def _record(self, whole: Ints, log_conf: Doubles, words: Ints) -> None:
        """Remember the words that have ended."""
        for prefix, word in enumerate(words.tolist()):
            _, _, previous, first, last, _ = whole[:, prefix].tolist()
            whole[RECORD, prefix] = len(self.records)
            self.records.append(WordRecord(word, previous, first, last, float(log_conf[prefix])))

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
        ends = set(self.whole[RECORD].tolist())
        while len(ends) > 1:
            latest = max(ends)
            ends.discard(latest)
            ends.add(self.records[latest].previous)
        return int(ends.pop())

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
    held = (parts[TOKEN] > parts[BLANK]) & (whole[NODE] != ROOT)
    whole[LAST] = np.where(held, frame + 1, whole[LAST])
    gain = np.where(held, np.maximum(heard[whole[LABEL]] - parts[SOUND], 0.0), 0.0)
    parts[SOUNDS] += gain
    parts[SOUND] += gain
