import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr

from edgeasr import microphone
from edgeasr.audio import AudioBlock, AudioSource
from edgeasr.cli.listen import _settled
from edgeasr.errors import DeviceError
from edgeasr.ladder import Budget

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, program, tone, silence = (SCRIPTED[name] for name in ("edgeasr", "program", "tone", "silence"))
RATE = 16_000
SPEECH = np.concatenate([tone("so it goes"), silence(1.52), tone("and then it ended")])
TEXT = "so it goes\nand then it ended\n"


def pcm(waveform):
    return (waveform * 32_767).astype("<i2").tobytes()


@pytest.fixture
def talk(tmp_path):
    path = tmp_path / "talk.flac"
    soundfile.write(path, SPEECH, RATE)
    return path


def heard(*arguments, data):
    """Run with raw audio on standard input."""
    done = subprocess.run(program("listen", "--source", "-", *arguments), input=data, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_what_the_first_words_took_alone_goes_once_they_are_out(monkeypatch):
    calls = []
    monkeypatch.setattr("edgeasr.cli.listen.unmap_files", lambda: calls.append("unmapped"))
    events = _settled(iter(["first", "second", "third"]))
    assert (next(events), calls) == ("first", [])
    assert (list(events), calls) == (["second", "third"], ["unmapped"])


class TestFile:
    def test_through_a_pipe_gives_finals(self, talk):
        assert edgeasr("listen", "--source", talk) == (0, TEXT, "")

    def test_as_json_gives_partials_too(self, talk):
        code, out, _ = edgeasr("listen", "--source", talk, "--json")
        events = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert [(event["type"], event["text"], event["stable"]) for event in events[:6]] == [
            ("partial", "so", 0),
            ("partial", "so i", 2),
            ("partial", "so it", 5),
            ("partial", "so it go", 5),
            ("partial", "so it goes", 5),
            ("final", "so it goes", 10),
        ]
        assert list(events[0]) == ["type", "segment", "start", "end", "text", "stable", "words"]

    @pytest.mark.parametrize(("flag", "begins"), [("--srt", "1\n00:00:00,000"), ("--vtt", "WEBVTT\n\n00:00:00.000")])
    def test_as_subtitles(self, talk, flag, begins):
        assert edgeasr("listen", "--source", talk, flag).out.startswith(f"{begins} --> ")

    def test_can_be_heard_in_real_time(self, tmp_path, monkeypatch):
        waits = []
        monkeypatch.setattr("edgeasr.audio.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=waits.append))
        soundfile.write(tmp_path / "so.wav", tone("so it"), RATE)
        assert edgeasr("listen", "--source", tmp_path / "so.wav", "--real-time") == (0, "so it\n", "")
        assert waits == pytest.approx([0.1, 0.2, 0.3, 0.4])

    def test_that_is_truncated_gives_its_words_and_an_error(self, tmp_path):
        path = tmp_path / "talk.wav"
        soundfile.write(path, SPEECH, RATE)
        path.write_bytes(path.read_bytes()[:-2_600])
        code, out, err = edgeasr("listen", "--source", path)
        assert (code, out) == (2, "so it goes\nand then it ende\n")
        assert err.startswith(f"edgeasr: error: {path} ends early")
        assert err.count("\n") == 1

    def test_that_is_missing_is_an_error(self, tmp_path):
        code, out, err = edgeasr("listen", "--source", tmp_path / "none.wav")
        assert (code, out, err.count("\n")) == (2, "", 1)


class TestBudget:
    def test_is_checked_while_it_listens(self, talk, monkeypatch):
        made = []

        class Governor:
            def __init__(self, recognizer, budget, report, *, backlog_s):
                self.budget, self.heard_s, self.recognizer = budget, [], recognizer
                made.append(self)

            def check(self):
                self.heard_s.append(self.recognizer.heard_s)

        monkeypatch.setattr("edgeasr.governor.Governor", Governor)
        limits = ("--budget-rtf", "0.5", "--budget-temperature", "75", "--budget-battery", "20")
        assert edgeasr("listen", "--source", talk, *limits) == (0, TEXT, "")
        (governor,) = made
        assert governor.budget == Budget(0.5, 75, 20)
        assert governor.heard_s == sorted(governor.heard_s)
        assert governor.heard_s[-1] == pytest.approx(len(SPEECH) / RATE, abs=0.2)

    def test_that_is_none_is_a_usage_error(self, talk):
        assert edgeasr("listen", "--source", talk, "--budget-rtf", "0").code == 2

    @pytest.mark.parametrize("option", ["--budget-rtf", "--budget-temperature", "--budget-battery"])
    def test_that_is_no_number_is_refused_by_the_name_of_its_option(self, talk, option):
        code, out, err = edgeasr("listen", "--source", talk, option, "nan")
        assert (code, out) == (2, "")
        assert f"'{option}': got nan, wanted a finite number" in err


class TestStandardInput:
    def test_gives_finals(self):
        assert heard(data=pcm(SPEECH)) == (0, TEXT, "")

    def test_with_half_a_sample_gives_its_words_and_an_error(self):
        code, out, err = heard(data=pcm(SPEECH) + b"x")
        assert (code, out) == (2, TEXT)
        assert err.startswith("edgeasr: error: standard input ended in half a sample")
        assert err.count("\n") == 1

    def test_can_be_of_another_format(self):
        frames = np.stack([soxr.resample(SPEECH, RATE, 48_000), np.zeros(3 * len(SPEECH))], axis=1)
        packed = (frames * 2**23).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        assert heard("--pcm", "48000:2:s24", data=packed) == (0, TEXT, "")

    def test_without_data_is_an_error(self):
        code, out, err = heard(data=b"")
        assert (code, out) == (2, "")
        assert err.startswith("edgeasr: error: standard input ended before the first sample")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("odd", [b"", b"x"])
    def test_ends_with_the_last_words_on_a_signal(self, number, odd):
        command = program("listen", "--source", "-", "--json")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            running.stdin.write(pcm(np.concatenate([tone("so it goes"), silence(0.4)])) + odd)
            running.stdin.flush()
            seen = []
            while not seen or seen[-1]["text"] != "so it goes":
                seen.append(json.loads(running.stdout.readline()))
            assert {event["type"] for event in seen} == {"partial"}
            running.send_signal(number)
            rest = running.stdout.read().splitlines()
            assert running.wait() == 0
            assert running.stderr.read() == b""
        assert [(event["type"], event["text"]) for event in map(json.loads, rest)] == [("final", "so it goes")]

    def test_ends_before_the_first_sample_on_a_signal(self):
        command = [sys.executable, "-c", WHEN_READY, *program("listen", "--source", "-")[1:]]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as running:
            assert running.stdout.readline() == b"ready\n"
            running.send_signal(signal.SIGTERM)
            assert (running.wait(), running.stdout.read(), running.stderr.read()) == (0, b"", b"")


# Says so when the program waits for data.
WHEN_READY = """
import runpy, select, sys
wait = select.select
def tell(*args):
    select.select = wait
    print("ready", flush=True)
    return wait(*args)
select.select = tell
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class FakeMicrophone(AudioSource):
    """Two words with a loss of 2 s between them, then whatever the test wants."""

    duration_s = None
    drops = True
    backlog_s = 0.0
    is_away = False

    def __init__(self, device, **_):
        self.name, self.sample_rate_hz = f"microphone {device}", 48_000
        self.closed = False

    def blocks(self):
        yield AudioBlock(tone("so", rate_hz=48_000), 0)
        yield AudioBlock(tone("it", rate_hz=48_000), 7_680 + 96_000, 96_000)
        os.kill(os.getpid(), signal.SIGINT)
        yield AudioBlock(tone("goes", rate_hz=48_000), 7_680 + 96_000 + 7_680)
        assert self.closed
        yield AudioBlock(tone("on", rate_hz=48_000), 7_680 + 96_000 + 7_680 + 15_360)
        if self.name.endswith("broken"):
            raise DeviceError("the microphone is gone")

    def close(self):
        self.closed = True

    def report(self):
        return "2.0 s of audio lost" if self.name.endswith("lossy") else None


class TestMicrophone:
    def test_is_closed_on_a_signal_and_what_it_heard_is_given(self, monkeypatch):
        monkeypatch.setattr(microphone, "Microphone", FakeMicrophone)
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        code, out, err = edgeasr("listen", "--json")
        finals = [event for event in map(json.loads, out.splitlines()) if event["type"] == "final"]
        assert (code, err) == (0, "")
        assert [event["text"] for event in finals] == ["so", "itgoeson"]
        assert finals[1]["words"][0]["start"] == pytest.approx(2.16, abs=0.041)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers

    def test_that_breaks_after_the_end_is_no_error(self, monkeypatch):
        monkeypatch.setattr(microphone, "Microphone", FakeMicrophone)
        assert edgeasr("listen", "--device", "broken") == (0, "so\nitgoeson\n", "")

    def test_that_lost_something_says_so_at_the_end(self, monkeypatch):
        monkeypatch.setattr(microphone, "Microphone", FakeMicrophone)
        assert edgeasr("listen", "--device", "lossy") == (0, "so\nitgoeson\n", "edgeasr: 2.0 s of audio lost\n")

    def test_that_is_not_there_is_an_error_with_a_code_of_its_own(self, monkeypatch):
        sound = SimpleNamespace(query_devices=list, PortAudioError=OSError)
        monkeypatch.setitem(sys.modules, "sounddevice", sound)
        code, out, err = edgeasr("listen")
        assert (code, out) == (3, "")
        assert err.startswith("edgeasr: error: no microphone found")
        assert err.count("\n") == 1

    def test_of_another_name_is_an_error_that_lists_those_there_are(self, monkeypatch):
        device = {"index": 4, "name": "USB Audio", "max_input_channels": 1, "default_samplerate": 48_000.0}
        sound = SimpleNamespace(query_devices=lambda: [device], PortAudioError=OSError)
        monkeypatch.setitem(sys.modules, "sounddevice", sound)
        code, _, err = edgeasr("listen", "--device", "headset")
        assert code == 3
        assert "'headset'" in err
        assert "4: USB Audio" in err


class TestTerminal:
    def shown(self, columns, *arguments):
        """What the program writes to a terminal of so many columns."""
        control, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        running = subprocess.Popen(program(*arguments), stdin=terminal, stdout=terminal, stderr=subprocess.PIPE)
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(control, 65_536):
                shown += part
        except OSError:  # Linux's way to tell that the other side is closed
            pass
        os.close(control)
        assert running.wait() == 0
        err = running.stderr.read().decode()
        running.stderr.close()
        return shown.decode().replace("\r\n", "\n"), err

    def screen(self, shown):
        """What is left to see of text in which lines were rewritten."""
        return re.sub(r"[^\n]*\r\x1b\[K", "", shown)

    def test_shows_partials_in_place(self, talk):
        shown, err = self.shown(80, "listen", "--source", talk)
        assert self.screen(shown) == TEXT
        written = re.split(r"\r\x1b\[K", shown)
        assert written[:6] == ["", "so", "so i", "so it", "so it go", "so it goes"]
        assert written[6] == "so it goes\n"
        assert err == f"Listening to {talk}, Ctrl-C to end\n"

    def test_shows_the_end_of_a_partial_that_is_too_wide(self, talk):
        shown, _ = self.shown(12, "listen", "--source", talk)
        assert self.screen(shown) == TEXT
        partials = re.findall(r"\x1b\[K([^\r\n]+)\r", shown)
        assert max(map(len, partials)) == 9
        assert "...t goes" in partials
        assert "... ended" in partials

    @pytest.mark.parametrize("columns", [0, 1, 3])
    def test_of_an_odd_width_is_no_trouble(self, talk, columns):
        assert self.screen(self.shown(columns, "listen", "--source", talk)[0]) == TEXT

    def test_shows_no_partials_of_other_formats(self, talk):
        shown, err = self.shown(80, "listen", "--source", talk, "--srt")
        assert "\x1b" not in shown
        assert shown.startswith("1\n00:00:00,000 --> ")
        assert err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--json", "--vtt"), "choose one of --json, --srt and --vtt"),
        (("--source", "talk.wav", "--device", "3"), "--device is for --source mic"),
        (("--source", "-", "--real-time"), "--real-time is for --source FILE"),
        (("--source", "pipe:cat talk.wav", "--real-time"), "--real-time is for --source FILE"),
        (("--source", "talk.wav", "--pcm", "8000"), "--pcm is for --source -, alsa:, pipe:, rtp: and tcp-audio:"),
        (("--source", "-", "--wait"), "--wait is for --source mic"),
        (("--source", "-", "--pcm", "16000:one"), "want RATE[:CHANNELS[:ENCODING]]"),
        (("--source", "pipe:"), "got pipe: without a command"),
        (("--real-time",), "--real-time is for --source FILE"),
        (
            ("--source", "tcp-audio://127.0.0.1:99999"),
            "got tcp-audio://127.0.0.1:99999, want a host and a port such as tcp-audio://192.168.1.7:9000",
        ),
        (("--source", "tcp-audio-listen://[::1"), "want one of tcp-audio://HOST:PORT, tcp-audio-listen://HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    code, out, err = edgeasr("listen", *arguments)
    assert (code, out) == (2, "")
    assert message in err
