import json
import sys
from pathlib import Path
from runpy import run_path

import pytest

from edgeasr.cli import profile as profile_command
from edgeasr.errors import NativeCodeError
from edgeasr.onnx_reader import read_onnx
from edgeasr.profile import model_profile, profiler
from edgeasr.profile.operators import Effort
from edgeasr.recognizer import load_model

TESTS = Path(__file__).parent
PROFILED = run_path(str(TESTS / "profiled.py"))
edgeasr = run_path(str(TESTS / "scripted_model.py"))["edgeasr"]
STEP = Path(profiler.__file__).parents[1] / "models" / "tiny-en" / "step.int8.onnx"


@pytest.fixture(scope="module", params=["native", "onnxruntime"])
def shipped(request):
    try:
        return load_model(backend=request.param)
    except NativeCodeError as error:
        pytest.skip(str(error))


@pytest.fixture
def fast(monkeypatch):
    """A machine that was measured already, and graphs that are run a few times only."""
    asked = []

    def machine(quick, refresh, progress):
        asked.append((quick, refresh))
        return PROFILED["MACHINE"]

    monkeypatch.setattr(profiler, "cached_machine", machine)
    monkeypatch.setattr(model_profile, "QUICK", Effort(sessions=1, profiled=2, stretches=2, longest=1, timed=2))
    return asked


