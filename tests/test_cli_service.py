import getpass
import json
import os
import stat
import sys
from pathlib import Path
from runpy import run_path

import pytest

from edgeasr.service import needs, systemd
from edgeasr.service.unit import MARK
from edgeasr.settings import SYSTEM_FILE

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]

# Stands in for systemctl and journalctl: keeps what it was called with, and answers as the test wants.
PROGRAM = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
name = pathlib.Path(sys.argv[0]).name
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
words = [word for word in sys.argv[1:] if not word.startswith("-")]
answer = folder / f"{{name}}-{{words[0] if words else 'lines'}}"
text = answer.read_text() if answer.exists() else ""
if text.startswith("fail "):
    sys.exit(text.removeprefix("fail "))
sys.stdout.write(text)
"""


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """A systemd of the test's own: `calls()` of it since the last time, and `answers(what, text)`."""
    programs, booted = tmp_path / "bin", tmp_path / "booted"
    programs.mkdir()
    booted.mkdir()
    for name in ("systemctl", "journalctl"):
        path = programs / name
        path.write_text(PROGRAM.format(python=sys.executable, folder=str(tmp_path)))
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setattr(systemd, "_BOOTED", booted)
    monkeypatch.setattr(systemd, "_SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(systemd, "_LINGER_FOLDER", tmp_path / "linger")
    monkeypatch.setattr(needs, "program", lambda: ("/opt/e/bin/edgeasr",))

    class Manager:
        unit = tmp_path / "config" / "systemd" / "user" / "edgeasr-listen.service"

        def calls(self):
            path = tmp_path / "calls"
            lines = path.read_text().splitlines() if path.exists() else []
            path.unlink(missing_ok=True)
            return [json.loads(line) for line in lines]

        def answers(self, what, text):
            (tmp_path / what).write_text(text)

    return Manager()


def user_call(*words):
    return ["systemctl", "--user", "--no-pager", *words]


def test_a_service_is_written_and_started(manager, tmp_path):
    code, out, err = edgeasr("service", "install", "listen", "--", "--remember", "--exec", "echo {text}")
    assert (code, out) == (0, f"wrote {manager.unit}\n")
    text = manager.unit.read_text()
    assert 'ExecStart=/opt/e/bin/edgeasr listen --remember --exec "echo {text}"\n' in text
    assert f"ReadWritePaths=-{tmp_path}/data/edgeasr\n" in text
    assert stat.S_IMODE(manager.unit.stat().st_mode) == 0o644
    assert manager.calls() == [
        user_call("daemon-reload"),
        user_call("enable", "edgeasr-listen.service"),
        user_call("restart", "edgeasr-listen.service"),
    ]
    # What it may write to has to be there when it starts.
    assert stat.S_IMODE((tmp_path / "data" / "edgeasr").stat().st_mode) == 0o700
    assert "journalctl --user -u edgeasr-listen -f" in err
    assert f"sudo loginctl enable-linger {getpass.getuser()}" in err


def test_no_hint_about_lingering_where_it_is_on(manager, tmp_path):
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / getpass.getuser()).touch()
    assert "enable-linger" not in edgeasr("service", "install", "listen").err


def test_it_need_not_be_started_now(manager):
    code, _, err = edgeasr("service", "install", "listen", "--no-start", "--name", "kitchen")
    assert code == 0
    assert [call[3] for call in manager.calls()] == ["daemon-reload", "enable"]
    assert manager.unit.with_name("kitchen.service").exists()
    assert "systemctl --user start kitchen" in err


def test_what_is_configured_counts_as_well(manager, tmp_path):
    """A web hook in a configuration file wants the network too."""
    (tmp_path / "config" / "edgeasr").mkdir(parents=True)
    (tmp_path / "config" / "edgeasr" / "config.toml").write_text('[listen]\nwebhook = ["http://127.0.0.1/"]\n')
    printed = edgeasr("service", "install", "listen", "--print").out
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n" in printed


def test_printing_changes_nothing_and_needs_no_systemd(manager, monkeypatch, tmp_path):
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path / "none")
    arguments = ("--memory-max", "300", "--watchdog", "9", "--quiet", "--writable", "/mnt/notes")
    code, out, err = edgeasr(
        "service", "install", "listen", "--print", *arguments, "--", "--store", "/x/a.db", "--remember"
    )
    assert (code, err) == (0, "")
    assert out.startswith(MARK)
    for line in ("MemoryMax=300M", "WatchdogSec=9", "StandardOutput=null", "ReadWritePaths=-/mnt/notes"):
        assert f"\n{line}\n" in out
    assert "\nReadWritePaths=-/x\n" in out
    assert (manager.calls(), manager.unit.exists()) == ([], False)


