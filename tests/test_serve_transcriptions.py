import asyncio
import errno
import io
import json
import tempfile
from pathlib import Path
from runpy import run_path

import aiohttp
import numpy as np
import pytest
import soundfile

from edgeasr.audio import FileSource
from edgeasr.manifest import read_manifest
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.serve.hub import Hub
from edgeasr.serve.limits import Limits
from edgeasr.serve.metrics import Metrics
from edgeasr.serve.security import Access
from edgeasr.serve.server import Server, ServerConfig
from edgeasr.transcript import Final, SrtWriter, VttWriter

SERVED = run_path(str(Path(__file__).with_name("served.py")))
served, run = SERVED["served"], SERVED["run"]
GatedModel, tone, silence, RATE_HZ = (SERVED[name] for name in ("GatedModel", "tone", "silence", "RATE_HZ"))
ScriptedModel = SERVED["ScriptedModel"]

PATH = "/v1/audio/transcriptions"
SPOKEN = np.concatenate([tone("ab cab"), silence(1.2), tone("bad")])


def recorded(waveform=SPOKEN, file_format="WAV", rate_hz=RATE_HZ):
    file = io.BytesIO()
    soundfile.write(file, waveform, rate_hz, format=file_format)
    return file.getvalue()


WAV = recorded()
BOUNDARY = "multipart/form-data; boundary=x"


def form(content=WAV, name="talk.wav", **fields):
    data = aiohttp.FormData(default_to_multipart=True)
    if content is not None:
        data.add_field("file", content, filename=name, content_type="audio/wav")
    for key, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            data.add_field(key, value)
    return data


def post(data, *, model=None, headers=None, limits=None):
    """Status, headers and body of the answer, and that nothing is left behind."""

    async def ask():
        async with served(model, **(limits or {})) as server:
            async with server.client.post(server.url + PATH, data=data, headers=headers) as response:
                answer = response.status, response.headers, await response.text()
            while server.hub.num_streams:
                await asyncio.sleep(0.01)
            return answer

    return run(ask())


def finals_of(waveform=SPOKEN):
    recognizer = Recognizer(ScriptedModel())
    recognizer.accept_waveform(waveform.astype(np.float32), RATE_HZ)
    recognizer.input_finished()
    events = []
    while recognizer.is_ready():
        events += recognizer.step()
    return [event for event in events if isinstance(event, Final)]


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_file_of_any_format_is_transcribed(file_format):
    status, headers, body = post(form(recorded(file_format=file_format)))
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(body) == {"text": "ab cab bad", "usage": {"type": "duration", "seconds": 2}}


def test_text_and_subtitles_are_those_of_edgeasr_transcribe():
    srt, vtt = SrtWriter(), VttWriter()
    finals = finals_of(np.round(SPOKEN * 32768) / 32768)
    assert post(form(response_format="text"))[2] == "ab cab bad\n"
    assert post(form(response_format="srt"))[2] == "".join(srt.write(final) for final in finals)
    assert post(form(response_format="vtt"))[2] == "WEBVTT\n\n" + "".join(vtt.write(final) for final in finals)


def test_verbose_json_has_segments_and_words():
    first, second = finals_of(np.round(SPOKEN * 32768) / 32768)
    answer = json.loads(post(form(response_format="verbose_json"))[2])
    assert {key: answer[key] for key in ("task", "language", "duration", "text")} == {
        "task": "transcribe",
        "language": "english",
        "duration": pytest.approx(len(SPOKEN) / RATE_HZ, abs=1e-3),
        "text": "ab cab bad",
    }
    assert "words" not in answer
    assert [segment["text"] for segment in answer["segments"]] == ["ab cab", "bad"]
    assert [segment["id"] for segment in answer["segments"]] == [0, 1]
    assert answer["segments"][1]["start"] == round(second.start, 3)
    assert answer["segments"][0]["avg_logprob"] == pytest.approx(np.log(0.9), abs=1e-3)

    words = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    answer = json.loads(post(form(**words))[2])
    assert "segments" not in answer
    assert answer["words"] == [
        {"word": word.word, "start": round(word.start, 3), "end": round(word.end, 3)}
        for final in (first, second)
        for word in final.words
    ]
    both = json.loads(post(form(**(words | {"timestamp_granularities[]": ["word", "segment"]})))[2])
    assert (len(both["words"]), len(both["segments"])) == (3, 2)


def test_what_usual_clients_send_beside_is_accepted():
    fields = {"model": "whisper-1", "language": "en", "temperature": "0.2", "prompt": "x", "stream": "False"}
    assert post(form(**fields))[0] == 200
    assert post(form(model="scripted", language="EN"))[0] == 200


def test_a_streamed_answer_only_grows():
    status, headers, body = post(form(stream="true"))
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in body.strip().split("\n\n")]
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert "".join(event["delta"] for event in deltas) == "ab cab bad"
    assert done == {
        "type": "transcript.text.done",
        "text": "ab cab bad",
        "usage": {"type": "duration", "seconds": 2},
    }


