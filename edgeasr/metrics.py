"""What is measured: word and character errors, percentiles, latency of a live stream, memory."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from edgeasr.errors import ExtraMissingError, ManifestError
from edgeasr.tokenizer import normalize_text
from edgeasr.transcript import Event


@dataclass(frozen=True)
class ErrorCounts:
    """Edits that turn references into hypotheses; the counts of utterances add up to those of a corpus."""

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
        )

    @property
    def errors(self) -> int:
        return self.substitutions + self.insertions + self.deletions

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors over the length of the references: a corpus's WER or CER, above 1 where much was inserted.

        errors: ManifestError where the references are empty
        """
        if not self.reference_length:
            raise ManifestError("got references without text, wanted words to compare with: add them to the manifest")
        return self.errors / self.reference_length


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Word errors of one utterance, by the fewest edits (Levenshtein).

    Both texts are first normalised by `tokenizer.normalize_text`: lower case, only a-z, apostrophe and single
    spaces. Either may be empty.
    errors: ExtraMissingError without jiwer
    """
    aligned = import_jiwer().process_words(normalize_text(reference), normalize_text(hypothesis))
    return ErrorCounts(aligned.hits, aligned.substitutions, aligned.insertions, aligned.deletions)


def character_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Character errors of one utterance, spaces counted; otherwise as `word_errors`."""
    aligned = import_jiwer().process_characters(normalize_text(reference), normalize_text(hypothesis))
    return ErrorCounts(aligned.hits, aligned.substitutions, aligned.insertions, aligned.deletions)


def word_error_rate(references: Iterable[str], hypotheses: Iterable[str]) -> float:
    """WER of a corpus: all word errors over the words of all references."""
    pairs = zip(references, hypotheses, strict=True)
    return sum((word_errors(*pair) for pair in pairs), ErrorCounts()).rate


def character_error_rate(references: Iterable[str], hypotheses: Iterable[str]) -> float:
    """CER of a corpus: all character errors over the characters of all references, spaces counted."""
    pairs = zip(references, hypotheses, strict=True)
    return sum((character_errors(*pair) for pair in pairs), ErrorCounts()).rate


def percentiles(values: Sequence[float], ranks: Iterable[int]) -> dict[str, float | None]:
    """Percentiles as {"p50": ..., "p99": ...}, linear between neighbours; None where there are no values."""
    return {f"p{rank}": float(np.percentile(values, rank)) if values else None for rank in ranks}


@dataclass
class LatencyMeter:
    """What a live listener would wait for, measured on a stream that is fed as fast as it is processed.

    A step can start once its audio has arrived and the step before it is done, so a slow device falls behind
    here as it would live.

    step_ms:                processing times of the steps
    first_token_latency_ms: from the first word's start in the audio, as the recogniser placed it, to the
                            first event that carries text; None before that
    """

    step_ms: list[float] = field(default_factory=list)
    first_token_latency_ms: float | None = None
    _done_s: float = 0.0

    def add(self, stream_s: float, processing_s: float, events: Iterable[Event]) -> None:
        """Takes a step.

        stream_s:     audio that had to arrive for the step, in seconds since the start of the stream
        processing_s: how long the step ran
        """
        self.step_ms.append(processing_s * 1000)
        self._done_s = max(self._done_s, stream_s) + processing_s
        spoken = next((event for event in events if event.words), None)
        if spoken and self.first_token_latency_ms is None:
            self.first_token_latency_ms = (self._done_s - spoken.words[0].start) * 1000


def peak_rss_mb() -> float:
    """Most memory that this process ever held, in MB (10^6 bytes).

    Linux counts it by address space in /proc; getrusage, read elsewhere, is second choice since a program
    inherits there what the one that started it held.
    """
    found_mb = peak_rss_mb_of("self")
    if found_mb is not None:
        return found_mb
    import resource

    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 1e6


def peak_rss_mb_of(process: int | str) -> float | None:
    """Most memory that a process has held so far, in MB (10^6 bytes); None where /proc does not tell, or it has ended.

    process: its number, or "self"
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    held = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return int(held.split()[1]) * 1024 / 1e6 if held else None


def import_jiwer() -> ModuleType:
    """The package that aligns texts. Errors: ExtraMissingError without it"""
    try:
        import jiwer
    except ImportError as error:
        raise ExtraMissingError(
            "got no package jiwer, wanted it for word and character errors: pip install edgeasr[evaluate]"
        ) from error
    return jiwer
