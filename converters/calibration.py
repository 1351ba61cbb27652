"""What the graphs of a model are given on real speech, for the scales of static int8."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeasr.backends import Array, Graph
from edgeasr.bundle import Bundle
from edgeasr.bundle_manifest import TensorSpec
from edgeasr.converters.artefacts import ArtefactKind, ExportOptions
from edgeasr.errors import BundleError, ConfigError
from edgeasr.features import LogMel
from edgeasr.model import AcousticModel
from edgeasr.recording import read_recording

Feed = dict[str, Array]

_EVERY = 7  # steps are alike; a prime number, so that no position within a segment is preferred
_MAX_FEEDS = 256  # of each graph: a step is given more than a megabyte


def calibrated(
    kinds: Sequence[ArtefactKind], options: ExportOptions, write_draft: Callable[[Path], Bundle], artefact: str
) -> Mapping[str, Sequence[Feed]]:
    """Inputs of each part on the recordings; none where no kind needs them.

    write_draft: writes a bundle with the artefact in fp32, at this path
    errors:      ConfigError without recordings, AudioFormatError, BundleError where they are too short
    """
    needing = [kind.name for kind in kinds if kind.calibrated]
    if not needing:
        return {}
    if not options.calibration:
        raise ConfigError(f"got {needing[0]} without speech to set its scales on: name a --calibration MANIFEST")
    with tempfile.TemporaryDirectory() as folder:
        return calibration_feeds(write_draft(Path(folder, "calibration")), artefact, options.calibration)


def calibration_feeds(bundle: Bundle, kind: str, recordings: Iterable[Path]) -> dict[str, list[Feed]]:
    """Inputs of each part, as they occur when these recordings are heard one after the other.

    kind:    an artefact in fp32
    returns: part -> some of its inputs, in order; all those of the memory, every seventh of the step
    errors:  AudioFormatError for what is no recording, BundleError where nothing was heard
    """
    model = _Listening(bundle, kind)
    state = model.init_state()
    for path in recordings:
        for features in _chunks(path, model):
            _, state = model.step(features, state)
        if model.is_satisfied:
            break
    feeds = {part: graph.feeds for part, graph in model.heard.items()}
    if missing := [part for part, found in feeds.items() if not found]:
        raise BundleError(
            f"the recordings are too short to calibrate the {missing[0]} graph on: name a manifest of some minutes"
        )
    return feeds


def _chunks(path: Path, model: AcousticModel) -> Iterator[NDArray[np.float32]]:
    config = model.config
    features = LogMel(config.features).accept_waveform(read_recording(path, config.features.sample_rate_hz))
    size = config.encoder.chunk_features
    for start in range(0, len(features) - size + 1, size):
        yield features[start : start + size]


class _Listening(AcousticModel):
    """A model that keeps some of what its graphs are given."""

    def __init__(self, bundle: Bundle, kind: str) -> None:
        self.heard: dict[str, _Heard] = {}
        super().__init__(bundle, backend=kind)

    @property
    def is_satisfied(self) -> bool:
        return all(len(graph.feeds) >= _MAX_FEEDS for graph in self.heard.values())

    def _load(self, part: str) -> Graph:
        graph = self.heard[part] = _Heard(super()._load(part), every=_EVERY if part.startswith("step") else 1)
        return graph


class _Heard:
    """A graph that keeps every n-th of its inputs, up to so many."""

    def __init__(self, graph: Graph, every: int) -> None:
        self._graph, self._every, self._runs = graph, every, 0
        self.feeds: list[Feed] = []

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._graph.inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._graph.outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self._runs % self._every == 0 and len(self.feeds) < _MAX_FEEDS:
            self.feeds.append({name: inputs[name].copy() for name in self._graph.inputs})
        self._runs += 1
        return self._graph.run(inputs)
