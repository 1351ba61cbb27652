"""Choosing the few numbers with which a language model is weighed beside an acoustic model, on speech with its text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.audio import FileSource
from edgeasr.config import ModelConfig
from edgeasr.errors import ConfigError
from edgeasr.front_end import WaveformFrontEnd
from edgeasr.language_model import LanguageModel
from edgeasr.lexicon_decoder import LexiconDecoder
from edgeasr.lexicon_search import SearchConfig, WordGraph
from edgeasr.manifest import Utterance
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.model import AcousticModel

# Steps of lm_weight, word_score and blank_penalty, coarse ones first; smaller ones are below what a few hundred
# utterances can tell.
STEPS = ((0.2, 1.0, 0.5), (0.1, 0.5, 0.25))
_LARGEST_WEIGHT = 3.0


@dataclass(frozen=True)
class Heard:
    """What an acoustic model heard in an utterance. log_probs: (T, P) of phones"""

    text: str
    log_probs: NDArray[np.float32]


@dataclass(frozen=True)
class Trial:
    """A configuration and its errors."""

    search: SearchConfig
    errors: ErrorCounts


def heard(model: AcousticModel, utterances: Iterable[Utterance]) -> Iterator[Heard]:
    """The emissions of each utterance, streamed chunk by chunk. Errors: AudioFormatError"""
    for utterance in utterances:
        yield Heard(utterance.text, emissions(model, utterance.path))


def emissions(model: AcousticModel, path: Path) -> NDArray[np.float32]:
    """(T, P) log-probabilities of the phones of a recording, as its own stream."""
    front_end, state, rows = WaveformFrontEnd(model.config), model.init_state(), []
    with FileSource(path) as source:
        for block in source.blocks():
            front_end.accept(block.samples, source.sample_rate_hz)
    front_end.finish()
    front_end.accept_tail()
    while front_end.is_ready():
        emitted, state = model.step(front_end.take(), state)
        assert emitted.phones is not None  # as in every bundle with a language model
        rows.append(emitted.phones)
    return np.concatenate(rows)


def errors_of(graph: WordGraph, speech: Iterable[Heard], config: ModelConfig) -> ErrorCounts:
    """Word errors of a decoder on emissions, chunk by chunk, each utterance as one segment."""
    chunk_frames = config.encoder.chunk_frames
    errors = ErrorCounts()
    for one in speech:
        decoder = LexiconDecoder(graph, config.frame_s)
        for start in range(0, len(one.log_probs), chunk_frames):
            decoder.accept(one.log_probs[start : start + chunk_frames])
        decoder.finish()
        errors += word_errors(one.text, decoder.text)
    return errors


def tune(
    model: AcousticModel,
    language_model: LanguageModel,
    search: SearchConfig,
    speech: Sequence[Heard],
    report: Callable[[Trial], None] = lambda _: None,
) -> Trial:
    """The best of the configurations around `search`, by turns of its weights in smaller steps.

    report: called with every trial
    errors: ConfigError without speech
    """
    if not speech:
        raise ConfigError("got no speech to tune on, wanted a manifest with utterances")

    def tried(config: SearchConfig) -> Trial:
        graph = WordGraph(language_model, config)
        trial = Trial(config, errors_of(graph, speech, model.config))
        report(trial)
        return trial

    best = tried(search)
    for weight_step, score_step, penalty_step in STEPS:
        best = _climbed(best, "lm_weight", weight_step, tried)
        best = _climbed(best, "word_score", score_step, tried)
        best = _climbed(best, "blank_penalty", penalty_step, tried)
    return best


def _climbed(start: Trial, name: str, step: float, tried: Callable[[SearchConfig], Trial]) -> Trial:
    """Go on in the direction in which errors fall, until they do not."""
    best = start
    for direction in (step, -step):
        while True:
            value = round(getattr(best.search, name) + direction, 6)
            if name == "lm_weight" and not 0 <= value <= _LARGEST_WEIGHT:
                break
            trial = tried(replace(best.search, **{name: value}))
            if trial.errors.errors >= best.errors.errors:
                break
            best = trial
        if best is not start:
            break
    return best
