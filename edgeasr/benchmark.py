"""Another recogniser beside ours: the same utterances, one after the other in one process, scored alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgeasr.audio import FileSource, Waveform
from edgeasr.bootstrap import compare, rate_interval
from edgeasr.errors import AudioFormatError
from edgeasr.evaluation import Tally, Unreadable, require_readable
from edgeasr.evaluation_report import (
    NORMALIZATION,
    error_dict,
    interval_dict,
    interval_method,
    scoring,
    units,
    unreadable_dicts,
)
from edgeasr.manifest import Utterance
from edgeasr.measurement import BLOCK_MS, Heard, hear
from edgeasr.recognizer import Recognizer
from edgeasr.recording import read_recording


class Baseline(Protocol):
    """A recogniser to compare with.

    name:    with its version
    details: how it is run, for the report
    """

    name: str
    details: str
    sample_rate_hz: int

    def transcribe(self, waveform: Waveform) -> str:
        """The text of an utterance. waveform: (num_samples,) float32 at sample_rate_hz"""


@dataclass
class Benchmark:
    """Both on the utterances that could be read."""

    ours: Tally = field(default_factory=Tally)
    theirs: Tally = field(default_factory=Tally)
    unreadable: list[Unreadable] = field(default_factory=list)


def benchmark(
    recognizer: Recognizer,
    baseline: Baseline,
    utterances: Iterable[Utterance],
    on_utterance: Callable[[Benchmark], None] | None = None,
) -> Benchmark:
    """Each utterance by ours, as a live stream, and then by the baseline.

    Processor time is of the process, in all its threads; decoding files is nobody's, resampling is counted
    for ours alone.
    errors: ExtraMissingError without jiwer, AudioFormatError where no utterance can be read
    """
    found = Benchmark()
    for utterance in utterances:
        try:
            with FileSource(utterance.path, BLOCK_MS) as source:
                heard = hear(recognizer, source)
            waveform = read_recording(utterance.path, baseline.sample_rate_hz)
        except AudioFormatError as error:
            found.unreadable.append(Unreadable(utterance.path, error))
        else:
            found.ours.add(utterance, heard)
            began_s = time.process_time()
            text = baseline.transcribe(waveform)
            found.theirs.add(utterance, Heard(text, heard.audio_s, time.process_time() - began_s))
        if on_utterance:
            on_utterance(found)
    require_readable(len(found.ours.scored), found.unreadable)
    return found


def benchmark_report(recognizer: Recognizer, baseline: Baseline, found: Benchmark) -> dict[str, Any]:
    """The comparison, ready for JSON; wer_difference is theirs less ours."""
    model = recognizer.model
    chunk_ms = round(model.config.chunk_s * 1000)
    threads = f"{model.threads} thread{'s' if model.threads > 1 else ''}"
    details = f"{model.artefact}, {recognizer.decoder}, {threads}, streamed in chunks of {chunk_ms} ms"
    ours = units(found.ours.scored, lambda scored: scored.words)
    theirs = units(found.theirs.scored, lambda scored: scored.words)
    comparison = compare(ours.counts, theirs.counts)
    return {
        "utterances": len(found.ours.scored),
        "audio_s": round(found.ours.audio_s, 3),
        "systems": [
            _system(f"edgeasr {model.name}", details, found.ours),
            _system(baseline.name, baseline.details, found.theirs),
        ],
        "wer_difference": round(found.theirs.words.rate - found.ours.words.rate, 4),
        "wer_difference_interval": interval_dict(comparison.difference if comparison else None),
        "ours_better_share": round(comparison.first_wins, 4) if comparison else None,
        "cpu_ratio": round(found.theirs.cpu_s / found.ours.cpu_s, 2) if found.ours.cpu_s else None,
        "interval_method": interval_method(ours),
        "normalization": NORMALIZATION,
        "scoring": scoring(),
        "unreadable": unreadable_dicts(found.unreadable),
    }


def _system(name: str, details: str, tally: Tally) -> dict[str, Any]:
    drawn = units(tally.scored, lambda scored: scored.words)
    return {
        "name": name,
        "details": details,
        "wer": round(tally.words.rate, 4),
        "wer_interval": interval_dict(rate_interval(drawn.counts)),
        "word_errors": error_dict(tally.words),
        "cer": round(tally.characters.rate, 4),
        "cpu_s": round(tally.cpu_s, 3),
        "rtf": round(tally.cpu_s / tally.audio_s, 5),
    }
