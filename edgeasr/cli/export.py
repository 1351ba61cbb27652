"""`edgeasr export`: a bundle for devices from a trained checkpoint."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.extras import needs_extra
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.converters.export import Export


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="What `edgeasr train` wrote.")],
    output: Annotated[
        Path, typer.Option(metavar="BUNDLE", help="The folder to write, or a file whose name ends in .edgeasr.")
    ],
    artefact: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="onnx-int8 or onnx-fp32, again for more; the first is the default one."),
    ] = None,
    check_audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Speech to compare on instead of the bundled clip.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a bundle of a checkpoint, and compare what is in it with the original, chunk by chunk.

    Nothing is written where an artefact differs too much. max diff is the largest difference of a probability,
    SNR that of log-probabilities, agreement the share of frames with the same best token. Needs edgeasr[train].
    """
    with needs_extra("train"):
        from edgeasr.converters.export import ARTEFACTS, DEMO_RECORDING
        from edgeasr.converters.export import export as export_checkpoint
        from edgeasr.train.checkpoint import Checkpoint

    loaded = Checkpoint.load(checkpoint)
    with StatusLine(sys.stderr) as status:
        made = export_checkpoint(loaded, output, artefact or ARTEFACTS, check_audio or DEMO_RECORDING, status.show)
    rows = list(_rows(made))
    if json:
        write_out(jsonlib.dumps({"bundle": str(made.bundle.path), "artefacts": rows}, allow_nan=False) + "\n")
    else:
        write_out(_table(rows) + f"Wrote {made.bundle.path}\n")


def _rows(made: Export) -> Iterable[dict[str, Any]]:
    """A row an artefact."""
    for parity in made.parities:
        yield {
            "artefact": parity.artefact,
            "size_mb": round(made.size_bytes(parity.artefact) / 1e6, 2),
            "chunks": parity.chunks,
            "max_difference": parity.max_difference,
            "snr_db": round(parity.snr_db, 1),
            "agreement": round(parity.agreement, 4),
        }


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    cells = [("artefact", "size", "chunks", "max diff", "SNR", "agreement")]
    for row in rows:
        size, difference = f"{row['size_mb']:.2f} MB", f"{row['max_difference']:.1e}"
        agreement = f"{row['agreement']:.2%}"
        cells.append((row["artefact"], size, str(row["chunks"]), difference, f"{row['snr_db']:.1f} dB", agreement))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in cells
    )
    return "".join("  ".join(line) + "\n" for line in lines)
