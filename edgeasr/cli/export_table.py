"""What `edgeasr export` prints of what it made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgeasr.cli.columns import columns

if TYPE_CHECKING:
    from edgeasr.bundle import Bundle
    from edgeasr.converters.board_fit import BoardFit
    from edgeasr.converters.export import Export

_HEAD = ("artefact", "size", "in fp32", "chunks", "of", "max diff", "SNR", "agreement", "a chunk")


def parity_rows(made: Export) -> Iterable[dict[str, Any]]:
    """A row an artefact and length of chunks; the word error rate is that of the first length, the model's own."""
    for artefact in made.artefacts:
        for i, parity in enumerate(artefact.parities):
            yield {
                "artefact": parity.artefact,
                "chunk_ms": parity.chunk_ms,
                "size_mb": round(artefact.size_bytes / 1e6, 2),
                "fp32_share": None if artefact.fp32_share is None else round(artefact.fp32_share, 4),
                "chunks": parity.chunks,
                "max_difference": parity.max_difference,
                "snr_db": round(parity.snr_db, 1),
                "agreement": round(parity.agreement, 4),
                "step_ms": round(artefact.step_ms[parity.chunk_ms], 3),
                "wer": None if artefact.wer is None or i else round(artefact.wer, 4),
            }


def speech_row(made: Export) -> dict[str, Any]:
    """What was compared on."""
    return {
        "file": made.sample.name,
        "recordings": len(made.sample.recordings),
        "minutes": round(made.speech_s / 60, 2),
        "torch_wer": None if made.torch_wer is None else round(made.torch_wer, 4),
    }


def speech_line(made: Export) -> str:
    """The same in words; nothing where there are no words in it to compare."""
    if made.torch_wer is None:
        return ""
    heard = f"{len(made.sample.recordings)} utterances of {made.sample.name}, {made.speech_s / 60:.1f} minutes"
    return f"Compared on {heard}; torch's word error rate there is {made.torch_wer:.4f}\n"


def parity_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """A line a row, under a heading."""
    rows = list(rows)
    cells: list[tuple[str, ...]] = [_HEAD]
    for row in rows:
        size, length = f"{row['size_mb']:.2f} MB", f"{row['chunk_ms']} ms"
        share = "-" if row["fp32_share"] is None else f"{row['fp32_share']:.1%}"
        compared = (f"{row['max_difference']:.1e}", f"{row['snr_db']:.1f} dB", f"{row['agreement']:.2%}")
        cells.append((row["artefact"], size, share, str(row["chunks"]), length, *compared, f"{row['step_ms']:.2f} ms"))
    sides = "<>>>>>>>>"
    if any(row["wer"] is not None for row in rows):
        rates = ["WER", *("-" if row["wer"] is None else f"{row['wer']:.4f}" for row in rows)]
        cells = [(*line, rate) for line, rate in zip(cells, rates, strict=True)]
        sides += ">"
    return "".join(f"{line}\n" for line in columns(cells, sides))


def fit_table(fits: Iterable[BoardFit]) -> str:
    """A row an artefact: what it takes here, and what it would take on the board."""
    rows: list[tuple[str, ...]] = []
    for fit in fits:
        said = fit.predicted
        verdict = "fits" if fit.problem is None else "does not fit"
        here = (f"{fit.here_ms:.2f} ms", f"{fit.resident_mb:.0f} MB")
        there = (f"{said.time_ms:.1f} ms", f"{said.real_time_factor:.3f}", f"{said.demand_gb_per_s * 1e3:.0f} MB/s")
        rows.append((fit.artefact, *here, fit.device.name, *there, verdict))
    head = ("artefact", "a step here", "memory here", "predicted on", "a step", "RTF", "from memory", "")
    return "".join(f"{line}\n" for line in columns([head, *rows], "<>><>>><")) if rows else ""


def counted_notes(fits: Iterable[BoardFit]) -> list[str]:
    """What was assumed of artefacts whose own operators cannot be counted."""
    assumed = "the work of a step is taken not to depend on the format"
    return [
        f"{fit.artefact} is predicted with the bytes, multiply-adds and operators of {fit.counted_as}: {assumed}"
        for fit in fits
        if fit.artefact != fit.counted_as
    ]


def engine_notes(bundle: Bundle) -> list[str]:
    """How it goes on where the bundle is for TensorRT, which builds its engines on the device."""
    from edgeasr.backends.engine_cache import BUILD_SCRIPT
    from edgeasr.bundle import ARCHIVE_SUFFIX

    if BUILD_SCRIPT not in bundle.files:
        return []
    name = bundle.path.name
    unpacked = name.removesuffix(ARCHIVE_SUFFIX)
    unpack = f"unzip {name} -d {unpacked} and " if unpacked != name else ""
    return [f"on the Jetson: {unpack}sh {unpacked}/{BUILD_SCRIPT}, then --model {unpacked} --backend tensorrt"]


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null instead, however deep."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