def test_a_service_of_the_system_goes_to_the_system(manager, tmp_path, monkeypatch):
    monkeypatch.setattr(needs, "made_of", lambda: (Path("/usr"),))
    code, out, err = edgeasr("service", "install", "listen", "--system")
    assert (code, out) == (0, f"wrote {tmp_path}/system/edgeasr-listen.service\n")
    text = (tmp_path / "system" / "edgeasr-listen.service").read_text()
    assert "DynamicUser=yes\n" in text
    assert "ProtectHome=yes\n" in text
    assert "RestrictAddressFamilies=AF_UNIX\n" in text
    assert manager.calls()[0] == ["systemctl", "--no-pager", "daemon-reload"]
    assert "linger" not in err


def test_an_installation_in_an_open_home_folder_is_seen(manager, monkeypatch):
    monkeypatch.setattr(needs, "made_of", lambda: (Path("/usr"), Path("/home/pi/venv")))
    monkeypatch.setattr(needs, "_closed_folder", lambda path: None)
    printed = edgeasr("service", "install", "listen", "--system", "--print").out
    assert "DynamicUser=yes\n" in printed
    assert "ProtectHome=read-only\n" in printed


def test_a_user_that_there_is_not_is_refused(manager):
    code, _, err = edgeasr("service", "install", "listen", "--system", "--run-as", "nobody-of-this-name", "--print")
    assert code == 2
    assert "got user 'nobody-of-this-name' to run as" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("listen", "--", "--remeber"), "No such option: --remeber"),
        (("listen", "--", "--threads", "0"), "--threads"),
        (("listen", "--remember"), "No such option: --remember"),
        (("transcribe",), "'transcribe' is not one of 'listen', 'serve'"),
        (("listen", "--", "--source", "-"), "no standard input"),
        (("listen", "--", "--remember", "--store", "a.db"), "wanted an absolute path"),
        (("listen", "--", "--source", "nosuch.wav"), "nosuch.wav"),
        (("listen", "--", "--exec", "sh -c '{text}'"), "inside the script of sh"),
        (("listen", "--", "--exec-timeout", "3"), "--exec-timeout is for --exec"),
        (("listen", "--", "--webhook", "http://8.8.8.8/"), "add --webhook-allow 8.8.8.8"),
        (("listen", "--", "--mqtt", "http://hub/a"), "--mqtt wants"),
        (("listen", "--", "--endpoint", "fats"), "got endpoint 'fats'"),
        (("listen", "--", "--json", "--srt"), "choose one of --json, --srt and --vtt"),
        (("serve", "--", "--host", "0.0.0.0"), "got the address 0.0.0.0 and no token"),
        (("serve", "--", "--key", "/k.pem"), "without a certificate"),
        (("serve", "--", "--source", "nosuch.wav"), "nosuch.wav"),
        (("serve", "--", "--wyoming", "tcp://0.0.0.0:1"), "Wyoming has no tokens"),
        (("listen", "--name", "a b"), "got the name 'a b' for a service"),
        (("listen", "--run-as", "root"), "it runs as that user"),
    ],
)
def test_what_cannot_run_is_not_installed(manager, arguments, message):
    code, out, err = edgeasr("service", "install", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert (manager.calls(), manager.unit.exists()) == ([], False)


@pytest.mark.parametrize(
    ("arguments", "what", "instead"),
    [
        (("serve", "--", "--token", "x" * 16), "got --token", "--token-file FILE, or `token = ...` in [serve] of {}"),
        (("listen", "--", "--mqtt", "mqtt://me:pw@hub/a"), "a password in --mqtt", "`mqtt = ...` in [listen] of {}"),
        (("listen", "--", "--source", "pipe:cat rtsp://me:pw@cam/"), "in --source", "`source = ...` in [listen] of {}"),
        (("listen", "--", "--exec", "true", "--exec", "curl http://:pw@hub"), "in --exec", "`exec = ...` in [listen]"),
    ],
)
@pytest.mark.parametrize("scope", [(), ("--system",)])
def test_a_secret_that_a_unit_would_show_is_refused(manager, tmp_path, arguments, what, instead, scope):
    code, out, err = edgeasr("service", "install", "--print", *scope, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert what in err
    assert "pw" not in err
    file = SYSTEM_FILE if scope else tmp_path / "config" / "edgeasr" / "config.toml"
    assert f"{instead.format(file)}" in err
    assert err.endswith(", with mode 0600, owned by a user that --run-as names\n" if scope else ", with mode 0600\n")


def test_a_secret_in_a_file_is_none_of_the_units(manager, tmp_path):
    token = tmp_path / "token"
    token.write_text("x" * 16)
    token.chmod(0o600)
    folder = tmp_path / "config" / "edgeasr"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('[listen]\nmqtt = "mqtt://me:pw@hub/a"\n')
    code, out, err = edgeasr("service", "install", "--print", "serve", "--", "--token-file", token)
    assert (code, err) == (0, "")
    assert f"--token-file {token}" in out
    code, out, err = edgeasr("service", "install", "--print", "listen", "--", "--webhook", "http://127.0.0.1:8123/a@b")
    assert (code, err) == (0, "")
    assert "pw" not in out


@pytest.mark.parametrize("command", [("install", "listen"), ("uninstall",), ("status",)])
def test_without_systemd_it_says_so(manager, monkeypatch, tmp_path, command):
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path / "none")
    code, out, err = edgeasr("service", *command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "this system was not started by systemd" in err


def test_without_systemd_programs_get_an_object(manager, monkeypatch, tmp_path):
    monkeypatch.setattr(systemd, "_BOOTED", tmp_path / "none")
    code, out, err = edgeasr("service", "status", "--json")
    told = json.loads(out)
    assert (code, told["services"], err) == (2, [], f"edgeasr: error: {told['error']}\n")
    assert told["error"].startswith("this system was not started by systemd")


def test_without_a_session_of_the_user_it_says_so(manager, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    code, _, err = edgeasr("service", "install", "listen")
    assert code == 2
    assert "log in as the user, without sudo or su, or install with --system" in err


def test_what_systemd_refuses_is_one_line(manager):
    manager.answers("systemctl-enable", "fail Failed to enable unit:\nAccess denied")
    code, _, err = edgeasr("service", "install", "listen")
    assert code == 2
    assert err == "edgeasr: error: systemctl enable failed: Failed to enable unit: Access denied\n"


def test_a_unit_of_somebody_else_is_left_alone(manager):
    manager.unit.parent.mkdir(parents=True)
    manager.unit.write_text("[Service]\n")
    for command in (("install", "listen"), ("uninstall",)):
        code, _, err = edgeasr("service", *command)
        assert code == 2
        assert "was not written by `edgeasr service install`" in err
    assert (manager.unit.read_text(), manager.calls()) == ("[Service]\n", [])


def test_a_service_is_removed(manager):
    edgeasr("service", "install", "listen")
    manager.calls()
    assert edgeasr("service", "uninstall") == (0, f"removed {manager.unit}\n", "")
    assert not manager.unit.exists()
    assert manager.calls() == [user_call("disable", "--now", "edgeasr-listen.service"), user_call("daemon-reload")]
    code, _, err = edgeasr("service", "uninstall")
    assert code == 2
    assert f"there is no {manager.unit}" in err


SHOWN = """LoadState=loaded
ActiveState=active
SubState=running
Result=success
StatusText=heard 3 h 2 min
MainPID=812
NRestarts=1
MemoryCurrent=104857600
WatchdogUSec=30s
UnitFileState=enabled
WatchdogTimestamp=n/a
FragmentPath=/home/pi/.config/systemd/user/edgeasr-listen.service
"""


class TestStatus:
    def test_says_how_it_is(self, manager):
        edgeasr("service", "install", "listen")
        manager.answers("systemctl-show", SHOWN)
        manager.answers("journalctl-lines", "12:00 so it goes\n12:01 and then\n")
        code, out, err = edgeasr("service", "status")
        assert (code, err) == (0, "")
        assert out == (
            "edgeasr-listen\n"
            "  state     active (running)\n"
            "  says      heard 3 h 2 min\n"
            "  process   812\n"
            "  restarts  1\n"
            "  memory    100 MB\n"
            "  watchdog  30s\n"
            "  at boot   enabled\n"
            "  unit      /home/pi/.config/systemd/user/edgeasr-listen.service\n"
            "  12:00 so it goes\n"
            "  12:01 and then\n"
        )

    def test_of_one_that_failed_has_its_own_exit_code(self, manager):
        manager.answers("systemctl-show", "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=watchdog\n")
        code, out, _ = edgeasr("service", "status", "kitchen", "--json", "--lines", "0")
        assert code == 1
        (told,) = json.loads(out)["services"]
        assert (told["name"], told["active"], told["result"], told["lines"]) == ("kitchen", "failed", "watchdog", [])

    def test_of_none_says_what_to_do(self, manager):
        code, out, err = edgeasr("service", "status")
        assert (code, out) == (1, "")
        assert "`edgeasr service install listen`" in err
