import numpy as np
import pytest

from edgeasr.backends.onnxruntime import session_options
from edgeasr.errors import BundleError
from edgeasr.onnx_reader import read_onnx, up_to
from edgeasr.profile import stretches
from edgeasr.profile.onnx_writer import Node, Value, serialised
from edgeasr.profile.stretches import BoundGraph, Executed, calm_mean, open_session, timed_stretches

FEED = {"x": np.full((1, 4), 2, np.float32), "other": np.ones((1, 4), np.float32), "unread": np.zeros(1, np.float32)}


def chain() -> bytes:
    """Three operators of which the second alone reads a constant, and the third alone another input."""
    nodes = [Node("Add", ["x", "x"], ["a"]), Node("Mul", ["a", "three"], ["b"]), Node("Sub", ["b", "other"], ["y"])]
    inputs = [Value("x", [1, 4]), Value("other", [1, 4])]
    outputs = [Value("a", [1, 4]), Value("y", [1, 4])]
    return serialised(nodes, inputs, outputs, {"three": np.full((1, 4), 3, np.float32)})


@pytest.mark.parametrize(
    ("numbers", "inputs", "outputs", "constants", "last"),
    [
        ([0], ("x",), ("a",), set(), 4.0),
        ([0, 1], ("x",), ("a", "b"), {"three"}, 12.0),
        ([0, 1, 2], ("x", "other"), ("a", "y"), {"three"}, 11.0),
    ],
)
def test_a_graph_that_ends_early_has_what_its_operators_need(numbers, inputs, outputs, constants, last):
    model = up_to(chain(), numbers)
    content = read_onnx(model)
    assert content.inputs == inputs
    assert content.outputs == outputs
    assert set(content.initializers) == constants
    session = open_session(model, session_options(1))
    given = session.run(None, {name: FEED[name] for name in inputs})
    assert np.array_equal(given[-1], np.full((1, 4), last, np.float32))


def test_a_bound_graph_runs_as_often_as_it_is_asked_to():
    bound = BoundGraph(open_session(chain(), session_options(1)), FEED)
    times_us = bound.times_us(5)
    assert len(times_us) == 5
    assert min(times_us) > 0


def stretches_of(monkeypatch, *told_us: float):
    """Where the graphs that end behind one, two and three operators take so long, and then the whole, in two turns."""
    left = iter(told_us)
    monkeypatch.setattr(stretches, "_time_us", lambda *_: next(left))
    return timed_stretches(chain(), Executed(chain(), [0, 1, 2]), [1, 2, 3], FEED, 1, 1)


def test_stretches_are_what_a_graph_takes_more_than_one_that_ends_before(monkeypatch):
    timed = stretches_of(monkeypatch, 5.0, 9.0, 14.0, 15.0, 6.0, 8.0, 15.0, 14.5)
    assert timed.stretches_us == pytest.approx([5.0, 3.0, 6.0])
    assert timed.whole_us == 14.5


def test_a_stretch_whose_end_was_disturbed_ends_no_later_than_the_next(monkeypatch):
    timed = stretches_of(monkeypatch, *[5.0, 99.0, 14.0, 15.0] * 2)
    assert timed.stretches_us == pytest.approx([5.0, 9.0, 0.0])


def test_stretches_of_a_graph_are_timed():
    timed = timed_stretches(chain(), Executed(chain(), [0, 1, 2]), [1, 3], FEED, 1, 20)
    assert timed.whole_us > 0
    assert timed.stretches_us[0] > 0
    assert timed.stretches_us.sum() > 0


def test_what_is_no_model_is_refused():
    with pytest.raises(BundleError, match="ONNX Runtime cannot load"):
        open_session(b"no model", session_options(1))


def test_the_calmest_tenth_of_the_runs_counts():
    assert calm_mean([7.0] + [100.0] * 9) == 7.0
    assert calm_mean([8.0, 6.0, *[100.0] * 18]) == 7.0
    assert calm_mean([3.0, 2.0]) == 2.0
