import numpy as np
import pytest

from edgeasr.bootstrap import compare, rate_interval, units_of
from edgeasr.metrics import ErrorCounts


def counts(errors, words):
    return ErrorCounts(hits=words - errors, substitutions=errors)


def test_the_interval_is_that_of_theory():
    """The rate of 400 words that are wrong with probability 0.2, each by itself, has a standard error of 0.02."""
    rng = np.random.default_rng(1)
    units = [counts(int(wrong), 1) for wrong in rng.random(400) < 0.2]
    rate = sum(unit.errors for unit in units) / 400
    error = np.sqrt(rate * (1 - rate) / 400)
    low, high = rate_interval(units)
    assert low == pytest.approx(rate - 1.96 * error, abs=0.006)
    assert high == pytest.approx(rate + 1.96 * error, abs=0.006)


def test_it_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(100):
        low, high = rate_interval([counts(int(n), 10) for n in rng.binomial(10, 0.3, 40)])
        hits += low <= 0.3 <= high
    assert 88 <= hits <= 100


def test_the_same_units_give_the_same_interval():
    units = [counts(i % 3, 5) for i in range(12)]
    assert rate_interval(units) == rate_interval(list(units))


def test_long_units_weigh_more():
    """Errors over words of the whole draw: one long unit without errors rules."""
    low, high = rate_interval([counts(0, 1000), counts(1, 1)])
    assert low == 0.0
    assert high == pytest.approx(1.0)
    assert rate_interval([counts(1, 2)] * 3) == (0.5, 0.5)


def test_fewer_than_two_units_say_nothing():
    assert rate_interval([]) is None
    assert rate_interval([counts(1, 2)]) is None
    assert compare([counts(1, 2)], [counts(1, 2)]) is None


def test_draws_without_words_are_left_out():
    low, high = rate_interval([ErrorCounts(), ErrorCounts(), counts(1, 4)])
    assert (low, high) == (0.25, 0.25)


def test_speakers_are_drawn_where_there_are_several():
    one = counts(1, 4)
    assert units_of([("ann", one), ("bob", one), ("ann", counts(0, 6))]) == ("speaker", (counts(1, 10), one))
    assert units_of([("ann", one), ("bob", one), ("", one), ("", one)]) == ("speaker", (one, one, one, one))


@pytest.mark.parametrize("speaker", ["", "ann"])
def test_else_utterances_are_drawn(speaker):
    one, two = counts(1, 4), counts(2, 4)
    assert units_of([(speaker, one), (speaker, two)]) == ("utterance", (one, two))


def test_drawing_speakers_widens_the_interval_where_they_differ():
    """Twenty utterances of each of six speakers, half of whom have an error in five words and half have four."""
    listed = [(name, counts(1 if name in "abc" else 4, 5)) for name in "abcdef" for _ in range(20)]
    by_speaker = rate_interval(units_of(listed).counts)
    by_utterance = rate_interval([count for _, count in listed])
    assert by_speaker.high - by_speaker.low > 2 * (by_utterance.high - by_utterance.low)


def test_systems_are_compared_on_the_same_draws():
    """The second makes one error more in each unit: the difference is certain though the rates are not."""
    first = [counts(i % 5, 10) for i in range(20)]
    second = [counts(i % 5 + 1, 10) for i in range(20)]
    found = compare(first, second)
    assert found.difference == pytest.approx((0.1, 0.1))
    assert found.first_wins == 1.0
    assert compare(second, first).first_wins == 0.0


def test_equal_systems_win_no_draw():
    units = [counts(i % 5, 10) for i in range(20)]
    assert compare(units, units) == ((0.0, 0.0), 0.0)


def test_of_different_units_there_is_no_comparison():
    with pytest.raises(ValueError, match="got 2 and 1 units"):
        compare([counts(1, 2)] * 2, [counts(1, 2)])
