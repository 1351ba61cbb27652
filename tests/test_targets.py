"""The table that `make targets` writes; what it measures is not measured here."""

import json
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import pytest

from edgeasr.converters.artefacts import KINDS

targets = SimpleNamespace(**run_path(str(Path(__file__).with_name("targets.py"))))


def row(name, wer=0.5, size_mb=5.0, over=1.0):
    compared = {"max_difference": 0.0281, "snr_db": 52.6, "agreement": 0.9933, "fp32_share": 0.07}
    heard = {"wer": wer, "peak_rss_mb": 104.6, "utterances": 282, "word_errors": {"reference": 5044}}
    timed = {"least_ms": 1.361, "median_ms": 1.77, "least_over_first": over}
    return targets.Row(KINDS[name], {"size_mb": size_mb} | compared, heard, timed)


@pytest.fixture
def rows():
    return [row("onnx-int8"), row("onnx-fp32", size_mb=20.0), row("litert-int8", over=0.8), row("litert-fp32", 0.5, 20)]


def test_a_row_has_what_was_measured(rows):
    cells = [cell.strip() for cell in targets.line(rows[0], rows).strip("|").split("|")]
    assert cells[:4] == ["`onnx-int8`", "5.00 MB (25%)", "7.0%", "2.8e-02, 53 dB, 99.33%"]
    assert cells[4:8] == ["0.5000", "1.77 (1.36) ms", "1.00", "105 MB"]


def test_a_row_that_could_not_be_made_says_why(rows):
    missing = targets.Row(KINDS["litert-int8"], why_not="`make litert` was not run")
    text = targets.line(missing, [*rows, missing])
    assert text.endswith("| not run: `make litert` was not run |")
    assert text.count("|") == targets.line(rows[0], rows).count("|")
    made = targets.Row(KINDS["litert-int8"], rows[2].exported, why_not="no runtime")
    assert targets.line(made, rows).count("|") == text.count("|")


def test_bounds_of_int8(rows):
    assert targets.out_of_bounds(rows) == []
    assert targets.out_of_bounds(rows[2:]) == []
    worse = [row("onnx-int8", 0.506), *rows[1:]]
    assert targets.out_of_bounds(worse) == ["onnx-int8 has a word error rate 0.0060 above that of fp32"]
    larger = [*rows[:2], row("litert-int8", size_mb=6.2, over=1.1), rows[3]]
    assert targets.out_of_bounds(larger) == [
        "litert-int8 has 31.0% of the size of fp32",
        "a chunk of litert-int8 takes 1.1 of the time of onnx-int8",
    ]


@pytest.fixture
def said(monkeypatch, tmp_path, rows):
    """Programs are not run: what each was asked, and canned answers. ExecuTorch's environment is not set up."""
    asked = []

    def run(program, environment, *arguments):
        asked.append((environment, *map(str, arguments)))
        kinds = [word.removeprefix("--artefact=") for word in asked[-1] if word.startswith("--artefact=")]
        named = [word for word in asked[-1] if word in KINDS]
        if "tensorrt-int8" in kinds and len(kinds) > 1:
            return SimpleNamespace(returncode=2, stderr="edgeasr: error: no scales\n")
        answers = {
            "export": {"artefacts": [rows[0].exported | {"size_mb": 5.0 if "int8" in k else 20.0} for k in kinds]},
            "evaluate": rows[0].heard,
        }
        in_turns = {key: [1.0] * len(named) for key in ("least_ms", "median_ms", "least_over_first")}
        return SimpleNamespace(returncode=0, stdout=json.dumps(answers.get(asked[-1][1], in_turns)))

    inside = targets.main.__globals__
    (tmp_path / "targets.md").write_text(targets.BEGIN + targets.END)
    monkeypatch.setitem(inside, "run", run)
    monkeypatch.setitem(inside, "PAGE", tmp_path / "targets.md")
    monkeypatch.setitem(inside, "TFLITE", ".venv/no-such")
    monkeypatch.setitem(
        inside, "environment_of", lambda kind: ".venv-no-such" if kind.extra == "executorch-export" else ".venv"
    )
    return SimpleNamespace(asked=asked, page=tmp_path / "targets.md")


def test_every_kind_has_a_row_and_one_that_is_refused_is_tried_alone(said, monkeypatch):
    monkeypatch.setattr("sys.argv", ["targets.py"])
    targets.main()
    lines = [line for line in said.page.read_text().splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == list(KINDS)
    assert [line.split("`")[1] for line in lines if "not run" in line] == ["executorch-fp32", "executorch-int8"]
    assert "not run: `make no-such` was not run" in lines[list(KINDS).index("executorch-int8")]
    assert sum("export" in command for command in said.asked) == 1 + len(KINDS) - 2
    assert sum("evaluate" in command for command in said.asked) == len(KINDS) - 2
    calibrated = [command for command in said.asked if "--calibration" in command]
    assert len(calibrated) == 2


def test_a_short_run_is_only_printed(said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["targets.py", "--limit", "3"])
    targets.main()
    assert said.page.read_text() == targets.BEGIN + targets.END
    assert "| `onnx-int8` |" in capsys.readouterr().out
    assert all(command[-2:] == ("--limit", "3") for command in said.asked if "evaluate" in command)


def test_boards_under_emulation_are_those_whose_test_passed(rows, monkeypatch, tmp_path):
    results = tmp_path / "heard.xml"
    name = "test_onnx_int8_hears_what_this_machine_hears"
    results.write_text(
        f'<testsuites><testsuite><testcase name="{name}[cortex-a53]"/><testcase name="{name}[cortex-a72]"/>'
        f'<testcase name="{name}[cortex-a76]"><failure/></testcase><testcase name="test_other[cortex-a76]"/>'
        "</testsuite></testsuites>"
    )
    monkeypatch.setitem(targets.emulated.__globals__, "EMULATED", results)
    assert targets.emulated("onnx-int8") == ["cortex-a53", "cortex-a72"]
    assert targets.emulated("litert-int8") == []
    assert targets.ran(rows[0]).endswith("; same words on emulated cortex-a53, cortex-a72")


def test_only_what_is_between_the_marks_is_written(rows, monkeypatch, tmp_path):
    page = tmp_path / "targets.md"
    page.write_text(f"before\n{targets.BEGIN}old\n{targets.END}after\n")
    monkeypatch.setitem(targets.write_page.__globals__, "PAGE", page)
    targets.write_page(targets.table(rows))
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    assert lines[2].startswith("`../shared/speech/dev.jsonl`: 282 utterances, 5,044 words; greedy, one thread; ")
    assert targets.BEGIN in (targets.REPOSITORY / "docs" / "targets.md").read_text()
