import warnings

import numpy as np
import pytest

from edgeasr.errors import ConfigError
from edgeasr.memory import (
    Decision,
    MemoryKeeper,
    Recall,
    Recalled,
    Rules,
    Slots,
    SummaryContext,
    judge,
    judge_all,
    nearest,
    write_down,
)

CAPACITY, WIDTH, READERS, HEADS, HEAD_DIM = 3, 4, 2, 2, 2
NEVER = Rules(CAPACITY, 1.0)
SIMILAR = Rules(CAPACITY, 0.9)
STORE, MERGE, SKIP, PIN = Decision.STORE, Decision.MERGE, Decision.SKIP, Decision.PIN


def direction(which, towards=0.0):
    """A unit vector along one axis, turned a little (by its cosine's complement) to the next."""
    vector = np.zeros(WIDTH, np.float32)
    vector[which % WIDTH] = 1
    vector[(which + 1) % WIDTH] = towards
    return vector


def empty_bank():
    return {
        **{name: part[None] for name, part in Slots.empty(CAPACITY, WIDTH)._asdict().items()},
        "key": np.zeros((1, READERS, HEADS, CAPACITY, HEAD_DIM), np.float32),
        "value": np.zeros((1, READERS, HEADS, CAPACITY, HEAD_DIM), np.float32),
    }


def entry(number, vector=None, write=None):
    """Keys and values of an entry tell whose they are."""
    made = {
        "number": np.full((1, 1), number, np.int64),
        "vector": (direction(number) if vector is None else vector)[None, None],
        "key": np.full((1, READERS, HEADS, 1, HEAD_DIM), number + 0.5, np.float32),
        "value": np.full((1, READERS, HEADS, 1, HEAD_DIM), number + 0.75, np.float32),
    }
    return made if write is None else {**made, "write": np.full((1, 1), write, np.float32)}


def filled(entries, policy=None, rules=NEVER, told=None):
    keeper, bank = MemoryKeeper(policy, told), empty_bank()
    for new in entries:
        bank = keeper.admit(bank, new, 2, rules, span_s=4.0)
    return bank


@pytest.mark.parametrize(
    ("count", "numbers"),
    [(0, [-1, -1, -1]), (1, [0, -1, -1]), (3, [0, 1, 2]), (4, [3, 1, 2]), (8, [6, 7, 5])],
)
def test_the_oldest_makes_room_when_all_count_the_same(count, numbers):
    bank = filled([entry(n) for n in range(count)])
    stored = np.array(numbers)
    there = stored >= 0
    assert bank["number"].tolist() == bank["last"].tolist() == [numbers]
    np.testing.assert_array_equal(bank["merged"][0], there)
    for slot in np.flatnonzero(there):
        np.testing.assert_array_equal(bank["vector"][0, slot], direction(stored[slot]))
    np.testing.assert_array_equal(bank["key"][0, 1, 1, there, 1], stored[there] + 0.5)
    np.testing.assert_array_equal(bank["value"][0, 0, 0, there, 0], stored[there] + 0.75)
    assert not any(bank[name][:, ~there].any() for name in ("merged", "vector", "pinned"))


def test_an_entry_that_is_not_due_changes_nothing():
    bank = filled([entry(0)])
    keeper = MemoryKeeper(pytest.fail, pytest.fail)
    after = keeper.admit(bank, entry(-1), 2, NEVER, 4.0)
    assert after == bank
    assert after is not bank


def test_the_arrays_given_are_not_changed():
    bank = filled([entry(0), entry(1)])
    for array in bank.values():
        array.flags.writeable = False
    after = MemoryKeeper().admit(bank, entry(2), 2, NEVER, 4.0)
    assert bank["number"].tolist() == [[0, 1, -1]]
    assert after["number"].tolist() == [[0, 1, 2]]
    assert {n: (a.dtype, a.shape) for n, a in after.items()} == {n: (a.dtype, a.shape) for n, a in bank.items()}


