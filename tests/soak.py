"""An hour of speech through `edgeasr transcribe`: resident memory and processor time. Run by `make soak`."""

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile
import soxr

REPOSITORY = Path(__file__).parents[1]
SPEECH = REPOSITORY.parent / "shared" / "speech"
RATE_HZ = 16_000
PERIOD_S = 0.25


def recordings() -> list[Path]:
    """Real speech where it lies beside the repository, else the shipped clip."""
    manifest = SPEECH / "dev.jsonl"
    if not manifest.is_file():
        return [REPOSITORY / "edgeasr" / "models" / "demo.flac"]
    return [SPEECH / json.loads(line)["audio_filepath"] for line in manifest.read_text().splitlines()]


def write_long_recording(path: Path, duration_s: float) -> None:
    """Recordings one after another, over and over."""
    with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
        for recording in itertools.cycle(recordings()):
            samples, rate_hz = soundfile.read(recording, dtype="float32")
            file.write(soxr.resample(samples, rate_hz, RATE_HZ))
            if file.frames >= duration_s * RATE_HZ:
                return


def resident_mb(pid: int) -> float:
    """Resident memory of a process, 0 once it is gone."""
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    duration_s = parser.parse_args().hours * 3600
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "long.flac")
        write_long_recording(path, duration_s)
        command = [sys.executable, "-m", "edgeasr.cli.main", "transcribe", "--json", str(path)]
        started = time.monotonic()
        with Path(folder, "events").open("w+") as events, subprocess.Popen(command, stdout=events) as process:
            samples = []
            while process.poll() is None:
                samples.append(resident_mb(process.pid))
                time.sleep(PERIOD_S)
            events.seek(0)
            finals = sum(json.loads(line)["type"] == "final" for line in events)
        wall_s = time.monotonic() - started
    held = [mb for mb in samples if mb]
    quarters = [round(held[int(len(held) * share)], 1) for share in (0.25, 0.5, 0.75)]
    report = {
        "exit_code": process.returncode,
        "audio_s": duration_s,
        "wall_s": round(wall_s, 1),
        "wall_s_a_second": round(wall_s / duration_s, 4),
        "finals": finals,
        "rss_mb_at_quarters": quarters,
        "rss_mb_peak": round(max(held), 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
