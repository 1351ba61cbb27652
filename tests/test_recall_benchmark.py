# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the recall benchmark needs the extra `train`")
pytest.importorskip("onnxscript", reason="graphs are exported with the extra `train`")

from edgeasr.errors import ConfigError
from edgeasr.recall import benchmark, measure
from edgeasr.recall.benchmark import RecallConfig, recall, recall_report
from edgeasr.recall.cost import Cost
from edgeasr.recall.measure import accuracy, gradient_norm
from edgeasr.recall.models import HIERARCHY, MODELS, build
from edgeasr.recall.task import RecallTask
from edgeasr.recall.training import Budget, Stage, answers, train

TASK = RecallTask(num_keys=4, num_values=4, pairs=2, spread=8, asked=1)
SMALL = dataclasses.replace(
    HIERARCHY, d_model=32, num_heads=4, ff_dim=64, left_context=8, summary_strides=(8,), memory_capacities=(10,)
)
BUDGET = Budget(steps=400, vectors=1000, stages=(Stage(8, 24), Stage(8, 90)))


def built(name):
    torch.manual_seed(0)
    return build(name, TASK, SMALL, 60)


@pytest.fixture(scope="module")
def run():
    """The whole benchmark in small: the hierarchy learns, the others take three steps; what it showed on the way."""
    shown = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(benchmark, "cost", lambda model, input_size: Cost(0.25, 1000))
        config = RecallConfig((20, 60), ("hierarchy",), TASK, BUDGET, SMALL, questions=200)
        rows, trainings = recall(config, shown.append)
        others = dataclasses.replace(
            config, models=MODELS[1:], budget=dataclasses.replace(BUDGET, steps=3), questions=64
        )
        more_rows, more_trainings = recall(others, shown.append)
    config = dataclasses.replace(config, models=MODELS)
    return SimpleNamespace(config=config, rows=rows + more_rows, trainings=trainings | more_trainings, shown=shown)


def test_the_hierarchy_learns_to_recall_over_both_distances(run):
    assert [row.distance for row in run.rows[:2]] == [20, 60]
    assert all(row.accuracy > 0.9 for row in run.rows[:2]), "chance is 0.25, and 0.5 among the values that were shown"
    assert all(row.gradient_norm > 0.1 for row in run.rows[:2])
    trained = run.trainings["hierarchy"]
    assert (trained.steps, trained.longest) == (400, 90)
    assert trained.accuracy > 0.9
    assert 400 * 900 < trained.vectors < 400 * 1000


def test_there_is_a_row_for_every_network_and_distance(run):
    assert [(row.model, row.distance) for row in run.rows] == [(name, d) for name in MODELS for d in (20, 60)]
    sizes = [row.parameters for row in run.rows]
    assert max(sizes) <= 1.04 * min(sizes)
    assert [row.questions for row in run.rows] == [224, 224, *(6 * [64])]
    assert [row.hops for row in run.rows if row.distance == 60] == [6, 62, 62, 10]
    assert {(row.ms_per_step, row.bytes_per_step) for row in run.rows} == {(0.25, 1000)}


def test_the_report_is_one_json_object(run):
    report = json.loads(json.dumps(recall_report(run.config, run.rows, run.trainings), allow_nan=False))
    wanted = {"model", "distance", "accuracy", "hops", "ms_per_step", "bytes_per_step", "gradient_norm", "parameters"}
    assert all(wanted <= set(row) for row in report["rows"])
    assert report["chance"] == 0.25
    assert report["training"]["lstm"]["steps"] == 3
    assert report["steps_run_as"]["threads"] == 1


def test_a_run_shows_how_far_it_is(run):
    learning = [watched for watched in run.shown if watched.model == "hierarchy" and watched.what == "learns"]
    assert [watched.done for watched in learning] == list(range(1, 401))
    assert {watched.total for watched in learning} == {400}
    assert learning[0].detail.endswith("right in 24 vectors")
    assert learning[-1].detail.endswith("right in 90 vectors")
    last = [watched for watched in run.shown if watched.what == "recalls 60"][-1]
    assert (last.done, last.total) == (64, 64)


