"""`edgeasr serve` on loopback: 50 streams of speech at real time, clients that do not read, 100,000 malformed inputs.

Run by `make soak`; prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from runpy import run_path
from typing import Any

import aiohttp
import numpy as np
import soxr

from edgeasr.audio import FileSource
from edgeasr.gate import GateConfig
from edgeasr.manifest import read_manifest
from edgeasr.metrics import percentiles
from edgeasr.recognizer import Recognizer
from edgeasr.transcript import Final

HERE = Path(__file__).parent
SPEECH = HERE.parents[1] / "shared" / "speech" / "dev.jsonl"
BAD = run_path(str(HERE / "bad_clients.py"))
BadClients, frame = BAD["BadClients"], BAD["frame"]

RATE_HZ = 16_000
MESSAGE_S = 0.2  # as vosk-server's clients
NUM_VOICES = 10  # different recordings; streams share them
STOP_S = 30
PARTS = ("load", "readers", "malformed")


def voices(seconds: float) -> list[bytes]:
    """Real speech as 16-bit samples, other words in each; the bundled clip where there is none."""
    files = [HERE.parent / "edgeasr" / "models" / "demo.flac"]
    if SPEECH.is_file():
        files = [one.path for one in read_manifest(SPEECH)]
    random.Random(5).shuffle(files)
    read = cycle(files)
    return [_voice(read, seconds) for _ in range(NUM_VOICES)]


def _voice(files: Iterator[Path], seconds: float) -> bytes:
    parts, missing = [], round(seconds * RATE_HZ)
    while missing > 0:
        with FileSource(next(files)) as source:
            samples = np.concatenate([block.samples for block in source.blocks()])
            parts.append(soxr.resample(samples, source.sample_rate_hz, RATE_HZ)[:missing])
        missing -= len(parts[-1])
    return np.round(np.clip(np.concatenate(parts) * 32767, -32768, 32767)).astype("<i2").tobytes()


def alone(recognizer: Recognizer, voice: bytes) -> str:
    """What a recogniser hears that has nothing else to do."""
    recognizer.reset()
    recognizer.accept_waveform(np.frombuffer(voice, "<i2").astype(np.float32) * np.float32(2**-15), RATE_HZ)
    recognizer.input_finished()
    texts = []
    while recognizer.is_ready():
        texts += [event.text for event in recognizer.step() if isinstance(event, Final)]
    return " ".join(texts)


class Serving:
    """The process. port: where it listens"""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "edgeasr.cli.main", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"listening at http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            sys.exit(line + self.process.stderr.read())
        self.port = int(found[1])

    @property
    def rss_mb(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return round(int(found[1]) / 1024, 1)

    @property
    def num_descriptors(self) -> int:
        """Open files and sockets."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def stop(self) -> tuple[int, str]:
        """Exit status, and what it wrote."""
        self.process.send_signal(signal.SIGTERM)
        written = self.process.communicate(timeout=STOP_S)[1]
        return self.process.returncode, written


@contextmanager
def serving(*options: str) -> Iterator[Serving]:
    """A process that is gone at the end."""
    server = Serving(*options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@dataclass
class Spoken:
    """What became of one stream. delays_s: from a message to its answer"""

    words: list[str] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)


async def speak(session: aiohttp.ClientSession, port: int, voice: bytes, begin_s: float) -> Spoken:
    """One stream at real time, as a client of vosk-server that does not wait for its answers."""
    spoken, sent_s = Spoken(), []
    step = int(MESSAGE_S * RATE_HZ) * 2
    async with session.ws_connect(f"http://127.0.0.1:{port}/") as talk:
        await talk.send_str(json.dumps({"config": {"sample_rate": RATE_HZ}}))

        async def listen() -> None:
            async for message in talk:
                answer = json.loads(message.data)
                spoken.delays_s.append(time.monotonic() - sent_s[len(spoken.delays_s)])
                spoken.words += [word["word"] for word in answer.get("result", [])]

        listening = asyncio.create_task(listen())
        for number, first in enumerate(range(0, len(voice), step)):
            await asyncio.sleep(begin_s + (number + 1) * MESSAGE_S - time.monotonic())
            sent_s.append(time.monotonic())
            await talk.send_bytes(voice[first : first + step])
        sent_s.append(time.monotonic())
        await talk.send_str('{"eof" : 1}')
        await listening
    return spoken


