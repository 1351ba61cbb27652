import json
from pathlib import Path
from runpy import run_path

import pytest

from edgeasr.errors import ProfileError
from edgeasr.profile.compare import compare, read_report, told_apart

report = run_path(str(Path(__file__).with_name("profiled.py")))["report"]


def figures(found):
    return {one.name: (one.first, one.second, one.ratio) for one in found.figures}


def test_figures_stand_beside_each_other():
    found = compare(report(1000.0), report(500.0))
    table = figures(found)
    assert table["step, µs"] == (1000.0, 500.0, 0.5)
    assert table["operators"] == (3, 3, 1.0)
    assert table["weights, bytes"] == (4_000_000, 4_000_000, 1.0)
    assert table["RTF"][2] == 1.0
    assert found.differing == ()


def test_what_one_lacks_has_no_ratio():
    other = report()
    other["run"]["chunk_ms"]["p50"] = None
    assert figures(compare(report(), other))["chunk, median ms"] == (3.0, None, None)
    assert figures(compare(other, report()))["chunk, median ms"] == (None, 3.0, None)
    other["step"]["operators_us"] = 0
    assert figures(compare(other, report()))["sum of operators, µs"] == (0, 850.0, None)


def test_settings_that_differ_are_named():
    other = report() | {"threads": 2, "decoder": "lm"}
    other["machine"] = other["machine"] | {"name": "another"}
    found = compare(report(), other)
    assert found.differing == (("decoder", "greedy", "lm"), ("threads", "1", "2"), ("machine", "Board <1>", "another"))


def test_a_report_is_read_back(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(report()))
    assert read_report(path)["step"]["weight_bytes"] == 4_000_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot read a profile"),
        ("[]", "of format None"),
        ('{"format_version": 1}', "of format 1"),
        ('{"format_version": 99}', "of format 99"),
        ("\x00", "cannot read"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ProfileError, match=said):
        read_report(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"none\.json"):
        read_report(tmp_path / "none.json")


def test_what_a_profile_lacks_is_named_once(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"format_version": 2}')
    with pytest.raises(ProfileError, match=r"without model, artefact, .*machine, step, run, peaks, wanted a whole"):
        read_report(path)
    part = report()
    del part["run"]["chunk_ms"]
    path.write_text(json.dumps(part | {"step": []}))
    with pytest.raises(ProfileError, match=r"a.json without step.time_us, .*, run.chunk_ms, wanted"):
        read_report(path)


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("a/x.json", "b/y.json", ("x.json", "y.json")),
        ("/a/c/x.json", "/b/c/x.json", ("a/c/x.json", "b/c/x.json")),
        ("x.json", "a/x.json", ("x.json", "a/x.json")),
        ("a/x.json", "a/x.json", ("a/x.json", "a/x.json")),
    ],
)
def test_names_have_the_folders_that_they_need(first, second, names):
    assert told_apart(Path(first), Path(second)) == names
