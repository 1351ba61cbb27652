"""Where audio comes from: blocks of mono samples from files and raw streams, and the streaming resampler.

The microphone, another `AudioSource`, lives in microphone.py.
"""

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from typing import BinaryIO, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import soundfile

from edgeasr.errors import AudioFormatError
from edgeasr.features import FeatureBlock
from edgeasr.soxr_stream import soxr_stream

Waveform = npt.NDArray[np.float32]

MIN_SAMPLE_RATE_HZ = 1_000  # soxr crashes on absurd ratios (1 Hz to 16 kHz): no such rate may reach it
MAX_SAMPLE_RATE_HZ = 768_000

_WANTED = "want a wav, flac, ogg, opus or mp3 file"
_GET_WHOLE = "get the complete file"

_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's SF_COUNT_MAX, for a flac file written to a pipe
# libsndfile's log on samples that the file is too short for: wav, aiff, au, w64 and rf64.
_CHUNK_SIZE = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_PLACEHOLDER_SIZES = range(0x7FFF_F000, 2**32)  # written by recorders that cannot go back: no promise

_OGG_PAGE_BYTES = 27 + 255 + 255 * 255  # the longest page
_OGG_END_OF_STREAM = 0x04
_OGG_SERIAL = slice(14, 18)
_MP3_FRAME_BYTES = 2881  # the longest frame
_MP3_FRAME_SAMPLES = 1152


@dataclass(frozen=True, eq=False)
class AudioBlock:
    """Consecutive samples of one channel.

    samples:      (num_samples,) float32 in [-1, 1], never empty
    start_sample: of samples[0], at the rate of the source, counted over gaps too
    gap_samples:  lost just before this block
    """

    samples: Waveform
    start_sample: int
    gap_samples: int = 0

    def __post_init__(self) -> None:
        _require_waveform(self.samples)


BlockT = TypeVar("BlockT", bound=AudioBlock | FeatureBlock)
BlockT_co = TypeVar("BlockT_co", bound=AudioBlock | FeatureBlock, covariant=True)


class Source(Protocol[BlockT_co]):
    """Anything that gives audio, or features of it, at its own rate, in order and once; a context manager.

    blocks() goes on where an earlier call stopped, and ends when the stream does or after close().
    duration_s is None where the length is not known beforehand.
    """

    name: str
    sample_rate_hz: int
    duration_s: float | None

    def blocks(self) -> Iterator[BlockT_co]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AudioSource(Source[AudioBlock], Protocol):
    """A source of samples."""


class FileSource(AudioSource):
    """A wav, flac, ogg, opus or mp3 file, mixed down, in constant memory.

    A file that ends before it should (cut short or damaged) gives the samples that it holds, then raises
    AudioFormatError. With real_time, a block comes when a microphone would have heard the last of it.
    """

    def __init__(self, path: str | os.PathLike[str], block_ms: int = 100, *, real_time: bool = False) -> None:
        self.name = os.fspath(path)
        with ExitStack() as opened:
            self._file = opened.enter_context(_open(self.name))
            self._decoder = opened.enter_context(_decode(self._file, self.name))
            self.sample_rate_hz = check_sample_rate(self._decoder.samplerate, self.name)
            self._block_samples = block_length(self.sample_rate_hz, block_ms)
            self._opened = opened.pop_all()
        self._is_pipe = not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        self.duration_s = None if self._is_pipe else self._decoder.promised_s
        self._real_time = real_time
        self._position = 0  # samples read

    def blocks(self) -> Iterator[AudioBlock]:
        began_s = time.monotonic() - self._position_s
        while not self._file.closed:
            frames = self._decoder.read_frames(self._block_samples)
            if len(frames) == 0:
                self._raise_if_incomplete()
                return
            _require_finite(frames, self.name, self.sample_rate_hz, self._position)
            # Float files and lossy codecs can exceed full scale.
            block = AudioBlock(mix_down(np.clip(frames, -1, 1)), self._position)
            self._position += len(frames)
            if self._real_time:
                _sleep_until(began_s + self._position_s)
            yield block

    def close(self) -> None:
        self._opened.close()

    @property
    def _position_s(self) -> float:
        return self._position / self.sample_rate_hz

    def _raise_if_incomplete(self) -> None:
        shortfall = self._decoder.failure or ("" if self._is_pipe else _shortfall(self._decoder, self._file))
        if shortfall:
            raise AudioFormatError(f"{self.name} ends early, at {self._position_s:.3f} s: {shortfall}")
        if self._position == 0:
            raise AudioFormatError(f"{self.name} holds no samples, want recorded speech: record it again")


