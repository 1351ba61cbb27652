import json
import os
import socket
import subprocess
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from edgeasr.service.notify import ServiceManager
from edgeasr.service.watchdog import Watchdog, WatchedStop

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, program, tone, silence = (SCRIPTED[name] for name in ("edgeasr", "program", "tone", "silence"))
PATIENCE_S = 30


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's socket: its address, and a function that reads the messages that lie there."""
    address = f"@edgeasr-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0"))
        listening.setblocking(False)

        def messages():
            read = []
            try:
                while True:
                    read.append(listening.recv(4_096).decode().split("\n"))
            except BlockingIOError:
                return read

        yield address, messages


class Time:
    """The clock of a watchdog, as the test moves it."""

    def __init__(self):
        self.now_s = 0.0


def made(address, watchdog_s=None):
    time = Time()
    return Watchdog(ServiceManager(address, watchdog_s), lambda: time.now_s), time


def test_messages_are_those_of_the_protocol(manager):
    address, messages = manager
    told = ServiceManager.from_environment({"NOTIFY_SOCKET": address})
    told.ready("listening to\n a microphone")
    told.works()
    told.works("heard 3 s")
    told.stopping()
    assert messages() == [
        ["READY=1", "STATUS=listening to a microphone"],
        ["WATCHDOG=1"],
        ["WATCHDOG=1", "STATUS=heard 3 s"],
        ["STOPPING=1"],
    ]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path", "/nowhere/at/all", "@nobody-listens-here"])
def test_without_a_manager_nothing_fails(address):
    told = ServiceManager.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})
    told.ready("ready")
    told.works()


def test_a_manager_that_does_not_read_stops_nothing(manager):
    address, messages = manager
    told = ServiceManager(address)
    for _ in range(5_000):
        told.works("heard much")
    assert 0 < len(messages()) < 5_000


@pytest.mark.parametrize(
    ("variables", "wanted_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_what_the_manager_asks_for(manager, variables, wanted_s):
    address, _ = manager
    assert ServiceManager.from_environment({"NOTIFY_SOCKET": address, **variables}).watchdog_s == wanted_s
    assert ServiceManager.from_environment(variables).watchdog_s is None


def test_a_sign_goes_out_four_times_in_its_period_while_recognition_goes_on(manager):
    address, messages = manager
    watchdog, time = made(address, watchdog_s=4)
    for tenth in range(41):
        time.now_s = tenth / 10
        watchdog.heard((tenth + 1) / 10)
    assert [message[0] for message in messages()] == ["WATCHDOG=1"] * 5


def test_no_sign_goes_out_when_nothing_gets_on(manager):
    """The loop still turns, and its source is still asked."""
    address, messages = manager
    watchdog, time = made(address, watchdog_s=4)
    stop = WatchedStop(SimpleNamespace(requested=False), watchdog)
    watchdog.heard(0.16)
    assert messages() == [["WATCHDOG=1", "STATUS=heard 0 s"]]
    for tenth in range(1, 600):
        time.now_s = tenth / 10
        assert stop.requested is False
        watchdog.heard(0.16)
    assert messages() == []
    watchdog.heard(0.32)
    assert len(messages()) == 1


def test_waiting_for_a_microphone_is_no_hang(manager):
    address, messages = manager
    watchdog, time = made(address, watchdog_s=4)
    stop = WatchedStop(SimpleNamespace(requested=True), watchdog)
    watchdog.heard(0.16)
    for tenth in range(41):
        time.now_s = tenth / 10
        assert stop.requested is True
    told = messages()
    assert told[1:] == [["WATCHDOG=1", "STATUS=waiting for sound"]] * 4


@pytest.mark.parametrize(
    ("heard_s", "wanted"), [(59.9, "59 s"), (60, "1 min 0 s"), (3_599, "59 min 59 s"), (90_061, "25 h 1 min")]
)
def test_the_status_says_how_long_it_has_heard(manager, heard_s, wanted):
    address, messages = manager
    watchdog, _ = made(address)
    watchdog.heard(heard_s)
    assert messages() == [["WATCHDOG=1", f"STATUS=heard {wanted}"]]


def test_listen_tells_its_manager(manager, tmp_path, monkeypatch):
    address, messages = manager
    clip = tmp_path / "so.wav"
    soundfile.write(clip, np.concatenate([tone("so it goes"), silence(2)]), 16_000)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert edgeasr("listen", "--source", clip) == (0, "so it goes\n", "")
    told = messages()
    assert told[0] == ["READY=1", f"STATUS=listening to {clip}"]
    assert told[1][0] == "WATCHDOG=1"


def test_listen_says_that_it_is_asked_to_stop(manager):
    address, messages = manager
    with subprocess.Popen(
        program("listen", "--source", "-", "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "NOTIFY_SOCKET": address},
    ) as running:
        running.stdin.write((np.concatenate([tone("so"), silence(0.4)]) * 32_767).astype("<i2").tobytes())
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["text"] == "so"
        running.terminate()
        assert running.wait(PATIENCE_S) == 0
    told = messages()
    assert told[0][0] == "READY=1"
    assert ["STOPPING=1"] in told
