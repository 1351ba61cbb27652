import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from runpy import run_path

import pytest
import soundfile

from edgeasr.actions.command import Command
from edgeasr.errors import ActionError, ConfigError

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, tone = SCRIPTED["edgeasr"], SCRIPTED["tone"]
NASTY = "\"; touch /tmp/owned; $(id) `id` ' {end} {{x}} \n -rf *"
FINAL = {"type": "final", "segment": 7, "start": 1.5, "end": 2.25, "text": NASTY, "tags": {"room": "kitchen"}}


@pytest.fixture
def recorder(tmp_path):
    """A program that writes what it gets, and the function that reads it."""
    program, got = tmp_path / "recorder.py", tmp_path / "got.json"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "got = {'arguments': sys.argv[1:], 'stdin': sys.stdin.read(), 'environment': dict(os.environ)}\n"
        f"open({str(got)!r}, 'w').write(json.dumps(got))\n"
    )
    program.chmod(0o755)
    return program, lambda: json.loads(got.read_text())


def deliver(template, event=FINAL, **options):
    with closing(Command(template, **options)) as command:
        command.deliver(event)


def test_each_placeholder_stays_within_its_argument(recorder):
    program, got = recorder
    deliver(f"{program} --say={{text}} {{start}}-{{end}} '{{segment}} {{{{it}}}}' {{tags}} 'a b' ''")
    assert got()["arguments"] == [f"--say={NASTY}", "1.5-2.25", "7 {it}", '{"room": "kitchen"}', "a b", ""]
    assert not Path("/tmp/owned").exists()


def test_the_event_is_told_as_json_too(recorder, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/ours")
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    program, got = recorder
    deliver(str(program))
    assert got()["stdin"].endswith("\n")
    assert json.loads(got()["stdin"]) == FINAL
    assert json.loads(got()["environment"]["EDGEASR_EVENT"]) == FINAL
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(got()["environment"])


def test_without_tags_nothing_is_filled_in(recorder):
    program, got = recorder
    deliver(f"{program} {{tags}}", {"segment": 0, "text": "so"})
    assert got()["arguments"] == [""]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended with signal SIGKILL"),
    ],
)
def test_a_failure_is_told(code, message):
    with pytest.raises(ActionError, match=message) as caught:
        deliver(f"{sys.executable} -c '{code}'")
    assert caught.value.again is False


def test_a_program_that_does_not_end_is_killed_with_its_children(tmp_path):
    pids = tmp_path / "pids"
    with pytest.raises(ActionError, match=r"ran longer than 1\.5 s and was killed"):
        deliver(f"sh -c 'sleep 99 & echo $$ $! > {pids}; wait'", timeout_s=1.5)
    for pid in map(int, pids.read_text().split()):
        _until(lambda pid=pid: not _runs(pid))


# Runs a program, and says when it would be ended with it.
STARTER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests themselves were told to ignore
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from edgeasr.actions.command import Command
class Watched(Command):
    def _watch(self):
        super()._watch()
        print("watched", flush=True)
Watched({template!r}, 90).deliver({{"text": "so"}})
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_us_ends_the_program_and_its_children(tmp_path, number):
    pids = tmp_path / "pids"
    template = f"sh -c 'sleep 99 & echo $$ $! > {pids}; wait'"
    code = STARTER.format(template=template)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as starter:
        assert starter.stdout.readline() == "watched\n"
        _until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        children = [int(pid) for pid in Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()]
        pids = [int(pid) for pid in pids.read_text().split()]
        assert len(children) == 2  # one of them ends the other
        starter.send_signal(number)
        starter.wait(30)
    for pid in (*children, *pids):
        _until(lambda pid=pid: not _runs(pid))


def test_what_has_ended_is_not_killed_and_nothing_is_left(tmp_path):
    told = tmp_path / "told"
    command = Command(f"sh -c 'echo $$ >> {told}'")
    command.deliver(FINAL)
    command.deliver(FINAL)
    command.close()
    assert len(told.read_text().split()) == 2
    assert not Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text()


