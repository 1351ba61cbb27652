import json
import re
import subprocess
import threading
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, program, tone, silence = (SCRIPTED[name] for name in ("edgeasr", "program", "tone", "silence"))
RATE = 16_000
SPEECH = np.concatenate([tone("so it goes"), silence(1.52), tone("and then it ended")])
TEXT = "so it goes\nand then it ended\n"
PATIENCE_S = 60


@pytest.fixture
def talk(tmp_path):
    path = tmp_path / "talk.wav"
    soundfile.write(path, SPEECH, RATE, "PCM_16")
    return path


class Device:
    """`bridge send` in a process of its own."""

    def __init__(self, file, *options, to="tcp-listen://127.0.0.1:0"):
        command = program("bridge", "send", file, "--to", to, *options)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = self.process.stderr.readline() if to in ("tcp-listen://127.0.0.1:0", "pty:") else ""
        if port := re.search(r"port (\d+)", self.said):
            self.url = f"tcp://127.0.0.1:{port[1]}"
        else:
            self.url = "pty:" + self.said.split()[-1] if self.said else to

    def shown(self):
        """What it showed on its display, when it has ended."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert (self.process.returncode, err) == (0, "")
        return out


@pytest.fixture
def device(talk):
    devices = []

    def start(*options, **where):
        devices.append(Device(talk, *options, **where))
        return devices[-1]

    yield start
    for started in devices:
        if started.process.poll() is None:
            started.process.kill()
            started.process.communicate()


class TestListen:
    @pytest.mark.parametrize("codec", ["s16", "adpcm"])
    def test_hears_a_device_and_answers_it(self, device, codec):
        sender = device("--codec", codec)
        assert edgeasr("listen", "--source", sender.url) == (0, TEXT, "")
        assert sender.shown() == TEXT

    def test_asks_for_the_codec_of_the_url(self, device):
        sender = device()
        code, out, _ = edgeasr("listen", "--source", f"{sender.url}?codec=features", "--json")
        finals = [event for event in map(json.loads, out.splitlines()) if event["type"] == "final"]
        # Tones are narrower than the steps of coarse features: not all letters are those of the samples.
        assert (code, [len(final["text"]) for final in finals]) == (0, [len(line) for line in TEXT.splitlines()])
        assert finals[0]["text"] == "so it goes"

    def test_hears_a_device_that_only_talks(self, device):
        sender = device("--one-way")
        assert edgeasr("listen", "--source", sender.url, "--srt").out.startswith("1\n00:00:00,000 --> ")

    def test_reports_in_one_line_what_was_lost(self, device):
        sender = device("--drop", "0.1", "--seed", "3")
        code, _, err = edgeasr("listen", "--source", sender.url)
        assert code == 0
        assert re.search(r"\d+ frames, \d+ lost, \d+ ms of audio lost on the link\n$", err)
        assert err.count("ms of audio lost") == 1

    def test_hears_a_device_at_a_pseudo_terminal(self, device):
        sender = device(to="pty:")
        results = []
        listener = threading.Thread(target=lambda: results.append(heard_at(sender.url)))
        listener.start()
        assert sender.shown().startswith("so it goes\n")  # what the host hears only at the end, it cannot show
        listener.join(PATIENCE_S)
        assert results == [(0, TEXT, "")]

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("--source", "tcp://127.0.0.1:1"), 3, "cannot connect to tcp://127.0.0.1:1 (Connection refused)"),
            (("--source", "tcp://nowhere"), 2, "want a host and a port"),
            (("--source", "tcp-listen://127.0.0.1:0?codec=mp3"), 2, "got codec=mp3 in the source"),
            (("--source", "tcp://[::1"), 2, "Invalid IPv6 URL"),
            (("--source", "udp://127.0.0.1:9000"), 2, "got source 'udp://127.0.0.1:9000', wanted mic, a file, -,"),
            (("--source", "tcp://127.0.0.1:1?codec=mp3"), 2, "got codec=mp3 in the source"),
            (("--source", "pty:/dev/null"), 3, "/dev/null is no terminal"),
            (("--source", "pty:", "--real-time"), 2, "--real-time is for --source FILE"),
            (("--source", "pty:", "--device", "1"), 2, "--device is for --source mic"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, arguments, code, message):
        done = edgeasr("listen", *arguments)
        assert done.code == code
        assert message in done.err


def heard_at(url):
    done = subprocess.run(
        program("listen", "--source", url), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    return done.returncode, done.stdout, done.stderr


def test_monitor_prints_every_message(device):
    code, out, err = edgeasr("bridge", "monitor", device("--codec", "ulaw").url, "--json")
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    # Whether the first PING is answered before the first speech is a matter of speed.
    kinds = [entry["message"] for entry in entries if entry["message"] != "PONG"]
    assert kinds[:4] == ["HELLO", "ACK", "ACK", "AUDIO"]
    assert entries[0]["capabilities"] == ["ULAW", "DISPLAY", "COMMANDS"]
    assert entries[1]["status"] == "OK"
    audio = [entry for entry in entries if entry["message"] == "AUDIO"]
    assert (audio[1]["time"], audio[1]["codec"], audio[1]["data_bytes"]) == (320, "ULAW", 320)
    assert sum(entry["num_samples"] for entry in audio) == len(SPEECH)
    assert f"{len(entries)} frames" in err


def test_monitor_prints_lines_to_read(device):
    _, out, _ = edgeasr("bridge", "monitor", device("--codec", "s16").url)
    assert re.search(r"^ +\d+\.\d{3} HELLO +sequence=0 time=0 protocol_version=1 sample_rate_hz=16000", out)
    assert re.search(r"AUDIO +sequence=\d+ time=640 codec=S16 num_samples=320 data_bytes=640\n", out)


def test_info_asks_what_the_device_is(device):
    code, out, _ = edgeasr("bridge", "info", device("--real-time").url, "--json")
    answers = json.loads(out)
    assert code == 0
    assert answers["hello"]["name"] == "virtual device"
    assert answers["info"]["board"] == "virtual"
    assert answers["stats"]["receive_errors"] == 0


def test_info_without_an_answer_is_an_error(device, monkeypatch):
    monkeypatch.setattr("edgeasr.firmware_bridge.monitor.ANSWER_S", 0.3)
    code, out, err = edgeasr("bridge", "info", "pty:")
    assert (code, out) == (3, "")
    assert "does not say what it is" in err


def test_record_writes_what_the_device_hears(device, talk, tmp_path):
    output = tmp_path / "out.flac"
    code, _, err = edgeasr("bridge", "record", device().url, output)
    assert code == 0
    assert f"{output}: {len(SPEECH) / RATE:.3f} s" in err
    np.testing.assert_array_equal(soundfile.read(output, dtype="int16")[0], soundfile.read(talk, dtype="int16")[0])


def test_record_fills_gaps_with_silence_and_stops_in_time(device, talk, tmp_path):
    output = tmp_path / "out.wav"
    _, _, err = edgeasr("bridge", "record", device("--drop", "0.05").url, output, "--seconds", "2")
    recorded, sent = soundfile.read(output, dtype="int16")[0], soundfile.read(talk, dtype="int16")[0]
    assert len(recorded) == 2 * RATE
    frames = recorded.reshape(-1, 320)
    same = (frames == sent[: 2 * RATE].reshape(-1, 320)).all(axis=1)
    assert (same | (frames == 0).all(axis=1)).all()
    assert same.sum() > 50
    assert "lost" in err


@pytest.mark.parametrize(
    ("codec", "name", "message"), [("features", "out.wav", "sends features"), ("s16", "out.mp3", "ends in .wav")]
)
def test_record_refuses_what_it_cannot_write(device, tmp_path, codec, name, message):
    code, _, err = edgeasr("bridge", "record", device("--codec", codec).url, tmp_path / name)
    assert code == 2
    assert message in err


def test_selftest_passes():
    code, out, err = edgeasr("bridge", "selftest")
    assert (code, err) == (0, "")
    assert [line[:5] for line in out.splitlines()] == ["ok   "] * 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "pty:", "--codec", "mp3"), "choose s16, ulaw, adpcm, features or any"),
        (("--to", "tcp-listen://127.0.0.1:0?codec=s16"), "codec is for the host's side"),
        (("--to", "pty:", "--drop", "2"), "drop"),
    ],
)
def test_send_refuses_what_makes_no_sense(talk, arguments, message):
    code, _, err = edgeasr("bridge", "send", talk, *arguments)
    assert code == 2
    assert message in err
