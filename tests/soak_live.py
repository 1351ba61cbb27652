"""A day of audio through the live path, faster than it was spoken: does anything grow, get slower, or get lost?

A thread plays PortAudio's: it calls the microphone's callback with blocks of 40 ms, over and over the same recordings.
The last hour is heard in turns with the first hour of a fresh process, step by step. Run by `make soak`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import soxr
from soak import SPEECH, recordings
from soak_turns import Turns, Twin, over

from edgeasr.allocator import keep_little, settle
from edgeasr.audio import AudioBlock
from edgeasr.capture.conditioned import ConditionedSource
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.microphone import Microphone
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.transcript import Final

HOUR_S = 3600
WARM_S = 600
BLOCK_S = 0.04
PAUSE_S = 1.2  # between recordings: segments end there
AHEAD_S = 0.4  # that the player is ahead of the recogniser
CHECKED_S = 900  # of the stream: its finals are compared with those of the offline path
PERIOD_S = 0.48  # the material is a multiple of it: chunks of every length fall on the same samples each time


def material(minutes: float, rate_hz: int) -> tuple[np.ndarray, str]:
    """Recordings and pauses, int16, and what is said in them (nothing where it is not known)."""
    parts, texts, length = [], [], 0
    known = dict(zip(recordings(), spoken(), strict=False))
    for recording in recordings():
        samples, source_hz = soundfile.read(recording, dtype="float32")
        samples = soxr.resample(samples, source_hz, rate_hz)
        parts += [samples, np.zeros(round(PAUSE_S * rate_hz), np.float32)]
        texts.append(known.get(recording, ""))
        length += len(samples)
        if length >= minutes * 60 * rate_hz:
            break
    played = np.concatenate(parts)
    played = np.append(played, np.zeros(-len(played) % round(PERIOD_S * rate_hz), np.float32))
    return (np.clip(played, -1, 1) * 32_767).astype(np.int16), " ".join(texts)


def spoken() -> list[str]:
    """What is said in the recordings."""
    manifest = SPEECH / "dev.jsonl"
    return [json.loads(line)["text"] for line in manifest.read_text().splitlines()] if manifest.is_file() else []


class Steady:
    """The same recordings without a thread and a ring: what the live path is compared with."""

    name, drops, is_away, backlog_s = "steady", False, False, 0.0

    def __init__(self, played: np.ndarray, rate_hz: int, seconds: float) -> None:
        self.sample_rate_hz, self._played, self._end = rate_hz, played, round(seconds * rate_hz)

    def blocks(self) -> Iterator[AudioBlock]:
        block = round(BLOCK_S * self.sample_rate_hz)
        for start in range(0, self._end, block):
            yield AudioBlock(expected(self._played, start, block), start)

    def close(self) -> None:
        """Nothing is open."""

    def report(self) -> None:
        """Nothing is lost."""


def expected(played: np.ndarray, start: int, length: int) -> np.ndarray:
    """The samples that are heard from there on, when the material is played again and again."""
    at = np.arange(start, start + length) % len(played)
    return played[at].astype(np.float32) * np.float32(2**-15)


class Player:
    """Stands in for sounddevice, with one microphone that hears the material again and again."""

    PortAudioError = OSError

    def __init__(self, played: np.ndarray, rate_hz: int, num_samples: int) -> None:
        self._played, self._rate_hz, self._num_samples = played, rate_hz, num_samples
        self._device = {"index": 0, "name": "player", "max_input_channels": 1, "default_samplerate": float(rate_hz)}
        self._hungry = threading.Event()
        self.mic: Microphone | None = None
        self.thread = threading.Thread(target=self._play, daemon=True)

    def query_devices(self, kind: str | None = None) -> Any:
        return self._device if kind else [self._device]

    def InputStream(self, **options: Any) -> Any:  # noqa: N802 - sounddevice's name
        self._hear = options["callback"]
        return SimpleNamespace(start=self.thread.start, close=lambda: None)

    def taken(self) -> None:
        """The recogniser has had a block."""
        self._hungry.set()

    def _play(self) -> None:
        block, status = round(BLOCK_S * self._rate_hz), SimpleNamespace(input_overflow=False)
        assert self.mic is not None
        at = 0
        for start in range(0, self._num_samples, block):
            while self.mic.backlog_s > AHEAD_S:
                self._hungry.clear()
                self._hungry.wait(0.05)
            part = self._played[at : at + block]
            at += len(part)
            if at == len(self._played):
                at = block - len(part)
                part = np.concatenate([part, self._played[:at]])
            frames = part[:, None].astype(np.float32) * np.float32(2**-15)
            self._hear(frames, len(frames), SimpleNamespace(inputBufferAdcTime=start / self._rate_hz), status)


class Checked:
    """Blocks of the microphone, each sample compared with what was played."""

    def __init__(self, mic: Microphone, played: np.ndarray) -> None:
        self._mic, self._played = mic, played
        self.wrong = self._due = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mic, name)

    def blocks(self) -> Iterator[AudioBlock]:
        for block in self._mic.blocks():
            self.wrong += abs(block.start_sample - self._due) + block.gap_samples
            self.wrong += int(
                np.count_nonzero(block.samples != expected(self._played, block.start_sample, len(block.samples)))
            )
            self._due = block.start_sample + len(block.samples)
            yield block


@dataclass
class Steps:
    """Times of one hour's steps, in arrays that are used again: what is measured here must not be what grows."""

    wall_ms: np.ndarray = field(default_factory=lambda: np.zeros(60_000, np.float32))
    cpu_ms: np.ndarray = field(default_factory=lambda: np.zeros(60_000, np.float32))
    number: int = 0
    by_hour: list[dict[str, float]] = field(default_factory=list)
    turns: Turns | None = None

    def step(self, recognizer: Recognizer) -> list[Any]:
        if self.turns:
            self.turns.take()
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        events = recognizer.step()
        self.wall_ms[self.number] = (time.perf_counter_ns() - wall) / 1e6
        self.cpu_ms[self.number] = (time.thread_time_ns() - cpu) / 1e6
        self.number += 1
        if self.turns:
            self.turns.give()
        return events

    def end_hour(self) -> None:
        wall, cpu = self.wall_ms[: self.number], self.cpu_ms[: self.number]
        self.by_hour.append(
            {
                "wall_p50": round(float(np.median(wall)), 3),
                "wall_p99": round(float(np.percentile(wall, 99)), 3),
                "cpu_p50": round(float(np.median(cpu)), 3),
                "cpu_p99": round(float(np.percentile(cpu, 99)), 3),
                "rss_mb": round(resident_kb() / 1024, 2),
            }
        )
        self.number = 0

    @classmethod
    def rehearsed(cls) -> Steps:
        """What an hour's end loads and allocates is there before anything is measured."""
        steps = cls()
        steps.number = len(steps.wall_ms)
        steps.end_hour()
        steps.by_hour.clear()
        return steps

    def last_over(self, first: dict[str, float]) -> dict[str, float]:
        return {key: over(value, first[key]) for key, value in self.by_hour[-1].items() if key != "rss_mb"}


