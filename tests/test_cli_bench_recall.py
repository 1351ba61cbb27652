import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="the recall benchmark needs the extra `train`")

from edgeasr.cli.main import app
from edgeasr.errors import ExtraMissingError
from edgeasr.recall import benchmark
from edgeasr.recall.benchmark import Row, Watched
from edgeasr.recall.training import Trained

TRAINED = Trained(steps=7, vectors=28_000, wall_s=2.0, cpu_s=1.5, longest=64, accuracy=0.875)


@pytest.fixture
def asked(monkeypatch):
    """A benchmark that trains nothing; what it was asked for."""
    configs = []

    def recall(config, watch, processes):
        configs.append((config, processes))
        watch(Watched("gru", "learns", 1, 7, "50% right"))
        rows = [
            Row(name, distance, 0.5, 512, distance + 2, 1e-9, 0.125, 123_456, 86_000)
            for name in ("hierarchy", "gru")
            for distance in config.distances
        ]
        return rows, {"hierarchy": TRAINED, "gru": TRAINED}

    monkeypatch.setattr(benchmark, "recall", recall)
    return configs


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", "recall", *map(str, arguments)])


def test_json_is_one_object_with_the_rows(asked):
    done = bench("--json", "--distances", "100,250", "--steps", 7, "--processes", 3)
    report = json.loads(done.stdout)
    assert done.exit_code == 0
    assert [(row["model"], row["distance"]) for row in report["rows"]] == [
        *[("hierarchy", 100), ("hierarchy", 250), ("gru", 100), ("gru", 250)]
    ]
    assert report["rows"][3] == {
        "model": "gru",
        "distance": 250,
        "accuracy": 0.5,
        "questions": 512,
        "hops": 252,
        "gradient_norm": 1e-9,
        "ms_per_step": 0.125,
        "bytes_per_step": 123_456,
        "parameters": 86_000,
    }
    assert report["chance"] == 0.125
    config, processes = asked[0]
    assert (config.distances, config.budget.steps, processes) == ((100, 250), 7, 3)


def test_the_table_shows_the_rows_and_what_they_mean(asked):
    done = bench()
    lines = done.stdout.splitlines()
    assert asked[0][0].distances == (100, 1000, 10_000)
    assert lines[3].split() == ["hierarchy", "10,000", "50.0%", "10,002", "1.0e-09", "0.125", "123,456", "86,000"]
    assert "Chance: 12.5%. Questions a row: 512." in lines
    trainings = [line for line in lines if line.startswith("gru: ")]
    assert trainings == [
        "gru: 7 steps, 0.0 M vectors, 2 s of processor time; came to streams of 64 vectors, 88% right there"
    ]
    assert done.stderr == "", "no bars where there is no terminal"


def test_a_picture_is_drawn_where_one_is_wanted(asked, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra `benchmarks`")
    done = bench("--plot", tmp_path / "recall.png")
    assert done.exit_code == 0
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")


def test_bars_are_drawn_on_a_terminal(asked, monkeypatch):
    from edgeasr.cli.bench_recall import _Bars

    monkeypatch.setattr(
        sys, "stderr", SimpleNamespace(isatty=lambda: True, write=lambda text: None, flush=lambda: None)
    )
    with _Bars() as bars:
        bars.show(Watched("gru", "learns", 3, 7, "50% right"))
        bars.show(Watched("gru", "learns", 4, 7, "60% right"))
        bars.show(Watched("gru", "recalls 100", 1, 9, ""))
    shown = [(bar.description, bar.completed, bar.total, bar.fields["detail"]) for bar in bars.bars.tasks]
    assert shown == [("gru learns", 4, 7, "60% right"), ("gru recalls 100", 1, 9, "")]


def test_distances_that_are_no_numbers_are_refused(asked):
    done = bench("--distances", "100,far")
    assert done.exit_code == 2
    assert "got '100,far', wanted numbers with commas between them" in " ".join(done.stderr.split())
    assert not asked


def test_without_torch_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("edgeasr.recall")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    done = bench()
    assert isinstance(done.exception, ExtraMissingError)
    assert "pip install edgeasr[train]" in str(done.exception)
