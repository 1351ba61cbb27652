"""The artefacts of a bundle that TensorRT builds its engines from: ONNX files, which ONNX Runtime runs too."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeasr.bundle import Bundle
from edgeasr.converters.signature import Graph
from edgeasr.converters.tensorrt_calibration import Feed, calibration_feeds
from edgeasr.converters.tensorrt_support import require_supported
from edgeasr.converters.to_tensorrt import to_fp16, to_qdq_int8, to_tensorrt
from edgeasr.errors import ConfigError

PREFIX = "tensorrt-"
KINDS = ("tensorrt-fp16", "tensorrt-fp32", "tensorrt-int8")
NEEDS_CALIBRATION = "tensorrt-int8"


@dataclass(frozen=True)
class TensorrtOptions:
    """version: "10" for JetPack 6 and 7, "8.2" for JetPack 4.6. calibration: recordings that set the scales of int8"""

    version: str = "10"
    calibration: Sequence[Path] = ()


FOR_TENSORRT_10 = TensorrtOptions()


def calibrated(
    options: TensorrtOptions, kinds: Sequence[str], write_draft: Callable[[Path], Bundle], artefact: str
) -> Mapping[str, Sequence[Feed]]:
    """Inputs of each part on the recordings; none where no artefact needs them.

    write_draft: writes a bundle with the artefact in fp32, at this path
    errors:      ConfigError without recordings, AudioFormatError, BundleError where they are too short
    """
    if NEEDS_CALIBRATION not in kinds:
        return {}
    if not options.calibration:
        raise ConfigError(f"got {NEEDS_CALIBRATION} without speech to set its scales on: name a --calibration MANIFEST")
    with tempfile.TemporaryDirectory() as folder:
        return calibration_feeds(write_draft(Path(folder, "calibration")), artefact, options.calibration)


def tensorrt_forms(
    graph: Graph, kinds: Sequence[str], version: str, feeds: Mapping[str, Sequence[Feed]]
) -> Iterator[tuple[str, bytes]]:
    """The graph in each of these artefacts.

    errors: BundleError that names what this release of TensorRT does not take
    """
    exact = to_tensorrt(graph, version)
    for kind in kinds:
        if kind.endswith("-fp16"):
            model = to_fp16(exact)
        elif kind == NEEDS_CALIBRATION:
            model = to_qdq_int8(exact, feeds[graph.name])
        else:
            model = exact
        require_supported(model, graph.name, version)
        yield kind, model