def test_the_numbers_of_others_are_left_alone(monkeypatch):
    state = torch.random.get_rng_state()
    config = RecallConfig((20,), ("lstm",), TASK, dataclasses.replace(BUDGET, steps=1), SMALL, questions=1)
    monkeypatch.setattr(benchmark, "cost", lambda model, input_size: Cost(0.25, 1000))
    first, second = (recall(config, lambda watched: None)[0] for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first == second, "the same seed, the same figures"


def test_networks_that_learn_side_by_side_learn_the_same(monkeypatch):
    budget, shown = dataclasses.replace(BUDGET, steps=2), []
    config = RecallConfig((20,), ("hierarchy", "gru"), TASK, budget, SMALL, questions=1)
    monkeypatch.setattr(benchmark, "cost", lambda model, input_size: Cost(0.25, 1000))
    rows, trainings = recall(config, shown.append, processes=2)
    for row, expected in zip(rows, recall(config, lambda watched: None)[0], strict=True):
        near = pytest.approx(expected.gradient_norm, rel=1e-3)
        assert dataclasses.replace(row, gradient_norm=0.0) == dataclasses.replace(expected, gradient_norm=0.0)
        assert row.gradient_norm == near
    assert list(trainings) == ["hierarchy", "gru"]
    learning = [(watched.model, watched.done) for watched in shown if watched.what == "learns"]
    assert sorted(learning) == [("gru", 1), ("gru", 2), ("hierarchy", 1), ("hierarchy", 2)]


def test_training_goes_on_to_longer_streams_only_when_short_ones_are_learnt():
    hopeless = Budget(steps=30, vectors=64, stages=(Stage(4, 16), Stage(8, 90)), learnt=1.1)
    easy = dataclasses.replace(hopeless, learnt=0.0)
    lengths = []
    train(built("gru"), TASK, easy, 1e-3, lambda progress: lengths.append(progress.stage.length))
    assert lengths == 20 * [16] + 10 * [90]
    assert train(built("gru"), TASK, hopeless, 1e-3, lambda progress: None).longest == 16


def test_accuracy_counts_answers_that_are_right(monkeypatch):
    """A network that always says 0 is right where 0 is the answer."""
    model = SimpleNamespace(
        eval=lambda: None,
        init_state=lambda batch: (),
        step=lambda x, state: (torch.eye(4)[0].expand(*x.shape[:2], 4), state),
    )
    monkeypatch.setattr(measure, "_PIECE", 7)
    share, asked = accuracy(model, TASK, 20, 320, lambda asked: None)
    streams = TASK.at_distance(20, 32, torch.Generator().manual_seed(1020))
    first = (streams.answer == 0).float().mean().item()
    assert asked == 320
    assert share == pytest.approx(0.25, abs=0.08)
    assert accuracy(model, TASK, 20, 32, lambda asked: None) == (pytest.approx(first), 32)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_a_difference(name):
    # Some gradients are so small that differences in 32 bits are rounding; the encoder knows no others.
    dtype = torch.float32 if name == "hierarchy" else torch.float64
    model = built(name).to(dtype)
    streams = TASK.at_distance(20, 1, torch.Generator().manual_seed(2020))
    streams = streams._replace(inputs=streams.inputs.to(dtype))

    def log_odds(x):
        given = answers(model(x), streams.asked_at[:, :1])[0, 0].softmax(0)[streams.answer[0, 0]]
        return (given / (1 - given)).log().item()

    slopes = []
    for channel in range(TASK.input_size):
        change = torch.zeros_like(streams.inputs)
        change[0, streams.pair_at[0, 0], channel] = 0.02
        with torch.no_grad():
            slopes.append((log_odds(streams.inputs + change) - log_odds(streams.inputs - change)) / 0.04)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RecallTask, "at_distance", lambda *args: streams)
        found = gradient_norm(model, TASK, 20, streams=1)
    assert found == pytest.approx(torch.tensor(slopes).norm().item(), rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RecallConfig(distances=(50, 1000)), "got distances 50, 1000: wanted 100 vectors or more"),
        (lambda: RecallConfig(distances=()), "wanted 100 vectors or more"),
        (lambda: Budget(steps=0), "got 0 steps of 4000 vectors in 4 stages: wanted 1 or more"),
    ],
)
def test_impossible_runs_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