def test_what_is_similar_is_merged_and_keeps_its_slot_alive():
    told = []
    vectors = [direction(0), direction(1), direction(0, 0.2), direction(2), direction(3)]
    bank = filled([entry(n, v) for n, v in enumerate(vectors)], rules=SIMILAR, told=told.append)
    # 2 is like 0 and goes into its slot; when 4 needs room, 1 has been seen longest ago.
    assert [(a.decision, a.by, a.into, a.evicted) for a in told] == [
        (STORE, "similarity", None, None),
        (STORE, "similarity", None, None),
        (MERGE, "similarity", 0, None),
        (STORE, "similarity", None, None),
        (STORE, "similarity", None, 1),
    ]
    assert bank["number"].tolist() == [[0, 4, 3]]
    assert bank["merged"].tolist() == [[2, 1, 1]]
    assert bank["last"].tolist() == [[2, 4, 3]]
    np.testing.assert_array_equal(bank["vector"][0, 0], direction(0))
    assert told[2].similarity == pytest.approx(1 / np.sqrt(1.04))


def test_a_threshold_of_one_never_merges():
    assert filled([entry(n, direction(0)) for n in range(3)])["number"].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(("write", "number"), [(0.49, -1), (0.5, 0), (None, 0)])
def test_the_gate_skips_what_it_does_not_want(write, number):
    told = []
    assert filled([entry(0, write=write)], told=told.append)["number"][0, 0] == number
    assert (told[0].decision, told[0].by) == ((SKIP, "gate") if number < 0 else (STORE, "similarity"))


def test_the_policy_decides_before_the_gate_and_the_gate_before_similarity():
    same = direction(0)
    entries = [entry(0, same, 1.0), entry(1, same, 0.0), entry(2, same, 1.0), entry(3, same, 0.0), entry(4, same, 1.0)]
    wishes = {0: None, 1: STORE, 2: SKIP, 3: None, 4: None}
    told = []
    bank = filled(entries, lambda _, context: wishes[context.number], SIMILAR, told.append)
    assert [(a.decision, a.by) for a in told] == [
        (STORE, "similarity"),
        (STORE, "policy"),
        (SKIP, "policy"),
        (SKIP, "gate"),
        (MERGE, "similarity"),
    ]
    assert bank["number"].tolist() == [[0, 1, -1]]
    assert bank["merged"].tolist() == [[2, 1, 0]]


def test_a_policy_may_merge_what_is_not_similar_but_not_into_nothing():
    told = []
    bank = filled([entry(n) for n in range(3)], lambda *_: MERGE, told=told.append)
    assert [a.decision for a in told] == [STORE, MERGE, MERGE]
    assert (bank["number"].tolist(), bank["merged"].tolist()) == ([[0, -1, -1]], [[3, 0, 0]])


def test_what_is_pinned_stays():
    wishes = {1: PIN}
    bank = filled([entry(n) for n in range(7)], lambda _, context: wishes.get(context.number))
    assert bank["number"].tolist() == [[5, 1, 6]]
    assert bank["pinned"].tolist() == [[False, True, False]]


def test_a_bank_full_of_pinned_vectors_admits_no_more():
    told = []
    bank = filled([entry(n) for n in range(4)], lambda *_: PIN, told=told.append)
    assert bank["number"].tolist() == [[0, 1, 2]]
    assert (told[3].decision, told[3].by, told[3].evicted) == (SKIP, "capacity", None)


def test_what_was_merged_often_is_worth_keeping():
    # Twice as many count as much as being a whole bank (3 summaries) newer.
    slots = Slots(
        np.array([0, 1, 2]), np.array([4, 1, 2], np.float32), np.array([3, 8, 6]), np.zeros(3, bool), np.eye(3)
    )
    usefulness = [2 - 7 / 3, 0 - 2 / 3, 1 - 4 / 3]
    assert np.argmin(usefulness) == 1
    assert judge(slots, 10, 1.0, NEVER, (0, 0.0)).slot == 1
    assert judge(slots._replace(merged=np.array([1, 1, 2], np.float32)), 10, 1.0, NEVER, (0, 0.0)).slot == 0


