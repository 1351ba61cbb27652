"""What `edgeasr export` prints of what it made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from edgeasr.cli.columns import columns

if TYPE_CHECKING:
    from edgeasr.converters.board_fit import BoardFit
    from edgeasr.converters.export import Export


def parity_rows(made: Export) -> Iterable[dict[str, Any]]:
    """A row an artefact."""
    for parity in made.parities:
        yield {
            "artefact": parity.artefact,
            "chunk_ms": parity.chunk_ms,
            "size_mb": round(made.size_bytes(parity.artefact) / 1e6, 2),
            "chunks": parity.chunks,
            "max_difference": parity.max_difference,
            "snr_db": round(parity.snr_db, 1),
            "agreement": round(parity.agreement, 4),
        }


def parity_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """A line a row, under a heading."""
    cells = [("artefact", "size", "chunks", "of", "max diff", "SNR", "agreement")]
    for row in rows:
        size, length = f"{row['size_mb']:.2f} MB", f"{row['chunk_ms']} ms"
        compared = (f"{row['max_difference']:.1e}", f"{row['snr_db']:.1f} dB", f"{row['agreement']:.2%}")
        cells.append((row["artefact"], size, str(row["chunks"]), length, *compared))
    return "".join(f"{line}\n" for line in columns(cells, "<>>>>>>"))


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
