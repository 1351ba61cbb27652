"""The report of an evaluation, ready for JSON; docs/evaluation.md says what each key means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

from edgeasr import bootstrap
from edgeasr.alignment import AlignedWord, align_words
from edgeasr.bootstrap import Interval, Units
from edgeasr.evaluation import Scored, Tally, Unreadable
from edgeasr.metrics import ErrorCounts, peak_rss_mb, percentiles
from edgeasr.nonspeech import NonSpeech, Recording
from edgeasr.recognizer import Recognizer

NUM_WORST = 10
NUM_EDITS = 20
NORMALIZATION = (
    "references and hypotheses in lower case, accents dropped, only a-z, apostrophe and single spaces left, "
    "other characters as spaces"
)


def evaluation_report(recognizer: Recognizer, tally: Tally, non_speech: NonSpeech | None = None) -> dict[str, Any]:
    """Everything that is known of an evaluation.

    errors: ManifestError where the references are empty
    """
    model = recognizer.model
    words = units(tally.scored, lambda scored: scored.words)
    characters = units(tally.scored, lambda scored: scored.characters)
    unreadable = tally.unreadable + (non_speech.unreadable if non_speech else [])
    return {
        "wer": round(tally.words.rate, 4),
        "cer": round(tally.characters.rate, 4),
        "utterances": len(tally.scored),
        "audio_s": round(tally.audio_s, 3),
        "cpu_s": round(tally.cpu_s, 3),
        "rtf": round(tally.cpu_s / tally.audio_s, 5),
        "chunk_ms": _rounded(percentiles(tally.step_ms, (50, 99))),
        "first_token_latency_ms": _rounded(percentiles(tally.first_token_latency_ms, (50, 95))),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "model": model.name,
        "backend": model.backend,
        "threads": model.threads,
        "artefact": model.artefact,
        "decoder": recognizer.decoder,
        "chunk_length_ms": round(model.config.chunk_s * 1000),
        "wer_interval": interval_dict(bootstrap.rate_interval(words.counts)),
        "cer_interval": interval_dict(bootstrap.rate_interval(characters.counts)),
        "interval_method": interval_method(words),
        "normalization": NORMALIZATION,
        "scoring": scoring(),
        "word_errors": error_dict(tally.words),
        "character_errors": error_dict(tally.characters),
        "by_speaker": _breakdown(tally.scored, "speaker", lambda scored: scored.utterance.speaker),
        "by_source": _breakdown(tally.scored, "source", lambda scored: scored.utterance.source),
        "worst": [_worst(scored) for scored in _worst_first(tally.scored)[:NUM_WORST]],
        "edits": {
            "substitutions": [
                {"reference": pair.reference, "hypothesis": pair.hypothesis, "count": count}
                for pair, count in _most_common(tally.edits.substitutions)
            ],
            "deletions": _word_counts(tally.edits.deletions),
            "insertions": _word_counts(tally.edits.insertions),
        },
        "non_speech": _non_speech(non_speech) if non_speech else None,
        "unreadable": unreadable_dicts(unreadable),
    }


def units(scored: Iterable[Scored], counts: Callable[[Scored], ErrorCounts]) -> Units:
    """What the bootstrap draws of utterances."""
    return bootstrap.units_of((one.utterance.speaker, counts(one)) for one in scored)


def interval_dict(interval: Interval | None) -> dict[str, float] | None:
    """The bounds by name."""
    return {"low": round(interval.low, 4), "high": round(interval.high, 4)} if interval else None


def interval_method(drawn: Units) -> dict[str, Any]:
    """How the intervals were made, so that others can make them again."""
    return {
        "method": bootstrap.METHOD,
        "confidence": bootstrap.CONFIDENCE,
        "drawn": drawn.kind,
        "units": len(drawn.counts),
        "samples": bootstrap.SAMPLES,
        "seed": bootstrap.SEED,
    }


def error_dict(counts: ErrorCounts) -> dict[str, int]:
    """The counts of a corpus; `reference` is the length of the references."""
    return {
        "reference": counts.reference_length,
        "errors": counts.errors,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
    }


def unreadable_dicts(unreadable: Iterable[Unreadable]) -> list[dict[str, str]]:
    """The files that were left out, and why."""
    return [{"audio": str(one.path), "error": str(one.error)} for one in unreadable]


def scoring() -> str:
    """The package that aligns, with its version."""
    return f"jiwer {version('jiwer')}"


def _breakdown(scored: Iterable[Scored], name: str, key: Callable[[Scored], str]) -> list[dict[str, Any]]:
    """A row a group, the worst first; none where no utterance says its group."""
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(key(one), []).append(one)
    if not any(groups):
        return []
    rows = [{name: group or None} | _group(members) for group, members in groups.items()]
    return sorted(rows, key=lambda row: -1.0 if row["wer"] is None else row["wer"], reverse=True)


def _group(members: Sequence[Scored]) -> dict[str, Any]:
    words = sum((one.words for one in members), ErrorCounts())
    characters = sum((one.characters for one in members), ErrorCounts())
    return {
        "utterances": len(members),
        "audio_s": round(sum(one.audio_s for one in members), 3),
        "words": words.reference_length,
        "wer": round(words.rate, 4) if words.reference_length else None,
        "cer": round(characters.rate, 4) if characters.reference_length else None,
    }


def _worst_first(scored: Iterable[Scored]) -> list[Scored]:
    """Utterances with errors by their WER, then by the number of errors; one without words counts as if it had one."""
    wrong = [one for one in scored if one.words.errors]
    return sorted(wrong, key=lambda one: (-one.words.errors / max(1, one.words.reference_length), -one.words.errors))


def _worst(scored: Scored) -> dict[str, Any]:
    return {
        "audio": str(scored.utterance.path),
        "speaker": scored.utterance.speaker or None,
        "errors": scored.words.errors,
        "words": scored.words.reference_length,
        "wer": round(scored.words.rate, 4) if scored.words.reference_length else None,
        "reference": scored.utterance.text,
        "hypothesis": scored.hypothesis,
        "alignment": align_words(scored.utterance.text, scored.hypothesis),
    }


def _most_common(counts: Counter[AlignedWord]) -> list[tuple[AlignedWord, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:NUM_EDITS]


def _word_counts(counts: Counter[str]) -> list[dict[str, Any]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"word": word, "count": count} for word, count in ordered[:NUM_EDITS]]


def _non_speech(found: NonSpeech) -> dict[str, Any]:
    return {"noise": _words_per_hour(found.noise), "silence": _words_per_hour(found.silence)}


def _words_per_hour(recordings: Sequence[Recording]) -> dict[str, Any]:
    hours = sum(recording.audio_s for recording in recordings) / 3600
    words = sum(len(recording.words) for recording in recordings)
    return {
        "hours": round(hours, 4),
        "words": words,
        "words_per_hour": round(words / hours, 2),
        "recordings": [
            {"audio": one.name, "audio_s": round(one.audio_s, 3), "words": len(one.words), "text": " ".join(one.words)}
            for one in recordings
        ],
    }


def _rounded(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value if value is None else round(value, 3) for name, value in values.items()}
