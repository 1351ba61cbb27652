import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from edgeasr.errors import ServiceError
from edgeasr.service import needs
from edgeasr.service.needs import needs_of, user_to_run_as
from edgeasr.service.unit import MARK, Unit, quoted

LISTEN = ("listen", "--remember")


def unit(**settings):
    return Unit(**{"name": "edgeasr-listen", "program": ("/opt/e/bin/edgeasr",), "arguments": LISTEN, **settings})


def sections(text):
    """The unit as systemd reads it: every key with the list of its values."""

    class Values(dict):
        def __setitem__(self, key, value):
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = ConfigParser(
        dict_type=Values, strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",)
    )
    parser.optionxform = str
    parser.read_string(text)
    return {name: {key: value.split("\n") for key, value in parser[name].items()} for name in parser.sections()}


def test_it_is_watched_and_started_again():
    service = sections(unit(watchdog_s=12.5, memory_mb=300).text())["Service"]
    assert service["Type"] == ["notify"]
    assert service["ExecStart"] == ["/opt/e/bin/edgeasr listen --remember"]
    assert (service["WatchdogSec"], service["MemoryMax"]) == (["12.5"], ["300M"])
    assert (service["Restart"], service["RestartPreventExitStatus"]) == (["on-failure"], ["2"])
    assert sections(unit().text())["Unit"]["StartLimitIntervalSec"] == ["0"]


def test_a_unit_of_the_system_runs_as_nobody_in_the_sound_group():
    text = unit(scope="system", groups=("audio",), read_home=False).text()
    service = sections(text)["Service"]
    assert service["DynamicUser"] == ["yes"]
    assert service["SupplementaryGroups"] == ["audio"]
    assert service["StateDirectory"] == ["edgeasr"]
    assert service["Environment"] == ["XDG_DATA_HOME=%S XDG_CACHE_HOME=%C HOME=%S/edgeasr"]
    assert (service["ProtectHome"], service["ProtectSystem"]) == (["yes"], ["strict"])
    assert (service["RestrictAddressFamilies"], service["PrivateNetwork"]) == (["AF_UNIX"], ["yes"])
    assert service["CapabilityBoundingSet"] == [""]
    assert service["DeviceAllow"] == ["char-alsa rw"]
    assert sections(text)["Install"]["WantedBy"] == ["multi-user.target"]


def test_a_unit_of_a_user_asks_for_nothing_that_its_manager_may_not_give():
    text = unit(scope="user", writable=(Path("/home/pi/.local/share/edgeasr"),)).text()
    service = sections(text)["Service"]
    refused = {"User", "DynamicUser", "SupplementaryGroups", "CapabilityBoundingSet", "ProtectKernelModules"}
    assert not refused & set(service)
    assert not {"ProtectClock", "ProtectKernelLogs", "DevicePolicy", "StateDirectory"} & set(service)
    assert service["ReadWritePaths"] == ["-/home/pi/.local/share/edgeasr"]
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == (["yes"], ["strict"])
    # The socket of a sound server lies below /run/user, which is a part of home here.
    assert service["ProtectHome"] == ["read-only"]
    assert sections(text)["Install"]["WantedBy"] == ["default.target"]


def test_what_is_needed_is_opened():
    text = unit(scope="system", network=True, online=True, serial=True, run_as="pi", quiet=True).text()
    service = sections(text)["Service"]
    assert service["RestrictAddressFamilies"] == ["AF_UNIX AF_INET AF_INET6 AF_NETLINK"]
    assert "PrivateNetwork" not in service
    assert "char-ttyACM rw" in service["DeviceAllow"]
    assert (service["User"], service["StandardOutput"]) == (["pi"], ["null"])
    assert "network-online.target" in sections(text)["Unit"]["After"][0]
    assert sections(text)["Unit"]["Wants"] == ["network-online.target"]


@pytest.mark.parametrize(
    ("scope", "command", "wanted"),
    [("system", "serve", ["kitchen"]), ("system", "listen", None), ("user", "serve", None)],
)
def test_a_server_of_the_system_has_a_folder_of_its_own_for_its_socket(scope, command, wanted):
    assert (
        sections(unit(name="kitchen", scope=scope, arguments=(command,)).text())["Service"].get("RuntimeDirectory")
        == wanted
    )


def test_sockets_and_files_are_needed():
    found = needs_of("serve", {"wyoming": "unix:///srv/a/wyoming.sock", "source": "/srv/b.wav"})
    assert (found.written, found.reads) == ((Path("/srv/a/wyoming.sock"),), (Path("/srv/b.wav"),))
    in_its_own = {"wyoming": "unix:///run/kitchen/wyoming.sock", "source": "mic"}
    assert needs_of("serve", in_its_own, "kitchen").written == ()
    assert needs_of("serve", in_its_own, "hall").written == (Path("/run/kitchen/wyoming.sock"),)
    with pytest.raises(ServiceError, match=r"got source b\.wav for a service, wanted an absolute path"):
        needs_of("listen", {"source": "b.wav"})


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("--remember", "--remember"),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ("a b", '"a b"'),
        ("", '""'),
        (";", '";"'),
        ('say "x" \\ \n', '"say \\"x\\" \\\\ \\n"'),
        ("'", '"\'"'),
        ("größe", "größe"),
    ],
)
def test_arguments_reach_the_program_as_they_are(word, wanted):
    assert quoted(word) == wanted


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ServiceError, match="control characters"):
        quoted("\0")
    with pytest.raises(ServiceError, match="wanted letters"):
        unit(name="a/b")
    with pytest.raises(ServiceError, match="runs as that user"):
        unit(run_as="pi")


