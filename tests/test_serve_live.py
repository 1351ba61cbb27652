"""The web socket of the live page, and the page's files, without a browser."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from runpy import run_path

import aiohttp
import numpy as np
import pytest

from edgeasr.audio import AudioBlock
from edgeasr.errors import DeviceError
from edgeasr.memory import Admission, Decision, SummaryContext
from edgeasr.serve.live_teller import LiveTeller
from edgeasr.serve.mailbox import Mailbox
from edgeasr.serve.security import Access
from edgeasr.serve.server import Server, ServerConfig
from edgeasr.transcript import Final, cues

SERVED = run_path(str(Path(__file__).with_name("served.py")))
run, pcm, make_hub, heard_from_pcm, tone, silence, RATE_HZ = (
    SERVED[name] for name in ("run", "pcm", "make_hub", "heard_from_pcm", "tone", "silence", "RATE_HZ")
)

TOKEN = "correct-horse-battery"
BLOCK = RATE_HZ // 25


def speech() -> np.ndarray:
    """Three tones, a pause, two tones."""
    return np.concatenate([tone("abc"), silence(2.0), tone("de"), silence(0.2)])


class Room:
    """A microphone that hears `waveform`, a block whenever `let` allows one, then nothing until it is closed."""

    name, sample_rate_hz, duration_s = "room", RATE_HZ, None

    def __init__(self, waveform, let=None):
        self.waveform, self.let, self.closed = waveform, let, threading.Event()

    def blocks(self):
        for first in range(0, len(self.waveform), BLOCK):
            if self.let is not None:
                self.let.acquire()
            if self.closed.is_set():
                return
            yield AudioBlock(self.waveform[first : first + BLOCK], first)
        self.closed.wait(60)

    def close(self):
        self.closed.set()
        if self.let is not None:
            self.let.release()


@asynccontextmanager
async def site(source=None, access=None, **limits):
    """(hub, client, address) of a server whose microphone is `source`."""
    async with (
        make_hub(**limits) as hub,
        Server(hub, ServerConfig(access or Access(), port=0), "scripted", source or (lambda: Room(speech()))) as server,
        aiohttp.ClientSession() as client,
    ):
        yield hub, client, server.urls[0]


async def hello(socket, token=None):
    await socket.send_json({"type": "hello", **({"token": token} if token else {})})
    return await socket.receive_json()


async def begin(socket, **start):
    """Say hello, and what to start. returns: the answer"""
    assert (await hello(socket))["type"] == "welcome"
    await socket.send_json({"type": "start", **start})
    return await socket.receive_json()


async def told(socket, last=("ended", "error")):
    """The messages until the last one."""
    messages = []
    while True:
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        messages.append(json.loads(message.data))
        if messages[-1]["type"] in last:
            return messages


def conversation(talk, **options):
    """What `talk` gives of a web socket that is open, and of the hub."""

    async def converse():
        async with site(**options) as (hub, client, url), client.ws_connect(f"{url}/live") as socket:
            return await talk(socket, hub)

    return run(converse())


def finals(messages):
    return [message for message in messages if message["type"] == "final"]


def texts(messages):
    return [message["text"] for message in finals(messages)]


def test_sound_of_a_browser_becomes_words_with_their_subtitles():
    async def talk(socket, hub):
        started = await begin(socket, source="browser", rate=RATE_HZ)
        for first in range(0, len(speech()), BLOCK):
            await socket.send_bytes(pcm(speech()[first : first + BLOCK]))
        await socket.send_json({"type": "stop"})
        return started, await told(socket), (await socket.receive()).type

    started, messages, closed = conversation(talk)
    assert (started["type"], started["stream_s"]) == ("started", 0.0)
    wanted = [event for event in heard_from_pcm(pcm(speech())) if isinstance(event, Final)]
    assert texts(messages) == [event.text for event in wanted] == ["abc", "de"]
    for found, event in zip(finals(messages), wanted, strict=True):
        assert found["cues"] == [
            {"start": round(c.start, 3), "end": round(c.end, 3), "text": c.text} for c in cues(event)
        ]
        assert found["words"] == event.to_dict()["words"]
        assert 0 < found["latency_ms"] < 60_000
    assert messages[-1] == {"type": "ended", "reason": "stop"}
    assert closed is aiohttp.WSMsgType.CLOSE


def test_lost_sound_is_counted_in_time():
    async def talk(socket, hub):
        await begin(socket, source="browser", rate=RATE_HZ)
        await socket.send_bytes(pcm(tone("abc")))
        await socket.send_json({"type": "gap", "samples": 3 * RATE_HZ})
        await socket.send_bytes(pcm(tone("de")))
        await socket.send_json({"type": "stop"})
        return finals(await told(socket))

    first, second = conversation(talk)
    without = len(tone("abc")) / RATE_HZ
    assert (first["text"], second["text"]) == ("abc", "de")
    assert second["words"][0]["start"] == pytest.approx(without + 3.0, abs=0.05)


def test_load_is_told_while_sound_comes():
    async def talk(socket, hub):
        await begin(socket, source="browser", rate=RATE_HZ)
        await socket.send_bytes(pcm(speech()))
        return (await told(socket, last=("status",)))[-1]

    status = conversation(talk)
    assert (status["waiting_s"], 0 < status["rtf"] < 10) == (0.0, True)


def summary(number, decision, **more):
    context = SummaryContext(more.pop("level", 2), number, 4.0 * number, 4.0 * number + 4.0, similarity=0.912345)
    return Admission(context, np.zeros(3, np.float32), decision, "similarity", **more)


def test_what_became_of_summaries_is_told_with_how_many_there_were():
    messages = []
    teller = LiveTeller(messages.append)
    teller.admitted(summary(0, Decision.STORE))
    teller.admitted(summary(1, Decision.MERGE, into=0))
    teller.admitted(summary(0, Decision.STORE, level=3))
    teller.admitted(summary(2, Decision.PIN))
    teller.admitted(summary(3, Decision.SKIP))
    counts = [(one["number"], one["decision"], one["stored"], one["merged"], one["skipped"]) for one in messages]
    assert counts == [(0, "store", 1, 0, 0), (1, "merge", 1, 1, 0), (2, "pin", 2, 1, 0), (3, "skip", 2, 1, 1)]
    assert messages[1] | {"stored": 1, "merged": 1, "skipped": 0} == {
        "type": "memory", "number": 1, "start": 4.0, "end": 8.0, "decision": "merge", "by": "similarity",
        "similarity": 0.912, "into": 0, "stored": 1, "merged": 1, "skipped": 0,
    }  # fmt: skip


def test_a_mailbox_keeps_finals_and_of_the_rest_the_latest():
    async def fill():
        mailbox = Mailbox(room=2)
        for message in (
            {"type": "partial", "text": "a"},
            {"type": "level", "peak": 0.1},
            {"type": "final", "text": "a b"},
            {"type": "partial", "text": "c"},
            {"type": "level", "peak": 0.2},
            {"type": "partial", "text": "c d"},
            {"type": "final", "text": "c d"},
        ):
            mailbox.put(message)
        taken, overflowed = await mailbox.take(), mailbox.overflowed
        for _ in range(3):
            mailbox.put({"type": "memory"})
        return taken, overflowed, len(await mailbox.take()), mailbox.overflowed

    assert run(fill()) == (
        [{"type": "final", "text": "a b"}, {"type": "final", "text": "c d"}, {"type": "level", "peak": 0.2}],
        False,
        2,
        True,
    )


def test_the_device_is_heard_once_for_all_who_watch_and_closed_after_the_last():
    opened = []
    let = threading.Semaphore(0)

    def source():
        opened.append(Room(speech(), let))
        return opened[-1]

    async def watch():
        async with site(source) as (hub, client, url):
            first = await client.ws_connect(f"{url}/live")
            assert (await begin(first, source="device"))["stream_s"] == 0.0
            let.release(len(speech()) // BLOCK - 8)  # all but the end of the last word
            heard = await told(first, last=("final",))
            second = await client.ws_connect(f"{url}/live")
            started = await begin(second, source="device")
            known = await told(second, last=("final",))
            await first.send_json({"type": "stop"})
            left = await told(first)
            assert (hub.num_streams, opened[0].closed.is_set()) == (1, False)
            let.release(100)
            while (await told(second, last=("partial",)))[-1]["text"] != "de":
                pass
            await second.send_json({"type": "stop"})
            rest = await told(second)
            await asyncio.gather(first.close(), second.close())
            assert opened[0].closed.is_set()
            return heard, started, known, left, rest, hub.num_streams

    heard, started, known, left, rest, num_streams = run(watch())
    assert texts(heard) == texts(known) == ["abc"]
    assert {"type", "peak", "rms"} == set(next(one for one in heard if one["type"] == "level"))
    assert started["stream_s"] > known[-1]["words"][-1]["end"]
    assert left[-1] == rest[-1] == {"type": "ended", "reason": "stop"}
    assert texts(rest) == ["de"]
    assert (len(opened), num_streams) == (1, 0)


def test_the_device_is_opened_again_for_who_comes_after_it_was_closed():
    opened = []

    def source():
        opened.append(Room(speech()))
        return opened[-1]

    async def twice():
        ids = []
        async with site(source) as (hub, client, url):
            for _ in range(2):
                async with client.ws_connect(f"{url}/live") as socket:
                    ids.append((await begin(socket, source="device"))["stream"])
                    assert texts(await told(socket, last=("final",))) == ["abc"]
            async with asyncio.timeout(10):
                while hub.num_streams:
                    await asyncio.sleep(0.01)
        return ids

    ids = run(twice())
    assert len(set(ids)) == len(opened) == 2
    assert all(room.closed.is_set() for room in opened)


def test_a_microphone_that_gives_nothing_is_seen_to():
    async def talk(socket, hub):
        await begin(socket, source="device")
        levels = await told(socket, last=("level",))
        while levels[-1]["peak"] > 0:
            levels += await told(socket, last=("level",))
        return [message for message in levels if message["type"] == "level"]

    *while_it_heard, after = conversation(talk, source=lambda: Room(tone("abc")))
    assert all(level["peak"] > 0.1 for level in while_it_heard)
    assert after == {"type": "level", "peak": 0.0, "rms": 0.0}


def test_a_page_that_goes_away_closes_the_microphone():
    opened = []

    def source():
        opened.append(Room(speech()))
        return opened[-1]

    async def go():
        async with site(source) as (_, client, url):
            socket = await client.ws_connect(f"{url}/live")
            await begin(socket, source="device")
            socket._response.connection.transport.abort()
            async with asyncio.timeout(10):
                while not opened[0].closed.is_set():
                    await asyncio.sleep(0.01)

    run(go())


def missing():
    raise DeviceError("no microphone found: plug one in")


class Unplugged(Room):
    def blocks(self):
        yield AudioBlock(speech()[: 2 * RATE_HZ], 0)
        raise DeviceError("the microphone room stopped: check its plug")


@pytest.mark.parametrize(
    ("source", "text"),
    [(missing, "no microphone found: plug one in"), (lambda: Unplugged(None), "the microphone room stopped")],
)
def test_a_device_that_cannot_be_heard_is_told_to_who_watches(source, text):
    async def talk(socket, hub):
        await hello(socket)
        await socket.send_json({"type": "start", "source": "device"})
        messages = await told(socket)
        async with asyncio.timeout(10):
            while hub.num_streams:
                await asyncio.sleep(0.01)
        return messages

    last = conversation(talk, source=source)[-1]
    assert (last["type"], last["code"]) == ("error", "device")
    assert last["text"].startswith(text)


def test_a_fault_of_the_program_is_told_to_who_watches_too(caplog):
    def source():
        raise ValueError("a fault of ours")

    async def talk(socket, hub):
        return await begin(socket, source="device")

    assert conversation(talk, source=source)["code"] == "fault"
    assert "a fault of ours" in caplog.text


@pytest.mark.parametrize(("token", "kind"), [(TOKEN, "welcome"), (None, "error"), ("wrong-horse-battery", "error")])
def test_a_token_is_in_the_first_message(token, kind):
    async def talk(socket, hub):
        return await hello(socket, token)

    answer = conversation(talk, access=Access(TOKEN))
    assert answer["type"] == kind
    if kind == "error":
        assert (answer["code"], answer["text"]) == ("unauthorized", "That is not the token of this server.")


def test_pages_of_others_cannot_hear_the_room():
    async def ask():
        async with site() as (_, client, url):
            statuses = []
            for headers in ({"Origin": "https://elsewhere.example"}, {"Host": "elsewhere.example"}):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await client.ws_connect(f"{url}/live", headers=headers)
                statuses.append(refused.value.status)
            async with client.ws_connect(f"{url}/live", headers={"Origin": url}) as socket:
                return statuses, (await hello(socket))["type"]

    assert run(ask()) == ([403, 403], "welcome")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (["{"], "got text that is no JSON"),
        (["[" * 100_000], "got text that is no JSON"),
        (["5"], "got 5, wanted an object with a type"),
        (['{"type": 1}'], "got {'type': 1}, wanted an object with a type"),
        ([b"\0\0"], "got sound, wanted start with the source browser before"),
        (['{"type": "hello"}', '{"type": "start", "source": "radio"}'], "got {'type': 'start', 'source': 'radio'}"),
        (['{"type": "hello"}', '{"type": "start", "source": "browser"}'], "got rate None, wanted a whole number"),
        (['{"type": "hello"}', '{"type": "start", "source": "browser", "rate": 1e9}'], "got rate 1000000000.0, wanted"),
        (
            ['{"type": "hello"}', '{"type": "start", "source": "browser", "rate": 5}'],
            "the browser's sound has a sample",
        ),
        (['{"type": "hello"}', '{"type": "start", "source": "browser", "rate": 8000}', b"\0"], "got 1 bytes of sound"),
        (
            ['{"type": "hello"}', '{"type": "start", "source": "browser", "rate": 8000}', '{"type": "gap"}'],
            "got samples None",
        ),
    ],
)
def test_what_is_not_understood_is_refused_in_words(said, text):
    async def talk(socket, hub):
        for one in said:
            await (socket.send_bytes(one) if isinstance(one, bytes) else socket.send_str(one))
        messages = await told(socket, last=("error",))
        closed = await socket.receive()
        return messages[-1], closed.type, hub.num_streams

    message, closed, num_streams = conversation(talk)
    assert message["text"].startswith(text)
    assert (closed, num_streams) == (aiohttp.WSMsgType.CLOSE, 0)


@pytest.mark.parametrize("start", [None, {"source": "browser", "rate": RATE_HZ}, {"source": "device"}])
def test_a_message_over_the_limit_is_refused_in_words(start):
    async def talk(socket, hub):
        if start is not None:
            await begin(socket, **start)
        await socket.send_bytes(bytes(5001))
        messages = await told(socket, last=("error",))
        closed = await socket.receive()
        while hub.num_streams:
            await asyncio.sleep(0.01)
        return messages[-1], closed.data

    text = "got a message of more than 5000 bytes, wanted at most that: send it in parts"
    assert conversation(talk, max_message_bytes=5000) == ({"type": "error", "code": "malformed", "text": text}, 1009)


def test_a_full_server_says_so():
    async def talk(socket, hub):
        async with hub.stream("other"):
            return await begin(socket, source="browser", rate=RATE_HZ)

    answer = conversation(talk, max_streams=1)
    assert (answer["code"], answer["text"]) == (
        "full",
        "the server hears 1 stream, as many as it takes: try again later",
    )


def test_a_page_that_sends_nothing_gets_its_last_words():
    async def talk(socket, hub):
        await begin(socket, source="browser", rate=RATE_HZ)
        await socket.send_bytes(pcm(speech()))
        return await told(socket)

    messages = conversation(talk, idle_s=0.3)
    assert texts(messages) == ["abc", "de"]
    assert messages[-1] == {"type": "ended", "reason": "idle"}


@pytest.mark.parametrize("source", ["browser", "device"])
def test_a_server_that_stops_tells_the_last_words(source):
    async def talk(socket, hub):
        await begin(socket, source=source, rate=RATE_HZ)
        if source == "browser":
            await socket.send_bytes(pcm(speech()))
        heard = await told(socket, last=("final",))
        if source == "device":
            heard += await told(socket, last=("partial",))
        stopping = asyncio.create_task(hub.stop())
        heard += await told(socket)
        await stopping
        return heard

    messages = conversation(talk)
    assert texts(messages) == ["abc", "de"]
    assert messages[-1] == {"type": "ended", "reason": "stopping"}


def random_message(rng):
    kind = rng.integers(0, 4)
    if kind == 0:
        return rng.bytes(int(rng.integers(0, 200)))
    if kind == 1:
        return bytes(rng.integers(32, 127, rng.integers(0, 60)).astype(np.uint8)).decode()
    types = ["hello", "start", "stop", "gap", "here", "x"]
    values = [None, True, -1, 0, 8000, 1e300, "browser", "device", [], {}]
    keys = ["source", "rate", "samples", "token"]
    said = {key: values[rng.integers(0, len(values))] for key in keys if rng.random() < 0.6}
    return json.dumps({"type": types[rng.integers(0, len(types))], **said})


def test_random_messages_leave_the_server_as_it_was():
    rng = np.random.default_rng(5)

    async def one(client, url):
        async with client.ws_connect(f"{url}/live") as socket:
            if rng.random() < 0.8:
                await hello(socket)
            if rng.random() < 0.6:
                await socket.send_json({"type": "start", "source": "browser", "rate": 16000})
            for _ in range(rng.integers(1, 6)):
                said = random_message(rng)
                await (socket.send_bytes(said) if isinstance(said, bytes) else socket.send_str(said))
            if rng.random() < 0.3:
                socket._response.connection.transport.abort()

    async def all_of_them():
        async with site() as (hub, client, url):
            for _ in range(20):
                await asyncio.gather(*(one(client, url) for _ in range(5)), return_exceptions=True)
            async with asyncio.timeout(10):
                while hub.num_streams:
                    await asyncio.sleep(0.01)
            async with client.ws_connect(f"{url}/live") as socket:
                return (await begin(socket, source="browser", rate=RATE_HZ))["type"]

    assert run(all_of_them()) == "started"


def test_the_page_and_its_files_need_no_token_and_load_nothing_from_elsewhere():
    async def get():
        found = {}
        async with site(access=Access(TOKEN)) as (_, client, url):
            for path in ("/", "/page/main.js", "/page/live.css", "/page/icon.svg", "/page/app.py", "/page/..%2fapp.py"):
                async with client.get(url + path) as answer:
                    found[path] = answer.status, answer.content_type, answer.headers["Content-Security-Policy"]
        return found

    found = run(get())
    assert {path: answer[:2] for path, answer in found.items() if answer[0] == 200} == {
        "/": (200, "text/html"),
        "/page/main.js": (200, "text/javascript"),
        "/page/live.css": (200, "text/css"),
        "/page/icon.svg": (200, "image/svg+xml"),
    }
    assert [found[path][0] for path in ("/page/app.py", "/page/..%2fapp.py")] == [404, 404]
    policy = dict(rule.split(" ", 1) for rule in found["/"][2].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