def test_a_vector_that_is_not_finite_is_refused():
    told = []
    bad = direction(1)
    bad[3] = np.nan
    bank = filled([entry(0), entry(1, bad), entry(2)], lambda *_: STORE, told=told.append)
    assert bank["number"].tolist() == [[0, 2, -1]]
    assert (told[1].decision, told[1].by) == (SKIP, "vector")
    assert np.isfinite(bank["vector"]).all()


def test_a_policy_sees_the_vector_and_what_is_known():
    seen = []

    def policy(summary, context):
        seen.append((summary.tolist(), summary.dtype, context))

    keeper = MemoryKeeper(policy)
    keeper.text = "so far"
    for speech in (0.25, 0.75):
        keeper.heard(speech, levels=2)
    bank = keeper.admit(empty_bank(), entry(5), 3, NEVER, span_s=2.5)
    keeper.moved(10.0)
    keeper.heard(1.0, levels=2)
    keeper.admit(bank, entry(6, direction(5, 1.0)), 3, NEVER, span_s=2.5)
    assert seen[0] == (direction(5).tolist(), np.float32, SummaryContext(3, 5, 12.5, 15.0, 0.5, "so far", -1.0))
    # Ten seconds went by that the model did not run through: what was open before them begins before them.
    assert seen[1][2] == SummaryContext(3, 6, 15.0, 27.5, 1.0, "so far", pytest.approx(np.sqrt(0.5)))


def test_a_policy_that_raises_is_warned_about_once_and_the_rules_decide():
    calls = []

    def broken(summary, context):
        calls.append(context.number)
        raise ValueError("no such word")

    with pytest.warns(
        RuntimeWarning, match=r"the memory policy raised ValueError\('no such word'\) at 0\.0 s"
    ) as found:
        bank = filled([entry(n, direction(0)) for n in range(3)], broken, SIMILAR)
    assert len(found) == 1
    assert calls == [0]
    assert bank["merged"].tolist() == [[3, 0, 0]]


@pytest.mark.parametrize("answer", ["skip", True, 1])
def test_a_policy_that_gives_nonsense_is_warned_about_once_and_the_rules_decide(answer):
    with pytest.warns(RuntimeWarning, match=r"the memory policy gave .*, wanted a Decision or None") as found:
        bank = filled([entry(n, direction(0)) for n in range(3)], lambda *_: answer, SIMILAR)
    assert len(found) == 1
    assert bank["merged"].tolist() == [[3, 0, 0]]


def test_the_observer_hears_nothing_of_what_is_not_due():
    filled([entry(-1)], told=pytest.fail)


def test_nearest_is_by_angle_and_among_what_is_stored():
    slots = Slots.empty(CAPACITY, WIDTH)
    assert nearest(slots, direction(0)) == (-1, -1.0)
    write_down(slots, judge(slots, 0, 1.0, NEVER, (-1, -1.0)), 0, 5 * direction(1))
    write_down(slots, judge(slots, 1, 1.0, NEVER, (-1, -1.0)), 1, direction(0))
    assert nearest(slots, 0.1 * direction(1, 0.1)) == (0, pytest.approx(1 / np.sqrt(1.01)))
    assert nearest(slots, direction(0)) == (1, 1.0)


