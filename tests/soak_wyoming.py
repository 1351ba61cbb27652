"""Wyoming under fire: clients that send random bytes, mutated events and halves of them, and one that is heard.

    .venv/bin/python tests/soak_wyoming.py [--inputs 20000]

Exit code 0 if the server answered to the end, held no stream, connection or file of them, and did not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from contextlib import suppress
from pathlib import Path
from runpy import run_path

import numpy as np
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient

from edgeasr.serve.wyoming_conversation import WyomingModel
from edgeasr.serve.wyoming_server import WyomingAddress, WyomingServer

SERVED = run_path(str(Path(__file__).with_name("served.py")))
make_hub, pcm, tone, RATE_HZ = (SERVED[name] for name in ("make_hub", "pcm", "tone", "RATE_HZ"))

AT_ONCE = 20
MAX_GROWTH_KB = 4096  # of the resident set after the first quarter

VALID = [
    b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n',
    b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, "payload_length": 4}\nabcd',
    b'{"type": "audio-chunk", "data_length": 41, "payload_length": 6}\n{"rate": 8000, "width": 3, "channels": 2}abcdef',
    b'{"type": "transcribe", "data_length": 18}\n{"language": "en"}',
    b'{"type": "audio-stop"}\n',
    b'{"type": "describe"}\n',
    b'{"type": "ping", "data": {"text": "x"}}\n',
]
HUGE = [
    b'{"type": "audio-chunk", "payload_length": 99999999999}\n',
    b'{"type": "ping", "data_length": 4294967296}\n',
    b"{" * 70_000,
    b"[" * 60_000 + b"\n",
]


def message(rng: np.random.Generator) -> bytes:
    """Something that a client should not send, most of the time."""
    kind = rng.random()
    if kind < 0.2:
        return rng.bytes(int(rng.integers(1, 400)))
    if kind < 0.3:
        return HUGE[rng.integers(len(HUGE))]
    joined = bytearray(b"".join(VALID[i] for i in rng.integers(0, len(VALID), rng.integers(1, 6))))
    for _ in range(rng.integers(0, 4)):
        joined[rng.integers(len(joined))] = rng.integers(256)
    return bytes(joined[: rng.integers(1, len(joined) + 1)])


async def bad_client(port: int, sent: bytes, reads: bool) -> None:
    """Sends it, and reads all answers or goes away at once."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(sent)
            if reads:
                writer.write_eof()
                while await reader.read(1 << 16):
                    pass
        finally:
            writer.transport.abort()


async def good_client(uri: str) -> str:
    """What is heard of three tones."""
    async with AsyncClient.from_uri(uri) as client:
        await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
        await client.write_event(AudioChunk(RATE_HZ, 2, 1, pcm(tone("abc"))).event())
        await client.write_event(AudioStop().event())
        while (event := await client.read_event()) is not None:
            if event.type == "transcript":
                return event.data["text"]
    return "nothing"


def held() -> tuple[int, int]:
    """Open files, and kilobytes of the resident set."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(list(Path("/proc/self/fd").iterdir())), pages * resource.getpagesize() // 1024


async def soak(inputs: int) -> list[str]:
    """What went wrong."""
    rng = np.random.default_rng(17)
    wrong = []
    async with (
        make_hub() as hub,
        WyomingServer(hub, WyomingAddress("127.0.0.1", 0), WyomingModel("scripted")) as server,
    ):
        port = int(server.bound.rpartition(":")[2])
        before = held()
        for done in range(0, inputs, AT_ONCE):
            bad = (bad_client(port, message(rng), rng.random() < 0.5) for _ in range(AT_ONCE))
            heard, *_ = await asyncio.gather(good_client(server.bound), *bad)
            if heard != "abc":
                wrong.append(f"after {done} inputs a client heard {heard!r}")
            if done == inputs // 4 // AT_ONCE * AT_ONCE:
                before = held()
        async with asyncio.timeout(10):
            while hub.num_streams or server._clients:
                await asyncio.sleep(0.05)
        after = held()
        growth_kb = after[1] - before[1]
        if after[0] > before[0] + AT_ONCE:
            wrong.append(f"{after[0]} open files, {before[0]} before")
        if growth_kb > MAX_GROWTH_KB:
            wrong.append(f"grew by {growth_kb} kB")
        refused = hub.metrics.registry.get_sample_value("edgeasr_refused_total", {"reason": "malformed"})
        print(f"{inputs} inputs, {refused:.0f} refused as malformed; grew by {growth_kb} kB, open files {after[0]}")
        await hub.stop()
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    wrong = asyncio.run(soak(parser.parse_args().inputs))
    print("\n".join(wrong) or "well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
