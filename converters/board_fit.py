"""Whether a bundle fits a board: what it takes here, and what the board's profile says that it would take there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeasr.bundle import Bundle
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


@dataclass(frozen=True)
class BoardFit:
    """An artefact and a board.

    here_ms:     a step on this machine, on average, without features and decoder
    resident_mb: of a process that hears with it, at most, on this machine
    predicted:   a step on the board
    """

    artefact: str
    device: DeviceProfile
    here_ms: float
    resident_mb: float
    predicted: Prediction

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
            "step_ms_predicted": round(said.time_ms, 2),
            "rtf_predicted": round(said.real_time_factor, 4),
            "dram_gb_per_s_predicted": round(said.demand_gb_per_s, 4),
            "bound": said.bound,
            "real_time": said.real_time,
            "fits_memory": said.fits_memory,
        }


def board_fit(bundle: Bundle, artefact: str, device: DeviceProfile, recording: Path) -> BoardFit | None:
    """Run an artefact here, and predict it for a board with the threads that its profile recommends.

    recording: speech
    returns:   None for an artefact whose operators cannot be counted, which is all that is not ONNX
    errors:    BundleError where it cannot be run
    """
    if not artefact.startswith("onnx-"):
        return None
    threads = device.recommended.threads
    model = AcousticModel(bundle, backend=artefact, threads=threads)
    step = profile_model(model, bundle, recording, quick=True).step
    resident_mb = _resident_mb(bundle, artefact, threads, recording)
    work = step_work(step, model.config.chunk_ms, round(resident_mb * 1e6))
    return BoardFit(artefact, device, step.step_us / 1e3, resident_mb, predict(device, work, threads))


def _resident_mb(bundle: Bundle, artefact: str, threads: int, recording: Path) -> float:
    command = [sys.executable, "-c", _HEAR, str(bundle.path), artefact, str(threads), str(recording)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise BundleError(f"{artefact} does not run by itself ({reason[0]}): export it again")
    return float(done.stdout)
