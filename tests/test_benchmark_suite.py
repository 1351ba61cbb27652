import json
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from edgeasr import benchmark_suite
from edgeasr.benchmark_suite import run_suite, suite, suite_report

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]

PRINTED = {
    "evaluate": {"utterances": 7, "wer": 0.2, "rtf": 0.018, "chunk_ms": {"p50": 2.6, "p99": None}},
    "pocketsphinx": {"utterances": 4, "systems": [{"wer": 0.19}, {"wer": 0.38}], "cpu_ratio": 10.5},
    "recall": {"rows": [{"model": "hierarchy", "distance": 10_000, "accuracy": 0.99}]},
}


@pytest.fixture
def programs(monkeypatch):
    """Programs that print what is in PRINTED; others fail as ours do, the profile for another reason."""
    started = []

    def run(command, **options):
        started.append(command)
        name = next((word for word in ("pocketsphinx", "recall", "evaluate") if word in command), None)
        if name is None or "greedy" in command:
            why = "no room" if "profile" in command else "got no package x: pip install edgeasr[x]"
            return SimpleNamespace(stdout="", stderr=f"a warning\nedgeasr: error: {why}\n", returncode=2)
        return SimpleNamespace(stdout=json.dumps(PRINTED[name]), stderr="", returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return started


def test_each_part_is_a_command_with_json(programs):
    seen = []
    parts = suite(Path("dev.jsonl"), Path("other.jsonl"), Path("noise"))
    run_suite(parts, lambda part: seen.append(part.name))
    assert seen == [part.name for part in parts]
    assert [command[:3] for command in programs] == [[sys.executable, "-m", "edgeasr.cli.main"]] * len(parts)
    assert {command[-1] for command in programs} == {"--json"}
    other = next(part for part in parts if part.name == "evaluate other")
    assert other.arguments == ("evaluate", "other.jsonl", "--noise", "noise")
    assert {"recall", "dedup", "store", "profile", "pocketsphinx", "pocketsphinx other", "grammar", "listen"} <= set(
        seen
    )


def test_quick_is_without_hours_and_training():
    names = [part.name for part in suite(Path("dev.jsonl"), quick=True)]
    assert names == ["evaluate", "evaluate greedy", "pocketsphinx", "profile", "bandwidth", "listen"]


def test_every_part_is_a_command_that_exists():
    """Their names and options, so that none is found missing after an hour."""
    for part in suite(Path("dev.jsonl"), Path("other.jsonl"), Path("noise")):
        words = [word for word in part.arguments if not word.startswith("-")]
        name = words[:2] if words[0] == "bench" else words[:1]
        code, out, _ = edgeasr(*name, "--help")
        assert code == 0
        options = [word for word in (*part.arguments, "--json") if word.startswith("--")]
        assert [option for option in options if option.split("/")[0] not in out] == []


def test_figures_are_found_and_what_failed_is_named(programs):
    report = suite_report(run_suite(suite(Path("dev.jsonl"))))
    assert report["figures"] == {
        "word error rate, dev": 0.2,
        "RTF": 0.018,
        "chunk, median ms": 2.6,
        "pocketsphinx: word error rate": 0.38,
        "pocketsphinx: ours on the same": 0.19,
        "pocketsphinx: its processor time over ours": 10.5,
        "recall over 10,000 vectors, hierarchy": 0.99,
    }
    assert report["missing"]["bandwidth"] == "got no package x: pip install edgeasr[x]"
    assert report["failed"] == {"profile": "no room"}
    assert (report["quick"], report["utterances"]) == (False, {"evaluate": 7, "pocketsphinx": 4})
    assert report["parts"]["evaluate"]["result"] == PRINTED["evaluate"]
    assert report["parts"]["recall"]["command"] == "edgeasr bench recall"
    assert set(report["missing"]) == {
        *("evaluate greedy", "bandwidth", "listen", "grammar", "dedup", "store"),
    }


def outcome_of(monkeypatch, **done):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(**done))
    return run_suite([benchmark_suite.Part("one", ("one",))])[0]


def test_a_part_that_says_nothing_failed_by_its_exit_code(monkeypatch):
    outcome = outcome_of(monkeypatch, stdout="", stderr="\n", returncode=-9)
    assert (outcome.result, outcome.missing, outcome.failed) == (None, None, "exit code -9, nothing said")


@pytest.mark.parametrize(
    "reason",
    [
        "found no mbw to compare with: apt-get install mbw",
        "sentencepiece is not installed: pip install 'edgeasr[train]'",
    ],
)
def test_what_is_to_be_installed_is_missing(monkeypatch, reason):
    outcome = outcome_of(monkeypatch, stdout="", stderr=f"edgeasr: error: {reason}\n", returncode=2)
    assert (outcome.missing, outcome.failed) == (reason, None)


def test_a_part_that_left_files_out_has_its_figures_and_failed(monkeypatch):
    outcome = outcome_of(monkeypatch, stdout='{"wer": 0.5}', stderr="edgeasr: error: left out: a.wav\n", returncode=2)
    assert (outcome.result, outcome.missing, outcome.failed) == ({"wer": 0.5}, None, "left out: a.wav")


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_text('{"audio_filepath": "a.wav", "duration": 1, "text": "a"}\n')
    return path


def test_the_command_prints_figures_and_what_is_missing_and_what_failed(programs, manifest):
    code, out, err = edgeasr("bench", "all", manifest, "--quick")
    assert (code, err) == (1, "")
    assert out.splitlines()[0].split() == ["word", "error", "rate,", "dev", "0.2"]
    assert "\nutterances: evaluate 7, pocketsphinx 4\n--quick: of few utterances" in out
    assert "\nmissing: bandwidth: got no package x: pip install edgeasr[x]\n" in out
    assert out.endswith("\nfailed: profile: no room\n")
    found = json.loads(edgeasr("bench", "all", manifest, "--json").out)
    assert (found["figures"]["RTF"], found["quick"]) == (0.018, False)


def test_what_is_only_missing_is_no_failure(programs, manifest, monkeypatch):
    missing = SimpleNamespace(stdout="", stderr="edgeasr: error: got no x: pip install x\n", returncode=2)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: missing)
    code, out, _ = edgeasr("bench", "all", manifest, "--quick")
    assert (code, out.count("missing: ")) == (0, 6)


@pytest.mark.parametrize("option", [None, "--other", "--noise"])
def test_speech_that_cannot_be_read_is_said_before_anything_is_run(programs, manifest, tmp_path, option):
    given = (manifest, option, tmp_path / "none") if option else (tmp_path / "none",)
    code, out, err = edgeasr("bench", "all", *given)
    assert (code, out, programs) == (2, "", [])
    assert str(tmp_path / "none") in err
    assert err.count("\n") == 1
