"""Where something that sounds like a recording was heard.

The recording goes through the model as the stream did. Its summaries lie on a grid of their own, so it is run several
times, behind silences that move the grid in steps of a part of a summary. What is found for one summary votes for where
the recording would begin in that stream; votes that agree, of all runs, are one hit. A vote weighs as much as the
fourth power of its cosine: one strong one is worth more than some of chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from edgeasr.audio import AudioSource, Waveform
from edgeasr.errors import AudioFormatError
from edgeasr.memory import Admission
from edgeasr.memory_policies import everything
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import Floats, ModelKey, SoundHit, Span

SHIFTS = 8  # of the grid, in a summary
MAX_QUERY_S = 60.0
_SILENT = 2**-12  # of full scale: a few steps of 16 bits
_NEIGHBOURS = 20  # of each summary
_EFFORT = 4.0
_POWER = 4
_AGREEMENT = 0.75  # of a summary's length
_INSIDE = 0.75  # of a summary, at least, is recording


class Query(NamedTuple):
    """A recording that is looked for."""

    length_s: float
    summaries: list[QuerySummary]


class QuerySummary(NamedTuple):
    """A summary of the recording. shift: which run it is of; start_s: in the recording, below 0 where silence is"""

    shift: int
    start_s: float
    end_s: float
    vector: Floats


class _Vote(NamedTuple):
    begin_s: float  # where the recording would begin in the stream
    weight: float
    vector: int
    summary: QuerySummary


def key_of(model: AcousticModel) -> ModelKey:
    """Whose vectors those of a model are."""
    return ModelKey(model.fingerprint, model.config.encoder.d_model)


def search_sound(store: MemoryStore, model: AcousticModel, source: AudioSource, *, limit: int = 10) -> list[SoundHit]:
    """Where what a recording says was heard, the most similar first. Of a long recording its first minute is used.

    errors: AudioFormatError for silence; and the source's
    """
    return search_query(store, key_of(model), make_query(model, source), limit=limit)


def make_query(model: AcousticModel, source: AudioSource) -> Query:
    """As `query_of`, of the first minute of a source.

    errors: AudioFormatError for silence, which is like any other; and the source's
    """
    blocks, length_s = [], 0.0
    for block in source.blocks():
        blocks.append(block.samples)
        length_s += len(block.samples) / source.sample_rate_hz
        if length_s >= MAX_QUERY_S:
            break
    waveform = np.concatenate(blocks)
    if np.abs(waveform).max() < _SILENT:
        raise AudioFormatError(f"got {source.name}, which is silent, want some seconds of sound: record it again")
    return query_of(model, waveform, source.sample_rate_hz)


def query_of(model: AcousticModel, waveform: Waveform, sample_rate_hz: int) -> Query:
    """The summaries of level 2 of a recording, in all shifts of the grid; most of each is recording."""
    length_s = len(waveform) / sample_rate_hz
    span_s = model.config.encoder.level_spans[0] * model.config.frame_s
    least_s = _INSIDE * min(span_s, length_s)
    found = []
    for shift, before_s in _runs(span_s):
        for admission in _admissions(model, waveform, sample_rate_hz, before_s, span_s - least_s):
            start_s, end_s = admission.context.start_s - before_s, admission.context.end_s - before_s
            inside_s = min(end_s, length_s) - max(start_s, 0.0)
            if admission.context.level == 2 and inside_s >= least_s:
                found.append(QuerySummary(shift, start_s, end_s, admission.vector))
    return Query(length_s, found)


def _runs(span_s: float) -> Iterator[tuple[int, float]]:
    """Shifts of the grid, and what is heard before the recording: half a summary at least, and once nothing.

    The first summaries of a stream are like each other whatever is said, and most of what is stored lies behind others.
    """
    yield 0, 0.0
    for shift in range(SHIFTS):
        yield shift, (shift / SHIFTS + (shift < SHIFTS / 2)) * span_s


def search_query(store: MemoryStore, model: ModelKey, query: Query, *, limit: int = 10) -> list[SoundHit]:
    """As `search_sound`, for a query that was made before."""
    votes: dict[int, list[_Vote]] = defaultdict(list)
    for summary in query.summaries:
        for heard in store.heard_like(summary.vector, _NEIGHBOURS, model, effort=_EFFORT):
            if heard.similarity > 0:
                weight = heard.similarity**_POWER
                votes[heard.stream].append(_Vote(heard.start_s - summary.start_s, weight, heard.vector, summary))
    span_s = max((summary.end_s - summary.start_s for summary in query.summaries), default=0.0)
    groups = [(stream, group) for stream, cast in votes.items() for group in _groups(cast, _AGREEMENT * span_s)]
    groups.sort(key=lambda found: -sum(vote.weight for vote in found[1]))
    return [_hit(store, stream, group, query) for stream, group in groups[:limit]]


def _groups(votes: list[_Vote], tolerance_s: float) -> Iterator[list[_Vote]]:
    """Votes for about the same time, one a summary: around the heaviest of those left, until none is left."""
    left = sorted(votes, key=lambda vote: -vote.weight)
    while left:
        begin_s = left[0].begin_s
        best: dict[tuple[int, float], _Vote] = {}
        for vote in left:
            if abs(vote.begin_s - begin_s) <= tolerance_s:
                best.setdefault((vote.summary.shift, vote.summary.start_s), vote)
        yield list(best.values())
        left = [vote for vote in left if abs(vote.begin_s - begin_s) > tolerance_s]


def _hit(store: MemoryStore, stream: int, votes: list[_Vote], query: Query) -> SoundHit:
    weights = np.array([vote.weight for vote in votes])
    begin_s = max(0.0, float(np.average([vote.begin_s for vote in votes], weights=weights)))
    end_s = begin_s + query.length_s
    span = Span(begin_s, end_s, store.text_between(stream, begin_s, end_s))
    score = float(weights.sum() / len(query.summaries)) ** (1 / _POWER)
    return SoundHit(stream, store.stream_name(stream), tuple(sorted({vote.vector for vote in votes})), span, score)


def _admissions(
    model: AcousticModel, waveform: Waveform, sample_rate_hz: int, before_s: float, after_s: float
) -> list[Admission]:
    """What becomes of the summaries of a waveform that goes round: its end is heard before it, its beginning behind."""
    found: list[Admission] = []
    recognizer = Recognizer(model, decoder="greedy", memory_policy=everything, on_admission=found.append)
    before, after = (round(seconds * sample_rate_hz) for seconds in (before_s, after_s))
    heard = np.resize(np.roll(waveform, before), before + len(waveform) + after)
    for start in range(0, len(heard), sample_rate_hz):
        recognizer.accept_waveform(heard[start : start + sample_rate_hz], sample_rate_hz)
        while recognizer.is_ready():
            recognizer.step()
    recognizer.input_finished()
    while recognizer.is_ready():
        recognizer.step()
    return found
