"""Ten hours of speech in one stream, remembered on disk: does any cost grow? Run by `make soak`.

Exit status 1 where one does. Speech is joined into one file beforehand and read in blocks, and step times have their
room from the start, so that what grows is the recogniser's and the store's. The last hour is heard in turns with the
first hour of a fresh process, step by step.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from soak import RATE_HZ, write_long_recording
from soak_turns import Turns, Twin, over

from edgeasr.allocator import keep_little, settle
from edgeasr.memory import Admission, Decision
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.store.retention import Limits
from edgeasr.store.sound_search import key_of
from edgeasr.store.writer import StoreWriter

HOUR_S = 3600
WARM_S = 600
SPEECH_S = 1_800.0  # then over again
BLOCK = RATE_HZ // 25
MAX_GROWTH_MB = 1.0
MAX_P99_RATIO = 1.1


@dataclass(frozen=True)
class Resident:
    """Memory of this process in kB: all of it, and what of it no file backs; the rest the system may take back."""

    all: int
    anonymous: int

    @classmethod
    def now(cls) -> Resident:
        found = dict(re.findall(r"(Rss|Anonymous):\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text()))
        return cls(int(found["Rss"]), int(found["Anonymous"]))


@dataclass(frozen=True)
class Course:
    """Of a stream. step_ms: (2, steps), by the clock and processor time of the thread; step_hour: (steps,)"""

    step_ms: NDArray[np.float32]
    step_hour: NDArray[np.uint16]
    resident: list[Resident]  # after ten minutes, and at the end of every hour

    def by_hour(self, kind: int, share: float) -> list[float]:
        """A percentile of the step times of every hour: kind 0 by the clock, 1 of processor time."""
        hours = range(int(self.step_hour.max()) + 1)
        return [round(float(np.percentile(self.step_ms[kind, self.step_hour == hour], share)), 3) for hour in hours]


def write_speech(path: Path) -> None:
    """In a process of its own, so that no memory is left over from it here, which would hide what grows."""
    writing = multiprocessing.get_context("spawn").Process(target=write_long_recording, args=(path, SPEECH_S))
    writing.start()
    writing.join()
    assert not writing.exitcode, "the recordings cannot be joined"


def blocks(path: Path) -> Iterator[NDArray[np.float32]]:
    """A recording over and over, as a microphone gives it; what is left of it at its end is left out."""
    block = np.empty(BLOCK, np.float32)
    with soundfile.SoundFile(path) as file:
        while True:
            if len(file.read(out=block)) == BLOCK:
                yield block
            else:
                file.seek(0)


def listen(
    recognizer: Recognizer, writer: StoreWriter, speech: Path, hours: int, last_hour: Callable[[], Turns | None]
) -> Course:
    """Hear the hours, as fast as may be. last_hour: asked when it begins, with whom its steps are taken in turns"""
    steps = hours * HOUR_S * 1000 // recognizer.model.config.chunk_ms
    # Filled, since a page is resident once it was written to.
    course = Course(np.full((2, steps), np.nan, np.float32), np.full(steps, hours, np.uint16), [])
    step, heard = 0, 0
    turns: Turns | None = None
    marks = [WARM_S, *(HOUR_S * (n + 1) for n in range(hours))]
    for block in blocks(speech):
        recognizer.accept_waveform(block, RATE_HZ)
        if heard == (hours - 1) * HOUR_S * RATE_HZ:
            turns = last_hour()
        while recognizer.is_ready() and step < steps:
            if turns:
                turns.take()
            began, began_cpu = time.perf_counter_ns(), time.thread_time_ns()
            events = recognizer.step()
            taken = time.perf_counter_ns() - began, time.thread_time_ns() - began_cpu
            course.step_ms[:, step] = taken[0] / 1e6, taken[1] / 1e6
            course.step_hour[step] = min(heard // (HOUR_S * RATE_HZ), hours - 1)
            step += 1
            list(writer.heard(iter(events)))
            if turns:
                turns.give()
        heard += len(block)
        if heard >= marks[len(course.resident)] * RATE_HZ:
            course.resident.append(Resident.now())
            if sys.stderr.isatty():
                print(f"\r{heard / RATE_HZ / HOUR_S:.1f} of {hours} hours", end="", file=sys.stderr)
            if len(course.resident) == len(marks):
                break
    return Course(course.step_ms[:, :step], course.step_hour[:step], course.resident)


def report(course: Course) -> dict[str, Any]:
    """What a course took."""
    p99 = [course.by_hour(kind, 99) for kind in (0, 1)]
    first, last = course.resident[0], course.resident[-1]
    return {
        "step_ms_p50_by_hour": course.by_hour(0, 50),
        "step_ms_p99_by_hour": p99[0],
        "p99_last_over_first": over(p99[0][-1], p99[0][0]),
        "step_cpu_ms_p50_by_hour": course.by_hour(1, 50),
        "step_cpu_ms_p99_by_hour": p99[1],
        "cpu_p99_last_over_first": over(p99[1][-1], p99[1][0]),
        "rss_mb_after_10_minutes": round(first.all / 1024, 1),
        "rss_mb_growth_by_hour": [round((one.all - first.all) / 1024, 2) for one in course.resident[1:]],
        "rss_mb_growth_since": round((last.all - first.all) / 1024, 2),
        "anonymous_mb_growth_since": round((last.anonymous - first.anonymous) / 1024, 2),
    }


def beside(found: dict[str, Any], fresh: dict[str, Any]) -> dict[str, float]:
    """The last hour over the hour of a fresh process that was heard at the same time."""
    kinds = ("step_ms_p50", "step_ms_p99", "step_cpu_ms_p50", "step_cpu_ms_p99")
    return {kind: over(found[f"{kind}_by_hour"][-1], fresh[f"{kind}_by_hour"][-1]) for kind in kinds}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=10)
    parser.add_argument("--decoder", choices=("greedy", "lm"), default="greedy")
    parser.add_argument("--store-mb", type=int, default=4)
    parser.add_argument("--turns", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    twins: list[Twin] = []

    def last_hour() -> Turns | None:
        if arguments.turns:
            return Turns.parsed(arguments.turns)
        choices = ("--hours", 1, "--decoder", arguments.decoder, "--store-mb", arguments.store_mb)
        twins.append(Twin([__file__, *map(str, choices)]))
        return twins[0].turns

    keep_little()  # as `edgeasr listen` does, and settles
    decisions: Counter[Decision] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        speech, path = Path(folder, "speech.wav"), Path(folder, "memory.db")
        write_speech(speech)
        model = load_model()
        with StoreWriter(path, key_of(model), print, limits=Limits(arguments.store_mb << 20)) as writer:
            writer.begin_stream("soak")

            def admitted(admission: Admission) -> None:
                decisions[admission.decision] += 1
                writer.admitted(admission)

            recognizer = Recognizer(model, decoder=arguments.decoder, on_admission=admitted)
            settle()
            course = listen(recognizer, writer, speech, arguments.hours, last_hour)
        store_mb = path.stat().st_size / 2**20
    found = {
        "hours": arguments.hours,
        "decoder": arguments.decoder,
        **report(course),
        "state_bytes": sum(array.nbytes for array in model.init_state().values()),
        "summaries": sum(decisions.values()),
        "stored": decisions[Decision.STORE],
        "store_mb": round(store_mb, 2),
        "store_limit_mb": arguments.store_mb,
    }
    for twin in twins:
        found["last_hour_over_fresh"] = beside(found, json.loads(twin.report()))
    print(json.dumps(found))
    kept = arguments.turns or (
        found["last_hour_over_fresh"]["step_cpu_ms_p99"] <= MAX_P99_RATIO
        and found["rss_mb_growth_since"] < MAX_GROWTH_MB
        and store_mb <= arguments.store_mb
    )
    sys.exit(not kept)


if __name__ == "__main__":
    main()
