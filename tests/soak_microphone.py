"""A microphone that is unplugged and plugged in again, 20 times, while `edgeasr listen` listens. Run by `make soak`.

A null sink of a PulseAudio of its own is the microphone; unloading its module is the plug that is pulled.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sound_server import pactl, sound_server, wait_until

from edgeasr.metrics import word_errors

CLIP = Path(__file__).parents[1] / "edgeasr" / "models" / "demo.flac"
AWAY_S = 3.0
BACK_S = 3.5  # a null sink gives its first samples some two seconds after it was opened
EDGEASR = (sys.executable, "-m", "edgeasr.cli.main")


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    print(json.dumps(unplugged(parser.parse_args().times)))


def unplugged(times: int) -> dict[str, object]:
    """Play the clip, pull the plug, and again; at last once more. returns: what came of it"""
    with tempfile.TemporaryDirectory() as folder, sound_server(Path(folder)) as environment:
        played_at, events, noted = [], Path(folder, "events"), Path(folder, "notes")
        with events.open("w") as out, noted.open("w") as err:
            listener = subprocess.Popen((*EDGEASR, "listen", "--json"), env=environment, stdout=out, stderr=err)
            wait_until(lambda: pactl(environment, "list", "short", "source-outputs"), "the microphone to be opened")
            opened_s = time.monotonic()
            time.sleep(BACK_S)
            for k in range(times + 1):
                played_at.append(time.monotonic() - opened_s)
                subprocess.run(["paplay", "--device=virtual", str(CLIP)], env=environment, check=True)
                time.sleep(1.0)
                if k < times:
                    pull(environment, noted, k + 1)
            rss_kb = int(re.findall(r"RssAnon:\s+(\d+)", Path(f"/proc/{listener.pid}/status").read_text())[0])
            listener.send_signal(signal.SIGINT)
            code = listener.wait(60)
        finals = [one for line in events.read_text().splitlines() if (one := json.loads(line))["type"] == "final"]
        notes = noted.read_text().splitlines()
    wanted = subprocess.run([*EDGEASR, "transcribe", str(CLIP)], capture_output=True, text=True, check=True).stdout
    heard = " ".join(final["text"] for final in finals)
    errors = word_errors(" ".join([wanted] * len(played_at)), heard)
    return {
        "times": times,
        "exit_code": code,
        "lines_of_gone": sum("waiting for it" in note for note in notes),
        "lines_of_back": sum("is back after" in note for note in notes),
        "other_lines": [note for note in notes if "waiting for it" not in note and "is back after" not in note],
        "words": errors.reference_length,
        "words_lost": errors.deletions,
        "words_added": errors.insertions,
        "words_changed": errors.substitutions,
        "stream_time_off_s": worst_offset(played_at, finals),
        "rss_mb_at_the_end": round(rss_kb / 1024, 1),
    }


def pull(environment: dict[str, str], notes: Path, times: int) -> None:
    """Unplug the microphone, plug it in again after a while, and wait until it is heard."""
    pactl(environment, "unload-module", "module-null-sink")
    time.sleep(AWAY_S)
    pactl(environment, "load-module", "module-null-sink", "sink_name=virtual", "rate=48000")
    wait_until(lambda: notes.read_text().count("is back after") == times, "the microphone to be back")
    time.sleep(0.5)


def worst_offset(played_at: list[float], finals: list[dict[str, object]]) -> float:
    """How far the first word after each absence is from where it was the first time, in the time of the stream."""
    starts = [final["words"][0]["start"] for final in finals]  # type: ignore[index]
    offsets = []
    for at in played_at:
        nearest = min(starts, key=lambda start: abs(start - at))
        offsets.append(nearest - at)
    return round(max(offsets) - min(offsets), 2)


if __name__ == "__main__":
    main()
