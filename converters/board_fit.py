"""Whether a bundle fits a board: what it takes here, and what the board's profile says that it would take there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeasr.bundle import Bundle
from edgeasr.config import PRESETS, EncoderConfig, ModelConfig
from edgeasr.converters.artefacts import ArtefactKind, recommended_artefact
from edgeasr.converters.check import Floats, median_step_ms
from edgeasr.devices.profile import DeviceProfile
from edgeasr.errors import BundleError
from edgeasr.model import AcousticModel
from edgeasr.profile.model_profile import profile_model
from edgeasr.profile.prediction import MEMORY_SHARE, Prediction, predict, step_work

# A process of its own: this one holds torch.
_HEAR = """
import sys
from edgeasr.audio import FileSource
from edgeasr.metrics import peak_rss_mb
from edgeasr.recognizer import Recognizer
path, artefact, threads, recording = sys.argv[1:]
with FileSource(recording) as source:
    for _ in Recognizer(path, backend=artefact, threads=int(threads)).stream(source):
        pass
print(peak_rss_mb())
"""
_SIZES = ("d_model", "num_heads", "lower_blocks", "upper_blocks", "ff_dim", "conv_kernel", "conv_channels")


@dataclass(frozen=True)
class BoardFit:
    """An artefact and a board.

    here_ms:     a step on this machine, median, without features and decoder
    resident_mb: of a process that hears with it, at most, on this machine
    predicted:   a step on the board
    counted_as:  the artefact in ONNX whose bytes, multiply-adds and operators stand for those of a step
    """

    artefact: str
    device: DeviceProfile
    here_ms: float
    resident_mb: float
    predicted: Prediction
    counted_as: str

    @property
    def problem(self) -> str | None:
        """What keeps it from running there; None for nothing."""
        board = self.device
        if not self.predicted.fits_memory:
            return (
                f"{self.artefact} takes {self.resident_mb:.0f} MB, and {board.title} has "
                f"{min(board.memory_bytes) / 1e6:.0f} MB, of which {MEMORY_SHARE:.0%} may be taken"
            )
        if not self.predicted.real_time:
            return (
                f"{self.artefact} would take {self.predicted.real_time_factor:.1f} s for a second of audio on "
                f"{board.title} (predicted, see docs/profile.md)"
            )
        return None

    def enforce(self) -> None:
        """errors: BundleError with the problem, if there is one"""
        if problem := self.problem:
            raise BundleError(f"{problem}: train a smaller model, name another board, or say --force")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        said = self.predicted
        return {
            "device": self.device.name,
            "step_ms_here": round(self.here_ms, 3),
            "resident_mb": round(self.resident_mb, 1),
            "counted_as": self.counted_as,
            "step_ms_predicted": round(said.time_ms, 2),
            "rtf_predicted": round(said.real_time_factor, 4),
            "dram_gb_per_s_predicted": round(said.demand_gb_per_s, 4),
            "bound": said.bound,
            "real_time": said.real_time,
            "fits_memory": said.fits_memory,
        }


def board_fit(draft: Bundle, kind: ArtefactKind, device: DeviceProfile, recording: Path, features: Floats) -> BoardFit:
    """Run an artefact here, and predict it for a board with the threads that its profile recommends.

    draft:     a bundle with it and with what is counted for it
    recording: speech; features: of it, or of more
    errors:    BundleError where it cannot be run
    """
    threads = device.recommended.threads
    here_ms = median_step_ms(AcousticModel(draft, backend=kind.name, threads=threads), features)
    counted = AcousticModel(draft, backend=kind.counted_as, threads=threads)
    step = profile_model(counted, draft, recording, quick=True).step
    resident_mb = _resident_mb(draft, kind.name, threads, recording)
    work = step_work(step, counted.config.chunk_ms, round(resident_mb * 1e6))
    return BoardFit(kind.name, device, here_ms, resident_mb, predict(device, work, threads), kind.counted_as)


def differences(config: ModelConfig, kinds: Sequence[ArtefactKind], device: DeviceProfile) -> list[str]:
    """Where a model and its artefacts are not what the board's profile recommends, a sentence each."""
    wanted, found = device.recommended, []
    if (size := _preset(config.encoder)) != wanted.preset:
        found.append(f"{device.name} is recommended the preset {wanted.preset}, the checkpoint is {size}")
    if config.chunk_ms != wanted.chunk_ms:
        found.append(
            f"{device.name} is recommended chunks of {wanted.chunk_ms} ms, the checkpoint has {config.chunk_ms} ms"
        )
    if any(kind.name.startswith("tensorrt-") for kind in kinds) and not device.name.startswith("jetson"):
        found.append(f"{device.title} has no TensorRT: this bundle is for a Jetson")
    best = recommended_artefact(device)
    found += [f"{device.name} is recommended {best}, not {kind.name}" for kind in kinds if kind.name != best]
    return found


def _preset(encoder: EncoderConfig) -> str:
    """The preset whose weights are of the same sizes."""
    same = [name for name, preset in PRESETS.items() if all(getattr(preset, k) == getattr(encoder, k) for k in _SIZES)]
    return f"{same[0]}" if same else f"of no preset ({encoder.d_model} channels)"


def _resident_mb(bundle: Bundle, artefact: str, threads: int, recording: Path) -> float:
    command = [sys.executable, "-c", _HEAR, str(bundle.path), artefact, str(threads), str(recording)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise BundleError(f"{artefact} does not run by itself ({reason[0]}): export it again")
    return float(done.stdout)
