import json
import os
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
import soundfile

from edgeasr import settings
from edgeasr.cli.main import COMMANDS

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, tone = SCRIPTED["edgeasr"], SCRIPTED["tone"]
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes the system's file or the user's, and says where."""
    paths = {"system": tmp_path / "etc" / "config.toml", "user": tmp_path / "home" / "edgeasr" / "config.toml"}
    monkeypatch.setattr(settings, "SYSTEM_FILE", paths["system"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))

    def write(text, whose="user"):
        paths[whose].parent.mkdir(parents=True, exist_ok=True)
        paths[whose].write_text(text)
        return paths[whose]

    return write


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "so.wav"
    soundfile.write(path, tone("so"), 16_000)
    return path


def shown(*arguments):
    """Value and origin by key."""
    code, out, err = edgeasr("config", "show", *arguments, "--json")
    assert (code, err) == (0, "")
    return {one["key"]: (one["value"], one["origin"]) for one in json.loads(out)["settings"]}


def test_without_files_everything_is_as_the_program_has_it(files):
    found = shown()
    assert found["listen.threads"] == (1, "default")
    assert found["listen.device"] == (None, "default")
    assert found["bench.recall.json"] == (False, "default")
    assert {origin for _, origin in found.values()} == {"default"}
    assert {key.split(".")[0] for key in found} | {"train"} >= {"listen", "transcribe", "bench", "lm", "memory"}


def test_what_is_closer_wins(files, monkeypatch):
    system = files('threads = 2\n[listen]\nstore_mb = 11\nsource = "a.wav"\nrecall = 1\n', "system")
    user = files("[listen]\nstore_mb = 12\nrecall = 2\n")
    monkeypatch.setenv("EDGEASR_LISTEN_RECALL", "3")
    found = shown("listen")
    assert found["listen.threads"] == (2, str(system))
    assert found["listen.source"] == ("a.wav", str(system))
    assert found["listen.store_mb"] == (12, str(user))
    assert found["listen.recall"] == (3, "environment variable EDGEASR_LISTEN_RECALL")


def test_what_is_shared_is_for_every_command_that_has_it(files, monkeypatch):
    user = files('decoder = "greedy"\nthreads = 3\n[listen]\nthreads = 4\n')
    found = shown()
    assert found["transcribe.threads"] == found["bench.dedup.threads"] == (3, str(user))
    assert found["transcribe.decoder"] == ("greedy", str(user))
    assert found["listen.threads"] == (4, str(user))
    monkeypatch.setenv("EDGEASR_THREADS", "5")
    assert shown("listen")["listen.threads"] == (5, "environment variable EDGEASR_THREADS")


def test_a_section_is_for_the_commands_in_it(files):
    user = files('[memory]\nstore = "a.db"\n[memory.search]\nlimit = 3\nstore = "b.db"\n')
    found = shown("memory")
    assert found["memory.stats.store"] == ("a.db", str(user))
    assert found["memory.search.store"] == ("b.db", str(user))
    assert found["memory.search.limit"] == (3, str(user))


def test_options_are_called_as_on_the_command_line(files):
    """Where the names of their arguments differ."""
    files("[memory.forget]\nall = true\n[evaluate]\nsessions = 60\n")
    found = shown()
    assert found["memory.forget.all"][0] is True
    assert found["evaluate.sessions"][0] == 60


def test_commands_run_with_what_is_set(files, clip, monkeypatch):
    files("[listen]\njson = true\n")
    assert json.loads(edgeasr("listen", "--source", clip).out.splitlines()[-1])["text"] == "so"
    assert edgeasr("listen", "--source", clip, "--no-json") == (0, "so\n", "")
    monkeypatch.setenv("EDGEASR_LISTEN_JSON", "no")
    monkeypatch.setenv("EDGEASR_LISTEN_SOURCE", str(clip))
    assert edgeasr("listen") == (0, "so\n", "")
    monkeypatch.setenv("EDGEASR_LISTEN_VTT", "1")
    assert edgeasr("listen").out.startswith("WEBVTT")


def test_another_file_can_be_named(files, tmp_path, clip, monkeypatch):
    files("[listen]\nvtt = true\n")
    (tmp_path / "other.toml").write_text("[listen]\nsrt = true\n")
    assert edgeasr("--config", tmp_path / "other.toml", "listen", "--source", clip).out.startswith("1\n00:")
    monkeypatch.setenv("EDGEASR_CONFIG", str(tmp_path / "other.toml"))
    assert edgeasr("listen", "--source", clip).out.startswith("1\n00:")
    assert edgeasr("config", "path").out == f"{tmp_path / 'other.toml'}\n"
    monkeypatch.setenv("EDGEASR_CONFIG", str(tmp_path / "missing.toml"))
    code, _, err = edgeasr("listen", "--source", clip)
    assert code == 2
    assert f"{tmp_path / 'missing.toml'} cannot be read (No such file or directory)" in err


def test_paths_are_told_with_the_one_that_wins_last(files, tmp_path):
    user = files("")
    system = tmp_path / "etc" / "config.toml"
    assert edgeasr("config", "path") == (0, f"{system}  (not there)\n{user}\n", "")
    assert json.loads(edgeasr("config", "path", "--json").out)["files"][1] == {"path": str(user), "exists": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[listen]\ndecodr = 'lm'\n", "unknown key decodr in [listen]: did you mean decoder?"),
        ("[lisen]\n", "unknown section [lisen]: did you mean listen?"),
        ("thread = 1\n", "unknown key thread before the first section: did you mean threads?"),
        ("[listen]\nthreads = '2'\n", "[listen] threads: got '2', wanted a whole number"),
        ("[listen]\nthreads = 2.0\n", "[listen] threads: got 2.0, wanted a whole number"),
        ("[listen]\nthreads = true\n", "[listen] threads: got True, wanted a whole number"),
        ("[listen]\nthreads = 0\n", "[listen] threads: 0 is not in the range x>=1"),
        ("[listen]\njson = 1\n", "[listen] json: got 1, wanted true or false"),
        ("[listen]\ndevice = 2\n", "[listen] device: got 2, wanted text in quotes"),
        ("[listen]\nbudget_rtf = 'x'\n", "[listen] budget_rtf: got 'x', wanted a number"),
        ("[listen]\ndecoder = 'best'\n", "[listen] decoder: 'best' is not one of 'greedy', 'lm'"),
        ("listen = 3\n", "unknown key listen before the first section"),
        ("[listen.inner]\n", "unknown section inner in [listen]"),
        ("[listen\n", "is no TOML (Expected ']'"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_that_names_it(files, clip, text, message):
    path = files(text)
    code, out, err = edgeasr("listen", "--source", clip)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"edgeasr: error: {path}")
    assert message in err
    assert edgeasr("config", "show").err == err
    assert edgeasr("config", "path").code == 0
    assert edgeasr("listen", "--help").code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[memory.serch]\nlimit = 1\n", "unknown section serch in [memory]: did you mean search?"),
        ("[memory.search]\nlimt = 1\n", "unknown key limt in [memory.search]: did you mean limit?"),
        ("[profile]\ncompare = ['a']\n", "[profile] compare: got 1 values, wanted 2"),
        ("[export]\nchunk_ms = ['80']\n", "[export] chunk_ms: got ['80'], wanted a list: of each, a whole number"),
    ],
)
def test_what_is_wrong_of_other_commands_is_told_too(files, clip, text, message):
    files(text)
    code, out, err = edgeasr("config", "show")
    assert (code, out) == (2, "")
    assert message in err
    # Files are read at every start; of other commands nothing is imported for it.
    assert edgeasr("listen", "--source", clip) == (0, "so\n", "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EDGEASR_LISTEN_THREADS", "two", "EDGEASR_LISTEN_THREADS: 'two' is not a valid int"),
        (
            "EDGEASR_LISTEN_THREDS",
            "2",
            "EDGEASR_LISTEN_THREDS, which sets nothing: did you mean EDGEASR_LISTEN_THREADS?",
        ),
        (
            "EDGEASR_LISTN_THREADS",
            "2",
            "EDGEASR_LISTN_THREADS, which sets nothing: did you mean EDGEASR_LISTEN_THREADS?",
        ),
        ("EDGEASR_MODLE", "x", "EDGEASR_MODLE, which sets nothing: did you mean EDGEASR_MODEL?"),
    ],
)
def test_wrong_variables_are_errors(files, clip, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    for arguments in (("listen", "--source", clip), ("config", "show")):
        code, out, err = edgeasr(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_an_unknown_command_has_no_settings(files):
    code, _, err = edgeasr("config", "show", "lisen")
    assert code == 2
    assert "got no command 'lisen': did you mean listen?" in err


def test_a_system_file_that_others_may_not_read_is_passed_over(files, monkeypatch):
    """It may hold a token of a service."""
    path = files("[listen]\nthreads = 2\n", "system")

    def refuse(self, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert settings.read_files() == ()
    with pytest.raises(settings.ConfigError, match=r"cannot be read \(Permission denied\)"):
        settings.read_files(path.with_name("other.toml"))


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("token", "abc", "(hidden)"),
        ("mqtt_password", ["a"], ["(hidden)"]),
        ("mqtt", "mqtt://me:pass@host/topic", "mqtt://me:(hidden)@host/topic"),
        ("webhook", ["http://127.0.0.1:8123/api/webhook/x1"], ["http://127.0.0.1:8123/(hidden)"]),
        ("webhook", "https://me:pw@host/", "https://me:(hidden)@host/"),
        ("model", "http://[broken", "http://[broken"),
        ("threads", 2, 2),
        ("store", Path("a.db"), "a.db"),
    ],
)
def test_secrets_are_not_shown(key, value, wanted):
    assert settings.shown(key, value) == wanted


def test_a_start_without_files_reads_no_toml():
    program = "import sys; from edgeasr.cli.main import main; sys.argv[1:] = ['config', 'path']\n"
    program += "try: main()\nexcept SystemExit: print('tomllib' in sys.modules)"
    environment = {**os.environ, "XDG_CONFIG_HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_every_option_has_a_name_of_its_own(files):
    found = shown()
    assert len(found) > 100
    assert all(key.split(".")[0] in COMMANDS for key in found)
