"""Ten hours of speech in one stream, remembered on disk: does any cost grow? Run by `make soak`."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from soak import RATE_HZ, recordings

from edgeasr.memory import Admission, Decision
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.store.retention import Limits
from edgeasr.store.sound_search import key_of
from edgeasr.store.writer import StoreWriter

HOUR_S = 3600
WARM_S = 600
BLOCK = RATE_HZ // 25


def resident_kb() -> int:
    """Resident memory of this process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def blocks() -> Iterator[np.ndarray]:
    """Recordings one after another, over and over, as a microphone gives them."""
    for recording in itertools.cycle(recordings()):
        samples, rate_hz = soundfile.read(recording, dtype="float32")
        samples = soxr.resample(samples, rate_hz, RATE_HZ)
        yield from (samples[at : at + BLOCK] for at in range(0, len(samples), BLOCK))


def listen(recognizer: Recognizer, writer: StoreWriter, hours: float) -> tuple[list[array[float]], list[int]]:
    """Step times of every hour (ms), and resident memory (kB) after ten minutes and at the end of every hour."""
    step_ms: list[array[float]] = []  # 4 bytes a step: what is measured here must not be what grows
    memory_kb: list[int] = []
    heard_s, marks = 0.0, [WARM_S, *(HOUR_S * (n + 1) for n in range(int(hours)))]
    for block in blocks():
        recognizer.accept_waveform(block, RATE_HZ)
        while recognizer.is_ready():
            began = time.perf_counter()
            events = recognizer.step()
            hour = int(heard_s // HOUR_S)
            step_ms += [array("f") for _ in range(hour + 1 - len(step_ms))]
            step_ms[hour].append((time.perf_counter() - began) * 1000)
            list(writer.heard(iter(events)))
        heard_s += len(block) / RATE_HZ
        if heard_s >= marks[len(memory_kb)]:
            memory_kb.append(resident_kb())
            if len(memory_kb) == len(marks):
                return step_ms, memory_kb
    raise AssertionError("the recordings never end")


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=10)
    parser.add_argument("--decoder", choices=("greedy", "lm"), default="greedy")
    parser.add_argument("--store-mb", type=int, default=4)
    arguments = parser.parse_args()
    decisions: Counter[Decision] = Counter()
    model = load_model()
    with tempfile.TemporaryDirectory() as folder:
        path, limits = Path(folder, "memory.db"), Limits(arguments.store_mb << 20)
        with StoreWriter(path, key_of(model), print, limits=limits) as writer:
            writer.begin_stream("soak")

            def admitted(admission: Admission) -> None:
                decisions[admission.decision] += 1
                writer.admitted(admission)

            recognizer = Recognizer(model, decoder=arguments.decoder, on_admission=admitted)
            step_ms, memory_kb = listen(recognizer, writer, arguments.hours)
        store_bytes = path.stat().st_size
    p99 = [float(np.percentile(hour, 99)) for hour in step_ms]
    state_bytes = sum(array.nbytes for array in model.init_state().values())
    report = {
        "hours": arguments.hours,
        "decoder": arguments.decoder,
        "step_ms_p50_by_hour": [round(float(np.median(hour)), 3) for hour in step_ms],
        "step_ms_p99_by_hour": [round(value, 3) for value in p99],
        "p99_last_over_first": round(p99[-1] / p99[0], 3),
        "rss_mb_after_10_minutes": round(memory_kb[0] / 1024, 1),
        "rss_mb_growth_since": round((memory_kb[-1] - memory_kb[0]) / 1024, 2),
        "state_bytes": state_bytes,
        "summaries": sum(decisions.values()),
        "stored": decisions[Decision.STORE],
        "store_mb": round(store_bytes / 2**20, 2),
        "store_limit_mb": arguments.store_mb,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
