"""A checkpoint to a bundle: export, fuse, quantise, compare with torch, write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edgeasr.bundle import ARCHIVE_SUFFIX, Bundle, write_bundle
from edgeasr.bundle_manifest import plain_name
from edgeasr.converters.board_fit import BoardFit, board_fit
from edgeasr.converters.check import Parity, parity, recording_features
from edgeasr.converters.fuse import fuse
from edgeasr.converters.quantize import quantize_int8
from edgeasr.converters.signature import Graph, graph_signature, graphs, in_chunks
from edgeasr.converters.tensorrt_artefacts import FOR_TENSORRT_10, TensorrtOptions, calibrated, tensorrt_forms
from edgeasr.converters.tensorrt_artefacts import KINDS as TENSORRT_KINDS
from edgeasr.converters.tensorrt_artefacts import PREFIX as TENSORRT
from edgeasr.converters.tensorrt_calibration import Feed
from edgeasr.converters.to_onnx import to_onnx
from edgeasr.devices.profile import DeviceProfile
from edgeasr.errors import BundleError, ConfigError
from edgeasr.model import AcousticModel
from edgeasr.train.checkpoint import Checkpoint

ARTEFACTS = ("onnx-int8", "onnx-fp32")  # what is made where nothing else is asked for
KNOWN_ARTEFACTS = (*ARTEFACTS, "litert-int8", "litert-fp32", *TENSORRT_KINDS)
WEIGHTS_LICENCE = "CC-BY-4.0"
DEMO_RECORDING = Path(str(resources.files("edgeasr"))) / "models" / "demo.flac"

_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "tensorrt": ".tensorrt.onnx"}

Report = Callable[[str], None]


@dataclass(frozen=True)
class Export:
    """What `export` made, and how it fits the board that was named."""

    bundle: Bundle
    parities: Sequence[Parity]
    fits: Sequence[BoardFit] = ()

    def size_bytes(self, artefact: str) -> int:
        """Of the files of one artefact."""
        return sum(self.bundle.files[name].size_bytes for name in self.bundle.artefacts[artefact].values())


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
    tensorrt: TensorrtOptions = FOR_TENSORRT_10,
) -> Export:
    """Write a bundle with these artefacts; the first is the default one.

    recording: speech on which every artefact is compared with torch, chunk by chunk
    report:    hears what is being done
    chunk_lengths_ms: of more step graphs, to run in longer or shorter chunks; each has all weights
    device:    a board for which artefacts in ONNX are tried here and predicted there
    force:     write the bundle although it differs from torch or does not fit the board
    tensorrt:  what the artefacts for TensorRT are made for
    raises: ConfigError for an unknown artefact or a length that chunks cannot have, BundleError where an artefact
        does not match torch, does not fit the board, or the output is no place for a bundle (then nothing is written)
    """
    unknown = sorted(set(artefacts) - set(KNOWN_ARTEFACTS))
    if unknown or not artefacts:
        raise ConfigError(f"got artefacts {list(artefacts)}, wanted some of {', '.join(KNOWN_ARTEFACTS)}")
    artefacts = list(dict.fromkeys(artefacts))
    output = output.resolve()
    name = _bundle_name(output)
    encoder = checkpoint.encoder()
    lengths = list(dict.fromkeys([encoder.config.chunk_ms, *chunk_lengths_ms]))
    encoders = [in_chunks(encoder, length) for length in lengths]
    made = graphs(encoder, lengths[1:])
    features = [recording_features(recording, one) for one in encoders]

    def in_fp32(path: Path) -> Bundle:
        exact, exact_parts = _serialise(made, ["onnx-fp32"], report, tensorrt, {})
        return write_bundle(path, {"name": name, **_manifest(checkpoint, made, exact_parts)}, exact)

    feeds = calibrated(tensorrt, artefacts, in_fp32, "onnx-fp32")
    files, parts = _serialise(made, artefacts, report, tensorrt, feeds)
    manifest = {"name": name, **_manifest(checkpoint, made, parts)}
    with tempfile.TemporaryDirectory() as folder:
        # Compared as it will be loaded, before anything is put at `output`.
        draft = write_bundle(Path(folder, output.name), manifest, files)
        parities = []
        for kind in artefacts:
            report(f"comparing {kind} with torch on {recording.name}")
            model = AcousticModel(draft, backend=kind)
            for one, heard in zip(encoders, features, strict=True):
                parities.append(parity(one, model.variant(threads=1, chunk_ms=one.config.chunk_ms), heard))
        fits = _fits(draft, artefacts, device, recording, report)
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
    made: Sequence[Graph],
    artefacts: Sequence[str],
    report: Report,
    tensorrt: TensorrtOptions,
    feeds: Mapping[str, Sequence[Feed]],
) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
    """File contents by name, and the files of each artefact by part."""
    files: dict[str, bytes] = {}
    parts: dict[str, dict[str, str]] = {kind: {} for kind in artefacts}
    for graph in made:
        report(f"exporting the {graph.name} graph")
        for kind, content in (*_forms(graph, artefacts), *_for_tensorrt(graph, artefacts, tensorrt, feeds)):
            name = f"{graph.name}.{kind.split('-')[1]}{_SUFFIXES[kind.split('-')[0]]}"
            files[name] = content
            parts[kind][graph.name] = name
    return files, parts


def _forms(graph: Graph, artefacts: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The graph in the form of each artefact; those of one format are made of one export."""
    onnx = fuse(to_onnx(graph)) if any(kind.startswith("onnx-") for kind in artefacts) else b""
    litert = _to_litert(graph) if any(kind.startswith("litert-") for kind in artefacts) else b""
    for kind in artefacts:
        if kind.startswith(TENSORRT):
            continue
        exact, quantize = (onnx, quantize_int8) if kind.startswith("onnx-") else (litert, _quantize_litert)
        yield kind, quantize(exact) if kind.endswith("-int8") else exact


def _for_tensorrt(
    graph: Graph, artefacts: Sequence[str], options: TensorrtOptions, feeds: Mapping[str, Sequence[Feed]]
) -> Iterator[tuple[str, bytes]]:
    kinds = [kind for kind in artefacts if kind.startswith(TENSORRT)]
    return tensorrt_forms(graph, kinds, options.version, feeds) if kinds else iter(())


def _to_litert(graph: Graph) -> bytes:
    from edgeasr.converters.to_litert import to_litert

    return to_litert(graph)


def _quantize_litert(model: bytes) -> bytes:
    from edgeasr.converters.to_litert import quantize_litert

    return quantize_litert(model)


def _manifest(checkpoint: Checkpoint, made: Sequence[Graph], parts: dict[str, dict[str, str]]) -> dict[str, Any]:
    training = dict(checkpoint.training)
    wer = training.pop("wer", {})
    return {
        "config": checkpoint.config.to_dict(),
        "tokens": list(checkpoint.tokens),
        "artefacts": parts,
        "default_artefact": next(iter(parts)),
        "signature": {graph.name: graph_signature(graph) for graph in made},
        "training": {"data": training.pop("sources", []), **training},
        "wer": wer,
        "licence": WEIGHTS_LICENCE,
    }
