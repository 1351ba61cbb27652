import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from runpy import run_path

import aiohttp
import pytest

from edgeasr.serve.listener import may_meet

SERVED = run_path(str(Path(__file__).with_name("served.py")))
run, pcm, tone, RATE_HZ = (SERVED[name] for name in ("run", "pcm", "tone", "RATE_HZ"))
program, edgeasr = (SERVED["SCRIPTED"][name] for name in ("program", "edgeasr"))

PATIENCE_S = 60


@contextmanager
def serving(*options, **popen):
    """The process, and its first address."""
    command = program("serve", "--port", "0", "--max-streams", "3", *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **popen) as process:
        try:
            line = process.stderr.readline()
            found = re.search(r"listening at (http://127\.0\.0\.1:\d+).*, 3 streams at once; Ctrl-C to end\n", line)
            assert found, line + process.stderr.read()
            yield process, found[1]
        finally:
            if process.poll() is None:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_last_words(number):
    async def converse(process, url):
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as client:
            await client.send_str(json.dumps({"config": {"sample_rate": RATE_HZ}}))
            await client.send_bytes(pcm(tone("abc")))
            await client.receive_json()
            process.send_signal(number)
            return await client.receive_json()

    with serving() as (process, url):
        assert run(converse(process, url))["text"] == "abc"
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == "edgeasr: ending 1 stream, Ctrl-C to end at once\n"


def test_a_service_manager_is_told(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with serving(env={"PATH": "/usr/bin:/bin", **environment}) as (process, _):
            told = [manager.recv(1000).decode() for _ in range(4)]
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        while not told[-1].startswith("STOPPING=1"):
            told.append(manager.recv(1000).decode())
    assert told[0].startswith("READY=1\nSTATUS=listening at http://127.0.0.1:")
    assert told[1].startswith("WATCHDOG=1\nSTATUS=hears 0 streams")
    assert told[2].startswith("WATCHDOG=1")


def test_a_second_port_for_vosk_clients():
    async def hear(port):
        async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://127.0.0.1:{port}") as client:
            await client.send_bytes(pcm(tone("ab", rate_hz=8000)))
            await client.send_str('{"eof" : 1}')
            return [await client.receive_json() for _ in range(2)][-1]["text"]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving("--vosk-port", str(port)) as (process, _):
        assert run(hear(port)) == "ab"
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr.read() == ""


def test_a_port_in_use_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = edgeasr("serve", "--max-streams", "1", "--port", str(port))
    assert done.code == 3
    assert done.err == (
        f"edgeasr: error: port {port} of 127.0.0.1 is in use: end the program that has it, or choose another port\n"
    )


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        (["--host", "0.0.0.0"], 2, "edgeasr: error: got the address 0.0.0.0 and no token"),
        (["--token", "short"], 2, "edgeasr: error: got 5 characters as the token from --token"),
        (["--token-file", "missing"], 2, "edgeasr: error: cannot read the token from missing (No such file"),
        (
            ["--key", "k.pem"],
            2,
            "edgeasr: error: got the key k.pem without a certificate, wanted both: add --certificate",
        ),
        (
            ["--port", "8000", "--vosk-port", "8000"],
            2,
            "edgeasr: error: got --port 8000 and --vosk-port 8000, wanted two ports: leave one out",
        ),
        (
            ["--vosk-port", "2700", "--wyoming", "tcp://localhost:2700"],
            2,
            "edgeasr: error: got --vosk-port 2700 and the same port in --wyoming, wanted two ports: choose another",
        ),
        (["--source", "nosuch.wav"], 2, "edgeasr: error: cannot open nosuch.wav"),
        (["--allow-origin", "foo"], 2, "edgeasr: error: got the origin 'foo', wanted"),
        (["--certificate", "missing"], 2, "edgeasr: error: cannot use the certificate missing (No such file"),
        (["--host", "no such name", "--token", "x" * 20], 3, "edgeasr: error: got the address 'no such name' (Name or"),
        (["--host", "203.0.113.7", "--token", "x" * 20], 3, "edgeasr: error: cannot listen at 203.0.113.7 port"),
    ],
)
def test_what_cannot_be_served_is_one_line(options, code, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = edgeasr("serve", "--max-streams", "1", "--port", "0", *options)
    assert done.code == code
    assert done.err.startswith(complaint)
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "other", "meet"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("localhost", "::", True),
        ("::1", "::", True),
        ("pi.local", "", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::1", False),
        ("::1", "0.0.0.0", False),
        ("192.168.1.2", "localhost", False),
    ],
)
def test_hosts_whose_ports_can_be_one(host, other, meet):
    assert may_meet(host, other) == may_meet(other, host) == meet


def test_a_token_that_others_can_read_is_said(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("x" * 20)
    options = ("serve", "--max-streams", "1", "--token-file", file, "--wyoming", "udp://a")
    for mode, lines in ((0o644, 2), (0o600, 1)):
        file.chmod(mode)
        err = edgeasr(*options).err
        assert err.count("\n") == lines
        assert (f"edgeasr: others on this machine can read the token in {file}: chmod 600 {file}\n" in err) == (
            lines == 2
        )


def test_without_the_extra_it_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("edgeasr.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    done = edgeasr("serve")
    assert done.code == 2
    assert done.err == (
        "edgeasr: error: got no package aiohttp, wanted what edgeasr[serve] brings: pip install edgeasr[serve]\n"
    )


def test_without_a_number_of_streams_it_is_measured():
    from edgeasr.recognizer import Recognizer
    from edgeasr.serve.capacity import measured_rtf, streams_for

    assert 0 < measured_rtf(Recognizer(SERVED["ScriptedModel"]())) < 10
    assert [streams_for(rtf, 1) for rtf in (2.0, 0.5, 0.26, 0.1, 0.01, 1e-6)] == [1, 1, 1, 5, 50, 256]
    assert streams_for(0.01, 2) == 100
