"""Tables of the fixed-point log-mel front end in C, from the definition in `edgeasr.features`.

edgeasr_window_q15    first half of the periodic Hann window and its peak, Q15; the second half mirrors the first
edgeasr_twiddle_q15   cos and -sin of 2 pi k / 512, Q15, interleaved, k below 256: the even k are those of a complex
                      FFT of half the length, all serve the split into the real FFT
edgeasr_mel_filters   first bin, number of bins and shift of each filter
edgeasr_mel_weights   weights of all filters, one filter after another: weight = value / 2^(15 + shift)
edgeasr_log2_q15_table  log2(1 + i / 64), Q15, for linear interpolation
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.config import FeatureConfig
from edgeasr.features import analysis_window, mel_filterbank
from edgeasr.firmware_bridge.c_header import NOTICE

LOG2_INTERVALS = 64
FLOOR_BITS = 40  # of the floor below the logarithm, as a fraction of full scale squared
_SOURCE = NOTICE.format(source="edgeasr/features.py or tables.py")


class MelFilter(NamedTuple):
    """A row of the filterbank; its weights are `values` / 2^(15 + shift)."""

    first_bin: int
    shift: int
    values: tuple[int, ...]


def q15(values: NDArray[Any]) -> list[int]:
    """Rounded to Q15; 1 becomes the largest value below it."""
    scaled = np.rint(np.asarray(values, np.float64) * (1 << 15))
    return [int(value) for value in np.clip(scaled, -(1 << 15), (1 << 15) - 1)]


def twiddles(config: FeatureConfig) -> list[int]:
    """cos and -sin of the first half turn, interleaved."""
    phase = 2 * np.pi * np.arange(config.fft_length // 2) / config.fft_length
    return q15(np.stack([np.cos(phase), -np.sin(phase)], axis=1).ravel())


def mel_filters(config: FeatureConfig) -> list[MelFilter]:
    """The filters, each with the shift that makes the most of 15 bits."""
    filters = []
    for column in mel_filterbank(config).astype(np.float64).T:
        used = np.flatnonzero(column)
        weights = column[used[0] : used[-1] + 1]
        shift = math.floor(-math.log2(weights.max() * (1 << 15) / ((1 << 15) - 1)))
        filters.append(MelFilter(int(used[0]), shift, tuple(q15(weights * 2.0**shift))))
    return filters


def tables_header(config: FeatureConfig) -> str:
    """edgeasr_tables.h"""
    constants = {
        "SAMPLE_RATE_HZ": config.sample_rate_hz,
        "WIN_LENGTH": config.win_length,
        "HOP_LENGTH": config.hop_length,
        "FFT_LENGTH": config.fft_length,
        "NUM_BINS": config.num_bins,
        "NUM_MELS": config.num_mels,
        "NUM_WEIGHTS": sum(len(row.values) for row in mel_filters(config)),
        "LOG2_INTERVALS": LOG2_INTERVALS,
    }
    floor = round(config.floor * 2**FLOOR_BITS)
    return "\n".join(
        [
            _SOURCE,
            "#ifndef EDGEASR_TABLES_H\n#define EDGEASR_TABLES_H\n",
            "#include <stdint.h>\n",
            *[f"#define EDGEASR_LOGMEL_{name} {value}" for name, value in constants.items()],
            f"/* The floor that is added to an energy, times 2^{FLOOR_BITS}; samples are in [-1, 1). */",
            f"#define EDGEASR_LOGMEL_FLOOR_Q{FLOOR_BITS} {floor}",
            "",
            "typedef struct {",
            "    uint8_t first_bin;",
            "    uint8_t num_bins;",
            "    uint8_t shift;",
            "} edgeasr_mel_filter_t;",
            "",
            *[f"extern const {kind} {name}[{size}];" for kind, name, size in _ARRAYS],
            "",
            "#endif",
            "",
        ]
    )


_ARRAYS = (
    ("int16_t", "edgeasr_window_q15", "EDGEASR_LOGMEL_WIN_LENGTH / 2 + 1"),
    ("int16_t", "edgeasr_twiddle_q15", "EDGEASR_LOGMEL_FFT_LENGTH"),
    ("edgeasr_mel_filter_t", "edgeasr_mel_filters", "EDGEASR_LOGMEL_NUM_MELS"),
    ("uint16_t", "edgeasr_mel_weights", "EDGEASR_LOGMEL_NUM_WEIGHTS"),
    ("uint16_t", "edgeasr_log2_q15_table", "EDGEASR_LOGMEL_LOG2_INTERVALS + 1"),
)


def tables_source(config: FeatureConfig) -> str:
    """edgeasr_tables.c"""
    filters = mel_filters(config)
    log2 = np.rint(np.log2(1 + np.arange(LOG2_INTERVALS + 1) / LOG2_INTERVALS) * (1 << 15))
    values = (
        map(str, q15(analysis_window(config)[: config.win_length // 2 + 1])),
        map(str, twiddles(config)),
        [f"{{{row.first_bin}, {len(row.values)}, {row.shift}}}" for row in filters],
        [str(value) for row in filters for value in row.values],
        [f"{int(value)}u" for value in log2],
    )
    arrays = [_array(*array, items) for array, items in zip(_ARRAYS, values, strict=True)]
    return "\n".join([_SOURCE, '#include "edgeasr_tables.h"', "", *arrays])


def _array(kind: str, name: str, size: str, items: Iterable[str]) -> str:
    return "\n".join([f"const {kind} {name}[{size}] = {{", *_wrapped(list(items)), "};", ""])


def _wrapped(items: Sequence[str], width: int = 116) -> list[str]:
    lines, line = [], ""
    for item in items:
        if len(line) + len(item) + 2 > width:
            lines.append(f"    {line.rstrip()}")
            line = ""
        line += f"{item}, "
    return [*lines, f"    {line.rstrip()}"]
