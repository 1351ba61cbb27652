import numpy as np
import pytest

from edgeasr.errors import ConfigError
from edgeasr.memory import Decision, SummaryContext, admit, store_everything

CAPACITY, WIDTH, READERS, HEADS, HEAD_DIM = 3, 4, 2, 2, 2


def empty_bank():
    return {
        "number": np.full((1, CAPACITY), -1, np.int64),
        "merged": np.zeros((1, CAPACITY), np.float32),
        "vector": np.zeros((1, CAPACITY, WIDTH), np.float32),
        "key": np.zeros((1, READERS, HEADS, CAPACITY, HEAD_DIM), np.float32),
        "value": np.zeros((1, READERS, HEADS, CAPACITY, HEAD_DIM), np.float32),
    }


def entry(number):
    """Every value of an entry tells whose it is."""
    return {
        "number": np.full((1, 1), number, np.int64),
        "merged": np.ones((1, 1), np.float32),
        "vector": np.full((1, 1, WIDTH), number + 0.25, np.float32),
        "key": np.full((1, READERS, HEADS, 1, HEAD_DIM), number + 0.5, np.float32),
        "value": np.full((1, READERS, HEADS, 1, HEAD_DIM), number + 0.75, np.float32),
    }


def filled(count, policy=store_everything):
    bank = empty_bank()
    for number in range(count):
        bank = admit(bank, entry(number), 2, policy, span_s=4.0)
    return bank


@pytest.mark.parametrize(
    ("count", "numbers"),
    [(0, [-1, -1, -1]), (1, [0, -1, -1]), (3, [0, 1, 2]), (4, [3, 1, 2]), (8, [6, 7, 5])],
)
def test_the_oldest_makes_room_when_the_bank_is_full(count, numbers):
    bank = filled(count)
    stored = np.array(numbers)
    assert bank["number"].tolist() == [numbers]
    np.testing.assert_array_equal(bank["merged"][0], stored >= 0)
    there = stored >= 0
    np.testing.assert_array_equal(bank["vector"][0, there, 0], stored[there] + 0.25)
    np.testing.assert_array_equal(bank["key"][0, 1, 1, there, 1], stored[there] + 0.5)
    np.testing.assert_array_equal(bank["value"][0, 0, 0, there, 0], stored[there] + 0.75)
    assert all(not array[:, ~there].any() for name, array in bank.items() if name in ("merged", "vector"))


def test_an_entry_that_is_not_due_changes_nothing():
    bank = filled(2)
    after = admit(bank, entry(-1), 2, pytest.fail, 4.0)
    assert after == bank
    assert after is not bank


def test_the_arrays_given_are_not_changed():
    bank = filled(2)
    for array in bank.values():
        array.flags.writeable = False
    after = admit(bank, entry(2), 2, store_everything, 4.0)
    assert bank["number"].tolist() == [[0, 1, -1]]
    assert after["number"].tolist() == [[0, 1, 2]]
    assert {name: array.dtype for name, array in after.items()} == {name: a.dtype for name, a in bank.items()}


def test_a_policy_sees_the_vector_and_where_it_comes_from():
    seen = []

    def policy(summary, context):
        seen.append((summary.tolist(), summary.dtype, context))
        return Decision.STORE

    admit(empty_bank(), entry(5), 3, policy, span_s=2.5)
    assert seen == [([5.25] * WIDTH, np.float32, SummaryContext(level=3, number=5, start_s=12.5, end_s=15.0))]


def test_what_a_policy_skips_leaves_its_slot_as_it_was():
    def odd_only(summary, context):
        return Decision.STORE if context.number % 2 else Decision.SKIP

    assert filled(6, odd_only)["number"].tolist() == [[3, 1, 5]]
    assert filled(6, lambda *_: Decision.SKIP)["number"].tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize("answer", [None, "skip", True])
def test_a_policy_that_decides_nothing_is_refused(answer):
    with pytest.raises(ConfigError, match=r"the memory policy gave .*, wanted Decision\.STORE or Decision\.SKIP"):
        filled(1, lambda *_: answer)
