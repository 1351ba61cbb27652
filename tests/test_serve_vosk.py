import asyncio
import json
import struct
from pathlib import Path
from runpy import run_path

import aiohttp
import numpy as np
import pytest

from edgeasr.audio import FileSource
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.serve.hub import Hub
from edgeasr.serve.limits import Limits
from edgeasr.serve.metrics import Metrics
from edgeasr.serve.security import Access
from edgeasr.serve.server import Server, ServerConfig
from edgeasr.transcript import Final

SERVED = run_path(str(Path(__file__).with_name("served.py")))
served, run, pcm = (SERVED[name] for name in ("served", "run", "pcm"))
GatedModel, tone, silence, RATE_HZ = (SERVED[name] for name in ("GatedModel", "tone", "silence", "RATE_HZ"))

MESSAGE_BYTES = 2 * RATE_HZ // 5  # what vosk-server's own clients send


class Client:
    """As vosk-server's test.py: a message, then its answer."""

    def __init__(self, socket):
        self.socket = socket

    async def say(self, message):
        await self.socket.send_str(json.dumps(message))

    async def hear(self, samples):
        await self.socket.send_bytes(samples)
        return await self.socket.receive_json()

    async def last(self):
        """The answer to the end of the stream, and the code that the server closes with."""
        await self.say({"eof": 1})
        answer = await self.socket.receive_json()
        assert (await self.socket.receive()).type is aiohttp.WSMsgType.CLOSE
        return answer, self.socket.close_code


def conversation(talk, path="/", **options):
    """What `talk` gives of a client that is connected."""

    async def converse():
        async with served(**options) as server, server.client.ws_connect(server.url + path) as socket:
            return await talk(Client(socket), server)

    return run(converse())


def words(text, start):
    return [{"conf": 0.9, "end": round(start + 0.08 * len(text), 3), "start": round(start, 3), "word": text}]


def test_every_message_is_answered_once():
    async def talk(client, server):
        await client.say({"config": {"sample_rate": RATE_HZ}})
        content = pcm(np.concatenate([tone("ab"), silence(1.2), tone("cd")]))
        answers = [
            await client.hear(content[first : first + MESSAGE_BYTES]) for first in range(0, len(content), MESSAGE_BYTES)
        ]
        return answers, await client.last()

    answers, (last, code) = conversation(talk)
    assert answers[0] == {"partial": "ab"}
    results = [answer for answer in answers if "partial" not in answer]
    assert results == [{"result": words("ab", 0.0), "text": "ab"}]
    assert answers[-1] == {"partial": "c"}
    assert last == {"result": words("cd", 1.36), "text": "cd"}
    assert code == 1000


def test_a_message_of_many_segments_is_one_result():
    async def talk(client, server):
        await client.say({"config": {"sample_rate": RATE_HZ}})
        segments = [part for text in ("ab", "cd", "ef") for part in (tone(text), silence(1.2))]
        return await client.hear(pcm(np.concatenate([*segments, tone("ga")])))

    answer = conversation(talk, max_finals=1)
    assert answer["text"] == "ab cd ef"
    assert [word["word"] for word in answer["result"]] == ["ab", "cd", "ef"]


def test_the_rate_is_8_khz_unless_a_client_says_another():
    async def talk(client, server):
        content = pcm(tone("ab", rate_hz=8000))
        await client.hear(content)
        before, _ = await client.last()
        return before

    assert conversation(talk)["text"] == "ab"
    assert conversation(talk, "/vosk")["text"] == "ab"


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        ({"words": False}, {"text": "ab"}),
        (
            {"max_alternatives": 3},
            {"alternatives": [{"confidence": 0.9, "result": words("ab", 0.0), "text": "ab"}]},
        ),
        ({"phrase_list": ["ab"], "unknown": None}, {"result": words("ab", 0.0), "text": "ab"}),
    ],
)
def test_what_a_client_may_choose(config, answer):
    async def talk(client, server):
        await client.say({"config": {"sample_rate": RATE_HZ} | config})
        await client.hear(pcm(tone("ab")))
        return (await client.last())[0]

    assert conversation(talk) == answer


