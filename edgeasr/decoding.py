"""Which decoder hears a stream, and its change to another one between two segments."""

from __future__ import annotations

from collections import deque

import numpy as np

from edgeasr.decoder import CtcGreedyDecoder, Decoder, Sentence, Word
from edgeasr.features import Floats
from edgeasr.grammar_decoder import GrammarDecoder
from edgeasr.grammar_graph import GrammarGraph
from edgeasr.ladder import Rung
from edgeasr.lexicon_decoder import LexiconDecoder
from edgeasr.lexicon_search import WordGraph
from edgeasr.model import AcousticModel, Emissions
from edgeasr.transducer_decoder import TransducerDecoder

# What another decoder hears again of a segment that is open; a word is seldom longer.
_REPLAY_S = 2.0


class Decoding:
    """Emissions of one stream to the decoder that is wanted.

    decoder:    the present one
    name:       "greedy", "lm" or "grammar"
    word_graph: of a language model, or a grammar; None where only "greedy" is ever wanted
    """

    def __init__(self, model: AcousticModel, word_graph: WordGraph | None, rung: Rung) -> None:
        self._model, self._frame_s = model, model.config.frame_s
        self._word_graph, self._rung = word_graph, rung
        self._replay: deque[Emissions] = deque(maxlen=int(_REPLAY_S / model.config.chunk_s))
        self.name, self.decoder = rung.decoder, self._wanted()

    def accept(self, emissions: Emissions) -> int:
        """Decodes the next frames. returns: how many"""
        phones = None if emissions.phones is None else emissions.phones.copy()
        # Copies, since what a step gave is kept whole as long as a part of it is.
        self._replay.append(Emissions(emissions.tokens.copy(), phones))
        log_probs = self._heard(emissions)
        self.decoder.accept(log_probs)
        return len(log_probs)

    def use(self, rung: Rung) -> None:
        """Decode as is wanted: with another beam at once, with another decoder once no word can be lost."""
        self._rung = rung
        if isinstance(self.decoder, LexiconDecoder) and rung.decoder == self.name:
            self.decoder.use(self._graph())
        self.change()

    def end_segment(self, *, interrupted: bool) -> tuple[tuple[Word, ...], Sentence | None]:
        """The words of a segment that ends here, and what a grammar makes of it; the next one begins.

        interrupted: in the middle of speech
        """
        decoder, sentence = self.decoder, None
        if isinstance(decoder, GrammarDecoder):
            sentence, words = decoder.sentence()
            sentence = sentence if decoder.has_speech or words else None
        else:
            if not interrupted:
                decoder.finish()
            words = decoder.hypothesis()
        if interrupted and sentence is None:
            words = decoder.cut()
        else:
            decoder.reset()
        self.change(segment_ended=True)
        return words, sentence

    def change(self, *, segment_ended: bool = False) -> None:
        """Go on with the decoder that is wanted, if it is another one and nothing was understood of this segment yet.

        What the open segment began with, a word that was cut off from the last one too, it hears again.

        segment_ended: whatever the present segment has begun with
        """
        if self._rung.decoder == self.name or (self.decoder.has_speech and not segment_ended):
            return
        before, self.name, self.decoder = self.decoder, self._rung.decoder, self._wanted()
        again = [self._heard(emissions) for emissions in self._replay]
        num_frames = min(before.num_frames, sum(map(len, again)))
        self.decoder.reset(round(before.end_s / self._frame_s) - num_frames)
        if num_frames:
            self.decoder.accept(np.concatenate(again)[-num_frames:])

    def _wanted(self) -> Decoder:
        if isinstance(self._word_graph, GrammarGraph):
            return GrammarDecoder(self._word_graph, self._frame_s)
        if self._rung.decoder == "lm":
            return LexiconDecoder(self._graph(), self._frame_s)
        if self._model.transducer is not None:
            return TransducerDecoder(self._model.transducer, self._model.tokenizer, self._frame_s)
        return CtcGreedyDecoder(self._model.tokenizer, self._frame_s)

    def _graph(self) -> WordGraph:
        """The word graph with the beam that is wanted."""
        assert self._word_graph is not None
        if self._rung.beam is None or self._rung.max_prefixes is None:
            return self._word_graph
        return self._word_graph.with_beam(self._rung.beam, self._rung.max_prefixes)

    def _heard(self, emissions: Emissions) -> Floats:
        """What the present decoder wants to hear."""
        return emissions.phones if self.name != "greedy" and emissions.phones is not None else emissions.tokens
