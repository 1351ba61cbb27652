"""The kinds of artefact that a bundle can hold: one list, which export, its checks and the command line all read.

To add a kind, add an entry, and a module whose `forms` makes it unless one of those that are here does. Nothing here
imports a converter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgeasr.errors import ConfigError

if TYPE_CHECKING:
    from edgeasr.converters.calibration import Feed
    from edgeasr.converters.raw_graph import RawGraph
    from edgeasr.devices.profile import DeviceProfile


@dataclass(frozen=True)
class Tolerance:
    """What an artefact may differ from torch by."""

    max_difference: float  # of a probability
    min_snr_db: float  # of log-probabilities
    min_agreement: float  # share of frames with the same most likely token


# Rounding alone in fp32; in int8 what costs less than a word in a hundred on real speech, where a token that comes
# a frame later is a difference of 1.
EXACT = Tolerance(max_difference=1e-3, min_snr_db=60.0, min_agreement=0.999)
IN_16_BITS = Tolerance(max_difference=0.2, min_snr_db=35.0, min_agreement=0.98)
IN_8_BITS = Tolerance(max_difference=1.0, min_snr_db=15.0, min_agreement=0.95)


WHOLE = "model"  # names a file that holds all parts


@dataclass(frozen=True)
class ExportOptions:
    """What some kinds need to know.

    tensorrt:    the release that is exported for: "10" for JetPack 6 and 7, "8.2" for JetPack 4.6
    calibration: recordings that set the scales of kinds that are calibrated
    """

    tensorrt: str = "10"
    calibration: Sequence[Path] = ()


class Maker(Protocol):
    """`forms` of a module that makes artefacts."""

    def __call__(
        self, raw: RawGraph, kinds: Sequence[str], options: ExportOptions, feeds: Sequence[Feed]
    ) -> Iterator[tuple[str, bytes]]:
        """One graph in the form of each of these kinds: the kind, and the content of its file.

        feeds:  inputs of the graph on the recordings that calibrate; none where no kind is calibrated
        errors: BundleError for what cannot be converted
        """


@dataclass(frozen=True)
class ArtefactKind:
    """One entry of the list.

    name:       runtime, or what it is made for, and precision
    suffix:     of its files, behind part and precision; kinds of one precision have different ones
    module:     makes it, together with all other kinds that are asked for and name the same module
    extra:      of edgeasr: what the module needs
    tolerance:  what is more is refused
    target:     what `edgeasr export --target` calls it, if it has a target of its own
    calibrated: whether speech sets its scales
    whole:      whether one file, made of the step, holds all graphs
    """

    name: str
    suffix: str
    module: str
    extra: str
    tolerance: Tolerance
    target: str = ""
    calibrated: bool = False
    whole: bool = False

    @property
    def precision(self) -> str:
        return self.name.rsplit("-", 1)[1]

    @property
    def counted_as(self) -> str:
        """The artefact in ONNX whose operators are counted for it: the work of a step hardly depends on the format."""
        return f"onnx-{'int8' if self.precision == 'int8' else 'fp32'}"

    def file_name(self, part: str) -> str:
        """Of one part of a bundle: step.int8.onnx."""
        return f"{WHOLE if self.whole else part}.{self.precision}{self.suffix}"

    def load_maker(self) -> Maker:
        """raises: ModuleNotFoundError without the packages of `extra`"""
        return cast(Maker, import_module(self.module).forms)


_ONNX, _LITERT, _TENSORRT, _EXECUTORCH, _TORCH = (
    f"edgeasr.converters.{name}_artefacts" for name in ("onnx", "litert", "tensorrt", "executorch", "torch")
)
_ENTRIES = (
    ArtefactKind("onnx-int8", ".onnx", _ONNX, "train", IN_8_BITS, target="onnx-int8"),
    ArtefactKind("onnx-fp32", ".onnx", _ONNX, "train", EXACT, target="onnx"),
    ArtefactKind("litert-int8", ".tflite", _LITERT, "litert-export", IN_8_BITS, target="litert-int8"),
    ArtefactKind("litert-fp32", ".tflite", _LITERT, "litert-export", EXACT, target="litert"),
    ArtefactKind("tflite-int8", ".armv7.tflite", _LITERT, "litert-export", IN_8_BITS, target="tflite-armv7"),
    ArtefactKind("tensorrt-fp16", ".tensorrt.onnx", _TENSORRT, "train", IN_16_BITS, target="tensorrt"),
    ArtefactKind("tensorrt-fp32", ".tensorrt.onnx", _TENSORRT, "train", EXACT),
    ArtefactKind("tensorrt-int8", ".tensorrt.onnx", _TENSORRT, "train", IN_8_BITS, calibrated=True),
    ArtefactKind("executorch-fp32", ".pte", _EXECUTORCH, "executorch-export", EXACT, target="executorch"),
    ArtefactKind("executorch-int8", ".pte", _EXECUTORCH, "executorch-export", IN_8_BITS, target="executorch-int8"),
    ArtefactKind("torch-fp32", ".safetensors", _TORCH, "train", EXACT, whole=True),
)
KINDS: Mapping[str, ArtefactKind] = {kind.name: kind for kind in _ENTRIES}
TARGETS: Mapping[str, str] = {kind.target: kind.name for kind in _ENTRIES if kind.target}


def recommended_artefact(board: DeviceProfile) -> str:
    """What its profile recommends, by the name that bundles have for it."""
    wanted = board.recommended
    return f"{'litert' if wanted.backend == 'litert' else 'onnx'}-{wanted.precision}"


def known_kinds(names: Sequence[str]) -> list[ArtefactKind]:
    """Those of these names, each once and in their order. errors: ConfigError for no or unknown names"""
    if not names or set(names) - KINDS.keys():
        raise ConfigError(f"got artefacts {list(names)}, wanted some of {', '.join(KINDS)}")
    return [KINDS[name] for name in dict.fromkeys(names)]
