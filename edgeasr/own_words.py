"""What a user wants heard: a grammar instead of the bundle's language model, or hotwords beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeasr.errors import BundleError, ConfigError
from edgeasr.grammar import Grammar
from edgeasr.grammar_automaton import WordAutomaton
from edgeasr.grammar_graph import GrammarGraph
from edgeasr.grammar_network import Network
from edgeasr.grammar_parser import read_grammar
from edgeasr.language_model import LanguageModel
from edgeasr.lexicon_search import SearchConfig, WordGraph
from edgeasr.model import AcousticModel
from edgeasr.phones import PHONES, Dictionary, read_dictionary
from edgeasr.pronouncing import pronunciations

# Of a bundle's beams, which were tuned to a language model: a grammar has few words, so more can be tried of them.
_WIDER = 1.5


@dataclass(frozen=True)
class OwnWords:
    """grammar:           sentences, as a file or read; nothing else is recognised then
    grammar_threshold: a sentence is rejected if its fit is less; None for what the bundle says
    dictionary:        a file of pronunciations, as `read_dictionary` takes it
    errors:            ConfigError for what does not go together, or a threshold that is none
    """

    grammar: Grammar | str | Path | None = None
    grammar_threshold: float | None = None
    dictionary: str | Path | None = None

    def __post_init__(self) -> None:
        if self.grammar_threshold is not None and not 0 <= self.grammar_threshold <= 1:
            raise ConfigError(f"got grammar_threshold {self.grammar_threshold}, wanted a number from 0 to 1")
        if self.grammar_threshold is not None and self.grammar is None:
            raise ConfigError("got grammar_threshold without a grammar: give a grammar, or take it out")

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
    if unknown := [(word, place) for word, place in grammar.words.items() if word not in ways]:
        word, place = unknown[0]
        others = f", and of {len(unknown) - 1} other words" if len(unknown) > 1 else ""
        raise grammar.error(
            place, f"the phones of {word!r} are not known{others}: write them into a file and name it with --dictionary"
        )
    return GrammarGraph(network, automaton, ways, _search(known.config if known else SearchConfig(), wanted))


def _search(tuned: SearchConfig, wanted: OwnWords) -> SearchConfig:
    min_fit = tuned.min_fit if wanted.grammar_threshold is None else wanted.grammar_threshold
    return replace(tuned, beam=tuned.beam * _WIDER, token_beam=tuned.token_beam * _WIDER, min_fit=min_fit)


def word_graph(model: AcousticModel, decoder: str | None, wanted: OwnWords) -> WordGraph | None:
    """What a recogniser searches: a grammar's graph, or the bundle's; None for "greedy" and where there is neither.

    decoder: "lm", "greedy" or None, as it was asked for
    errors:  ConfigError for a decoder beside a grammar; those of `grammar_graph`
    """
    if wanted.grammar is not None:
        if decoder is not None:
            raise ConfigError(f"got a grammar and decoder {decoder!r}, wanted one of both: a grammar decodes by itself")
        return grammar_graph(model, wanted)
    return None if decoder == "greedy" else model.word_graph


def decoder_of(graph: WordGraph | None) -> str:
    """The name of the decoder that searches a graph."""
    return "greedy" if graph is None else "grammar" if isinstance(graph, GrammarGraph) else "lm"
