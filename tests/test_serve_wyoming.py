import asyncio
import json
import re
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile
from wyoming.asr import Transcribe, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.event import Event, async_read_event
from wyoming.info import Describe, Info
from wyoming.ping import Ping

from edgeasr.errors import ServeError
from edgeasr.recognizer import load_model
from edgeasr.serve.wyoming_conversation import WyomingModel
from edgeasr.serve.wyoming_server import WyomingAddress, WyomingServer

SERVED = run_path(str(Path(__file__).with_name("served.py")))
run, pcm, make_hub, heard_from_pcm, finals = (
    SERVED[name] for name in ("run", "pcm", "make_hub", "heard_from_pcm", "finals")
)
tone, silence, RATE_HZ = (SERVED[name] for name in ("tone", "silence", "RATE_HZ"))
program, edgeasr = (SERVED["SCRIPTED"][name] for name in ("program", "edgeasr"))

DEMO_CLIP = Path(__file__).parents[1] / "edgeasr" / "models" / "demo.flac"
LOOPBACK = WyomingAddress("127.0.0.1", 0)


@asynccontextmanager
async def listening(model=None, address=LOOPBACK, **limits):
    """A hub, and a Wyoming server of it that it stops before."""
    async with make_hub(model, **limits) as hub, WyomingServer(hub, address, WyomingModel("scripted")) as server:
        yield hub, server
        await hub.stop()


def conversation(talk, *args, **options):
    """What `talk` gives of a client that is connected, and of the hub."""

    async def converse():
        async with listening(*args, **options) as (hub, server), AsyncClient.from_uri(server.bound) as client:
            return await talk(client, hub)

    return run(converse())


def speech() -> bytes:
    """Three tones, a pause, two tones, as 16-bit samples."""
    return pcm(np.concatenate([tone("abc"), silence(2.0), tone("de")]))


async def send_audio(client, audio, rate=RATE_HZ, width=2, channels=1, chunk_bytes=2048):
    """As Home Assistant does, from start to stop."""
    await client.write_event(AudioStart(rate, width, channels).event())
    for first in range(0, len(audio), chunk_bytes):
        await client.write_event(AudioChunk(rate, width, channels, audio[first : first + chunk_bytes]).event())
    await client.write_event(AudioStop().event())


async def answers(client, last="transcript-stop"):
    """The events until the last one, or until the server closes."""
    events = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if event.type == last:
            break
    return events


def text_of(events):
    return next(event.data["text"] for event in events if event.type == "transcript")


def error_of(events):
    assert events[-1].type == "error"
    return events[-1].data["code"], events[-1].data["text"]


def test_describe_tells_what_home_assistant_asks_for():
    async def talk(client, hub):
        await client.write_event(Describe().event())
        return Info.from_event(await client.read_event())

    (program,) = conversation(talk).asr
    (model,) = program.models
    assert (program.name, program.installed, program.supports_transcript_streaming) == ("edgeasr", True, True)
    assert (model.name, model.installed, model.languages) == ("scripted", True, ["en"])


def test_an_utterance_is_told_as_it_becomes_certain_then_as_a_whole():
    async def talk(client, hub):
        await client.write_event(Transcribe(language="en-US").event())
        await send_audio(client, speech())
        return await answers(client)

    events = conversation(talk)
    kinds = [event.type for event in events]
    chunks = [event.data["text"] for event in events if TranscriptChunk.is_type(event.type)]
    assert kinds == ["transcript-start", *["transcript-chunk"] * len(chunks), "transcript", "transcript-stop"]
    assert len(chunks) > 1
    assert "".join(chunks) == text_of(events) == "abc de" == " ".join(finals(heard_from_pcm(speech())))
    assert all(event.data["language"] == "en" for event in (events[0], events[-2]))


def test_words_come_while_the_audio_does():
    async def talk(client, hub):
        await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
        await client.write_event(AudioChunk(RATE_HZ, 2, 1, speech()).event())
        return await answers(client, last="transcript-chunk")

    assert [event.type for event in conversation(talk)] == ["transcript-start", "transcript-chunk"]


