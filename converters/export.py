"""A checkpoint to a bundle: export, fuse, quantise, compare with torch, write."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from edgeasr.bundle import ARCHIVE_SUFFIX, Bundle, write_bundle
from edgeasr.bundle_manifest import plain_name
from edgeasr.converters.artefacts import ArtefactKind, ExportOptions, known_kinds
from edgeasr.converters.board_fit import BoardFit, differences
from edgeasr.converters.calibration import Feed, calibrated
from edgeasr.converters.check import Parity, speech_features, torch_reference
from edgeasr.converters.engine_script import engine_scripts
from edgeasr.converters.export_report import ArtefactReport, Report, Trial
from edgeasr.converters.raw_graph import RawGraph
from edgeasr.converters.sample import Sample
from edgeasr.converters.signature import graph_signature, graphs, in_chunks
from edgeasr.devices.profile import DeviceProfile
from edgeasr.errors import BundleError
from edgeasr.train.checkpoint import Checkpoint

ARTEFACTS = ("onnx-int8", "onnx-fp32")  # what is made where nothing else is asked for
EXACT, TORCH = "onnx-fp32", "torch-fp32"  # what calibration listens with, and what words are compared with
WEIGHTS_LICENCE = "CC-BY-4.0"
DEMO_RECORDING = Path(str(resources.files("edgeasr"))) / "models" / "demo.flac"


@dataclass(frozen=True)
class Export:
    """What `export` made.

    sample:    what it was tried on
    torch_wer: the word error rate of torch itself on the sample; None without its words
    notes:     where it is not what the board's profile recommends
    """

    bundle: Bundle
    artefacts: Sequence[ArtefactReport]
    sample: Sample
    speech_s: float
    torch_wer: float | None = None
    notes: Sequence[str] = ()

    @property
    def parities(self) -> list[Parity]:
        """Of all artefacts, in all lengths of chunks."""
        return [one for artefact in self.artefacts for one in artefact.parities]

    @property
    def fits(self) -> list[BoardFit]:
        """Of all artefacts, where a board was named."""
        return [artefact.fit for artefact in self.artefacts if artefact.fit is not None]

    def size_bytes(self, artefact: str) -> int:
        """Of the files of one artefact."""
        return next(one.size_bytes for one in self.artefacts if one.artefact == artefact)


def export(  # noqa: PLR0913 - each a choice of its own
    checkpoint: Checkpoint,
    output: Path,
    artefacts: Sequence[str] = ARTEFACTS,
    speech: Path | Sample = DEMO_RECORDING,
    report: Report = lambda _: None,
    chunk_lengths_ms: Sequence[int] = (),
    device: DeviceProfile | None = None,
    *,
    force: bool = False,
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
) -> Export:
    """Write a bundle with these artefacts; the first is the default one.

    speech:    a recording, or more with their words, on which every artefact is compared with torch
    report:    hears what is being done
    chunk_lengths_ms: of more step graphs, to run in longer or shorter chunks; each has all weights
    device:    a board for which artefacts are tried here and predicted there
    force:     write the bundle although it differs from torch or does not fit the board
    options:   what some kinds need to know
    raises: ConfigError for an unknown artefact or a length that chunks cannot have, BundleError where an artefact
        does not match torch, does not fit the board, or the output is no place for a bundle (then nothing is written)
    """
    kinds = known_kinds(artefacts)
    sample = speech if isinstance(speech, Sample) else Sample(speech.name, (speech,))
    output = output.resolve()
    if checkpoint.beside is not None and checkpoint.beside.resolve() == output:
        raise BundleError(
            f"the checkpoint takes its matrices from the bundle {output}, which would be replaced: name another output"
        )
    name = _bundle_name(output)
    if not force and (added := _added(output)):
        raise BundleError(
            f"{output} has a {added}, which would be gone: name another output, or say --force and add it again"
        )
    encoder = checkpoint.encoder()
    lengths = list(dict.fromkeys([encoder.config.chunk_ms, *chunk_lengths_ms]))
    encoders = [in_chunks(encoder, length) for length in lengths]
    report(f"hearing {sample.name} with torch")
    expected = {one.config.chunk_ms: torch_reference(one, speech_features(sample.recordings, one)) for one in encoders}
    making = _Making(checkpoint, name, [RawGraph(graph) for graph in graphs(encoder, lengths[1:])], options, report)
    with tempfile.TemporaryDirectory() as folder:
        # Tried as it will be loaded, before anything is put at `output`.
        draft = making.write(Path(folder, output.name), [*kinds, *_beside(kinds, sample, device)])
        trial = Trial(draft, sample, expected, device, force, report)
        found = [trial.of(kind) for kind in kinds]
        torch_wer = trial.wer(TORCH)
    fits = [one.fit for one in found if one.fit is not None]
    if not force:
        for fit in fits:
            fit.enforce()
    speech_s = len(expected[lengths[0]].features) * encoder.config.features.hop_s
    notes = differences(encoder.config, kinds, device) if device else ()
    return Export(making.write(output, kinds), found, sample, speech_s, torch_wer, notes)


def _added(path: Path) -> str:
    """What was put into the bundle that is there; what cannot be loaded has nothing to lose."""
    if not path.exists():
        return ""
    with suppress(BundleError):
        bundle = Bundle.load(path)
        found = {"language model": bundle.language_model, "transducer": bundle.transducer}
        return " and a ".join(name for name, entry in found.items() if entry is not None)
    return ""


def _beside(kinds: Sequence[ArtefactKind], sample: Sample, device: DeviceProfile | None) -> list[ArtefactKind]:
    """What is made only to compare with: torch where words are heard, ONNX where operators are counted."""
    names = [TORCH] if sample.utterances else []
    names += [kind.counted_as for kind in kinds] if device else []
    return known_kinds(missing) if (missing := [name for name in names if name not in {k.name for k in kinds}]) else []


@dataclass
class _Making:
    """A checkpoint on its way into bundles; what was made for one is not made again for the next."""

    checkpoint: Checkpoint
    name: str
    raw: Sequence[RawGraph]
    options: ExportOptions
    report: Report
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, path: Path, kinds: Sequence[ArtefactKind]) -> Bundle:
        """A bundle with these artefacts. errors: as of `export`"""
        unmade = [kind for kind in kinds if any(kind.file_name(one.name) not in self.files for one in self.raw)]
        feeds = calibrated(unmade, self.options, lambda draft: self.write(draft, known_kinds([EXACT])), EXACT)
        for graph in self.raw:
            self._make(graph, unmade, feeds)
        parts = {kind.name: {graph.name: kind.file_name(graph.name) for graph in self.raw} for kind in kinds}
        names = {name for files in parts.values() for name in files.values()}
        manifest = {"name": self.name, **_manifest(self.checkpoint, self.raw, parts)}
        contents = {name: self.files[name] for name in sorted(names)}
        return write_bundle(path, manifest, contents | engine_scripts(self.options.tensorrt, parts, contents))

    def _make(self, graph: RawGraph, kinds: Sequence[ArtefactKind], feeds: Mapping[str, Sequence[Feed]]) -> None:
        missing = [kind for kind in kinds if kind.file_name(graph.name) not in self.files]
        if missing:
            self.report(f"exporting the {graph.name} graph")
        for _, together in groupby(sorted(missing, key=_module), key=_module):
            named = {kind.name: kind for kind in together}
            forms = next(iter(named.values())).load_maker()
            for kind, content in forms(graph, list(named), self.options, feeds.get(graph.name, ())):
                self.files[named[kind].file_name(graph.name)] = content


def _bundle_name(output: Path) -> str:
    """The name of the bundle, from that of its folder or file."""
    if output.exists() and not (output.is_dir() or output.suffix == ARCHIVE_SUFFIX):
        raise BundleError(f"got {output}, a file, wanted a folder or a name in {ARCHIVE_SUFFIX}: choose another path")
    return plain_name("the bundle's name", output.name.removesuffix(ARCHIVE_SUFFIX))


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