@pytest.mark.parametrize("threshold", [1.0, 0.8, 0.5, 0.0])
def test_a_whole_recording_is_judged_as_it_is_in_steps(threshold):
    rng = np.random.default_rng(3)
    rules = Rules(CAPACITY, threshold)
    vectors = rng.normal(size=(40, WIDTH)).astype(np.float32)
    writes = rng.uniform(size=40).astype(np.float32)
    judged, after = judge_all(Slots.empty(CAPACITY, WIDTH), np.arange(40), writes, vectors, rules)
    bank, keeper = empty_bank(), MemoryKeeper()
    for n in range(41):
        held = {int(m): float(c) for m, c in zip(bank["number"][0], bank["merged"][0], strict=True) if m >= 0}
        known = np.flatnonzero(judged.merged[n])
        assert {int(k) - CAPACITY: float(judged.merged[n, k]) for k in known} == held
        if n < 40:
            bank = keeper.admit(bank, entry(n, vectors[n], writes[n]), 2, rules, 4.0)
    for name, part in after._asdict().items():
        np.testing.assert_array_equal(part, bank[name][0])
    assert (judged.source - CAPACITY).tolist() == bank["number"][0].tolist()
    assert 0 < (writes < 0.5).sum() < 40


def test_judging_leaves_the_slots_given_and_passes_over_what_is_incomplete():
    slots = Slots.empty(CAPACITY, WIDTH)
    vectors = np.stack([direction(0), direction(1), direction(2)])
    judged, after = judge_all(slots, np.array([0, -1, -1]), np.ones(3, np.float32), vectors, NEVER)
    assert (slots.number.tolist(), after.number.tolist()) == ([-1, -1, -1], [0, -1, -1])
    np.testing.assert_array_equal(judged.merged[:, CAPACITY:], [[0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert judged.source.tolist() == [3, 1, 2]


def test_nothing_is_warned_about_without_cause():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filled([entry(n) for n in range(4)], lambda *_: None)


def test_what_is_recalled_is_read_from_the_last_slots():
    asked = []

    def nearest(vector, count):
        asked.append((vector.tolist(), count))
        found = [np.full((2, READERS, HEADS, HEAD_DIM), 10 * len(asked) + i, np.float16) for i in range(len(asked) - 1)]
        return [Recalled(2.0 + i, content) for i, content in enumerate(found)]

    keeper, bank, banks = MemoryKeeper(recall=Recall(nearest, slots=2)), empty_bank(), []
    for n in range(3):
        bank = keeper.admit(bank, entry(n), 2, NEVER, 4.0)
        banks.append(bank)
    assert asked == [(direction(n).tolist(), 2) for n in range(3)]
    # One slot is the stream's own, two are for what is recalled.
    assert [b["number"].tolist() for b in banks] == [[[0, -1, -1]], [[1, 1, -1]], [[2, 2, 2]]]
    assert banks[2]["merged"].tolist() == [[1, 2, 3]]
    assert banks[1]["key"][0, :, :, 1].tolist() == np.full((READERS, HEADS, HEAD_DIM), 20).tolist()
    assert banks[2]["value"][0, :, :, 2].tolist() == np.full((READERS, HEADS, HEAD_DIM), 31).tolist()
    assert banks[0]["key"][0, 0, 0, :, 0].tolist() == [0.5, 0, 0]  # a bank that was given out stays as it was


def test_only_level_two_recalls():
    keeper = MemoryKeeper(recall=Recall(lambda *_: pytest.fail("asked"), slots=2))
    bank = keeper.admit(empty_bank(), entry(0), 3, NEVER, 400.0)
    bank = keeper.admit(bank, entry(1), 3, NEVER, 400.0)
    assert bank["number"].tolist() == [[0, 1, -1]]


def test_an_admission_carries_what_it_takes_to_recall_it():
    told = []
    filled([entry(3)], told=told.append)
    assert told[0].content.dtype == np.float16
    assert told[0].content[0].tolist() == np.full((READERS, HEADS, HEAD_DIM), 3.5).tolist()
    assert told[0].content[1].tolist() == np.full((READERS, HEADS, HEAD_DIM), 3.75).tolist()


def test_recall_needs_slots():
    with pytest.raises(ConfigError, match="slots is 0"):
        Recall(lambda *_: [], slots=0)