def test_a_stream_without_words_ends_with_empty_text():
    async def talk(client, server):
        answer = await client.hear(pcm(silence(1)))
        return answer, await client.last()

    assert conversation(talk) == ({"partial": ""}, ({"text": ""}, 1000))


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("not json", "no JSON"),
        ("[" * 200_000, "no JSON"),
        ('{"hello": 1}', "wanted"),
        ("[1, 2]", "wanted"),
        ('{"config": 3}', "wanted an object"),
        ('{"config": {"sample_rate": "fast"}}', "wanted a number"),
        ('{"config": {"sample_rate": NaN}}', "wanted a number"),
        ('{"config": {"sample_rate": 1e999}}', "wanted a number"),
        ('{"config": {"sample_rate": 5}}', "got sample_rate 5, wanted 1000 to 192000 Hz"),
        ('{"config": {"sample_rate": true}}', "got sample_rate True, wanted a number"),
        ('{"config": {"sample_rate": -16000}}', "got sample_rate -16000, wanted 1000 to 192000 Hz"),
        ('{"config": {"sample_rate": 1e12}}', "got sample_rate 1e+12, wanted 1000 to 192000 Hz"),
        ('{"config": {"max_alternatives": {}}}', "wanted a number"),
    ],
)
def test_what_is_wrong_is_said_before_the_connection_is_closed(message, complaint):
    async def talk(client, server):
        await client.socket.send_str(message)
        answer = await client.socket.receive_json()
        closing = await client.socket.receive()
        while server.hub.num_streams:
            await asyncio.sleep(0.01)
        return answer, closing.data

    answer, code = conversation(talk)
    assert list(answer) == ["error"]
    assert complaint in answer["error"]
    assert code == 1008


def test_one_client_more_than_the_limit_is_told_to_come_again():
    async def converse():
        async with served(max_streams=1) as server, server.client.ws_connect(server.url) as first:
            await Client(first).hear(pcm(tone("ab")))
            async with server.client.ws_connect(server.url) as second:
                answer = await second.receive_json()
                assert (await second.receive()).data == 1013
            await Client(first).last()
            while server.hub.num_streams:
                await asyncio.sleep(0.01)
            async with server.client.ws_connect(server.url) as third:
                return answer, await Client(third).hear(pcm(tone("ab")))

    answer, of_third = run(converse())
    assert answer == {"error": "the server hears 1 stream, as many as it takes: try again later"}
    assert "partial" in of_third


def test_a_client_that_says_nothing_gets_its_last_words_and_is_closed():
    async def talk(client, server):
        await client.say({"config": {"sample_rate": RATE_HZ}})
        await client.hear(pcm(tone("abc")))
        answer = await client.socket.receive_json()
        closing = await client.socket.receive()
        return answer["text"], closing.data, closing.extra, server.metric("edgeasr_closed_total", reason="idle")

    assert conversation(talk, idle_s=0.3) == ("abc", 1001, "nothing came for 0.3 s", 1)


def test_a_server_that_stops_gives_the_last_words():
    async def talk(client, server):
        await client.say({"config": {"sample_rate": RATE_HZ}})
        await client.hear(pcm(tone("abc")))
        stopping = asyncio.create_task(server.hub.stop())
        answer = await client.socket.receive_json()
        closing = await client.socket.receive()
        await stopping
        return answer["text"], closing.data, closing.extra

    assert conversation(talk) == ("abc", 1001, "the server is stopping")


TOO_MUCH = "got a message of more than 5000 bytes, wanted at most that: send it in parts"


