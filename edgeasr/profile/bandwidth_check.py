"""Our bandwidth beside that of mbw (https://github.com/raas/mbw), another program, on copies of the same size."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeasr.errors import ProfileError
from edgeasr.profile.bandwidth import (
    BandwidthPoint,
    Kernels,
    NumpyKernels,
    Progress,
    Sweep,
    best_kernels,
    measure_bandwidth,
)

_MBW_S = 120
_ROUND = 5  # samples of each before the others' turn


@dataclass(frozen=True)
class Agreement:
    """The best rates of copies; both count bytes read and bytes written."""

    name: str
    working_set_bytes: int
    gb_per_s: float
    mbw_gb_per_s: float

    @property
    def ratio(self) -> float:
        """Ours over mbw's."""
        return self.gb_per_s / self.mbw_gb_per_s


def compare_with_mbw(
    folder: Path, array_mb: int = 64, rounds: int = 12, progress: Progress | None = None
) -> tuple[tuple[Agreement, ...], tuple[str, ...]]:
    """Copies from one array to another by one thread, each program in turn, so that both meet the same disturbances.

    folder:  where compiled kernels are kept
    returns: an agreement for each kind of kernel that runs here, and what is missing
    errors:  ProfileError without mbw
    """
    program = shutil.which("mbw")
    if program is None:
        raise ProfileError("found no mbw to compare with: apt-get install mbw")
    ours, missing = best_kernels(folder)
    kinds: list[Kernels] = [ours] if isinstance(ours, NumpyKernels) else [ours, NumpyKernels()]
    size = 2 * array_mb * 2**20
    best = dict.fromkeys((kind.source for kind in kinds), 0.0)
    theirs = 0.0
    for done in range(rounds):
        if progress:
            progress(f"copies of {array_mb} MB", done / rounds)
        for kind in kinds:
            best[kind.source] = max(best[kind.source], _copy(kind, size).gb_per_s)
        theirs = max(theirs, _mbw(program, array_mb))
    return tuple(Agreement(name, size, rate, theirs) for name, rate in best.items()), missing


def _copy(kernels: Kernels, size_bytes: int) -> BandwidthPoint:
    return measure_bandwidth(kernels, Sweep((size_bytes,), (1,), ("copy",), rounds=_ROUND))[0]


def _mbw(program: str, array_mb: int) -> float:
    """The best of some copies by memcpy; mbw counts what is copied once, in MiB/s."""
    command = [program, "-q", "-t0", "-n", str(_ROUND), str(array_mb)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MBW_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProfileError(f"{program} does not run ({error}): apt-get install --reinstall mbw") from error
    elapsed_s = [float(found) for found in re.findall(r"^\d+\s+Method: MEMCPY\s+Elapsed: ([\d.]+)", done.stdout, re.M)]
    if not elapsed_s or min(elapsed_s) <= 0:
        raise ProfileError(f"{' '.join(command)} printed no times: {done.stdout.strip() or done.stderr.strip()!r}")
    return 2 * array_mb * 2**20 / min(elapsed_s) / 1e9
