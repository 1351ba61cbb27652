"""A model, or the tables of its front end, as a C header: constant arrays for firmware that has no file system.

    header = c_header("tiny-en", [*model_arrays(bundle, "onnx-int8"), *front_end_arrays(bundle.config.features)])

Every array comes with its size and the SHA-256 of its bytes, that of a model's file being the one in the manifest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeasr.bundle import Bundle
from edgeasr.config import FeatureConfig
from edgeasr.errors import ConfigError
from edgeasr.features import analysis_window
from edgeasr.firmware_bridge.tables import mel_filters, q15, twiddles

FRONT_END = "front-end"
ALIGNMENT_BYTES = 16  # that TensorFlow Lite Micro and ExecuTorch ask of a model
_WIDTH = 116

# Types of tables in C, by what numpy calls them; their bytes are little-endian.
_C_TYPES = {"<i2": "int16_t", "<u2": "uint16_t", "|u1": "uint8_t"}


@dataclass(frozen=True)
class CArray:
    """A constant array of C.

    name:    a C identifier
    c_type:  of an element
    values:  as C writes them
    content: the bytes in the memory of a little-endian machine
    note:    a line about it
    """

    name: str
    c_type: str
    values: Sequence[str]
    content: bytes
    note: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def model_arrays(bundle: Bundle, kind: str | None = None) -> list[CArray]:
    """The files of one artefact, byte by byte. errors: BundleError where the bundle has no such artefact"""
    kind = kind or bundle.default_artefact
    arrays = []
    for part, file in bundle.artefact(kind).items():
        content = file if isinstance(file, bytes) else Path(file).read_bytes()
        note = f"{bundle.artefacts[kind][part]}: the {part} graph of {kind}"
        arrays.append(
            CArray(identifier(bundle.name, kind, part), "unsigned char", _bytes_as_text(content), content, note)
        )
    return arrays


def front_end_arrays(config: FeatureConfig) -> list[CArray]:
    """Window, twiddle factors and mel filters in fixed point, the same as those of the C library."""
    filters = mel_filters(config)
    return [
        _table("window_q15", "<i2", q15(analysis_window(config)), f"periodic Hann window of {config.win_length}, Q15"),
        _table("twiddle_q15", "<i2", twiddles(config), f"cos and -sin of 2 pi k / {config.fft_length}, Q15"),
        _table("mel_first_bin", "<u2", [row.first_bin for row in filters], "of each filter"),
        _table("mel_num_bins", "<u2", [len(row.values) for row in filters], "of each filter"),
        _table("mel_shift", "|u1", [row.shift for row in filters], "weights of a filter are value / 2^(15 + shift)"),
        _table("mel_weights", "<u2", [value for row in filters for value in row.values], "one filter after another"),
    ]


def front_end_constants(config: FeatureConfig) -> dict[str, str]:
    """What the tables were made for, by macro."""
    return {
        "EDGEASR_FRONT_END_SAMPLE_RATE_HZ": str(config.sample_rate_hz),
        "EDGEASR_FRONT_END_WIN_LENGTH": str(config.win_length),
        "EDGEASR_FRONT_END_HOP_LENGTH": str(config.hop_length),
        "EDGEASR_FRONT_END_FFT_LENGTH": str(config.fft_length),
        "EDGEASR_FRONT_END_NUM_MELS": str(config.num_mels),
        "EDGEASR_FRONT_END_FLOOR": f"{config.floor!r}f",
    }


@dataclass(frozen=True)
class CArrays:
    """What `export_c_arrays` wrote."""

    path: Path
    arrays: Sequence[CArray]


def export_c_arrays(bundle: Bundle, output: Path, kinds: Sequence[str] = ()) -> CArrays:
    """Write a header with the arrays of these artefacts; `front-end` is one, and without any there are that and the
    default one.

    raises: ConfigError where output is not named as a header, BundleError for an artefact that the bundle has not
        (then nothing is written)
    """
    if output.suffix != ".h":
        raise ConfigError(f"got {output}, want the name of a header, which ends in .h: choose another")
    kinds = list(dict.fromkeys(kinds or (FRONT_END, bundle.default_artefact)))
    arrays: list[CArray] = []
    constants: dict[str, str] = {}
    for kind in kinds:
        if kind == FRONT_END:
            arrays += front_end_arrays(bundle.config.features)
            constants = front_end_constants(bundle.config.features)
        else:
            arrays += model_arrays(bundle, kind)
    text = c_header(output.stem, arrays, constants, f"model {bundle.name}, {bundle.licence}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="ascii", errors="backslashreplace")
    return CArrays(output, arrays)


def c_header(stem: str, arrays: Sequence[CArray], constants: dict[str, str], about: str) -> str:
    """The text of a header for C99, C11 and C++."""
    guard = f"{identifier(stem).upper()}_H"
    align = f"{identifier(stem).upper()}_ALIGN"
    lines = [
        f"/* Written by `edgeasr export --target c-array`: {_comment(about)}.",
        "   Include it in one source file: every file that includes it has the arrays. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <stdint.h>",
        "",
        "#if defined(__cplusplus)",
        f"#define {align} alignas({ALIGNMENT_BYTES})",
        "#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L",
        f"#define {align} _Alignas({ALIGNMENT_BYTES})",
        "#else",
        f"#define {align} __attribute__((aligned({ALIGNMENT_BYTES})))",
        "#endif",
        "",
        *(f"#define {name} {value}" for name, value in constants.items()),
    ]
    for array in arrays:
        lines += ["", *_definition(array, align)]
    return "\n".join([*lines, "", "#endif", ""])


def identifier(*parts: str) -> str:
    """A C identifier from names such as those of bundles and artefacts."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(parts)).strip("_").lower()
    return text if text[:1].isalpha() else f"edgeasr_{text}"


def _table(name: str, kind: str, values: Sequence[int], note: str) -> CArray:
    """A table of the front end. kind: numpy's name of the type"""
    content = np.array(values, kind).tobytes()
    return CArray(f"edgeasr_front_end_{name}", _C_TYPES[kind], [str(value) for value in values], content, note)


def _bytes_as_text(content: bytes) -> list[str]:
    texts = [str(value) for value in range(256)]
    return [texts[value] for value in content]


def _definition(array: CArray, align: str) -> Iterable[str]:
    macro = array.name.upper()
    yield f"/* {_comment(array.note)} */"
    yield f"#define {macro}_SIZE {len(array.content)}u /* bytes */"
    yield f'#define {macro}_SHA256 "{array.sha256}"'
    yield f"{align} static const {array.c_type} {array.name}[{len(array.values)}] = {{"
    yield from _wrapped(array.values)
    yield "};"


def _comment(text: str) -> str:
    """Text that cannot end the comment that it is in, nor its line."""
    return " ".join(text.split()).replace("*/", "* /").replace("/*", "/ *").replace("\\", "/")


def _wrapped(values: Sequence[str]) -> Iterable[str]:
    line: list[str] = []
    width = 4
    for value in values:
        if width + len(value) + 1 > _WIDTH:
            yield "    " + ",".join(line) + ","
            line, width = [], 4
        line.append(value)
        width += len(value) + 1
    yield "    " + ",".join(line)