class Repetitions:
    """Words of each time that the material was heard, beside what was said; and the first finals of all."""

    def __init__(self, period_s: float, text: str) -> None:
        self._period_s, self._text = period_s, text
        self._words: list[str] = []
        self.first: list[str] = []
        self.number = 0
        self._early, self._late = ErrorCounts(), deque[ErrorCounts]()
        word_errors(text, text)  # loads what counts errors, and allocates what it takes

    def heard(self, final: Final) -> None:
        if final.end <= CHECKED_S:
            self.first.append(final.text)
        if final.start >= (self.number + 1) * self._period_s - PAUSE_S / 2:
            self.end()
        self._words.append(final.text)

    def end(self) -> None:
        self.number += 1
        errors = word_errors(self._text, " ".join(self._words))
        a_hour = max(1, int(HOUR_S / self._period_s))
        if self.number <= a_hour:
            self._early += errors
        self._late.append(errors)
        if len(self._late) > a_hour:
            self._late.popleft()
        self._words = []

    def report(self) -> dict[str, Any]:
        late = sum(self._late, ErrorCounts())
        return {
            "repetitions": self.number,
            "words_first_hour": counted(self._early),
            "words_last_hour": counted(late),
        }


def counted(errors: ErrorCounts) -> dict[str, float]:
    """Rate, and words lost and doubled among others, of the words that were said."""
    said = max(1, errors.reference_length)
    return {
        "wer": round(errors.errors / said, 4),
        "deleted": round(errors.deletions / said, 4),
        "inserted": round(errors.insertions / said, 4),
    }


