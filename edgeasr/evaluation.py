"""What a model makes of a manifest, each utterance as a live stream; evaluation_report.py says it in JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgeasr.alignment import EditCounts, align_words
from edgeasr.audio import AudioSource, FileSource
from edgeasr.errors import AudioFormatError, ConfigError
from edgeasr.manifest import Utterance
from edgeasr.measurement import BLOCK_MS, Heard, hear
from edgeasr.metrics import ErrorCounts, character_errors, word_errors
from edgeasr.recognizer import Recognizer
from edgeasr.sessions import Session, SessionSource


@dataclass(frozen=True)
class Scored:
    """An utterance, what was heard of it, and how far off that is."""

    utterance: Utterance | Session
    hypothesis: str
    audio_s: float
    words: ErrorCounts
    characters: ErrorCounts


@dataclass(frozen=True)
class Unreadable:
    """Audio that was left out of every figure."""

    path: Path
    error: AudioFormatError


@dataclass
class Tally:
    """The utterances so far, and sums over them.

    cpu_s:   processor time of the recogniser in all threads, files not decoded
    step_ms: processing time of each chunk; first_token_latency_ms: of each utterance with words
    """

    scored: list[Scored] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    words: ErrorCounts = field(default_factory=ErrorCounts)
    characters: ErrorCounts = field(default_factory=ErrorCounts)
    edits: EditCounts = field(default_factory=EditCounts)
    audio_s: float = 0.0
    cpu_s: float = 0.0
    step_ms: list[float] = field(default_factory=list)
    first_token_latency_ms: list[float] = field(default_factory=list)

    def add(self, utterance: Utterance | Session, heard: Heard) -> None:
        scored = Scored(
            utterance,
            heard.text,
            heard.audio_s,
            word_errors(utterance.text, heard.text),
            character_errors(utterance.text, heard.text),
        )
        self.scored.append(scored)
        self.words += scored.words
        self.characters += scored.characters
        self.edits.add(align_words(utterance.text, heard.text))
        self.audio_s += heard.audio_s
        self.cpu_s += heard.cpu_s
        self.step_ms += heard.meter.step_ms
        if heard.meter.first_token_latency_ms is not None:
            self.first_token_latency_ms.append(heard.meter.first_token_latency_ms)


def evaluate(
    recognizer: Recognizer,
    utterances: Iterable[Utterance | Session],
    on_utterance: Callable[[Tally], None] | None = None,
) -> Tally:
    """Recognise and score utterances; audio that cannot be read whole is noted, and the others are still done.

    on_utterance: called with the sums after each
    errors:       ExtraMissingError without jiwer, AudioFormatError where no utterance can be read
    """
    tally = Tally()
    for utterance in utterances:
        try:
            with _open(utterance) as source:
                heard = hear(recognizer, source)
        except AudioFormatError as error:
            tally.unreadable.append(Unreadable(utterance.path, error))
        else:
            tally.add(utterance, heard)
        if on_utterance:
            on_utterance(tally)
    require_readable(len(tally.scored), tally.unreadable)
    return tally


def _open(spoken: Utterance | Session) -> AudioSource:
    return SessionSource(spoken, BLOCK_MS) if isinstance(spoken, Session) else FileSource(spoken.path, BLOCK_MS)


def require_readable(num_read: int, unreadable: list[Unreadable]) -> None:
    """Errors: AudioFormatError where nothing could be read; it names the first file"""
    if unreadable and not num_read:
        raise AudioFormatError(f"none of {len(unreadable)} files could be read; the first: {unreadable[0].error}")


def require_chunk(recognizer: Recognizer, chunk_ms: int) -> None:
    """Errors: ConfigError for another chunk than the model has"""
    model = recognizer.model
    if chunk_ms != (found := round(model.config.chunk_s * 1000)):
        raise ConfigError(
            f"got chunks of {chunk_ms} ms, but the graph of {model.name} was exported for {found} ms and runs no "
            "others: leave --chunk-ms out, or choose a model that was trained and exported with other chunks"
        )