def test_silence_has_an_empty_transcript():
    async def talk(client, hub):
        await send_audio(client, pcm(silence(1.0)))
        return await answers(client)

    assert [(event.type, event.data.get("text")) for event in conversation(talk)] == [
        ("transcript-start", None),
        ("transcript", ""),
        ("transcript-stop", None),
    ]


def test_the_transcript_of_speech_is_that_of_the_command_line():
    samples, rate = soundfile.read(DEMO_CLIP, dtype="int16")
    command = [sys.executable, "-m", "edgeasr.cli.main", "transcribe", str(DEMO_CLIP)]
    wanted = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    async def talk(client, hub):
        await send_audio(client, samples.tobytes(), rate)
        return await answers(client)

    events = conversation(talk, load_model())
    assert text_of(events) == " ".join(wanted.split("\n")).strip()
    assert "".join(event.data["text"] for event in events if event.type == "transcript-chunk") == text_of(events)
    assert "seen the old house" in text_of(events)


def encoded(waveform: np.ndarray, width: int, channels: int) -> bytes:
    """Little-endian integers of `width` bytes; what is in the first channel is half of it all."""
    whole = np.round(waveform * (2.0 ** (8 * width - 1) - 1)).astype(np.int64)
    frames = np.stack([whole, *[whole // 2] * (channels - 1)], axis=1).ravel()
    if width == 1:
        return (frames + 128).astype(np.uint8).tobytes()
    return frames.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


@pytest.mark.parametrize(
    ("rate", "width", "channels", "chunk_bytes"),
    [(16_000, 1, 1, 999), (16_000, 2, 2, 1001), (16_000, 3, 1, 1000), (16_000, 4, 3, 777), (48_000, 3, 2, 4097)],
)
def test_any_format_is_converted_wherever_it_is_cut(rate, width, channels, chunk_bytes):
    waveform = np.concatenate([tone("abc"), silence(0.5)])
    if rate != RATE_HZ:
        soxr = pytest.importorskip("soxr", reason="a dependency")
        waveform = soxr.resample(waveform, RATE_HZ, rate)

    async def talk(client, hub):
        await send_audio(client, encoded(waveform, width, channels), rate, width, channels, chunk_bytes)
        return await answers(client)

    assert text_of(conversation(talk)) == "abc"


def test_several_clients_share_the_model_and_nothing_else():
    texts = ["abc", "de", "hg", "ab"]

    async def one(uri, text):
        async with AsyncClient.from_uri(uri) as client:
            await send_audio(client, pcm(tone(text)))
            return text_of(await answers(client))

    async def all_of_them():
        async with listening() as (hub, server):
            heard = await asyncio.gather(*(one(server.bound, text) for text in texts))
            return heard, hub.num_streams

    assert run(all_of_them()) == (texts, 0)


def test_one_connection_serves_one_utterance_after_another():
    async def talk(client, hub):
        heard = []
        for text in ("abc", "de"):
            await send_audio(client, pcm(tone(text)))
            heard.append(text_of(await answers(client)))
        return heard

    assert conversation(talk) == ["abc", "de"]


def test_pings_are_answered_while_audio_comes_too():
    async def talk(client, hub):
        await client.write_event(Ping("a").event())
        await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
        await client.write_event(Event("voice-started"))  # dropped, as all that is not for us
        await client.write_event(Ping().event())
        return [await client.read_event() for _ in range(2)]

    assert [(event.type, event.data["text"]) for event in conversation(talk)] == [("pong", "a"), ("pong", None)]


@pytest.mark.parametrize(
    ("event", "code", "text"),
    [
        (Transcribe(language="de").event(), "unfit", "got language 'de', this server hears en: choose that"),
        (Transcribe(name="big").event(), "unfit", "got model 'big', this server has scripted: choose that, or none"),
        (AudioStart(16_000, 5, 1).event(), "audio", "got samples of 5 bytes, want 1, 2, 3 or 4: send 16-bit samples"),
        (AudioStart(16_000, 2, 0).event(), "audio", "got 0 channels, want 1 to 32: send one"),
        (AudioStart(16, 2, 1).event(), "audio", "the stream has a sample rate of 16 Hz, want 1000 to 768000 Hz"),
        (Event("audio-start", {"rate": "fast"}), "malformed", "got audio-start with width None, want a whole number"),
        (Event("transcribe", {"language": 1}), "malformed", "got transcribe with language 1, want a text"),
    ],
)
def test_what_cannot_be_is_refused_in_words(event, code, text):
    async def talk(client, hub):
        await client.write_event(event)
        return await answers(client)

    found_code, found = error_of(conversation(talk))
    assert found_code == code
    assert found.startswith(text)


def test_a_second_start_is_refused():
    async def talk(client, hub):
        for _ in range(2):
            await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
        return await answers(client)

    assert error_of(conversation(talk))[0] == "malformed"


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"\xff\xfe\n", "got a header that is no JSON"),
        (b"[1]\n", "got a header that is no JSON object"),
        (b'{"type": 5}\n', "got a header without a type"),
        (b'{"type": "ping", "data": []}\n', "got a header without a type, or with data that are no object"),
        (b"[" * 60_000 + b"\n", "got a header that is no JSON"),
        (b"x" * 200_000, "got a header without an end"),
        (b'{"type": "ping", "data_length": 99999999999}\n', "got data_length 99999999999, want 0 to 65536"),
        (b'{"type": "ping", "data_length": -1}\n', "got data_length -1"),
        (b'{"type": "ping", "data_length": true}\n', "got data_length True"),
        (
            b'{"type": "audio-chunk", "payload_length": 2000000000}\n',
            "got payload_length 2000000000, want 0 to 1048576",
        ),
        (b'{"type": "audio-chunk", "payload_length": 1e3}\n', "got payload_length 1000.0"),
        (b'{"type": "ping", "data_length": 4}\n[1,]', "got data that is no JSON"),
        (b'{"type": "ping"', "got a header that is no JSON, or cut off"),
    ],
)
def test_what_is_no_event_is_refused_and_nothing_of_it_waited_for(sent, text):
    async def talk(client, hub):
        client._writer.write(sent)
        if not sent.endswith(b"\n"):
            client._writer.write_eof()
        return await answers(client), hub.metrics.registry.get_sample_value(
            "edgeasr_refused_total", {"reason": "malformed"}
        )

    events, refused = conversation(talk)
    code, found = error_of(events)
    assert (code, refused) == ("malformed", 1)
    assert found.startswith(text)


