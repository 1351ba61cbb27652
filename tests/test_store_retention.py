import numpy as np
import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.errors import ConfigError, StoreError
from edgeasr.store import store_file
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import ModelKey, Span, SpokenWord, Summary
from edgeasr.store.retention import (
    Forgotten,
    Limits,
    enforce,
    forget_all,
    forget_before,
    forget_stream,
    forget_text,
    forget_vectors,
    release,
    scrub,
)

WIDTH = 64
MODEL = ModelKey("a", WIDTH)
DAY_S = 86_400


@pytest.fixture
def clock(monkeypatch):
    """The time of the store, to be set."""
    now = [1_000_000.0]
    monkeypatch.setattr(store_file.time, "time", lambda: now[0])
    return now


@pytest.fixture
def store(tmp_path, clock):
    with MemoryStore.open(tmp_path / "memory.db", create=True) as opened:
        yield opened


def vector(number):
    return np.random.default_rng(number).standard_normal(WIDTH).astype(np.float32)


def fill(store, clock, texts, *, pinned=(), apart_s=60.0):
    """A stream: each text a segment of 4 s and the vector of the same time, stored a minute apart."""
    with store.transaction():
        stream = store.begin_stream("talk", MODEL)
        for i, text in enumerate(texts):
            span = Span(4.0 * i, 4.0 * i + 4, text)
            words = text.split()
            times = np.linspace(span.start_s, span.end_s, len(words) + 1).tolist()
            store.add_vector(stream, Summary(2, i, span, vector(i), pinned=i in pinned))
            store.add_segment(
                stream, span, [SpokenWord(*word) for word in zip(words, times[:-1], times[1:], strict=True)]
            )
            clock[0] += apart_s
    return stream


def left(store):
    store.check()
    return [one.number for one in store.vectors(limit=10_000)], [one.text for one in store.segments(limit=10_000)]


class TestLimits:
    def test_of_age_forget_what_is_older_and_not_pinned(self, store, clock):
        fill(store, clock, ["one", "two", "three", "four"], pinned={1}, apart_s=DAY_S)
        gone = enforce(store, Limits(max_age_days=1.5))
        assert gone == Forgotten(vectors=2, segments=2, streams=0)
        assert left(store) == ([1, 3], ["two", "four"])

    def test_of_size_forget_the_oldest_and_give_the_room_back(self, store, clock):
        texts = [f"segment {i} " + "word " * 40 for i in range(700)]
        fill(store, clock, [text.strip() for text in texts], pinned={0, 5})
        limits = Limits(max_bytes=1 << 20)
        assert store.size_bytes() > limits.max_bytes
        gone = enforce(store, limits)
        numbers, said = left(store)
        assert store.size_bytes() <= limits.max_bytes
        assert gone.vectors == 700 - len(numbers) > 0
        assert numbers == [0, 5, *range(numbers[2], 700)]
        assert len(said) == len(numbers)
        scrub(store)
        assert store.path.stat().st_size == store.size_bytes()

    def test_keep_what_is_pinned_even_if_there_is_no_room(self, store, clock):
        fill(store, clock, ["word " * 9_000 for _ in range(20)], pinned=set(range(20)))
        assert store.size_bytes() > 1 << 20
        assert enforce(store, Limits(max_bytes=1 << 20)) == Forgotten()
        assert len(left(store)[0]) == 20

    def test_keep_the_stream_that_is_being_heard(self, store, clock):
        stream = fill(store, clock, ["one"], apart_s=DAY_S)
        enforce(store, Limits(max_age_days=0.5), keep_stream=stream)
        assert store.has_stream(stream)
        enforce(store, Limits(max_age_days=0.5))
        assert not store.has_stream(stream)

    @pytest.mark.parametrize("options", [{"max_bytes": 1000}, {"max_age_days": 0}])
    def test_that_nothing_fits_into_are_refused(self, options):
        with pytest.raises(ConfigError):
            Limits(**options)


class TestForgetting:
    TEXTS = ("the first thing", "my secret word is xylophone", "the last thing")

    def test_a_vector_takes_its_words_with_it(self, store, clock):
        stream = fill(store, clock, self.TEXTS)
        with store.transaction():
            # A segment that reaches beyond the vector keeps the words outside.
            words = [SpokenWord("before", 3.0, 3.9), SpokenWord("inside", 5.0, 6.0)]
            store.add_segment(stream, Span(3.0, 6.0, "before inside"), words)
        heard_at = clock[0]
        clock[0] += DAY_S
        assert forget_vectors(store, [2]) == Forgotten(vectors=1, segments=1)
        assert left(store) == ([0, 2], ["the first thing", "the last thing", "before"])
        assert store.rows("SELECT max(stored) FROM segments") == [(heard_at,)]

    def test_a_vector_that_is_not_there_forgets_nothing(self, store, clock):
        fill(store, clock, self.TEXTS)
        with pytest.raises(StoreError, match="got vector 99"):
            forget_vectors(store, [1, 99])
        assert left(store)[0] == [0, 1, 2]

    def test_a_stream(self, store, clock):
        fill(store, clock, self.TEXTS)
        second = fill(store, clock, ["other"])
        assert forget_stream(store, second) == Forgotten(vectors=1, segments=1, streams=1)
        assert left(store) == ([0, 1, 2], list(self.TEXTS))
        with pytest.raises(StoreError, match=f"got stream {second}"):
            forget_stream(store, second)

    def test_before_a_date(self, store, clock):
        fill(store, clock, self.TEXTS, pinned={0})
        assert forget_before(store, 1_000_000.0 + 90) == Forgotten(vectors=2, segments=2)
        assert left(store) == ([2], ["the last thing"])

    def test_a_text_takes_the_vectors_of_its_time(self, store, clock):
        fill(store, clock, self.TEXTS)
        assert forget_text(store, "secret word") == Forgotten(vectors=1, segments=1)
        assert left(store) == ([0, 2], ["the first thing", "the last thing"])
        assert forget_text(store, "no such words") == Forgotten()

    def test_everything_leaves_nothing(self, store, clock):
        fill(store, clock, self.TEXTS, pinned={0})
        assert forget_all(store) == Forgotten(vectors=3, segments=3, streams=1)
        tables = ("streams", "vectors", "segments", "cells", "cell_points", "occurrences", "models")
        assert [store.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables] == [0] * len(tables)

    def test_everything_leaves_a_store_that_goes_on(self, store, clock):
        fill(store, clock, self.TEXTS)
        forget_all(store)
        fill(store, clock, ["a new beginning"])
        assert left(store) == ([0], ["a new beginning"])
        assert [one.id for one in store.nearest(vector(0), 5, MODEL)] == [store.vectors()[0].id]

    @pytest.mark.parametrize(
        "forget", [lambda store: forget_text(store, "xylophone"), lambda store: forget_vectors(store, [2])]
    )
    def test_leaves_no_trace_in_the_files(self, store, clock, forget):
        fill(store, clock, self.TEXTS)
        values = vector(1).tobytes()
        folder = store.path.parent
        scrub(store)
        assert sum(b"xylophone" in file.read_bytes() for file in folder.iterdir()) == 1
        assert sum(values in file.read_bytes() for file in folder.iterdir()) == 1
        forget(store)
        release(store)
        assert scrub(store)
        for file in folder.iterdir():
            content = file.read_bytes()
            assert b"xyloph" not in content
            assert values not in content
        assert left(store)[1] == ["the first thing", "the last thing"]