def resident_kb() -> int:
    """Resident memory of this process, less what others could have too."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def fresh_hour(options: argparse.Namespace) -> Twin:
    """Another process with the same choices that hears an hour, or less where the whole is less."""
    choices = ("--minutes", options.minutes, "--rate", options.rate, "--decoder", options.decoder)
    return Twin([__file__, "--hours", str(min(1.0, options.hours)), *map(str, choices)])


def offline_finals(recognizer: Recognizer, played: np.ndarray, options: argparse.Namespace) -> list[str]:
    """Texts of the finals that end in the part of the stream that is checked, without a thread and a ring."""
    steady = ConditionedSource(Steady(played, options.rate, min(CHECKED_S + 30, options.hours * HOUR_S)))
    finals = [event for event in recognizer.stream(steady) if isinstance(event, Final)]
    return [final.text for final in finals if final.end <= CHECKED_S]


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--minutes", type=float, default=10.0, help="of recordings, played again and again")
    parser.add_argument("--rate", type=int, default=48_000)
    parser.add_argument("--decoder", choices=("greedy", "lm"), default="greedy")
    parser.add_argument("--turns", help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_little()  # as `edgeasr listen` does, and settles
    played, text = material(options.minutes, options.rate)
    total = round(options.hours * HOUR_S * options.rate)
    player = Player(played, options.rate, total)
    recognizer = Recognizer(load_model(), decoder=options.decoder)
    wanted = offline_finals(recognizer, played, options)
    recognizer.reset()
    steps, repetitions = Steps.rehearsed(), Repetitions(len(played) / options.rate, text)
    steps.turns = Turns.parsed(options.turns)
    fresh: Twin | None = None
    said: list[str] = []
    warm_kb, heard, wrong = 0, 0, 0
    began, cpu_began = time.monotonic(), time.process_time()
    player.mic = Microphone(sound=player, say=said.append)
    player.mic._stopped = lambda: heard >= total
    settle()
    with ConditionedSource(Checked(player.mic, played), said.append) as source:
        for block in source.blocks():
            heard = block.start_sample + len(block.samples)
            recognizer.accept_waveform(block.samples, source.sample_rate_hz)
            while recognizer.is_ready():
                for event in steps.step(recognizer):
                    if isinstance(event, Final):
                        repetitions.heard(event)
            player.taken()
            heard_s = heard / options.rate
            if not warm_kb and heard_s >= min(WARM_S, options.hours * HOUR_S / 2):
                warm_kb = resident_kb()
            if heard_s >= (len(steps.by_hour) + 1) * HOUR_S:
                steps.end_hour()
            if fresh is None and not options.turns and heard_s >= (options.hours - 1) * HOUR_S:
                fresh = fresh_hour(options)
                steps.turns = fresh.turns
        wrong = source.source.wrong
    grown_kb = resident_kb() - warm_kb
    if steps.number:
        steps.end_hour()
    report = {
        "hours": options.hours,
        "decoder": options.decoder,
        "rate_hz": options.rate,
        "wall_s": round(time.monotonic() - began, 1),
        "cpu_s": round(time.process_time() - cpu_began, 1),
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "samples": heard,
        "samples_lost_doubled_or_changed": wrong,
        "not_stepped_through_s": round(heard / options.rate - recognizer.heard_s, 2),
        "finals_compared_with_the_offline_path": len(wanted),
        "finals_that_differ": sum(a != b for a, b in zip_longest(wanted, repetitions.first)),
        "said": said,
        "rss_mb_after_10_minutes": round(warm_kb / 1024, 2),
        "rss_mb_growth_since": round(grown_kb / 1024, 2),
        "by_hour": steps.by_hour,
        **repetitions.report(),
    }
    if fresh:
        in_turns = json.loads(fresh.report())["by_hour"][-1]
        report |= {"fresh_hour_in_turns": in_turns, "last_hour_over_fresh": steps.last_over(in_turns)}
        report["last_hour_over_first"] = steps.last_over(steps.by_hour[0])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