@pytest.mark.parametrize(
    ("data", "status", "param", "complaint"),
    [
        (form(None, x="y"), 400, "file", "got no file"),
        (form(b"this is no sound"), 400, "file", "talk.wav cannot be decoded"),
        (form(b""), 400, "file", "talk.wav is empty"),
        (form(WAV[:-5000]), 400, "file", "talk.wav ends early, at"),
        (form(recorded(silence(0))), 400, "file", "holds no samples"),
        (form(model="whisper-9"), 404, "model", "got model 'whisper-9', wanted one of scripted, whisper-1"),
        (form(language="de"), 400, "language", "got language 'de', wanted one of en"),
        (form(response_format="xml"), 400, "response_format", "got response_format 'xml', wanted one of json"),
        (form(stream="perhaps"), 400, "stream", "wanted one of true, false"),
        (form(stream="true", response_format="srt"), 400, "stream", "only these are streamed"),
        (form(**{"timestamp_granularities[]": "word"}), 400, "timestamp_granularities[]", "wanted verbose_json"),
        (
            form(**{"timestamp_granularities[]": "letter", "response_format": "verbose_json"}),
            400,
            "timestamp_granularities[]",
            "got timestamp_granularities[] 'letter'",
        ),
        (form(prompt="x" * 70_000), 413, "prompt", "65536 bytes"),
    ],
)
def test_what_is_wrong_is_said_as_openai_does(data, status, param, complaint):
    got, _, body = post(data)
    error = json.loads(body)["error"]
    assert complaint in error["message"]
    assert (got, error["type"], error["param"]) == (status, "invalid_request_error", param)
    assert tempfile.gettempdir() not in error["message"]


def test_names_of_files_cannot_break_messages():
    name = b"a\t[31m<b>\xc3\xa9" + b"x" * 500
    data = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\nno sound\r\n--x--\r\n' % name
    body = post(data, headers={"Content-Type": BOUNDARY})[2]
    message = json.loads(body)["error"]["message"]
    assert message.startswith("a__31m_b_éxxx")
    assert len(message) < 300


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data", 400),
        (b"", BOUNDARY, 400),
        (b"--x\r\n", BOUNDARY, 400),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="\x1b[31m"\r\n\r\n\r\n--x--\r\n',
            BOUNDARY,
            400,
        ),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n", BOUNDARY, 400),
        (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', BOUNDARY, 400),
        (b"\x00\xff" * 1000, BOUNDARY, 400),
        (
            b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\na\r\n--y--\r\n--x--\r\n",
            BOUNDARY,
            400,
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 60 + b"--x--\r\n",
            BOUNDARY,
            400,
        ),
    ],
)
def test_malformed_requests_are_refused(content, content_type, status):
    got, _, body = post(content, headers={"Content-Type": content_type})
    assert got == status, body
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_two_files_in_one_request_are_refused():
    data = form()
    data.add_field("file", WAV, filename="other.wav")
    status, _, body = post(data)
    assert status == 400
    assert "several files" in json.loads(body)["error"]["message"]


def test_a_request_over_the_limit_is_refused_whether_or_not_it_says_its_length():
    limits = {"max_request_bytes": 10_000}
    assert post(form(), limits=limits)[0] == 413

    async def chunks():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield bytes(1000)

    status, _, body = post(chunks(), headers={"Content-Type": BOUNDARY}, limits=limits)
    assert status == 413
    assert "more than 10000 bytes" in json.loads(body)["error"]["message"]


def test_a_recording_over_the_limit_is_refused():
    status, _, body = post(form(), limits={"max_audio_s": 1.0})
    assert status == 400
    assert "is 2 s long, want at most 1 s" in json.loads(body)["error"]["message"]


def test_a_request_that_does_not_arrive_is_given_up():
    async def slowly():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        await asyncio.Event().wait()

    async def ask():
        async with served(request_s=0.3) as server:
            sending = server.client.post(server.url + PATH, data=slowly(), headers={"Content-Type": BOUNDARY})
            async with sending as response:
                answer = response.status, await response.json()
            return answer, server.hub.num_streams

    (status, answer), num_streams = run(ask())
    assert (status, num_streams) == (408, 0)
    assert "no whole request in 0.3 s" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("limits", "complaint"), [({"max_uploads": 1}, "transcribes 1 files"), ({"max_streams": 1}, "hears 1 stream")]
)
def test_a_file_more_than_the_limit_is_refused_for_now(limits, complaint):
    model = GatedModel()

    async def ask():
        async with served(model, **limits) as server:
            first = asyncio.create_task(server.client.post(server.url + PATH, data=form()))
            while not server.hub.num_streams:
                await asyncio.sleep(0.01)
            async with server.client.post(server.url + PATH, data=form()) as second:
                refused = second.status, second.headers["Retry-After"], await second.json()
            model.gate.set()
            async with await first as response:
                return refused, await response.json()

    (status, retry_after, refusal), answer = run(ask())
    assert (status, retry_after) == (503, "5")
    assert complaint in refusal["error"]["message"]
    assert refusal["error"]["type"] == "server_error"
    assert answer["text"] == "ab cab bad"


