"""libsoxr's streaming resampler: of the package soxr, or of the system's library where that has no wheel.

There is no wheel of soxr for 32-bit Arm. The library that the package wraps is in Debian as libsoxr0, and gives the
same samples.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import ExtraMissingError

Waveform = NDArray[np.float32]

_LIBRARY = "libsoxr.so.0"
_SPARE_SAMPLES = 4096  # room beside what a block comes to, for what the filter held back; more is given in turns


class SoxrStream(Protocol):
    """One channel of float32 from one rate to another."""

    def resample_chunk(self, x: Waveform, last: bool = False) -> Waveform:
        """x: (num_samples,), after those before it. last: whether it ends the signal, and all is to be given"""

    def clear(self) -> None:
        """Begin a new signal."""


def soxr_stream(source_hz: int, target_hz: int) -> SoxrStream:
    """In high quality. errors: ExtraMissingError where there is neither package nor library"""
    try:
        from soxr import ResampleStream
    except ImportError:
        return LibraryStream(source_hz, target_hz)
    stream: SoxrStream = ResampleStream(source_hz, target_hz, num_channels=1, dtype="float32")
    return stream


class LibraryStream:
    """A stream of the system's library. errors: ExtraMissingError where it is not there"""

    def __init__(self, source_hz: int, target_hz: int) -> None:
        self._rates = float(source_hz), float(target_hz)
        self._library = _library(source_hz, target_hz)
        self._stream = self._made()

    def resample_chunk(self, x: Waveform, last: bool = False) -> Waveform:
        """x: (num_samples,) float32, after those before it. last: whether it ends the signal, and all is to be given"""
        given = np.ascontiguousarray(x, np.float32)
        room = int(len(given) * self._rates[1] / self._rates[0]) + _SPARE_SAMPLES
        parts, read = [], 0
        while read < len(given):
            part, taken = self._process(given[read:], room)
            parts.append(part)
            read += taken
        while last and (not parts or len(parts[-1])):
            parts.append(self._process(None, room)[0])
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def clear(self) -> None:
        """Begin a new signal."""
        self._delete()
        self._stream = self._made()

    def _made(self) -> ctypes.c_void_p:
        error = ctypes.c_char_p()
        # Without specifications it takes and gives float32, in high quality.
        stream = self._library.soxr_create(*self._rates, 1, ctypes.byref(error), None, None, None)
        assert not error.value, error.value
        return ctypes.c_void_p(stream)

    def _process(self, samples: Waveform | None, room: int) -> tuple[Waveform, int]:
        """What it gives, and how many samples it took. samples: None ends the signal"""
        out = np.empty(room, np.float32)
        taken, given = ctypes.c_size_t(), ctypes.c_size_t()
        source = (None, 0) if samples is None else (samples.ctypes.data, len(samples))
        target = (out.ctypes.data, len(out), ctypes.byref(given))
        error = self._library.soxr_process(self._stream, *source, ctypes.byref(taken), *target)
        assert not error, error
        return out[: given.value], taken.value

    def _delete(self) -> None:
        self._library.soxr_delete(self._stream)
        self._stream = ctypes.c_void_p()

    def __del__(self) -> None:
        if getattr(self, "_stream", None):
            self._delete()


@cache
def _loaded() -> Any:
    """The library, with the types of what is called; OSError where it is not there."""
    library = ctypes.CDLL(_LIBRARY)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.soxr_create.restype = pointer
    library.soxr_create.argtypes = [ctypes.c_double, ctypes.c_double, ctypes.c_uint, *[pointer] * 4]
    library.soxr_process.restype = ctypes.c_char_p
    library.soxr_process.argtypes = [pointer, pointer, size, pointer, pointer, size, pointer]
    library.soxr_delete.restype = None
    library.soxr_delete.argtypes = [pointer]
    return library


def _library(source_hz: int, target_hz: int) -> Any:
    try:
        return _loaded()
    except OSError as error:
        raise ExtraMissingError(
            f"got audio at {source_hz} Hz, wanted {target_hz} Hz, and nothing here changes rates: pip install soxr, "
            "or, where it has no wheel, apt-get install libsoxr0"
        ) from error