def _until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid):
    """A child whose parent died is a zombie until init has seen to it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_that_went_away_is_an_error(tmp_path):
    program = tmp_path / "gone"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    command = Command(str(program))
    program.unlink()
    with closing(command), pytest.raises(ActionError, match="cannot be run"):
        command.deliver(FINAL)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "without a program"),
        ("echo 'unclosed", "cannot be split"),
        ("echo {words}", r"got \{words\} in --exec, known are \{text\}, \{start\}"),
        ("echo {}", r"got \{\} in --exec"),
        ("no-such-program {text}", "is no program here"),
        ("{text}", "is no program here"),
        ("sh -c 'echo {text}'", "where it could run anything"),
        ("/bin/bash -ec 'echo {tags}'", "inside the script of bash, where it could run anything"),
        ("env sh -c 'echo {text}'", "inside the script of sh"),
        ("env -S 'echo {text}'", "inside the script of env"),
        ("sudo -n nice -n 5 /bin/sh -c 'echo {text}'", "inside the script of sh"),
        ("timeout 5 busybox ash -c 'echo {text}'", "inside the script of ash"),
        ("sh -c -o errexit 'echo {text}'", "inside the script of sh"),
        ("su pi -c 'echo {text}'", "inside the script of su"),
        ("ssh hub notify-send {text}", "inside the script of ssh"),
        ("python3.11 -c 'print(\"{text}\")'", "inside the script of python3.11"),
        ("perl -e'print q({text})'", "inside the script of perl"),
        ("node --eval={text}", "inside the script of node"),
        ("echo {text", r"got a brace without its other one in --exec '\{text'"),
        ("echo text}", "got a brace without its other one"),
    ],
)
def test_what_cannot_be_run_is_refused_at_the_start(template, message):
    with pytest.raises(ConfigError, match=message):
        Command(template)


@pytest.mark.parametrize(
    "template",
    [
        "sh -ec 'echo \"$1\"' sh {text}",
        "env A=b timeout 5 sh -c 'echo \"$1\"' sh {text}",
        "python3 -c 'import sys; print(sys.argv[1])' {text}",
        "python3 notes.py -c {text}",
        "sh notes.sh -e {text}",
        "echo {{}} -c {text}",
    ],
)
def test_arguments_of_a_script_may_be_what_was_said(template, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert Command(template).arguments(FINAL)[-1] == NASTY


def test_a_shell_gets_what_was_said_as_an_argument(tmp_path):
    told = tmp_path / "told"
    deliver(f"sh -c 'printf %s \"$1\" > {told}' sh {{text}}")
    assert told.read_text() == NASTY


class TestListen:
    @pytest.fixture
    def clip(self, tmp_path):
        path = tmp_path / "so.wav"
        soundfile.write(path, tone("so it goes"), 16_000)
        return path

    def test_runs_a_program_for_finals_alone(self, recorder, clip):
        program, got = recorder
        assert edgeasr("listen", "--source", clip, "--exec", f"{program} {{text}}") == (0, "so it goes\n", "")
        assert got()["arguments"] == ["so it goes"]
        event = json.loads(got()["stdin"])
        assert (event["type"], event["text"], len(event["words"])) == ("final", "so it goes", 3)

    def test_a_program_that_fails_is_a_note(self, clip):
        code, out, err = edgeasr("listen", "--source", clip, "--exec", "false")
        assert (code, out) == (0, "so it goes\n")
        assert err == (
            "edgeasr: --exec false: ended with exit code 1 (segment 0)\n"
            "edgeasr: --exec false: 1 finals in all were not delivered\n"
        )

    def test_a_command_in_the_environment_is_not_split(self, recorder, clip, monkeypatch):
        program, got = recorder
        monkeypatch.setenv("EDGEASR_LISTEN_EXEC", f"{program} 'a b' {{text}}\ntrue")
        assert edgeasr("listen", "--source", clip).code == 0
        assert got()["arguments"] == ["a b", "so it goes"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--exec", "no-such-program"), "is no program here"),
            (("--webhook-allow", "host"), "--webhook-allow is for --webhook"),
            (("--webhook", "http://192.168.1.2/x"), "add --webhook-allow 192.168.1.2"),
        ],
    )
    def test_what_cannot_work_ends_it_at_once(self, clip, arguments, message):
        code, out, err = edgeasr("listen", "--source", clip, *arguments)
        assert (code, out) == (2, "")
        assert message in err
