"""Words and phrases that are likelier than the language model thinks: names, products, what an application is about.

Shallow fusion with an automaton of the phrases (Aho and Corasick 1975) beside the language model: every word of a
phrase earns its boost as it is said, and a phrase that is broken off gives back what its words have earned.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.bits import as_index
from edgeasr.errors import ConfigError
from edgeasr.language_model import LanguageModel, Pronunciations, Words
from edgeasr.lexicon import Lexicon
from edgeasr.lexicon_search import SearchConfig, WordGraph
from edgeasr.ngram_tables import EMPTY
from edgeasr.phones import PHONE_IDS, PHONES, Pronunciation
from edgeasr.pronouncing import Ways, numbers_of
from edgeasr.tokenizer import normalize_text

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

DEFAULT_BOOST = 3.0
LARGEST_BOOST = 20.0
_MOST_WORDS = 1 << 16  # numbers of words in a lexicon
# "nan" alone may be a grandmother; after a colon, or with a sign, it is a number that is none.
_LINE = re.compile(
    r"(?P<phrase>.*?)"
    r"(?:[\s:]+(?P<boost>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|(?:(?<=:)|(?<=:\s)|[+-])(?:nan|inf(?:inity)?)))?\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Hotword:
    """A phrase in the form of `normalize_text`, and what each of its words is likelier by, in nats.

    errors: ConfigError for a phrase without words, and a boost that makes no sense
    """

    phrase: str
    boost: float = DEFAULT_BOOST

    def __post_init__(self) -> None:
        if not self.phrase or self.phrase != normalize_text(self.phrase):
            raise ConfigError(f"got the hotword {self.phrase!r}, wanted words of a to z and apostrophes")
        if not 0 < abs(self.boost) <= LARGEST_BOOST:
            raise ConfigError(
                f"got the boost {self.boost:g} for {self.phrase!r}, wanted one up to {LARGEST_BOOST:g}, and not 0"
            )


Hotwords = Sequence[Hotword]


def read_hotwords(path: str | Path) -> list[Hotword]:
    """The hotwords of a file: a phrase a line, and after it its boost, if not the default; # begins a comment.

    errors: ConfigError for a file that cannot be read, and a line that is not like this, with its number
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the hotwords {path} ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the hotwords {path} ({error}): write it in UTF-8") from error
    found: dict[str, Hotword] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.split("#")[0].strip())
        if match is None or not match.group():
            continue
        phrase = match["phrase"]
        try:
            if re.search(r"\d", phrase) or not normalize_text(phrase):
                raise ConfigError(f"got {line.strip()!r}, wanted words as they are said, then a boost if any")
            hotword = Hotword(normalize_text(phrase), float(match["boost"] or DEFAULT_BOOST))
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
        found[hotword.phrase] = hotword
    if not found:
        raise ConfigError(f"{path} has no hotwords: write a phrase a line")
    return list(found.values())


class PhraseAutomaton:
    """Where in which phrases the last words are; state 0 is in none.

    phrases:       numbers of their words, and the boost of each word
    keys, targets: (arcs,) state and word as one number, in order, and the state after them
    parents:       (states,) the state before the last word of the phrase
    earned:        (states,) by the words of the phrase up to there
    pending:       (states,) what of it is given back unless the phrase is completed
    """

    def __init__(self, phrases: Sequence[tuple[Sequence[int], float]]) -> None:
        self._children: list[dict[int, int]] = [{}]
        earned, kept = [0.0], [0.0]
        for words, boost in sorted(phrases, key=lambda phrase: len(phrase[0])):
            node = 0
            for depth, word in enumerate(words, 1):
                if word not in self._children[node]:
                    self._children[node][word] = len(earned)
                    self._children.append({})
                    earned.append(boost * depth)
                    kept.append(kept[node])
                node = self._children[node][word]
                earned[node] = max(earned[node], boost * depth, key=abs)
            kept[node] = earned[node]
        self._finish(np.array(earned), np.array(kept))

    def __len__(self) -> int:
        return len(self.pending)

    def step(self, states: Ints, words: Ints) -> tuple[NDArray[np.float64], Ints]:
        """(M,) what words earn after states, or lose, and the states after them."""
        keys = states * _MOST_WORDS + words
        at = self.keys.searchsorted(keys).clip(max=len(self.keys) - 1)
        found = self.keys.take(at) == keys
        first = self.keys.searchsorted(words).clip(max=len(self.keys) - 1)
        begins = self.keys.take(first) == words
        after = np.where(found, self.targets.take(at), np.where(begins, self.targets.take(first), 0))
        # Where a phrase goes on it keeps what it has earned; where another one begins, or none, it gives that back.
        here, before = as_index(after), as_index(states)
        goes_on = found & (self.parents.take(here) == states)
        gained = self.earned.take(here) - np.where(goes_on, self.earned.take(before), self.pending.take(before))
        return gained, after

    def _finish(self, earned: NDArray[np.float64], kept: NDArray[np.float64]) -> None:
        """Arcs of every state, those of its longest shorter end too, as sorted keys; those of state 0 only once.

        earned: (states,) by the words up to there; kept: what of it a phrase that has ended there keeps
        """
        failure = np.zeros(len(earned), np.int64)
        self.parents = np.zeros(len(earned), np.int64)
        arcs: list[dict[int, int]] = [{} for _ in earned]
        arcs[0] = self._children[0]
        waiting = deque([0])
        while waiting:
            node = waiting.popleft()
            for word, child in self._children[node].items():
                self.parents[child] = node
                shorter = int(failure[node])
                failure[child] = 0 if node == 0 else arcs[shorter].get(word, self._children[0].get(word, 0))
                # A path that ends here may be the end of a longer one: that is left to the longer one.
                inherited = arcs[failure[child]] if failure[child] else {}
                arcs[child] = inherited | self._children[child]
                waiting.append(child)
        rows = [(node * _MOST_WORDS + word, target) for node, here in enumerate(arcs) for word, target in here.items()]
        self.keys, self.targets = np.array(sorted(rows), np.int64).T.copy()
        self.earned, self.pending = earned, earned - kept


