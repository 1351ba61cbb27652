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
    "evaluate": {"wer": 0.2, "rtf": 0.018, "chunk_ms": {"p50": 2.6, "p99": None}},
    "pocketsphinx": {"systems": [{"wer": 0.19}, {"wer": 0.38}], "cpu_ratio": 10.5},
    "recall": {"rows": [{"model": "hierarchy", "distance": 10_000, "accuracy": 0.99}]},
}


@pytest.fixture
def programs(monkeypatch):
    """Programs that print what is in PRINTED; others fail as ours do."""
    started = []

    def run(command, **options):
        started.append(command)
        name = next((word for word in ("pocketsphinx", "recall", "evaluate") if word in command), None)
        if name is None or "greedy" in command:
            return SimpleNamespace(stdout="", stderr="a warning\nedgeasr: error: got no package x\n", returncode=2)
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
    assert report["missing"]["profile"] == "got no package x"
    assert report["parts"]["evaluate"]["result"] == PRINTED["evaluate"]
    assert report["parts"]["recall"]["command"] == "edgeasr bench recall"
    assert set(report["missing"]) == {
        *("evaluate greedy", "profile", "bandwidth", "listen", "grammar", "dedup", "store"),
    }


def test_a_part_that_says_nothing_is_missing_by_its_exit_code(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="", stderr="\n", returncode=-9))
    outcome = run_suite([benchmark_suite.Part("dead", ("dead",))])[0]
    assert (outcome.result, outcome.missing) == (None, "exit code -9, nothing said")


def test_the_command_prints_figures_and_what_is_missing(programs):
    code, out, err = edgeasr("bench", "all", "dev.jsonl", "--quick")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["word", "error", "rate,", "dev", "0.2"]
    assert "missing: profile: got no package x" in out
    assert json.loads(edgeasr("bench", "all", "dev.jsonl", "--json").out)["figures"]["RTF"] == 0.018