class TestNeeds:
    @pytest.mark.parametrize(
        ("command", "values", "network", "serial"),
        [
            ("listen", {"source": "mic"}, False, False),
            ("listen", {"source": "alsa:hw:1"}, False, False),
            ("listen", {"source": "serial:///dev/ttyACM0"}, False, True),
            ("listen", {"source": "tcp://127.0.0.1:9"}, True, False),
            ("listen", {"source": "pipe:ffmpeg"}, True, False),
            ("listen", {"source": "mic", "exec": ["true"]}, True, False),
            ("listen", {"source": "mic", "webhook": ["http://127.0.0.1/"]}, True, False),
            ("listen", {"source": "mic", "webhook": [], "mqtt": None}, False, False),
            ("serve", {}, True, False),
        ],
    )
    def test_are_what_the_command_does(self, command, values, network, serial):
        found = needs_of(command, values)
        assert (found.network, found.serial) == (network, serial)

    @pytest.mark.parametrize(
        ("command", "values", "online"),
        [
            ("serve", {"host": "127.0.0.1", "wyoming": "tcp://[::1]:10300"}, False),
            ("serve", {"host": "127.0.0.1", "wyoming": "unix:///run/edgeasr-serve/a.sock"}, False),
            ("serve", {"host": "0.0.0.0"}, True),
            ("serve", {"host": "127.0.0.1", "wyoming": "tcp://0.0.0.0:10300"}, True),
            ("listen", {"source": "mic"}, False),
            ("listen", {"source": "mic", "mqtt": "mqtt://broker/a"}, True),
        ],
    )
    def test_only_what_others_use_waits_for_the_network(self, command, values, online):
        pytest.importorskip("aiohttp", reason="what is loopback is the server's to say")
        assert needs_of(command, values).online is online

    def test_of_paths(self):
        found = needs_of("listen", {"source": "mic", "store": "/mnt/card/a.db", "model": "/opt/m"})
        assert (found.written, found.reads) == ((Path("/mnt/card/a.db"),), (Path("/opt/m"),))

    @pytest.mark.parametrize("values", [{"store": "a.db"}, {"model": Path("m.edgeasr")}])
    def test_a_relative_path_is_refused(self, values):
        with pytest.raises(ServiceError, match=f"wanted an absolute path: {Path.cwd()}"):
            needs_of("listen", values)

    def test_standard_input_is_refused(self):
        with pytest.raises(ServiceError, match="no standard input"):
            needs_of("listen", {"source": "-"})

    def test_what_others_may_not_read_runs_as_its_owner(self, tmp_path, monkeypatch):
        closed = tmp_path / "home" / "venv"
        closed.mkdir(parents=True)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == os.getuid() and folder != Path("/"):
                folder.chmod(0o755)
        assert user_to_run_as([closed]) is None
        closed.parent.chmod(0o700)
        monkeypatch.setattr(needs.pwd, "getpwuid", lambda uid: type("Owner", (), {"pw_uid": 1_000, "pw_name": "pi"}))
        assert user_to_run_as([Path("/usr"), closed]) == "pi"
        monkeypatch.setattr(needs.pwd, "getpwuid", lambda uid: type("Owner", (), {"pw_uid": 0, "pw_name": "root"}))
        with pytest.raises(ServiceError, match=f"lies below {closed.parent}, where only root can read"):
            user_to_run_as([closed])


class TestSystemdAnalyze:
    """systemd itself reads the units."""

    @pytest.fixture
    def analyze(self, tmp_path):
        if shutil.which("systemd-analyze") is None:
            pytest.skip("systemd is not installed: apt-get install systemd")

        def run(unit, *arguments):
            path = tmp_path / unit.file_name
            path.write_text(unit.text())
            command = ["systemd-analyze", "--no-pager", *arguments, path]
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
            )

        return run

    @pytest.mark.parametrize("scope", ["system", "user"])
    @pytest.mark.parametrize("open_", [False, True])
    def test_finds_nothing_wrong(self, analyze, scope, open_):
        made = unit(
            scope=scope,
            program=(shutil.which("true"),),
            arguments=("listen", "--exec", 'echo {text} 100% "$x" ;', ""),
            writable=(Path("/a b/100%"),),
            network=open_,
            serial=open_,
            quiet=open_,
            groups=("audio",) if scope == "system" else (),
        )
        done = analyze(made, *(["--user"] if scope == "user" else []), "verify")
        assert (done.stdout, done.stderr) == ("", "")
        assert done.returncode == 0

    def test_finds_a_mistake(self, analyze):
        made = unit(program=("/no/such/program",), scope="system")
        assert "/no/such/program" in analyze(made, "verify").stderr

    def test_finds_little_that_the_service_could_do(self, analyze, capsys):
        done = analyze(unit(scope="system", groups=("audio",), read_home=False), "security", "--offline=yes")
        if done.returncode and "offline" in done.stderr:
            pytest.skip("systemd before 250 cannot judge a unit that is not loaded")
        line = next(line for line in done.stdout.splitlines() if "Overall exposure level" in line)
        score = float(line.split(":")[1].split()[0])
        with capsys.disabled():
            sys.stdout.write(f"\nsystemd-analyze security: {score} of 10 exposed\n")
        assert score <= 1.5


def test_the_mark_says_who_wrote_it():
    assert unit().text().startswith(f"{MARK}\n")