class RawSource(AudioSource):
    """Headerless little-endian 16-bit mono samples from a binary stream, such as standard input.

    An odd byte at the end raises AudioFormatError after all whole samples were given; so does, at once, a stream
    that begins as a file with a header does. The stream is the caller's to close.
    """

    _FILE_MAGIC = (b"RIFF", b"fLaC", b"OggS", b"ID3")

    def __init__(self, stream: BinaryIO, sample_rate_hz: int = 16_000, block_ms: int = 100) -> None:
        self.name = str(getattr(stream, "name", "raw audio"))
        self.sample_rate_hz = check_sample_rate(sample_rate_hz, self.name)
        self.duration_s = None
        self._stream = stream
        self._block_bytes = 2 * block_length(sample_rate_hz, block_ms)
        self._position = 0
        self._closed = False

    def blocks(self) -> Iterator[AudioBlock]:
        while not self._closed:
            pcm = _read_fully(self._stream, self._block_bytes)
            if self._position == 0 and pcm.startswith(self._FILE_MAGIC):
                raise AudioFormatError(
                    f"{self.name} begins with {pcm[:4]!r} as an audio file does, want bare 16-bit little-endian "
                    "samples: take the header off, for instance with ffmpeg -f s16le"
                )
            samples = np.frombuffer(pcm, "<i2", count=len(pcm) // 2).astype(np.float32) * np.float32(2**-15)
            if len(samples):
                self._position += len(samples)
                yield AudioBlock(samples, self._position - len(samples))
            if len(pcm) < self._block_bytes:
                self._closed = True
                self._raise_if_malformed(odd_byte=len(pcm) % 2 == 1)

    def close(self) -> None:
        self._closed = True

    def _raise_if_malformed(self, *, odd_byte: bool) -> None:
        if odd_byte:
            num_bytes = 2 * self._position + 1
            raise AudioFormatError(
                f"{self.name} ended in half a sample, after {num_bytes} bytes, want 16-bit little-endian "
                "samples, two bytes each: check that the sender writes s16le and was not cut off"
            )
        if self._position == 0:
            raise AudioFormatError(f"{self.name} ended before the first sample, want s16le audio: check the sender")


class Resampler:
    """Streaming change of sample rate (soxr, high quality; the identity where the rates are equal).

    At the usual rates the output trails the input by about 40 ms (115 ms from 8 kHz); flush() gives the rest.
    errors: AudioFormatError for an impossible rate, ExtraMissingError where rates differ and libsoxr is not there
    """

    def __init__(self, source_hz: int, target_hz: int) -> None:
        self._source_hz = check_sample_rate(source_hz, "the source")
        self._target_hz = check_sample_rate(target_hz, "the resampler's target")
        self._stream = None
        if source_hz != target_hz:
            self._stream = soxr_stream(source_hz, target_hz)
        self._seen = 0

    def process(self, samples: Waveform) -> Waveform:
        """The next samples at the target rate, possibly none yet.

        samples: (num_samples,) float32; empty, misshapen or not finite raises AudioFormatError.
        """
        _require_waveform(samples)
        _require_finite(samples, "the waveform", self._source_hz, self._seen)
        self._seen += len(samples)
        return samples if self._stream is None else self._stream.resample_chunk(samples, last=False)

    def flush(self) -> Waveform:
        """The samples still inside, at the end of a signal; process() then begins a new one."""
        nothing = np.zeros(0, np.float32)
        self._seen = 0
        if self._stream is None:
            return nothing
        rest = self._stream.resample_chunk(nothing, last=True)
        self._stream.clear()
        return rest


def mix_down(frames: Waveform) -> Waveform:
    """The mean of the channels.

    frames:  (num_samples, channels)
    returns: (num_samples,), never a view of frames
    """
    mono: Waveform = frames.mean(axis=1, dtype=np.float32)
    return mono


def check_sample_rate(sample_rate_hz: int, name: str) -> int:
    """The rate itself, if it can be resampled; `name` says in the AudioFormatError whose rate it is."""
    if not MIN_SAMPLE_RATE_HZ <= sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise AudioFormatError(
            f"{name} has a sample rate of {sample_rate_hz} Hz, want {MIN_SAMPLE_RATE_HZ} to "
            f"{MAX_SAMPLE_RATE_HZ} Hz: correct the rate or record again"
        )
    return sample_rate_hz


def block_length(sample_rate_hz: int, block_ms: int) -> int:
    """Samples in a block of block_ms."""
    if block_ms < 1:
        raise AudioFormatError(f"got blocks of {block_ms} ms, want 1 ms or more: choose a longer block")
    return sample_rate_hz * block_ms // 1000


def _require_waveform(samples: Waveform) -> None:
    if samples.ndim != 1 or samples.dtype != np.float32:
        raise AudioFormatError(
            f"got samples of shape {samples.shape} and type {samples.dtype}, want (num_samples,) float32: "
            "mix down and scale to [-1, 1] first"
        )
    if len(samples) == 0:
        raise AudioFormatError("got a block of 0 samples, want at least 1: leave empty blocks out")


def _require_finite(samples: Waveform, name: str, sample_rate_hz: int, start_sample: int) -> None:
    """samples: (num_samples,) or (num_samples, channels), from start_sample on."""
    finite = np.isfinite(samples)
    if finite.all():
        return
    first = int(np.argwhere(~finite)[0, 0])
    raise AudioFormatError(
        f"{name} has a NaN or infinite sample at {(start_sample + first) / sample_rate_hz:.3f} s, "
        "want numbers in [-1, 1]: write the audio again"
    )


def _sleep_until(moment_s: float) -> None:
    wait_s = moment_s - time.monotonic()
    if wait_s > 0:
        time.sleep(wait_s)


def _read_fully(stream: BinaryIO, num_bytes: int) -> bytes:
    """num_bytes, fewer only at the end: an unbuffered pipe gives what it has, however little."""
    parts = []
    while num_bytes > 0 and (part := stream.read(num_bytes)):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def _open(path: str) -> FileIO:
    try:
        file = FileIO(path)
    except OSError as error:
        raise AudioFormatError(f"cannot open {path} ({error.strerror}), {_WANTED}: check the path") from error
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        file.close()
        raise AudioFormatError(f"{path} is empty (0 bytes), {_WANTED}: record or copy it again")
    return file


class _ForwardDecoder(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """libsndfile, read forwards only: soundfile seeks after each read where it can, which fails at the end of
    a file of unknown length (a flac written to a pipe).

    failure: what stopped the decoder, if anything, and what to do
    """

    failure = ""
    num_read = 0

    def seekable(self) -> bool:
        return False

    @property
    def promised_s(self) -> float | None:
        """Duration in seconds, by the header; an estimate for an mp3 file that does not tell."""
        return None if self.frames == _UNKNOWN_LENGTH else self.frames / self.samplerate

    def read_frames(self, num_frames: int) -> Waveform:
        """(num_frames, channels) float32; fewer before the end or a failure, none after it."""
        frames: Waveform = np.empty((num_frames, self.channels), np.float32)
        if self.failure:
            return frames[:0]
        try:
            frames = self.read(out=frames)
        except soundfile.LibsndfileError as error:
            self.failure = f"it is damaged or cut off ({_reason(error)}): {_GET_WHOLE}"
            decoded = self.tell() - self.num_read if super().seekable() else 0
            frames = frames[: max(0, decoded)]
        self.num_read += len(frames)
        return frames


def _decode(file: FileIO, name: str) -> _ForwardDecoder:
    # By descriptor, since the position in the file shows afterwards whether all of it was read.
    try:
        return _ForwardDecoder(file.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        reason = _reason(error)
    if "SF_INFO" in reason:
        raise AudioFormatError(
            f"{name} has a sample rate of 0 Hz or less in its header, want {MIN_SAMPLE_RATE_HZ} to "
            f"{MAX_SAMPLE_RATE_HZ} Hz: write it again with its true rate"
        )
    if "does not exist" in reason:  # what libsndfile says of an mp3 file without a whole frame
        reason = "no whole frame of audio"
    raise AudioFormatError(f"{name} cannot be decoded ({reason}), {_WANTED}: convert or copy it again")


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).removeprefix("Error : ").rstrip(".")


def _shortfall(decoder: _ForwardDecoder, file: FileIO) -> str:
    """Why what was decoded of a regular file is not all of the recording, and what to do; empty if it is."""
    if decoder.format == "OGG":
        return _ogg_shortfall(file)
    if decoder.format == "MP3":
        return _mp3_shortfall(decoder, file)
    for promised, held in re.findall(_CHUNK_SIZE, decoder.extra_info):
        if int(promised) > int(held) and int(promised) not in _PLACEHOLDER_SIZES:
            return f"its header promises {promised} bytes of samples, it holds {held}: {_GET_WHOLE}"
    if decoder.num_read < decoder.frames < _UNKNOWN_LENGTH:
        return f"its header promises {decoder.promised_s:.3f} s: {_GET_WHOLE}"
    return ""


def _ogg_shortfall(file: FileIO) -> str:
    """The last page must be whole and end the stream that the first page began (RFC 3533)."""
    size = os.fstat(file.fileno()).st_size
    first = os.pread(file.fileno(), _OGG_PAGE_BYTES, 0)
    tail = os.pread(file.fileno(), _OGG_PAGE_BYTES, max(0, size - _OGG_PAGE_BYTES))
    last = tail[tail.rfind(b"OggS") :]
    num_lacing = last[26] if len(last) > 26 else 0
    if len(last) < 27 or len(last) < 27 + num_lacing + sum(last[27 : 27 + num_lacing]):
        return f"its last page is cut off: {_GET_WHOLE}"
    if not last[5] & _OGG_END_OF_STREAM:
        return f"its last page is missing: {_GET_WHOLE}"
    if first[_OGG_SERIAL] != last[_OGG_SERIAL] and not first[28:].startswith(b"fishead"):
        return "it is several recordings joined, of which libsndfile reads the first: convert it to flac"
    return ""


def _mp3_shortfall(decoder: _ForwardDecoder, file: FileIO) -> str:
    """Only a Xing or Info header promises a length; without it libsndfile guesses, and stops at its guess."""
    position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
    unread = os.fstat(file.fileno()).st_size - position
    if unread > _MP3_FRAME_BYTES and os.pread(file.fileno(), 3, position).startswith((b"\xff", b"ID3")):
        return f"libsndfile leaves {unread} bytes of mp3 unread for want of a true length: convert it to flac"
    missing = decoder.frames - decoder.num_read
    if missing > 2 * _MP3_FRAME_SAMPLES and _promises_length(file):
        return f"its header promises {decoder.promised_s:.3f} s: {_GET_WHOLE}"
    return ""


def _promises_length(mp3: FileIO) -> bool:
    """Whether the first frame, behind any ID3v2 tag, is a Xing or Info header."""
    tag = os.pread(mp3.fileno(), 10, 0)
    tag_bytes = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    first_frame = os.pread(mp3.fileno(), _MP3_FRAME_BYTES, tag_bytes if tag.startswith(b"ID3") else 0)
    return b"Xing" in first_frame or b"Info" in first_frame