async def deaf(port: int, voice: bytes) -> None:
    """Sends messages of a sample each, for ever, and reads no answer, until it is cut off."""
    loop, begin = asyncio.get_running_loop(), json.dumps({"config": {"sample_rate": RATE_HZ}}).encode()
    with socket.socket() as client, suppress(ConnectionError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the kernel takes megabytes for it
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        spoken = frame(1, begin) + frame(2, voice[: 2 * RATE_HZ * 5])
        await loop.sock_sendall(client, BadClients(port, seed=3).upgrade() + spoken)
        while True:
            await loop.sock_sendall(client, frame(2, b"\0\0") * 100)


async def refusal(session: aiohttp.ClientSession, port: int) -> Any:
    """What one client more is told, and the code of the close."""
    async with session.ws_connect(f"http://127.0.0.1:{port}/") as talk:
        answer = await talk.receive_json()
        return answer | {"close_code": (await talk.receive()).data}


async def status(session: aiohttp.ClientSession, port: int) -> dict[str, Any]:
    """What /health says."""
    async with session.get(f"http://127.0.0.1:{port}/health") as response:
        answer: dict[str, Any] = await response.json()
        return answer


def delays(spoken: list[Spoken]) -> dict[str, Any]:
    """Milliseconds: of all answers, and how much streams differ."""
    every = [1000 * delay for one in spoken for delay in one.delays_s]
    medians = [1000 * float(np.median(one.delays_s)) for one in spoken]
    worst = [1000 * float(np.percentile(one.delays_s, 95)) for one in spoken]
    return {
        **{name: round(value or 0.0, 1) for name, value in percentiles(every, (50, 95, 99)).items()},
        "max": round(max(every), 1),
        "median_of_streams": [round(min(medians), 1), round(max(medians), 1)],
        "p95_of_streams": [round(min(worst), 1), round(max(worst), 1)],
    }


async def many_streams(server: Serving, count: int, spoken_voices: list[bytes], wanted: list[str]) -> dict[str, Any]:
    """All at once; one more is refused meanwhile."""
    rss_before, cpu_before_s, pick = server.rss_mb, server.cpu_s, random.Random(1)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        now_s = time.monotonic()
        begins_s = [now_s + 0.5 + pick.random() for _ in range(count)]
        streams = [
            asyncio.create_task(speak(session, server.port, spoken_voices[n % NUM_VOICES], begins_s[n]))
            for n in range(count)
        ]
        await asyncio.sleep(2)
        refused = await refusal(session, server.port)
        rss_mb = []
        while not all(stream.done() for stream in streams):
            rss_mb.append(server.rss_mb)
            await asyncio.sleep(1)
        spoken = [stream.result() for stream in streams]
        left = await status(session, server.port)
    wall_s = time.monotonic() - now_s
    right = sum(" ".join(one.words) == wanted[n % NUM_VOICES] for n, one in enumerate(spoken))
    return {
        "streams": count,
        "wall_s": round(wall_s, 1),
        "answers_ms": delays(spoken),
        "transcripts_as_alone": right,
        "one_more": refused,
        "cpu_of_a_core": round((server.cpu_s - cpu_before_s) / wall_s, 3),
        "rss_mb": [rss_before, rss_mb[len(rss_mb) // 2], max(rss_mb)],
        "streams_left": left["streams"],
    }


async def slow_readers(server: Serving, voice: bytes, count: int) -> dict[str, Any]:
    """So many that speak and read, alone and then beside as many that do not read."""
    report: dict[str, Any] = {"readers": count, "deaf": count}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for name, num_deaf in (("alone_ms", 0), ("beside_deaf_ms", count)):
            deaf_ones = [asyncio.create_task(deaf(server.port, voice)) for _ in range(num_deaf)]
            begin_s = time.monotonic() + 0.5
            spoken = await asyncio.gather(*[speak(session, server.port, voice, begin_s) for _ in range(count)])
            report[name] = delays(spoken)
            await asyncio.gather(*deaf_ones)  # until all were cut off
        report["rss_mb"] = server.rss_mb
        report["streams_left"] = (await status(session, server.port))["streams"]
    return report


async def malformed(server: Serving, count: int) -> dict[str, Any]:
    """In ten parts, to see whether anything grows."""
    clients, rss_mb, descriptors, began_s = BadClients(server.port, seed=11), [], [], time.monotonic()
    async with aiohttp.ClientSession() as session:
        for part in range(1, 11):
            await clients.inputs(count * part // 10)
            while (await status(session, server.port))["streams"]:
                await asyncio.sleep(0.1)
            rss_mb.append(server.rss_mb)
            descriptors.append(server.num_descriptors)
        health = await status(session, server.port)
    return {
        "inputs": clients.counts.total(),
        "kinds": dict(clients.counts),
        "wall_s": round(time.monotonic() - began_s, 1),
        "rss_mb_by_tenths": rss_mb,
        "descriptors_by_tenths": descriptors,
        "health": health["status"],
        "streams_left": health["streams"],
    }


async def soak(options: argparse.Namespace) -> dict[str, Any]:
    """The parts that are wanted, on one server."""
    spoken = voices(options.seconds)
    limits = ("--max-streams", str(options.streams), "--decoder", options.decoder, "--idle", "5")
    limits += ("--workers", str(options.workers))
    if options.model:
        limits += ("--model", str(options.model))
    report: dict[str, Any] = {"decoder": options.decoder, "workers": options.workers}
    with serving(*limits) as server:
        if "load" in options.parts:
            recognizer = Recognizer(options.model, decoder=options.decoder, gate=GateConfig())
            wanted = [alone(recognizer, voice) for voice in spoken]
            report["load"] = await many_streams(server, options.streams, spoken, wanted)
        if "readers" in options.parts:
            report["readers"] = await slow_readers(server, spoken[0][: RATE_HZ * 2 * 20], options.streams // 5)
        if "malformed" in options.parts:
            report["malformed"] = await malformed(server, options.inputs)
        code, written = server.stop()
    return report | {"exit_code": code, "stderr_lines": written.count("\n"), "stderr_end": written[-500:]}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=2, help="streams that the server steps at the same time")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--decoder", choices=("greedy", "lm"), default="greedy")
    parser.add_argument("--model", type=Path, help="of another bundle than the bundled one")
    print(json.dumps(asyncio.run(soak(parser.parse_args()))))


if __name__ == "__main__":
    main()
