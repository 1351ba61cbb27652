"""Words that a model hears where nobody speaks: in recordings of noise and in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeasr.audio import AudioBlock, AudioSource, FileSource
from edgeasr.errors import AudioFormatError, ManifestError
from edgeasr.evaluation import Unreadable, require_readable
from edgeasr.manifest import read_manifest
from edgeasr.measurement import BLOCK_MS, hear
from edgeasr.recognizer import Recognizer
from edgeasr.tokenizer import normalize_text

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
SILENCE_S = 300.0  # of each kind
FAINT_DBFS = -70.0  # what a quiet room leaves of a good microphone
_SILENCE_HZ = 16_000
_SEED = 0


@dataclass(frozen=True)
class Recording:
    """A recording without speech, and the words that were heard in it."""

    name: str
    audio_s: float
    words: tuple[str, ...]


@dataclass
class NonSpeech:
    """What was heard in noise and in silence, a recording at a time."""

    noise: list[Recording] = field(default_factory=list)
    silence: list[Recording] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


class SilenceSource(AudioSource):
    """Generated silence: zeros, or with a level the faint white noise of a microphone in a quiet room.

    level_dbfs: root mean square against full scale
    """

    def __init__(self, duration_s: float, level_dbfs: float | None = None) -> None:
        self.name = "digital silence" if level_dbfs is None else f"white noise at {level_dbfs:g} dBFS"
        self.sample_rate_hz = _SILENCE_HZ
        self.duration_s = duration_s
        self._scale = 0.0 if level_dbfs is None else 10 ** (level_dbfs / 20)

    def blocks(self) -> Iterator[AudioBlock]:
        generator = np.random.default_rng(_SEED)
        length, total = _SILENCE_HZ * BLOCK_MS // 1000, round((self.duration_s or 0) * _SILENCE_HZ)
        for start in range(0, total, length):
            samples = generator.standard_normal(min(length, total - start), dtype=np.float32)
            yield AudioBlock(samples * np.float32(self._scale), start)

    def close(self) -> None:
        pass


def recordings_of(path: Path) -> list[Path]:
    """The audio files below a folder, or those of a manifest whose texts are empty.

    errors: ManifestError for a folder without audio, and for a manifest of speech
    """
    if path.is_dir():
        if found := sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES):
            return found
        wanted = ", ".join(sorted(AUDIO_SUFFIXES))
        raise ManifestError(f"the folder {path} holds no {wanted} file: name one that holds recordings of noise")
    utterances = read_manifest(path)
    if spoken := next((u for u in utterances if normalize_text(u.text)), None):
        raise ManifestError(
            f"{path} says that {spoken.path} holds the words {spoken.text[:40]!r}, wanted recordings without speech: "
            'leave it out, or make its text ""'
        )
    return [utterance.path for utterance in utterances]


def hear_nonspeech(
    recognizer: Recognizer, recordings: Iterable[Path], on_recording: Callable[[str], None] | None = None
) -> NonSpeech:
    """Every recording as a stream of its own, then SILENCE_S of digital silence and of faint noise.

    on_recording: called with the name of each before it is heard
    errors:       AudioFormatError where no recording can be read
    """
    found = NonSpeech()
    for path in recordings:
        if on_recording:
            on_recording(str(path))
        try:
            with FileSource(path, BLOCK_MS) as source:
                found.noise.append(_recording(recognizer, source))
        except AudioFormatError as error:
            found.unreadable.append(Unreadable(path, error))
    require_readable(len(found.noise), found.unreadable)
    for level_dbfs in (None, FAINT_DBFS):
        with SilenceSource(SILENCE_S, level_dbfs) as silence:
            if on_recording:
                on_recording(silence.name)
            found.silence.append(_recording(recognizer, silence))
    return found


def _recording(recognizer: Recognizer, source: AudioSource) -> Recording:
    heard = hear(recognizer, source)
    return Recording(source.name, heard.audio_s, tuple(normalize_text(heard.text).split()))
