"""What is known of an artefact before it is handed on: how close it is to torch, words, size, time, fit to a board."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeasr.bundle import Bundle
from edgeasr.converters.artefacts import ArtefactKind
from edgeasr.converters.board_fit import BoardFit, board_fit
from edgeasr.converters.check import Parity, Reference, median_step_ms, parity
from edgeasr.converters.sample import Sample
from edgeasr.converters.weight_share import fp32_share
from edgeasr.devices.profile import DeviceProfile
from edgeasr.errors import BundleError
from edgeasr.evaluation import evaluate
from edgeasr.manifest import Utterance
from edgeasr.model import AcousticModel
from edgeasr.recognizer import Recognizer

Report = Callable[[str], None]


@dataclass(frozen=True)
class ArtefactReport:
    """One artefact.

    size_bytes: of its files
    fp32_share: of the bytes of constants, not quantised; None where the format is not read
    parities:   one for each length of chunks
    step_ms:    median time of a chunk here, with one thread, by the length of the chunk in ms
    wer:        word error rate on the sample, greedy; None without its words
    fit:        on the board that was named
    """

    artefact: str
    size_bytes: int
    fp32_share: float | None
    parities: Sequence[Parity]
    step_ms: Mapping[int, float]
    wer: float | None = None
    fit: BoardFit | None = None


@dataclass(frozen=True)
class Trial:
    """How artefacts of a bundle are tried.

    draft:    the bundle, with those of other formats that some are compared with
    expected: what torch makes of the sample, by the length of chunks in ms; the bundle's own is first
    device:   a board to predict for
    force:    try an artefact to the end although it does not match torch
    """

    draft: Bundle
    sample: Sample
    expected: Mapping[int, Reference]
    device: DeviceProfile | None
    force: bool
    report: Report

    def of(self, kind: ArtefactKind) -> ArtefactReport:
        """Everything about one artefact. errors: BundleError where it does not match torch or does not run"""
        self.report(f"comparing {kind.name} with torch on {self.sample.name}")
        model = AcousticModel(self.draft, backend=kind.name)
        parities, step_ms = [], {}
        for chunk_ms, expected in self.expected.items():
            variant = model.variant(threads=1, chunk_ms=chunk_ms)
            parities.append(parity(expected, variant))
            if not self.force:
                parities[-1].enforce()
            step_ms[chunk_ms] = median_step_ms(variant, expected.features)
        names = set(self.draft.artefacts[kind.name].values())
        return ArtefactReport(
            artefact=kind.name,
            size_bytes=sum(self.draft.files[name].size_bytes for name in names),
            fp32_share=fp32_share([self.draft.content(name) for name in sorted(names)], kind.suffix),
            parities=parities,
            step_ms=step_ms,
            wer=self.wer(kind.name),
            fit=self._fit(kind),
        )

    def wer(self, artefact: str) -> float | None:
        """Of greedy decoding on the sample; None without words, NaN where `force` wants what gives no numbers."""
        if not self.sample.utterances:
            return None
        self.report(f"hearing {self.sample.name} with {artefact}")
        try:
            return greedy_wer(self.draft, artefact, self.sample.utterances)
        except BundleError:
            if self.force:
                return math.nan
            raise

    def _fit(self, kind: ArtefactKind) -> BoardFit | None:
        if self.device is None:
            return None
        self.report(f"trying {kind.name} for {self.device.title}")
        features = next(iter(self.expected.values())).features
        return board_fit(self.draft, kind, self.device, self.sample.recordings[0], features)


def greedy_wer(bundle: Bundle, artefact: str, utterances: Sequence[Utterance]) -> float:
    """Word error rate over utterances, each a stream of its own. errors: AudioFormatError, ManifestError"""
    return evaluate(Recognizer(bundle, backend=artefact, decoder="greedy"), utterances).words.rate
