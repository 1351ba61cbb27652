"""`edgeasr export`: a bundle for devices from a trained checkpoint, or C arrays for firmware from either."""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.export_table import (
    counted_notes,
    engine_notes,
    finite,
    fit_table,
    parity_rows,
    parity_table,
    speech_line,
    speech_row,
)
from edgeasr.cli.extras import needs_extra
from edgeasr.cli.terminal import StatusLine, print_note, write_out
from edgeasr.converters.artefacts import KINDS, TARGETS, ExportOptions, known_kinds, recommended_artefact

if TYPE_CHECKING:
    from edgeasr.bundle import Bundle
    from edgeasr.converters.export import Export
    from edgeasr.converters.sample import Sample
    from edgeasr.converters.to_c_array import CArray
    from edgeasr.devices.profile import DeviceProfile


BUNDLE, C_ARRAY = "bundle", "c-array"  # the targets that are no artefact


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
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{BUNDLE}, {C_ARRAY} for a header for firmware, or a bundle for {', '.join(TARGETS)} alone.",
        ),
    ] = BUNDLE,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A board, as `edgeasr devices list` has it: what its profile recommends is made, tried here and "
            "predicted there, and refused where it would not fit.",
        ),
    ] = None,
    tensorrt: Annotated[
        str | None,
        typer.Option(
            metavar="10|8.2", help="The release that artefacts for TensorRT are for: 10 unless set, 8.2 is JetPack 4's."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="MANIFEST", help="Speech, some minutes of it, that sets the scales of static int8."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write it although it differs from the original or does not fit.")
    ] = False,
    artefact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help=f"One of {', '.join(KINDS)}; again for more. The first is the default one; both of ONNX are made "
            "without. For c-array any kind of the bundle, and front-end for the tables of the features.",
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
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            "--check-audio",
            metavar="FILE",
            help="What to compare on, not the bundled clip: a recording, or a manifest, whose words are heard too.",
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Utterances of that manifest, evenly spread; 20 unless set.")
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

    Nothing is written where an artefact differs too much. "in fp32" is the share of its bytes that was not
    quantised, max diff the largest difference of a probability, SNR that of log-probabilities, agreement the share of
    frames with the same best token, "a chunk" the median time here with one thread, WER that of greedy decoding.
    Needs edgeasr[train].

    --target c-array writes the files of a model, and the tables of its front end, as constant arrays of C, with
    their sizes and hashes. From a bundle it needs nothing else.
    """
    if target == C_ARRAY:
        _refuse_what_bundles_take(chunk_ms, beside, device, force=force)
        _export_c_arrays(checkpoint, output, artefact or (), _speech(check, sample), json=json)
        return
    board = _board(device)
    kinds = _kinds(target, artefact, calibration, board)
    if beside and kinds and "onnx-int8" not in kinds:
        raise typer.BadParameter("--checkpoint is for bundles with the artefact onnx-int8")
    lengths = [*([board.recommended.chunk_ms] if board else []), *(chunk_ms or ())]
    options = ExportOptions(_release(tensorrt, kinds), _recordings(calibration))
    speech = _speech(check, sample)
    made = _export_bundle(checkpoint, output, kinds, speech, lengths, board, force=force, options=options)
    if beside:
        _write_beside(checkpoint, beside, made.bundle)
    _print_bundle(made, board, json=json)


def _refuse_what_bundles_take(
    chunk_ms: list[int] | None, beside: Path | None, device: str | None, *, force: bool
) -> None:
    """For C arrays. errors: a usage error"""
    if chunk_ms:
        raise typer.BadParameter("--chunk-ms is for --target bundle")
    if beside:
        raise typer.BadParameter("--checkpoint is for --target bundle")
    if device or force:
        raise typer.BadParameter("--device and --force are for bundles")


def _print_bundle(made: Export, board: DeviceProfile | None, *, json: bool) -> None:
    rows = list(parity_rows(made))
    if json:
        found: dict[str, Any] = {"bundle": str(made.bundle.path), "speech": speech_row(made), "artefacts": rows}
        fits = [{"artefact": fit.artefact} | fit.to_dict() for fit in made.fits]
        found |= {"boards": fits, "notes": list(made.notes)} if board else {}
        write_out(jsonlib.dumps(finite(found), allow_nan=False) + "\n")
        return
    for note in (*made.notes, *counted_notes(made.fits), *engine_notes(made.bundle)):
        print_note(note)
    write_out(speech_line(made) + parity_table(rows) + fit_table(made.fits) + f"Wrote {made.bundle.path}\n")


def _kinds(
    target: str, artefact: list[str] | None, calibration: Path | None, board: DeviceProfile | None
) -> list[str] | None:
    """The artefacts that are wanted; None for the usual ones. errors: ConfigError for unknown ones"""
    if target not in (BUNDLE, *TARGETS):
        raise typer.BadParameter(f"got --target {target}, wanted one of {', '.join((BUNDLE, C_ARRAY, *TARGETS))}")
    if target != BUNDLE and artefact:
        raise typer.BadParameter(f"got --target {target} and --artefact, wanted one of both")
    names = [TARGETS[target]] if target != BUNDLE else artefact
    chosen = known_kinds(names) if names else []
    if calibration and not any(kind.calibrated for kind in chosen):
        calibrated = " and ".join(kind.name for kind in KINDS.values() if kind.calibrated)
        raise typer.BadParameter(f"--calibration is for --artefact {calibrated}")
    return names or ([recommended_artefact(board)] if board else None)


def _release(tensorrt: str | None, kinds: Sequence[str] | None) -> str:
    """Of TensorRT."""
    if tensorrt is None:
        return ExportOptions().tensorrt
    if not any(kind.startswith("tensorrt-") for kind in kinds or ()):
        raise typer.BadParameter("--tensorrt is for --target tensorrt and artefacts that begin with tensorrt-")
    return tensorrt


def _speech(check: Path | None, count: int | None) -> Sample | None:
    """None for the bundled clip. errors: ManifestError"""
    from edgeasr.converters.sample import UTTERANCES, Sample

    found = Sample.of(check, count or UTTERANCES) if check else None
    if count and not (found and found.utterances):
        raise typer.BadParameter("--sample is for --check MANIFEST")
    return found


def _recordings(calibration: Path | None) -> list[Path]:
    """errors: ManifestError"""
    if calibration is None:
        return []
    from edgeasr.manifest import read_manifest

    return [one.path for one in read_manifest(calibration)]


def _board(name: str | None) -> DeviceProfile | None:
    """errors: ConfigError that lists the known ones"""
    from edgeasr.devices.profile import device_profile

    return device_profile(name) if name is not None else None


def _export_bundle(
    checkpoint: Path,
    output: Path,
    artefacts: Sequence[str] | None,
    speech: Sample | None,
    chunk_lengths_ms: Sequence[int] = (),
    device: DeviceProfile | None = None,
    *,
    force: bool = False,
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
) -> Export:
    with needs_extra("train"):
        from edgeasr.converters.export import ARTEFACTS, DEMO_RECORDING
        from edgeasr.converters.export import export as export_checkpoint
        from edgeasr.train.checkpoint import Checkpoint

    for kind in known_kinds(artefacts or ARTEFACTS):
        with needs_extra(kind.extra):
            kind.load_maker()
    loaded = Checkpoint.load(checkpoint)
    with StatusLine(sys.stderr) as status:
        return export_checkpoint(
            loaded,
            output,
            artefacts or ARTEFACTS,
            speech or DEMO_RECORDING,
            status.show,
            chunk_lengths_ms,
            device,
            force=force,
            options=options,
        )


def _write_beside(checkpoint: Path, path: Path, bundle: Bundle) -> None:
    from edgeasr.train.checkpoint import Checkpoint

    Checkpoint.load(checkpoint).save(path, bundle=bundle)


def _export_c_arrays(model: Path, output: Path, kinds: Sequence[str], speech: Sample | None, *, json: bool) -> None:
    from edgeasr.converters.to_c_array import FRONT_END, export_c_arrays

    with ExitStack() as stack:
        if _is_bundle(model):
            if speech is not None:
                raise typer.BadParameter("--check is for a CHECKPOINT: a bundle was compared when it was made")
            bundle = _load_bundle(model)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            name = f"{model.resolve().parent.name or model.stem}"
            artefacts = [kind for kind in kinds if kind != FRONT_END]
            bundle = _export_bundle(model, folder / name, artefacts or None, speech).bundle
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
