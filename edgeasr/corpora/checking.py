"""Whether an utterance that a source gives can be trained on, and its audio as a file of its own."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from edgeasr.corpora.source import Found, LeftOut
from edgeasr.tokenizer import normalize_text

SUFFIXES = {"FLAC": "flac", "WAV": "wav", "WAVEX": "wav", "MP3": "mp3", "OGG": "ogg"}

# A duration may be rounded, or leave out what a codec pads.
SLACK_S = 1.0
_CUT_SLACK_S = 0.05
_OTHER_LETTER = re.compile("[^\\W\\d_a-z]")


@dataclass(frozen=True)
class Checked:
    """An utterance whose text is plain and whose audio has a header that fits."""

    found: Found
    text: str  # as `normalize_text` gives it
    duration_s: float
    sample_rate_hz: int
    format: str  # of the file it is in, as libsndfile names it

    @property
    def is_whole(self) -> bool:
        """Whether its file is it, and nothing else."""
        return self.found.start_s == 0 and self.found.duration_s is None and self.found.channel is None


def checked(found: Found) -> Checked | LeftOut:
    """Look at the text and the header of the audio; nothing is decoded."""
    text, reason = plain_text(found.text)
    if reason:
        return LeftOut(found.name, reason)
    try:
        info = soundfile.info(openable(found.audio))
    except (OSError, soundfile.LibsndfileError):
        missing = isinstance(found.audio, Path) and not found.audio.is_file()
        return LeftOut(found.name, "no audio file for a text" if missing else "audio that cannot be read")
    whole_s = info.frames / info.samplerate
    if found.recording_s is not None and differs(whole_s, found.recording_s):
        return LeftOut(found.name, "audio of another length than is said")
    if found.channel is not None and found.channel >= info.channels:
        return LeftOut(found.name, "a channel that the audio has not")
    duration_s = whole_s - found.start_s if found.duration_s is None else found.duration_s
    if found.start_s < 0 or found.start_s + duration_s > whole_s + _CUT_SLACK_S:
        return LeftOut(found.name, "a part that the audio does not hold")
    if round(duration_s * info.samplerate) < 1:
        return LeftOut(found.name, "audio without samples")
    return Checked(_without_needless_cut(found, whole_s, info.channels), text, duration_s, info.samplerate, info.format)


def differs(found_s: float, said_s: float) -> bool:
    """Whether a length is another one than was said, and not only rounded."""
    return abs(found_s - said_s) > max(SLACK_S, 0.1 * said_s)


def plain_text(text: str) -> tuple[str, str]:
    """A text in its plain form, and why it cannot be trained on, if it cannot."""
    if any(char.isdigit() for char in text):
        return "", "digits in the text"
    bare = "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(c))
    if _OTHER_LETTER.search(bare):
        return "", "letters other than a to z"
    plain = normalize_text(text)
    return plain, "" if plain.strip("' ") else "no words in the text"


def _without_needless_cut(found: Found, whole_s: float, channels: int) -> Found:
    """What is cut from the start to the end, of the only channel, is the file."""
    all_of_it = found.start_s == 0 and abs((found.duration_s or whole_s) - whole_s) < _CUT_SLACK_S
    duration_s = None if all_of_it else found.duration_s
    channel = None if channels == 1 else found.channel
    return Found(found.name, found.audio, found.text, found.speaker, found.source, found.start_s, duration_s, channel)


def openable(audio: Path | bytes) -> io.BytesIO | Path | bytes:
    """What soundfile opens for a file or the content of one: names that are no text it takes as bytes only."""
    if isinstance(audio, bytes):
        return io.BytesIO(audio)
    name = os.fsencode(audio)
    return audio if str(audio).encode(errors="replace") == name else name


def audio_file(utterance: Checked) -> tuple[bytes, str] | LeftOut:
    """The audio as the content of a file of its own, and that file's suffix; decoded once, to know that it is whole.

    A file that is the utterance stays as it is; a part of one becomes FLAC of 16 bits and one channel.
    """
    found = utterance.found
    try:
        if utterance.is_whole and utterance.format in SUFFIXES:
            content = found.audio if isinstance(found.audio, bytes) else found.audio.read_bytes()
            samples, rate_hz = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
            if differs(len(samples) / rate_hz, utterance.duration_s):
                return LeftOut(found.name, "audio of another length than is said")
            return content, SUFFIXES[utterance.format]
        start = round(found.start_s * utterance.sample_rate_hz)
        count = round(utterance.duration_s * utterance.sample_rate_hz)
        samples, rate_hz = soundfile.read(openable(found.audio), count, start, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError):
        return LeftOut(found.name, "audio that cannot be decoded")
    if len(samples) < count - _CUT_SLACK_S * rate_hz or not len(samples):
        return LeftOut(found.name, "audio that ends early")
    mono = samples.mean(axis=1) if found.channel is None else samples[:, found.channel]
    written = io.BytesIO()
    soundfile.write(written, np.clip(mono, -1, 32767 / 32768), rate_hz, format="FLAC", subtype="PCM_16")
    return written.getvalue(), "flac"
