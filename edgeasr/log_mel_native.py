"""Log-mel features in C: the same as `features.log_mel` in half of its time, frames side by side in vectors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.config import FeatureConfig
from edgeasr.errors import NativeCodeError
from edgeasr.features import Floats, analysis_window, log_mel, mel_filterbank, num_frames
from edgeasr.native_code import packaged_library

_FLAGS = ("-fno-math-errno", "-fno-trapping-math")
# Of a transform, whose numbers lie on the stack.
_LONGEST = 4096


def fastest_log_mel(config: FeatureConfig) -> Callable[[Floats], Floats]:
    """`log_mel` of a config: in C where that can be compiled and the transform is one of a power of two."""
    if config.fft_length <= _LONGEST and config.fft_length.bit_count() == 1:
        try:
            return _native(config)
        except NativeCodeError:
            pass
    return partial(log_mel, config=config)


@cache
def _native(config: FeatureConfig) -> NativeLogMel:
    return NativeLogMel(config)


class _Config(ctypes.Structure):
    """edgeasr_log_mel_t of log_mel.c"""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("win_length", "hop_length", "num_mels", "half")),
        ("floor", ctypes.c_double),
        *(
            (name, ctypes.c_void_p)
            for name in ("window", "cosines", "sines", "reversed", "firsts", "counts", "weights")
        ),
    )


class NativeLogMel:
    """`log_mel` of one config; threads may share it.

    config: whose transform has a power of two as its length
    errors: NativeCodeError where the library cannot be compiled
    """

    def __init__(self, config: FeatureConfig) -> None:
        function = "edgeasr_mel_energies"
        self._energies = getattr(packaged_library("edgeasr", "log_mel.c", function, _FLAGS), function)
        self._energies.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
        self._energies.restype = None
        self._config = config
        half = config.fft_length // 2
        turns = 2 * np.pi * np.arange(half) / config.fft_length
        tables: list[NDArray[Any]] = [analysis_window(config), np.cos(turns), np.sin(turns), _reversed_bits(half)]
        tables += _bands(mel_filterbank(config))
        self._tables = [np.ascontiguousarray(table) for table in tables]  # what the structure points to
        sizes = (config.win_length, config.hop_length, config.num_mels, half, config.floor)
        self._structure = _Config(*sizes, *(table.ctypes.data for table in self._tables))
        self._address = ctypes.addressof(self._structure)

    def __call__(self, waveform: Floats) -> Floats:
        """Log-mel energies of every whole window.

        waveform: (num_samples,) float32 in [-1, 1]
        returns:  (T, num_mels)
        """
        count = num_frames(len(waveform), self._config)
        energies: Floats = np.empty((count, self._config.num_mels), np.float32)
        waveform = np.ascontiguousarray(waveform, np.float32)
        self._energies(self._address, waveform.ctypes.data, count, energies.ctypes.data)
        return np.log(energies, out=energies)


def _reversed_bits(count: int) -> NDArray[np.int64]:
    """The numbers below a power of two, the bits of each in the other order."""
    order = np.zeros(1, np.int64)
    while len(order) < count:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def _bands(filters: Floats) -> list[NDArray[Any]]:
    """First bin, number of bins and weights of each band, of those that are not zero. filters: (num_bins, num_mels)"""
    firsts, counts, weights = [], [], []
    for band in filters.T:
        bins = np.flatnonzero(band)
        first, end = (int(bins[0]), int(bins[-1]) + 1) if len(bins) else (0, 0)
        firsts.append(first)
        counts.append(end - first)
        weights.append(band[first:end])
    return [np.array(firsts, np.int64), np.array(counts, np.int64), np.concatenate(weights)]
