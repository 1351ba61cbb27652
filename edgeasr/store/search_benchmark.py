"""How often a phrase, or a sound, is found where it was said: speech is heard into a store, and parts looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr
from rapidfuzz.distance import Levenshtein

from edgeasr.audio import Waveform
from edgeasr.manifest import Utterance
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer
from edgeasr.recording import read_recording
from edgeasr.sessions import SessionSource, sessions
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import SoundHit, Span, TextHit
from edgeasr.store.sound_search import key_of, query_of, search_query
from edgeasr.store.text_search import search_text
from edgeasr.store.writer import StoreWriter

TOLERANCE_S = 2.0
AMONG = 5
WORDS = (2, 3, 4, 6)  # of phrases
CUT_S = (4.5, 6.0)
LONGEST_SESSION_S = 600.0
RATE_HZ = 16_000

Progress = Callable[[str], None]
Channel = Callable[[Waveform, np.random.Generator], Waveform]


@dataclass(frozen=True)
class SearchRow:
    """Searches of one kind. first, among_five: how many had a hit within 2 s as the first, as one of five"""

    asked: str
    of: int
    first: int
    among_five: int


@dataclass(frozen=True)
class Said:
    """An utterance in the store. words, starts_s: what was said and when, in stream time"""

    utterance: Utterance
    stream: int
    span: Span
    words: tuple[str, ...]
    starts_s: tuple[float, ...]


def remember(
    model: AcousticModel, utterances: Sequence[Utterance], path: Path, decoder: str | None, progress: Progress
) -> list[Said]:
    """Hear utterances, joined by speaker to ten minutes at most, into a new store; where each was said.

    errors: StoreError, AudioFormatError
    """
    joined = sessions(utterances, LONGEST_SESSION_S)
    with StoreWriter(path, key_of(model), progress) as writer:
        recognizer = Recognizer(model, decoder=decoder, on_admission=writer.admitted)
        for i, session in enumerate(joined):
            progress(f"{i} of {len(joined)} sessions heard")
            writer.begin_stream(str(i))
            for _ in writer.heard(recognizer.stream(SessionSource(session))):
                pass
    said = []
    with MemoryStore.open(path) as store:
        streams = {stream.name: stream.id for stream in store.streams()}
        for i, session in enumerate(joined):
            begin_s = 0.0
            for utterance in session.utterances:
                span = Span(begin_s, begin_s + utterance.duration_s)
                said.append(_said(store, utterance, streams[str(i)], span))
                begin_s = span.end_s + session.pause_s
    return said


def _said(store: MemoryStore, utterance: Utterance, stream: int, span: Span) -> Said:
    """Words that were recognised say when they were said; others lie evenly between them."""
    rows = store.segments_between(stream, span.start_s, span.end_s)
    heard = [word for row in rows for word in row.words if span.start_s <= word.start_s < span.end_s]
    words = utterance.text.split()
    known = {-1: span.start_s, len(words): span.end_s}
    for step in Levenshtein.opcodes(words, [word.word for word in heard]):
        if step.tag == "equal":
            pairs = zip(range(step.src_start, step.src_end), heard[step.dest_start : step.dest_end], strict=True)
            known |= {i: word.start_s for i, word in pairs}
    order = sorted(known)
    starts_s = np.interp(range(len(words)), order, [known[i] for i in order])
    return Said(utterance, stream, span, tuple(words), tuple(starts_s.tolist()))


def by_text(store: MemoryStore, said: Sequence[Said], count: int, rng: np.random.Generator) -> Iterator[SearchRow]:
    """Phrases taken at random from the reference transcripts, `count` of each length."""
    for length in WORDS:
        long_enough = [one for one in said if len(one.words) >= length]
        found = []
        for _ in range(count if long_enough else 0):
            one = long_enough[rng.integers(len(long_enough))]
            at = int(rng.integers(len(one.words) - length + 1))
            phrase = one.words[at : at + length]
            found.append(_rank(search_text(store, " ".join(phrase), limit=AMONG), _where_said(said, phrase)))
        yield _row(f"{length} words", found)


def _where_said(said: Sequence[Said], phrase: tuple[str, ...]) -> list[tuple[int, float]]:
    """Stream and time of every place: what is said twice is rightly found in either."""
    return [
        (one.stream, one.starts_s[at])
        for one in said
        for at in range(len(one.words) - len(phrase) + 1)
        if one.words[at : at + len(phrase)] == phrase
    ]


def by_sound(
    store: MemoryStore,
    model: AcousticModel,
    said: Sequence[Said],
    count: int,
    rng: np.random.Generator,
    progress: Progress,
) -> Iterator[SearchRow]:
    """Cuts of some seconds out of utterances at random, the same in every channel."""
    long_enough = [one for one in said if one.span.end_s - one.span.start_s >= CUT_S[1]]
    chosen = [long_enough[i] for i in rng.permutation(len(long_enough))[:count]]
    cuts = [(one, *_cut(one, rng)) for one in chosen]
    for name, channel in CHANNELS.items():
        found: list[int | None] = []
        for one, waveform, start_s in cuts:
            progress(f"{name}: {len(found)} of {len(cuts)} searched")
            query = query_of(model, channel(waveform, rng), RATE_HZ)
            hits = search_query(store, key_of(model), query, limit=AMONG)
            found.append(_rank(hits, [(one.stream, start_s)]))
        yield _row(name, found)


def _cut(one: Said, rng: np.random.Generator) -> tuple[Waveform, float]:
    """A part of an utterance, and where it begins in the stream."""
    waveform = read_recording(one.utterance.path, RATE_HZ)
    length = round(rng.uniform(*CUT_S) * RATE_HZ)
    at = int(rng.integers(max(1, len(waveform) - length)))
    return waveform[at : at + length], one.span.start_s + at / RATE_HZ


def telephone(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """At 8 kHz, in 8 bits a sample (G.711)."""
    del rng
    file = BytesIO()
    soundfile.write(file, soxr.resample(waveform, RATE_HZ, 8_000), 8_000, format="WAV", subtype="ULAW")
    file.seek(0)
    return np.asarray(soxr.resample(soundfile.read(file, dtype="float32")[0], 8_000, RATE_HZ), np.float32)


def noisy(waveform: Waveform, rng: np.random.Generator) -> Waveform:
    """With pink noise, as a room or a street has it, 10 dB below."""
    spectrum = np.fft.rfft(rng.standard_normal(len(waveform)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), len(waveform))
    level = np.sqrt(np.mean(waveform**2) / np.mean(noise**2)) * 10 ** (-10 / 20)
    return np.asarray(waveform + level * noise, np.float32)


CHANNELS: dict[str, Channel] = {
    "the cut": lambda waveform, _: waveform,
    "at a quarter of the level": lambda waveform, _: np.asarray(waveform / 4, np.float32),
    "telephone": telephone,
    "pink noise 10 dB below": noisy,
}


def _rank(hits: Sequence[TextHit | SoundHit], places: Sequence[tuple[int, float]]) -> int | None:
    """The first hit that begins where it should."""
    for rank, hit in enumerate(hits):
        if any(hit.stream == stream and abs(hit.span.start_s - at) <= TOLERANCE_S for stream, at in places):
            return rank
    return None


def _row(asked: str, ranks: Sequence[int | None]) -> SearchRow:
    return SearchRow(asked, len(ranks), ranks.count(0), sum(rank is not None for rank in ranks))