def test_a_stream_more_than_there_may_be_is_refused():
    async def both():
        async with listening(max_streams=1) as (hub, server):
            async with AsyncClient.from_uri(server.bound) as first, AsyncClient.from_uri(server.bound) as second:
                await first.write_event(AudioStart(RATE_HZ, 2, 1).event())
                await first.write_event(Ping().event())
                await first.read_event()
                await send_audio(second, speech())
                refused = error_of(await answers(second))
            while hub.num_streams:
                await asyncio.sleep(0.01)
            async with AsyncClient.from_uri(server.bound) as third:
                await send_audio(third, speech())
                return refused, text_of(await answers(third))

    (code, text), later = run(both())
    assert code == "full"
    assert text == "the server hears 1 stream, as many as it takes: try again later"
    assert later == "abc de"


def test_connections_have_a_limit():
    async def two():
        async with listening(max_connections=1) as (_, server), AsyncClient.from_uri(server.bound) as first:
            await first.write_event(Ping().event())
            await first.read_event()
            async with AsyncClient.from_uri(server.bound) as second:
                return await answers(second)

    assert error_of(run(two())) == ("full", "too many connections: try again later")


def test_who_says_nothing_for_too_long_gets_a_transcript_and_is_left():
    async def talk(client, hub):
        await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
        await client.write_event(AudioChunk(RATE_HZ, 2, 1, speech()).event())
        return await answers(client, last="error")

    events = conversation(talk, idle_s=0.3)
    assert text_of(events) == "abc de"
    assert error_of(events) == ("idle", "nothing came for 0.3 s")