def test_a_message_over_the_limit_is_refused():
    async def talk(client, server):
        await client.socket.send_bytes(bytes(5001))
        answer, closing = await client.socket.receive_json(), await client.socket.receive()
        while server.hub.num_streams:
            await asyncio.sleep(0.01)
        return answer, closing.data, closing.extra, server.metric("edgeasr_closed_total", reason="malformed")

    assert conversation(talk, max_message_bytes=5000) == ({"error": TOO_MUCH}, 1009, TOO_MUCH, 1)


def test_who_sends_all_of_a_message_before_reading_is_told_too():
    """Where a connection is closed before all was read, TCP drops what was answered."""

    async def talk():
        async with served(max_message_bytes=5000) as server:
            reader, writer = await upgraded(server.port)
            size = 4 << 20
            writer.write(struct.pack(">BBQI", 0x82, 0xFF, size, 0) + bytes(size))
            await writer.drain()
            answer = await reader.read()
            writer.close()
            return answer

    answer = run(talk())
    text = json.dumps({"error": TOO_MUCH}).encode()
    assert (
        answer
        == bytes([0x81, len(text)]) + text + struct.pack(">BBH", 0x88, len(TOO_MUCH) + 2, 1009) + TOO_MUCH.encode()
    )


def test_what_is_no_message_is_refused():
    async def talk():
        async with served() as server:
            reader, writer = await upgraded(server.port)
            writer.write(b"\xff\xff")
            answer = await reader.read()
            writer.close()
            return answer

    answer = run(talk())
    assert b'{"error": "got what is no message of a web socket (Received frame with non-zero reserved bits)' in answer
    assert struct.pack(">H", 1002) in answer


async def upgraded(port):
    """A connection that has become a web socket."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def test_who_goes_away_leaves_a_place():
    model = GatedModel()

    async def talk(client, server):
        await client.socket.send_bytes(pcm(tone("abc")))
        while not server.hub.num_streams:
            await asyncio.sleep(0.01)
        client.socket._response.connection.transport.abort()
        model.gate.set()
        while server.hub.num_streams:
            await asyncio.sleep(0.01)

    conversation(talk, model=model)


def test_real_speech_is_heard_as_edgeasr_transcribe_hears_it(speech):
    """Words, times and confidences, of a reader, sent as vosk-server's clients do."""
    recording = speech / "audio" / "librispeech-dev-clean" / "1462-170138-0000.mp3"
    with FileSource(recording) as source:
        content = pcm16(np.concatenate([block.samples for block in source.blocks()]))
        rate_hz = source.sample_rate_hz
    model = load_model()
    recognizer = Recognizer(model)
    recognizer.accept_waveform(np.frombuffer(content, "<i2").astype(np.float32) * np.float32(2**-15), rate_hz)
    recognizer.input_finished()
    wanted = []
    while recognizer.is_ready():
        wanted += [word for event in recognizer.step() if isinstance(event, Final) for word in event.words]

    async def converse():
        def new_recognizer(*, on_admission):
            return Recognizer(model, on_admission=on_admission)

        async with (
            Hub(new_recognizer, Limits(), Metrics("tiny-en")) as hub,
            Server(hub, ServerConfig(Access(), port=0), "tiny-en") as server,
            aiohttp.ClientSession() as session,
            session.ws_connect(server.urls[0]) as socket,
        ):
            client = Client(socket)
            await client.say({"config": {"sample_rate": rate_hz}})
            step = int(0.2 * rate_hz) * 2
            answers = [await client.hear(content[first : first + step]) for first in range(0, len(content), step)]
            return [*answers, (await client.last())[0]]

    heard = [word for answer in run(converse()) for word in answer.get("result", [])]
    assert [(word["word"], word["start"], word["end"], word["conf"]) for word in heard] == [
        (word.word, round(word.start, 3), round(word.end, 3), round(word.conf, 6)) for word in wanted
    ]
    assert len(heard) > 20


def pcm16(waveform):
    return np.round(np.clip(waveform * 32768, -32768, 32767)).astype("<i2").tobytes()
