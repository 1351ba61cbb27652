"""A checkpoint to a bundle: export, fuse, quantise, compare with torch, write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from edgeasr.bundle import ARCHIVE_SUFFIX, Bundle, write_bundle
from edgeasr.bundle_manifest import plain_name
from edgeasr.converters.artefacts import ArtefactKind, ExportOptions, known_kinds
from edgeasr.converters.board_fit import BoardFit, board_fit
from edgeasr.converters.calibration import Feed, calibrated
from edgeasr.converters.check import Parity, parity, recording_features
from edgeasr.converters.raw_graph import RawGraph
from edgeasr.converters.signature import graph_signature, graphs, in_chunks
from edgeasr.devices.profile import DeviceProfile
from edgeasr.errors import BundleError
from edgeasr.model import AcousticModel
from edgeasr.train.checkpoint import Checkpoint

ARTEFACTS = ("onnx-int8", "onnx-fp32")  # what is made where nothing else is asked for
WEIGHTS_LICENCE = "CC-BY-4.0"
DEMO_RECORDING = Path(str(resources.files("edgeasr"))) / "models" / "demo.flac"

Report = Callable[[str], None]


@dataclass(frozen=True)
class Export:
    """What `export` made, and how it fits the board that was named."""

    bundle: Bundle
    parities: Sequence[Parity]
    fits: Sequence[BoardFit] = ()

    def size_bytes(self, artefact: str) -> int:
        """Of the files of one artefact."""
        return sum(self.bundle.files[name].size_bytes for name in set(self.bundle.artefacts[artefact].values()))


def export(  # noqa: PLR0913 - each a choice of its own
    checkpoint: Checkpoint,
    output: Path,
    artefacts: Sequence[str] = ARTEFACTS,
    recording: Path = DEMO_RECORDING,
    report: Report = lambda _: None,
    chunk_lengths_ms: Sequence[int] = (),
    device: DeviceProfile | None = None,
    *,
    force: bool = False,
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
) -> Export:
    """Write a bundle with these artefacts; the first is the default one.

    recording: speech on which every artefact is compared with torch, chunk by chunk
    report:    hears what is being done
    chunk_lengths_ms: of more step graphs, to run in longer or shorter chunks; each has all weights
    device:    a board for which artefacts in ONNX are tried here and predicted there
    force:     write the bundle although it differs from torch or does not fit the board
    options:   what some kinds need to know
    raises: ConfigError for an unknown artefact or a length that chunks cannot have, BundleError where an artefact
        does not match torch, does not fit the board, or the output is no place for a bundle (then nothing is written)
    """
    kinds = known_kinds(artefacts)
    output = output.resolve()
    name = _bundle_name(output)
    encoder = checkpoint.encoder()
    lengths = list(dict.fromkeys([encoder.config.chunk_ms, *chunk_lengths_ms]))
    encoders = [in_chunks(encoder, length) for length in lengths]
    raw = [RawGraph(graph) for graph in graphs(encoder, lengths[1:])]
    features = [recording_features(recording, one) for one in encoders]

    def in_fp32(path: Path) -> Bundle:
        exact, exact_parts = _serialise(raw, known_kinds(["onnx-fp32"]), report, options, {})
        return write_bundle(path, {"name": name, **_manifest(checkpoint, raw, exact_parts)}, exact)

    feeds = calibrated(kinds, options, in_fp32, "onnx-fp32")
    files, parts = _serialise(raw, kinds, report, options, feeds)
    manifest = {"name": name, **_manifest(checkpoint, raw, parts)}
    with tempfile.TemporaryDirectory() as folder:
        # Compared as it will be loaded, before anything is put at `output`.
        draft = write_bundle(Path(folder, output.name), manifest, files)
        parities = []
        for kind in kinds:
            report(f"comparing {kind.name} with torch on {recording.name}")
            model = AcousticModel(draft, backend=kind.name)
            for one, heard in zip(encoders, features, strict=True):
                parities.append(parity(one, model.variant(threads=1, chunk_ms=one.config.chunk_ms), heard))
        fits = _fits(draft, list(parts), device, recording, report)
    if not force:
        for result in parities:
            result.enforce()
        for fit in fits:
            fit.enforce()
    return Export(write_bundle(output, manifest, files), parities, fits)


def _fits(
    bundle: Bundle, artefacts: Sequence[str], device: DeviceProfile | None, recording: Path, report: Report
) -> list[BoardFit]:
    if device is None:
        return []
    found = []
    for kind in artefacts:
        report(f"trying {kind} for {device.title}")
        found.append(board_fit(bundle, kind, device, recording))
    return [one for one in found if one is not None]


def _bundle_name(output: Path) -> str:
    """The name of the bundle, from that of its folder or file."""
    if output.exists() and not (output.is_dir() or output.suffix == ARCHIVE_SUFFIX):
        raise BundleError(f"got {output}, a file, wanted a folder or a name in {ARCHIVE_SUFFIX}: choose another path")
    return plain_name("the bundle's name", output.name.removesuffix(ARCHIVE_SUFFIX))


def _serialise(
    raw: Sequence[RawGraph],
    kinds: Sequence[ArtefactKind],
    report: Report,
    options: ExportOptions,
    feeds: Mapping[str, Sequence[Feed]],
) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
    """File contents by name, and the files of each artefact by part."""
    files: dict[str, bytes] = {}
    parts: dict[str, dict[str, str]] = {kind.name: {} for kind in kinds}
    of_module = [list(found) for _, found in groupby(sorted(kinds, key=_module), key=_module)]
    for graph in raw:
        report(f"exporting the {graph.name} graph")
        for together in of_module:
            named = {kind.name: kind.file_name(graph.name) for kind in together}
            for kind in together:
                parts[kind.name][graph.name] = named[kind.name]
            missing = [kind for kind, name in named.items() if name not in files]  # one may hold all graphs
            forms = together[0].load_maker()
            for kind, content in forms(graph, missing, options, feeds.get(graph.name, ())) if missing else ():
                files[named[kind]] = content
    return files, parts


def _module(kind: ArtefactKind) -> str:
    return kind.module


def _manifest(checkpoint: Checkpoint, raw: Sequence[RawGraph], parts: dict[str, dict[str, str]]) -> dict[str, Any]:
    training = dict(checkpoint.training)
    wer = training.pop("wer", {})
    return {
        "config": checkpoint.config.to_dict(),
        "tokens": list(checkpoint.tokens),
        "artefacts": parts,
        "default_artefact": next(iter(parts)),
        "signature": {one.name: graph_signature(one.graph) for one in raw},
        "training": {"data": training.pop("sources", []), **training},
        "wer": wer,
        "licence": WEIGHTS_LICENCE,
    }