class HotwordModel:
    """A language model with hotwords: a state is one of its states and one of the automaton of phrases.

    words: those of the model, num_known of them, then new ones, each as likely as the rarest of the model
    scale: of boosts, since the search weighs all that a language model says, and a boost is meant as it is
    """

    def __init__(
        self, model: LanguageModel, new_words: Sequence[str], automaton: PhraseAutomaton, lm_weight: float
    ) -> None:
        self.model, self.automaton = model, automaton
        self.num_known = len(model.words)
        others = Words.of(new_words)
        ends = np.concatenate([model.words.ends, model.words.ends[-1] + others.ends])
        self.words = Words(np.concatenate([model.words.letters, others.letters]), ends)
        known = model.unigrams
        self.rarest = np.float32(known.min())
        self.unigrams: Floats = np.concatenate([known, np.full(len(new_words), self.rarest)])
        self.start = model.start * len(automaton)
        self.scale = 1 / max(lm_weight, 1e-3)

    def owed(self, states: Ints) -> NDArray[np.float64]:
        """(M,) what phrases that are not complete have earned, in nats."""
        return self.automaton.pending.take(as_index(states % len(self.automaton)))

    def score(self, states: Ints, words: NDArray[np.integer]) -> tuple[Floats, Ints]:
        """As of a language model."""
        before, phrase = np.divmod(states, len(self.automaton))
        numbers = words.astype(np.int64)
        is_new = numbers >= self.num_known
        log_probs, after = self.model.score(before, np.where(is_new, 0, numbers))
        if is_new.any():
            log_probs, after = np.where(is_new, self.rarest, log_probs), np.where(is_new, EMPTY, after)
        gained, phrase = self.automaton.step(phrase, numbers)
        return (log_probs + gained * self.scale).astype(np.float32), after * len(self.automaton) + phrase

    def score_end(self, states: Ints) -> Floats:
        """As of a language model."""
        return self.model.score_end(states // len(self.automaton))


class HotwordGraph(WordGraph):
    """A language model with hotwords, for the search."""

    def __init__(self, model: HotwordModel, config: SearchConfig, lexicon: Lexicon) -> None:
        super().__init__(model, config, lexicon)
        self._hot = model

    def if_ended(self, states: Ints) -> NDArray[np.float64]:
        return np.exp(-self._hot.owed(states))

    def if_last(self, states: Ints) -> NDArray[np.float64]:
        return np.exp(self.config.lm_weight * self._hot.score_end(states).astype(np.float64))


def hotword_graph(graph: WordGraph, hotwords: Hotwords, ways: Ways) -> HotwordGraph:
    """The graph of a language model with hotwords.

    ways:   how words of the hotwords are said: those that the model does not have, and others that are said otherwise
    errors: ConfigError for more new words than a lexicon can number
    """
    model, config = graph.model, graph.config
    assert isinstance(model, LanguageModel)
    boosts = {word: max(one.boost for one in hotwords if word in one.phrase.split()) for word in words_of(hotwords)}
    numbers = numbers_of(model.words, boosts)
    new_words = [word for word in boosts if word not in numbers]
    if len(model.words) + len(new_words) > _MOST_WORDS:
        raise ConfigError(f"got {len(new_words)} words that are new, wanted {_MOST_WORDS - len(model.words)} at most")
    numbers |= {word: len(model.words) + i for i, word in enumerate(new_words)}
    automaton = PhraseAutomaton([([numbers[w] for w in one.phrase.split()], one.boost) for one in hotwords])
    hot = HotwordModel(model, new_words, automaton, config.lm_weight)
    values = hot.unigrams.copy()
    for word, boost in boosts.items():
        values[numbers[word]] += max(0.0, boost) * hot.scale
    said = _joined(model.pronunciations, [(numbers[word], way) for word, some in ways.items() for way in some])
    return HotwordGraph(hot, config, Lexicon.of(said.words, said.phones, len(PHONES), values))


def words_of(hotwords: Hotwords) -> list[str]:
    """Each word of the phrases once."""
    return list(dict.fromkeys(word for one in hotwords for word in one.phrase.split()))


def _joined(known: Pronunciations, others: Sequence[tuple[int, Pronunciation]]) -> Pronunciations:
    longest = max(known.phones.shape[1], *(len(way) for _, way in others), 0)
    phones = np.zeros((len(known.words) + len(others), longest), np.uint8)
    phones[: len(known.words), : known.phones.shape[1]] = known.phones
    for row, (_, way) in zip(phones[len(known.words) :], others, strict=True):
        row[: len(way)] = [PHONE_IDS[phone] for phone in way]
    return Pronunciations(np.concatenate([known.words, np.array([n for n, _ in others], np.uint16)]), phones)
