import numpy as np
import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.memory import Admission, Decision, SummaryContext
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.recall import StoreRecall
from edgeasr.store.records import ModelKey
from edgeasr.store.writer import StoreWriter

WIDTH, SHAPE = 16, (2, 3, 2, 4)
KEY = ModelKey("a model", WIDTH)


def admission(number, vector):
    context = SummaryContext(2, number, 4.0 * number, 4.0 * number + 4)
    content = np.full(SHAPE, number, np.float16)
    return Admission(context, vector, Decision.STORE, "similarity", content=content)


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(20, WIDTH)).astype(np.float32)


def written(path, vectors, recall_slots=4):
    with StoreWriter(path, KEY, pytest.fail, recall_slots=recall_slots) as writer:
        writer.begin_stream("earlier")
        for number, vector in enumerate(vectors):
            writer.admitted(admission(number, vector))


def test_what_was_heard_earlier_is_recalled_with_its_content(tmp_path, vectors):
    written(tmp_path / "memory.db", vectors)
    recall = StoreRecall(tmp_path / "memory.db", KEY, pytest.fail).as_recall(3)
    for number in (0, 7, 19):
        found = recall.nearest(vectors[number] + 0.01, recall.slots)
        assert len(found) == 3
        assert found[0].merged == 1
        np.testing.assert_array_equal(found[0].content, np.full(SHAPE, number))


def test_vectors_of_another_model_are_not_recalled(tmp_path, vectors):
    written(tmp_path / "memory.db", vectors)
    assert list(StoreRecall(tmp_path / "memory.db", ModelKey("another", WIDTH), pytest.fail)(vectors[0], 3)) == []


def test_what_was_stored_without_content_cannot_be_recalled(tmp_path, vectors):
    written(tmp_path / "memory.db", vectors, recall_slots=0)
    assert list(StoreRecall(tmp_path / "memory.db", KEY, pytest.fail)(vectors[0], 3)) == []


def test_content_is_forgotten_with_its_vector(tmp_path, vectors):
    written(tmp_path / "memory.db", vectors)
    with MemoryStore.open(tmp_path / "memory.db") as store:
        with store.transaction():
            store.run("DELETE FROM vectors WHERE id < 19")
        assert list(store.contents(range(100))) == [19, 20]


def test_a_store_that_is_not_there_yet_recalls_nothing(tmp_path, vectors):
    assert list(StoreRecall(tmp_path / "none.db", KEY, pytest.fail)(vectors[0], 3)) == []


def test_a_damaged_store_is_one_warning_and_recognition_goes_on(tmp_path, vectors):
    (tmp_path / "memory.db").write_bytes(b"no database" * 1000)
    warnings = []
    recall = StoreRecall(tmp_path / "memory.db", KEY, warnings.append)
    assert [list(recall(vectors[0], 3)) for _ in range(3)] == [[], [], []]
    assert len(warnings) == 1
    assert "nothing is recalled for now" in warnings[0]