def test_half_an_event_does_not_hold_a_place_for_ever():
    async def talk(client, hub):
        client._writer.write(b'{"type": "audio-chunk", "payload_length": 1000}\nabc')
        return await answers(client, last="error")

    assert error_of(conversation(talk, idle_s=0.2))[0] == "idle"


def test_a_client_that_closes_without_a_stop_may_still_read_its_transcript():
    async def talk(client, hub):
        await client.write_event(AudioChunk(RATE_HZ, 2, 1, speech()).event())
        client._writer.write_eof()
        return await answers(client)

    assert text_of(conversation(talk)) == "abc de"


def test_a_client_that_goes_away_gives_its_place_free():
    async def go():
        async with listening() as (hub, server):
            async with AsyncClient.from_uri(server.bound) as client:
                await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
                await client.write_event(Ping().event())
                await client.read_event()
                assert hub.num_streams == 1
                client._writer.transport.abort()
            async with asyncio.timeout(5):
                while hub.num_streams:
                    await asyncio.sleep(0.01)

    run(go())


def test_a_client_that_takes_nothing_is_cut_off():
    async def flood(client, hub):
        async def ping_for_ever():
            while True:
                await client.write_event(Ping("x" * 60_000).event())

        with pytest.raises(ConnectionError):
            await ping_for_ever()
        return hub.metrics.registry.get_sample_value("edgeasr_closed_total", {"reason": "unread"})

    async def attempt():
        async with listening(unread_s=0.2) as (hub, server):
            client = AsyncClient.from_uri(server.bound)
            await client.connect()
            client._reader._limit = 1  # or the client's own buffer would take it
            counted = await flood(client, hub)
            client._writer.transport.abort()
            return counted

    assert run(attempt()) == 1


def test_a_server_that_stops_tells_the_last_words():
    async def stop():
        async with listening() as (hub, server), AsyncClient.from_uri(server.bound) as client:
            await client.write_event(AudioStart(RATE_HZ, 2, 1).event())
            await client.write_event(AudioChunk(RATE_HZ, 2, 1, speech()).event())
            await client.write_event(Ping().event())
            while (await client.read_event()).type != "pong":
                pass
            stopping = asyncio.create_task(hub.stop())
            events = await answers(client, last="error")
            await stopping
            return events

    events = run(stop())
    assert text_of(events) == "abc de"
    assert error_of(events) == ("stopping", "the server stops")


def test_random_bytes_and_mutated_events_leave_the_server_as_it_was():
    rng = np.random.default_rng(11)
    valid = [
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n',
        b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, "payload_length": 4}\nabcd',
        b'{"type": "transcribe", "data_length": 18}\n{"language": "en"}',
        b'{"type": "audio-stop"}\n',
        b'{"type": "describe"}\n',
    ]

    def message() -> bytes:
        if rng.random() < 0.2:
            return rng.bytes(int(rng.integers(1, 300)))
        joined = bytearray(b"".join(valid[i] for i in rng.integers(0, len(valid), rng.integers(1, 5))))
        for _ in range(rng.integers(0, 4)):
            joined[rng.integers(0, len(joined))] = rng.integers(0, 256)
        return bytes(joined[: rng.integers(1, len(joined) + 1)])

    async def one(address, sent):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        if rng.random() < 0.5:
            writer.write_eof()
            while await async_read_event(reader) is not None:
                pass
        writer.transport.abort()

    async def all_of_them():
        async with listening() as (hub, server):
            host, _, port = server.bound.removeprefix("tcp://").rpartition(":")
            for _ in range(40):
                await asyncio.gather(*(one((host, int(port)), message()) for _ in range(10)))
            async with asyncio.timeout(10):
                while server._clients:
                    await asyncio.sleep(0.01)
            async with AsyncClient.from_uri(server.bound) as client:
                await send_audio(client, speech())
                return text_of(await answers(client)), hub.num_streams

    assert run(all_of_them()) == ("abc de", 0)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("tcp://127.0.0.1:10300", WyomingAddress("127.0.0.1", 10300)),
        ("tcp://[::1]:1/", WyomingAddress("::1", 1)),
        ("unix:///run/edgeasr/wyoming.sock", WyomingAddress(path=Path("/run/edgeasr/wyoming.sock"))),
    ],
)
def test_addresses_are_uris(uri, address):
    assert WyomingAddress.parse(uri) == address