def test_a_profile_of_the_shipped_model(shipped, fast, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `profile` is not installed")
    page = tmp_path / "report.html"
    arguments = ("profile", "--quick", "--seconds", "2", "--decoder", "greedy", "--json", "--refresh")
    arguments += ("--html", page, "--plot", tmp_path / "pictures")
    code, out, err = edgeasr(*arguments, model=shipped)
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    assert fast == [(True, True)]
    assert (found["model"], found["artefact"], found["decoder"]) == ("tiny-en", shipped.artefact, "greedy")
    assert found["backend"] == shipped.backend
    assert found["step"]["weight_bytes"] == read_onnx(STEP).weight_bytes
    assert (found["step"]["profiled_us"] is None) == (shipped.backend == "native")
    assert found["memory"]["every_s"] == pytest.approx(4.0)
    assert found["run"]["audio_s"] == pytest.approx(2.0, abs=0.05)
    assert found["run"]["chunks"] >= 12
    assert found["run"]["sensors"]["peak_rss_bytes"] > 10_000_000
    assert found["baselines"] == []
    assert found["recommended"]["chunk_ms"] <= 160
    assert page.read_text().count("<svg") == 5
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 5


def test_recurrent_networks_on_request_and_tables(shipped, fast, monkeypatch):
    monkeypatch.setattr(model_profile.recurrent, "KINDS", ("lstm",))
    arguments = ("profile", "--quick", "--recurrent", "--seconds", "1", "--decoder", "greedy", "--latency-ms", "1000")
    code, out, err = edgeasr(*arguments, model=shipped)
    assert (code, err) == (0, "")
    assert "An LSTM with as many bytes of weights, fed a vector every 10 ms" in out
    assert "Cheapest within 1000 ms: chunks of 640 ms. This graph has another: export one with it." in out
    titles = ("A step", "Operators", "The memory graph", "Length of a chunk", "The run", "The machine")
    lines = out.splitlines()
    assert [line for line in lines if line in titles] == list(titles)
    assert "\x1b" not in out, "no colours in a pipe"


def test_threads_without_cores_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeasr.devices.hardware.usable_cores", lambda: 2)
    wanted = ("profile", "--audio", tmp_path / "none.wav", "--threads")
    told = "edgeasr: 3 threads have 2 cores here and wait for each other: --threads 2 shows what this machine can do\n"
    assert edgeasr(*wanted, "3").err.startswith(told + "edgeasr: error: cannot open")
    assert edgeasr(*wanted, "2").err.startswith("edgeasr: error: cannot open")


def test_a_profile_needs_onnx(fast):
    code, out, err = edgeasr("profile", "--quick", "--seconds", "1")
    assert (code, out) == (2, "")
    assert "got artefact scripted-fp32, wanted one in ONNX" in err
    assert err.count("\n") == 1


def test_audio_that_cannot_be_read_is_said_before_anything_is_measured(fast, tmp_path):
    code, out, err = edgeasr("profile", "--audio", tmp_path / "none.wav")
    assert (code, out, fast) == (2, "", [])
    assert "none.wav" in err


def test_without_matplotlib_the_extra_is_named_before_anything_is_measured(fast, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = edgeasr("profile", "--html", tmp_path / "report.html")
    assert (code, out, fast) == (2, "", [])
    assert "pip install edgeasr[profile]" in err
    assert err.count("\n") == 1


def test_progress_is_a_bar():
    assert profile_command._bar("streaming", 0.5) == f"[{15 * '#'}{15 * '.'}]  50% streaming"
    assert profile_command._bar("the last", 1.0).startswith(f"[{30 * '#'}] 100%")


@pytest.fixture
def two(tmp_path):
    for name, time_us in (("before", 1000.0), ("after", 500.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(PROFILED["report"](time_us)))
    return tmp_path / "before.json", tmp_path / "after.json"


def test_two_profiles_beside_each_other(two):
    code, out, err = edgeasr("profile", "--compare", *two)
    assert (code, err) == (0, "")
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert rows["step, µs"][2:] == ["1000", "500", "0.5"]
    assert rows["weights, bytes"][2:] == ["4,000,000", "4,000,000", "1"]
    assert out.splitlines()[0].split() == ["before.json", "after.json", "ratio"]


def test_a_comparison_in_json(two):
    found = json.loads(edgeasr("profile", "--compare", *two, "--json").out)
    assert found["figures"][0] == {"name": "step, µs", "first": 1000.0, "second": 500.0, "ratio": 0.5}
    assert found["differing"] == {}


def test_what_is_no_profile_is_refused(two, tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    code, out, err = edgeasr("profile", "--compare", two[0], tmp_path / "notes.json")
    assert (code, out) == (2, "")
    assert "wanted a profile of format 2" in err


@pytest.mark.parametrize("option", ["--latency-ms", "--seconds"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e400"])
def test_a_number_that_is_not_finite_is_refused_before_anything_is_measured(fast, option, value):
    code, out, err = edgeasr("profile", "--quick", option, value, "--json")
    assert (code, out, fast) == (2, "", [])
    assert f"'{option}': got {float(value)}, wanted a finite number" in err.splitlines()[-1]


@pytest.mark.parametrize(("option", "place"), [("--html", "none/x.html"), ("--html", "."), ("--plot", "file")])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(fast, tmp_path, option, place):
    pytest.importorskip("matplotlib", reason="the extra `profile` is not installed")
    (tmp_path / "file").touch()
    code, out, err = edgeasr("profile", "--quick", option, tmp_path / place)
    assert (code, out, fast) == (2, "", [])
    assert f"'{option}': cannot write {tmp_path / place}" in err.splitlines()[-1]


def test_the_report_is_printed_before_an_error_of_writing(shipped, fast, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the extra `profile` is not installed")

    def full(self, *_, **__):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    page = tmp_path / "report.html"
    arguments = ("profile", "--quick", "--seconds", "1", "--decoder", "greedy", "--json", "--html", page)
    code, out, err = edgeasr(*arguments, model=shipped)
    assert (code, json.loads(out)["model"]) == (2, "tiny-en")
    assert err == f"edgeasr: error: No space left on device: {page}\n"


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "profile.json").write_text(json.dumps(PROFILED["report"]()))
    out = edgeasr("profile", "--compare", tmp_path / "old" / "profile.json", tmp_path / "new" / "profile.json").out
    assert out.splitlines()[0].split() == ["old/profile.json", "new/profile.json", "ratio"]


@pytest.mark.parametrize(
    ("others", "named"),
    [
        (("--html", "x.html", "--plot", "x"), "--html, --plot"),
        (("--quick",), "--quick"),
        (("--json", "--threads", "1"), "--threads"),
        (("--no-recurrent",), "--recurrent"),
    ],
)
def test_what_a_comparison_would_ignore_is_refused(two, others, named):
    code, out, err = edgeasr("profile", "--compare", *two, *others)
    assert (code, out) == (2, "")
    assert f"'--compare': it runs nothing and takes --json alone, got {named} too" in err.splitlines()[-1]


def test_what_is_configured_does_not_refuse_a_comparison(two, monkeypatch):
    monkeypatch.setenv("EDGEASR_PROFILE_QUICK", "true")
    assert edgeasr("profile", "--compare", *two).code == 0
