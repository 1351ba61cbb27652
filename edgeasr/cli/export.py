"""`edgeasr export`: a bundle for devices from a trained checkpoint, or C arrays for firmware from either."""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.extras import needs_extra
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.bundle import Bundle
    from edgeasr.converters.export import Export
    from edgeasr.converters.to_c_array import CArray


class Target(StrEnum):
    """What `edgeasr export` writes."""

    BUNDLE = "bundle"
    C_ARRAY = "c-array"


def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="What `edgeasr train` wrote; for c-array a bundle serves too.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The folder to write, or a file whose name ends in .edgeasr; for c-array one in .h."
        ),
    ],
    target: Annotated[Target, typer.Option(help="A bundle, or a C header for firmware.")] = Target.BUNDLE,
    artefact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="onnx-int8, onnx-fp32, litert-int8 or litert-fp32, again for more; the first is the default one, both "
            "of ONNX are made without. LiteRT's need edgeasr[litert-export]. For c-array any kind of the "
            "bundle, and front-end for the tables of the features.",
        ),
    ] = None,
    chunk_ms: Annotated[
        list[int] | None,
        typer.Option(
            metavar="MS",
            help="Another length of chunks that the bundle can run in too, 320 say, again for more: a copy of the "
            "weights each. `edgeasr listen` takes longer ones where a budget wants it.",
        ),
    ] = None,
    check_audio: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Speech to compare on instead of the bundled clip.")
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Write the checkpoint once more, into the folder in which the bundle lies: small, for it takes its "
            "matrices from the bundle's onnx-int8. To be kept and handed on together.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a bundle of a checkpoint, and compare what is in it with the original, chunk by chunk.

    Nothing is written where an artefact differs too much. max diff is the largest difference of a probability,
    SNR that of log-probabilities, agreement the share of frames with the same best token. Needs edgeasr[train].

    --target c-array writes the files of a model, and the tables of its front end, as constant arrays of C, with
    their sizes and hashes. From a bundle it needs nothing else.
    """
    if target is Target.C_ARRAY:
        if chunk_ms:
            raise typer.BadParameter("--chunk-ms is for --target bundle")
        if beside:
            raise typer.BadParameter("--checkpoint is for --target bundle")
        _export_c_arrays(checkpoint, output, artefact or (), check_audio, json=json)
        return
    made = _export_bundle(checkpoint, output, artefact, check_audio, chunk_ms or ())
    if beside:
        _write_beside(checkpoint, beside, made.bundle)
    rows = list(_rows(made))
    if json:
        write_out(jsonlib.dumps({"bundle": str(made.bundle.path), "artefacts": rows}, allow_nan=False) + "\n")
    else:
        write_out(_table(rows) + f"Wrote {made.bundle.path}\n")


def _export_bundle(
    checkpoint: Path,
    output: Path,
    artefacts: Sequence[str] | None,
    check_audio: Path | None,
    chunk_lengths_ms: Sequence[int] = (),
) -> Export:
    with needs_extra("train"):
        from edgeasr.converters.export import ARTEFACTS, DEMO_RECORDING
        from edgeasr.converters.export import export as export_checkpoint
        from edgeasr.train.checkpoint import Checkpoint

    if any(kind.startswith("litert-") for kind in artefacts or ()):
        with needs_extra("litert-export"):
            import_module("edgeasr.converters.to_litert")

    loaded = Checkpoint.load(checkpoint)
    with StatusLine(sys.stderr) as status:
        speech = check_audio or DEMO_RECORDING
        return export_checkpoint(loaded, output, artefacts or ARTEFACTS, speech, status.show, chunk_lengths_ms)


def _write_beside(checkpoint: Path, path: Path, bundle: Bundle) -> None:
    from edgeasr.train.checkpoint import Checkpoint

    Checkpoint.load(checkpoint).save(path, bundle=bundle)


def _export_c_arrays(model: Path, output: Path, kinds: Sequence[str], check_audio: Path | None, *, json: bool) -> None:
    from edgeasr.converters.to_c_array import FRONT_END, export_c_arrays

    with ExitStack() as stack:
        if _is_bundle(model):
            if check_audio is not None:
                raise typer.BadParameter("--check-audio is for a CHECKPOINT: a bundle was compared when it was made")
            bundle = _load_bundle(model)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            name = f"{model.resolve().parent.name or model.stem}"
            artefacts = [kind for kind in kinds if kind != FRONT_END]
            bundle = _export_bundle(model, folder / name, artefacts or None, check_audio).bundle
        made = export_c_arrays(bundle, output, kinds)
    if json:
        rows = [{"array": array.name, "bytes": len(array.content), "sha256": array.sha256} for array in made.arrays]
        write_out(jsonlib.dumps({"header": str(made.path), "arrays": rows}) + "\n")
    else:
        write_out(_array_table(made.arrays) + f"Wrote {made.path}\n")


def _is_bundle(path: Path) -> bool:
    from edgeasr.bundle import ARCHIVE_SUFFIX

    return path.is_dir() or path.suffix == ARCHIVE_SUFFIX


def _load_bundle(path: Path) -> Bundle:
    from edgeasr.bundle import Bundle

    return Bundle.load(path)


def _array_table(arrays: Sequence[CArray]) -> str:
    cells = [("array", "bytes", "SHA-256")]
    cells += [(array.name, str(len(array.content)), f"{array.sha256[:12]}…") for array in arrays]
    name, size = (max(len(row[column]) for row in cells) for column in (0, 1))
    return "".join(f"{row[0].ljust(name)}  {row[1].rjust(size)}  {row[2]}\n" for row in cells)


def _rows(made: Export) -> Iterable[dict[str, Any]]:
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


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    cells = [("artefact", "size", "chunks", "of", "max diff", "SNR", "agreement")]
    for row in rows:
        size, length = f"{row['size_mb']:.2f} MB", f"{row['chunk_ms']} ms"
        compared = (f"{row['max_difference']:.1e}", f"{row['snr_db']:.1f} dB", f"{row['agreement']:.2%}")
        cells.append((row["artefact"], size, str(row["chunks"]), length, *compared))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in cells
    )
    return "".join("  ".join(line) + "\n" for line in lines)
