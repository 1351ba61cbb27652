import asyncio
import json
import logging
import socket
import struct
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

SERVED = run_path(str(Path(__file__).with_name("served.py")))
BAD = run_path(str(Path(__file__).with_name("bad_clients.py")))
served, run, pcm = (SERVED[name] for name in ("served", "run", "pcm"))
tone, silence, RATE_HZ = (SERVED[name] for name in ("tone", "silence", "RATE_HZ"))
BadClients, frame = BAD["BadClients"], BAD["frame"]

INPUTS = 2000


async def converse(server, text="abc"):
    """What a client that does everything right is answered."""
    async with server.client.ws_connect(server.url) as socket:
        await socket.send_str(json.dumps({"config": {"sample_rate": RATE_HZ}}))
        await socket.send_bytes(pcm(tone(text)))
        await socket.send_str('{"eof" : 1}')
        return [await socket.receive_json() for _ in range(2)][-1]["text"]


async def until_quiet(server, connections=0):
    while server.hub.num_streams or server.server.num_connections > connections:
        await asyncio.sleep(0.01)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_clients_that_do_everything_wrong_leave_nothing_behind(caplog):
    async def endure():
        async with served(max_streams=8, idle_s=0.5, request_s=3.0, max_connections=64) as server:
            before = descriptors()
            clients = BadClients(server.port, seed=7)
            await clients.inputs(INPUTS)
            await until_quiet(server)
            after = descriptors()
            return clients.counts, await converse(server), after - before

    with caplog.at_level(logging.WARNING):
        counts, text, left = run(endure())
    assert counts.total() >= INPUTS
    assert min(counts.values()) > 50
    assert text == "abc"
    assert left <= 1  # a connection of the client's pool
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.text


def test_a_client_that_reads_nothing_is_cut_off_and_stalls_nobody():
    """It sends for ever and never reads: the answers fill its buffers, then its time runs out."""
    begin = frame(1, json.dumps({"config": {"sample_rate": RATE_HZ}}).encode()) + frame(2, pcm(tone("ab" * 60)))
    again = frame(2, b"\x00\x00") * 100

    async def endure():
        async with served(unread_s=0.3, queue_s=1.0) as server:
            with socket.socket() as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                deaf.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(deaf, ("127.0.0.1", server.port))
                await loop.sock_sendall(deaf, BadClients(server.port, seed=1).upgrade() + begin)

                async def shout():
                    while True:
                        await loop.sock_sendall(deaf, again)

                with pytest.raises(ConnectionError):
                    await asyncio.gather(shout(), listen(server))
            await until_quiet(server, connections=1)
            return server.metric("edgeasr_closed_total", reason="unread")

    async def listen(server):
        for _ in range(20):
            assert await converse(server) == "abc"

    assert run(endure()) == 1


def test_a_client_that_vanishes_is_forgotten_after_its_time():
    """No FIN, no RST: as when the power goes."""

    async def endure():
        async with served(idle_s=0.3) as server:
            with socket.socket() as gone:
                gone.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(gone, ("127.0.0.1", server.port))
                await loop.sock_sendall(gone, BadClients(server.port, seed=1).upgrade() + frame(2, bytes(1000)))
                while not server.hub.num_streams:
                    await asyncio.sleep(0.01)
                while server.hub.num_streams:
                    await asyncio.sleep(0.01)
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await until_quiet(server)

    run(endure())


def test_many_streams_are_served_alike():
    """Twelve clients send at once, as fast as they are answered; when one is done, the others are far."""
    content = pcm(np.concatenate([tone("ab cab"), silence(1.2)] * 3))
    step = 2 * RATE_HZ // 5
    answers, at_the_first_end = [0] * 12, []

    async def client(server, barrier, number):
        async with server.client.ws_connect(server.url) as socket:
            await socket.send_str(json.dumps({"config": {"sample_rate": RATE_HZ}}))
            words = []
            await barrier.wait()
            for first in range(0, len(content), step):
                await socket.send_bytes(content[first : first + step])
                words += [word["word"] for word in (await socket.receive_json()).get("result", [])]
                answers[number] += 1
            at_the_first_end.append(min(answers))
            await socket.send_str('{"eof" : 1}')
            return words + [word["word"] for word in (await socket.receive_json()).get("result", [])]

    async def endure():
        async with served(max_streams=12) as server:
            barrier = asyncio.Barrier(12)
            return await asyncio.gather(*[client(server, barrier, number) for number in range(12)])

    assert run(endure()) == [["ab", "cab"] * 3] * 12
    assert at_the_first_end[0] >= answers[0] / 2
