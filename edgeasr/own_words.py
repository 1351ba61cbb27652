"""What a user wants heard: a grammar instead of the bundle's language model, or hotwords beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeasr.errors import BundleError, ConfigError
from edgeasr.grammar import Grammar
from edgeasr.grammar_automaton import WordAutomaton
from edgeasr.grammar_graph import GrammarGraph
from edgeasr.grammar_network import Network
from edgeasr.grammar_parser import read_grammar
from edgeasr.hotwords import Hotwords, hotword_graph, read_hotwords, words_of
from edgeasr.language_model import LanguageModel
from edgeasr.lexicon_search import SearchConfig, WordGraph
from edgeasr.model import AcousticModel
from edgeasr.phones import PHONES, Dictionary, read_dictionary
from edgeasr.pronouncing import numbers_of, pronunciations

# Of a bundle's beams, which were tuned to a language model: a grammar has few words, so more can be tried of them.
_WIDER = 1.5
_MORE_PHONES = 1.8


@dataclass(frozen=True)
class OwnWords:
    """grammar:           sentences, as a file or read; nothing else is recognised then
    grammar_threshold: a sentence is rejected if its fit is less; None for what the bundle says
    hotwords:          phrases that are likelier than the language model thinks, or a file of them
    dictionary:        a file of pronunciations, as `read_dictionary` takes it
    errors:            ConfigError for what does not go together, or a threshold that is none
    """

    grammar: Grammar | str | Path | None = None
    grammar_threshold: float | None = None
    hotwords: Hotwords | str | Path | None = None
    dictionary: str | Path | None = None

    def __post_init__(self) -> None:
        if self.grammar_threshold is not None and not 0 <= self.grammar_threshold <= 1:
            raise ConfigError(f"got grammar_threshold {self.grammar_threshold}, wanted a number from 0 to 1")
        if self.grammar_threshold is not None and self.grammar is None:
            raise ConfigError("got grammar_threshold without a grammar: give a grammar, or take it out")
        if self.grammar is not None and self.hotwords is not None:
            raise ConfigError("got a grammar and hotwords, wanted one of both: in a grammar, use weights")
        if self.dictionary is not None and self.grammar is None and self.hotwords is None:
            raise ConfigError("got a dictionary without words of your own: give a grammar or hotwords with it")

    def read_dictionary(self) -> Dictionary:
        return read_dictionary(Path(self.dictionary)) if self.dictionary is not None else {}


def grammar_graph(model: AcousticModel, wanted: OwnWords) -> GrammarGraph:
    """The graph of a grammar, which is not None, for an acoustic model.

    errors: BundleError for a model without phones; GrammarError for a grammar that cannot be used, and words that
            nobody knows how to say
    """
    if model.config.phone_vocabulary_size != len(PHONES):
        raise BundleError(
            f"got a grammar and the bundle {model.name}, whose model does not hear phones: choose another bundle, or "
            "train one with data.dictionary in the recipe"
        )
    grammar = wanted.grammar if isinstance(wanted.grammar, Grammar) else read_grammar(wanted.grammar or "")
    known = model.word_graph
    language_model = known.model if known else None
    assert language_model is None or isinstance(language_model, LanguageModel)
    network = Network(grammar)
    automaton = WordAutomaton.of(network, grammar.source)
    ways = pronunciations(grammar.words, language_model, wanted.read_dictionary())
    if unknown := [word for word in grammar.words if word not in ways]:
        raise grammar.error(grammar.words[unknown[0]], _unknown(unknown))
    return GrammarGraph(network, automaton, ways, _search(known.config if known else SearchConfig(), wanted))


def _search(tuned: SearchConfig, wanted: OwnWords) -> SearchConfig:
    min_fit = tuned.min_fit if wanted.grammar_threshold is None else wanted.grammar_threshold
    beam, token_beam = tuned.beam * _WIDER, tuned.token_beam * _MORE_PHONES
    return replace(tuned, beam=beam, token_beam=token_beam, sure_blank=1.0, min_fit=min_fit)


def word_graph(model: AcousticModel, decoder: str | None, wanted: OwnWords) -> WordGraph | None:
    """What a recogniser searches: a grammar's graph, or the bundle's; None for "greedy" and where there is neither.

    decoder: "lm", "greedy" or None, as it was asked for
    errors:  ConfigError for a decoder beside a grammar; those of `grammar_graph`
    """
    if wanted.grammar is not None:
        if decoder is not None:
            raise ConfigError(f"got a grammar and decoder {decoder!r}, wanted one of both: a grammar decodes by itself")
        return grammar_graph(model, wanted)
    if wanted.hotwords is not None:
        return _hotword_graph(model, decoder, wanted.hotwords, wanted)
    return None if decoder == "greedy" else model.word_graph


def _hotword_graph(
    model: AcousticModel, decoder: str | None, given: Hotwords | str | Path, wanted: OwnWords
) -> WordGraph:
    if decoder == "greedy":
        raise ConfigError("got hotwords and decoder 'greedy', which knows no words, only pieces: choose lm")
    graph = model.word_graph
    if graph is None:
        raise BundleError(
            f"got hotwords and the bundle {model.name}, which has no language model: put one into it with "
            "`edgeasr lm add`"
        )
    assert isinstance(graph.model, LanguageModel)
    hotwords = read_hotwords(given) if isinstance(given, str | Path) else given
    words, own = words_of(hotwords), wanted.read_dictionary()
    known = numbers_of(graph.model.words, words)
    missing = [word for word in words if word not in known]
    ways = pronunciations(missing, None, own)
    if unknown := [word for word in missing if word not in ways]:
        raise ConfigError(_unknown(unknown))
    return hotword_graph(graph, hotwords, ways | {word: own[word] for word in words if word in own})


def _unknown(words: Sequence[str]) -> str:
    others = f", and of {len(words) - 1} other words" if len(words) > 1 else ""
    return (
        f"the phones of {words[0]!r} are not known{others}: write them into a file and name it with --dictionary, or "
        "install flite, which guesses them (apt-get install flite)"
    )


def decoder_of(graph: WordGraph | None) -> str:
    """The name of the decoder that searches a graph."""
    return "greedy" if graph is None else "grammar" if isinstance(graph, GrammarGraph) else "lm"