def test_who_hangs_up_leaves_a_place_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = GatedModel()

    async def ask():
        async with served(model) as server:
            asking = asyncio.create_task(server.client.post(server.url + PATH, data=form()))
            while not server.hub.num_streams:
                await asyncio.sleep(0.01)
            while not server.hub.waiting_s():
                await asyncio.sleep(0.01)
            assert len(list(tmp_path.iterdir())) == 1
            asking.cancel()
            await asyncio.wait([asking])
            model.gate.set()
            while server.hub.num_streams:
                await asyncio.sleep(0.01)

    run(ask())
    assert not list(tmp_path.iterdir())


def test_a_server_that_stops_does_not_pass_half_a_transcript_off_as_whole():
    model = GatedModel()

    async def ask():
        async with served(model, queue_s=0.5) as server:
            asking = asyncio.create_task(server.client.post(server.url + PATH, data=form()))
            while not server.hub.waiting_s():
                await asyncio.sleep(0.01)
            stopping = asyncio.create_task(server.hub.stop())
            await asyncio.sleep(0.05)
            model.gate.set()
            async with await asking as response:
                answer = response.status, await response.json()
            await stopping
            return answer

    status, answer = run(ask())
    assert status == 503
    assert "stopping" in answer["error"]["message"]


class FullDisk:
    """A temporary file on it."""

    name = "/dev/full"

    def __init__(self, buffering=-1, **others):
        self.file = Path(self.name).open("wb", buffering)  # noqa: SIM115 - closed by __exit__

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.file.close()

    def flush(self):
        self.file.flush()


def no_folder(**others):
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")


@pytest.mark.parametrize(
    ("new_file", "reason"),
    [(FullDisk, "No space left on device"), (no_folder, "No usable temporary directory found")],
)
def test_a_disk_that_is_full_is_said_in_the_answer_and_in_one_line(new_file, reason, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", new_file)
    status, _, body = post(form())
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"], error["param"]) == (507, "server_error", "storage", "file")
    assert error["message"].startswith(f"the server has no room for the recording ({reason}): send a smaller one")
    (record,) = caplog.records
    assert (
        record.getMessage() == f"a recording was refused, there is no room for it ({reason}): make some, or set TMPDIR"
    )
    assert record.exc_info is None


def test_status_and_models():
    async def ask():
        async with served() as server:
            answers = {}
            for path in ("/health", "/v1/models", "/metrics", "/nothing", PATH):
                async with server.client.get(server.url + path) as response:
                    answers[path] = response.status, await response.text(), response.headers
            await server.hub.stop()
            async with server.client.get(server.url + "/health") as response:
                answers["stopped"] = response.status, await response.text(), response.headers
            return answers

    answers = run(ask())
    status, health, headers = answers["/health"]
    assert status == 200
    assert json.loads(health) == {
        "status": "ok",
        "model": "scripted",
        "version": "0.1.0",
        "streams": 0,
        "max_streams": 16,
        "waiting_s": 0.0,
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers
    assert [model["id"] for model in json.loads(answers["/v1/models"][1])["data"]] == ["scripted"]
    assert 'edgeasr_info{model="scripted",version="0.1.0"} 1.0' in answers["/metrics"][1]
    assert answers["/metrics"][2]["Content-Type"].startswith("text/plain; version=0.0.4")
    assert answers["/nothing"][0] == 404
    assert json.loads(answers["/nothing"][1])["error"]["message"] == "Not Found"
    assert (answers[PATH][0], answers[PATH][2]["Allow"]) == (405, "POST")
    assert answers["stopped"][0] == 503
    assert json.loads(answers["stopped"][1])["status"] == "stopping"


def test_real_speech_is_transcribed_as_edgeasr_transcribe_does(speech):
    """Three recordings at once, of different rates and formats."""
    shipped = Path(__file__).parents[1] / "edgeasr" / "models" / "demo.flac"
    files = [shipped]
    for name in ("dev.jsonl", "dev_other.jsonl"):
        utterances = read_manifest(speech / name)
        files.append(next(one.path for one in utterances if one.duration_s < 6))
    model = load_model()
    recognizer = Recognizer(model)
    wanted = []
    for file in files:
        with FileSource(file) as source:
            finals = [event.text for event in recognizer.stream(source) if isinstance(event, Final)]
        wanted.append(" ".join(finals))

    async def ask():
        def new_recognizer(*, on_admission):
            return Recognizer(model, on_admission=on_admission)

        async def one(session, url, file):
            async with session.post(url + PATH, data=form(file.read_bytes(), file.name)) as response:
                return (await response.json())["text"]

        async with (
            Hub(new_recognizer, Limits(), Metrics("tiny-en")) as hub,
            Server(hub, ServerConfig(Access(), port=0), "tiny-en") as server,
            aiohttp.ClientSession() as session,
        ):
            return await asyncio.gather(*[one(session, server.urls[0], file) for file in files])

    assert run(ask()) == wanted
    assert all(wanted)