@pytest.mark.parametrize(
    "uri", ["127.0.0.1:10300", "tcp://127.0.0.1", "tcp://:1", "tcp://a:99999", "unix://x", "unix:///", "http://a:1", ""]
)
def test_other_addresses_are_refused(uri):
    with pytest.raises(ServeError, match="want tcp://HOST:PORT or unix:///PATH"):
        WyomingAddress.parse(uri)


def test_other_machines_are_let_in_only_where_that_was_said():
    everywhere = WyomingAddress.parse("tcp://0.0.0.0:10300")
    with pytest.raises(ServeError, match="Wyoming has no tokens"):
        everywhere.check(allow_remote=False)
    everywhere.check(allow_remote=True)
    LOOPBACK.check(allow_remote=False)
    WyomingAddress.parse("unix:///tmp/x").check(allow_remote=False)


def test_the_command_serves_it_beside_the_rest(tmp_path):
    path = tmp_path / "wyoming.sock"
    options = ("--port", "0", "--max-streams", "2", "--wyoming", f"unix://{path}")
    with subprocess.Popen(program("serve", *options), stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            assert re.fullmatch(rf"edgeasr: listening at http://\S+, unix://{path}, 2 streams at once; .*\n", line)

            async def talk():
                async with AsyncClient.from_uri(f"unix://{path}") as client:
                    await send_audio(client, speech())
                    return text_of(await answers(client))

            assert run(talk()) == "abc de"
            process.terminate()
            assert (process.wait(60), path.exists()) == (0, False)
            # Whether it has heard by then that the client is gone is chance.
            assert process.stderr.read() in {"", "edgeasr: ending 1 stream, Ctrl-C to end at once\n"}
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize(
    ("uri", "message"),
    [("tcp://0.0.0.0:1", "Wyoming has no tokens"), ("tcp://127.0.0.1", "want tcp://HOST:PORT or unix:///PATH")],
)
def test_the_command_says_in_a_line_where_it_will_not_listen(uri, message):
    done = edgeasr("serve", "--port", "0", "--wyoming", uri)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err


def test_a_unix_socket_is_for_its_owner_and_group_and_goes_with_the_server(tmp_path):
    path = tmp_path / "wyoming.sock"

    async def talk(client, hub):
        await send_audio(client, speech())
        return text_of(await answers(client)), stat.S_IMODE(path.stat().st_mode)

    for _ in range(2):
        assert conversation(talk, address=WyomingAddress(path=path)) == ("abc de", 0o660)
        assert not path.exists()


def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(tmp_path):
    path = tmp_path / "wyoming.sock"
    address = WyomingAddress(path=path)

    async def stale():
        server = await asyncio.start_unix_server(lambda *_: None, path)
        server.close()
        async with listening(address=address) as (hub, _):
            with pytest.raises(ServeError, match="another server listens there"):
                await WyomingServer(hub, address, WyomingModel("scripted")).__aenter__()

    run(stale())
    path.write_text("not a socket")
    with pytest.raises(ServeError, match="a file is there"):
        conversation(lambda *_: None, address=address)
    assert path.read_text() == "not a socket"


def test_a_port_in_use_is_an_error_in_words():
    async def twice():
        async with listening() as (hub, server):
            address = WyomingAddress.parse(server.bound)
            with pytest.raises(ServeError, match=r"port \d+ of 127\.0\.0\.1 is in use"):
                await WyomingServer(hub, address, WyomingModel("scripted")).__aenter__()

    run(twice())


def test_the_header_of_an_event_is_one_line_of_json():
    """What the library writes, so that a change of it shows."""

    async def talk(client, hub):
        await client.write_event(Ping("a").event())
        return json.loads(await client._reader.readline())

    assert {key: value for key, value in conversation(talk).items() if key != "version"} == {
        "type": "pong",
        "data_length": 13,
    }
