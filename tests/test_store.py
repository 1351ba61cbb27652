import os
import stat
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

import apsw

from edgeasr.errors import StoreBusyError, StoreError
from edgeasr.store import schema, store_file
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.paths import default_path
from edgeasr.store.records import ModelKey, Span, SpokenWord, Summary

MODEL = ModelKey("a", 8)
RNG_SEED = 3


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def store(path):
    with MemoryStore.open(path, create=True) as opened:
        yield opened


def directions(count, width=8, seed=RNG_SEED):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def summary(number, vector, **options):
    return Summary(2, number, Span(4.0 * number, 4.0 * number + 4), vector, **options)


def filled(store, vectors, model=MODEL, name="talk"):
    with store.transaction():
        stream = store.begin_stream(name, model)
        return stream, [store.add_vector(stream, summary(i, vector)) for i, vector in enumerate(vectors)]


def spoken(text, start_s):
    """Words of half a second each."""
    words = [SpokenWord(word, start_s + i / 2, start_s + i / 2 + 0.5) for i, word in enumerate(text.split())]
    return Span(start_s, words[-1].end_s, text), words


class TestFile:
    def test_is_for_its_owner_alone(self, path):
        previous = os.umask(0)
        try:
            with MemoryStore.open(path, create=True) as store:
                filled(store, directions(3))
                modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        finally:
            os.umask(previous)
        assert modes == {"memory.db": 0o600, "memory.db-wal": 0o600, "memory.db-shm": 0o600}

    def test_that_others_could_read_is_closed_to_them(self, path):
        MemoryStore.open(path, create=True).close()
        path.chmod(0o644)
        MemoryStore.open(path).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("pragma", "value"),
        [("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1), ("auto_vacuum", 2), ("foreign_keys", 1)],
    )
    def test_is_opened_with(self, store, pragma, value):
        assert store.rows(f"PRAGMA {pragma}") == [(value,)]

    def test_that_is_missing_is_made_only_when_asked(self, path):
        with pytest.raises(StoreError, match=r"there is no store .*--remember"):
            MemoryStore.open(path)
        assert not path.exists()

    def test_in_a_missing_folder_is_refused(self, tmp_path):
        with pytest.raises(StoreError, match="its folder is missing"):
            MemoryStore.open(tmp_path / "disk" / "memory.db", create=True)
        assert not (tmp_path / "disk").exists()

    def test_of_a_newer_schema_is_refused_and_kept(self, path):
        with MemoryStore.open(path, create=True) as store:
            filled(store, directions(3))
            store.run("PRAGMA user_version = 99")
        before = path.read_bytes()
        with pytest.raises(StoreError, match=r"schema version 99.*update edgeasr"):
            MemoryStore.open(path)
        assert path.read_bytes() == before

    def test_of_an_older_schema_is_brought_up_to_date_with_what_it_holds(self, path, monkeypatch):
        with MemoryStore.open(path, create=True) as store:
            stream, _ = filled(store, directions(3))
        added = "ALTER TABLE streams ADD COLUMN place TEXT NOT NULL DEFAULT 'kitchen';"
        monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, added))
        monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
        with MemoryStore.open(path) as store:
            assert store.rows("SELECT id, place FROM streams") == [(stream, "kitchen")]
            assert store.rows("PRAGMA user_version") == [(schema.SCHEMA_VERSION,)]
            assert store.stats().vectors == 3

    def test_keeps_its_version_where_a_migration_fails(self, path, monkeypatch):
        MemoryStore.open(path, create=True).close()
        version = schema.SCHEMA_VERSION
        monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE new (a); SELECT nonsense;"))
        monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 1)
        with pytest.raises(StoreError, match="cannot be used"):
            MemoryStore.open(path)
        monkeypatch.undo()
        with MemoryStore.open(path) as store:
            assert store.rows("SELECT name FROM sqlite_schema WHERE name = 'new'") == []

    def test_of_another_program_is_refused(self, path):
        connection = apsw.Connection(str(path))
        connection.execute("CREATE TABLE contacts (name)")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(StoreError, match="database of another program"):
            MemoryStore.open(path, create=True)
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "content", [b"no database at all, but long enough" * 40, b"SQLite format 3\0" + b"\xff" * 4080]
    )
    def test_that_is_damaged_is_refused_and_kept(self, path, content):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=str(path)):
            MemoryStore.open(path, create=True)
        assert path.read_bytes() == content

    def test_that_is_locked_says_so(self, path, store, monkeypatch):
        monkeypatch.setattr(schema, "BUSY_TIMEOUT_MS", 1)
        with (
            store.transaction(),
            MemoryStore.open(path) as other,
            pytest.raises(StoreBusyError, match="locked by another process"),
            other.transaction(),
        ):
            pass

    def test_lies_in_the_data_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        assert default_path() == tmp_path / "edgeasr" / "memory.db"
        monkeypatch.setenv("XDG_DATA_HOME", "relative")
        monkeypatch.setenv("HOME", "/home/someone")
        assert default_path() == Path("/home/someone/.local/share/edgeasr/memory.db")


class TestVectors:
    def test_come_back_with_span_and_words(self, store):
        vectors = directions(3)
        stream, ids = filled(store, vectors)
        with store.transaction():
            store.add_segment(stream, *spoken("so it goes and then it ended", 3.0))
        found = store.vector(ids[1])
        # The words whose middle lies between 4 and 8 s.
        assert (found.number, found.span, found.count, found.pinned) == (
            1,
            Span(4, 8, "goes and then it ended"),
            1,
            False,
        )
        np.testing.assert_array_equal(found.vector, vectors[1])
        assert [vector.id for vector in store.vectors(stream, after=ids[0])] == ids[1:]

    def test_that_are_merged_count_and_keep_their_spans(self, store):
        stream, ids = filled(store, directions(2))
        near = directions(1, seed=8)[0]
        with store.transaction():
            assert store.merge(stream, 0, summary(7, near))
            assert store.merge(stream, 0, summary(9, near))
            assert not store.merge(stream, 5, summary(10, near))
        assert store.vector(ids[0]).count == 3
        assert store.occurrences(ids[0]) == [Span(28, 32), Span(36, 40)]
        assert {(one.stream, one.start_s, one.vector) for one in store.heard_like(near, 2, MODEL)} == {
            (stream, 28.0, ids[0]),
            (stream, 36.0, ids[0]),
        }
        assert {one.id for one in store.nearest(near, 9, MODEL)} == set(ids)
        store.check()
        assert store.stats().merged == 2

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_that_are_not_finite_are_refused(self, store, wrong):
        vector = directions(1)[0]
        vector[3] = wrong
        with store.transaction():
            stream = store.begin_stream("talk", MODEL)
            with pytest.raises(StoreError, match="NaN or infinite"):
                store.add_vector(stream, summary(0, vector))
        assert store.stats().vectors == 0

    def test_of_another_width_are_refused(self, store):
        stream, _ = filled(store, directions(1))
        with store.transaction(), pytest.raises(StoreError, match=r"shape \(9,\), wanted 8 finite values"):
            store.add_vector(stream, summary(1, directions(1, width=9)[0]))
        with pytest.raises(StoreError, match="wanted 8 as before"), store.transaction():
            store.begin_stream("talk", ModelKey("a", 9))

    def test_are_not_there_after_an_error_in_their_transaction(self, store):
        filled(store, directions(2))
        with pytest.raises(StoreError, match="cannot be used"):
            self.fail_in_a_transaction(store)
        stats = store.stats()
        assert (stats.streams, stats.vectors) == (1, 2)
        store.check()
        assert len(store.nearest(directions(1)[0], 5, MODEL)) == 2

    def fail_in_a_transaction(self, store):
        with store.transaction():
            stream = store.begin_stream("lost", MODEL)
            store.add_vector(stream, summary(0, directions(1)[0]))
            store.run("nonsense")

    def test_have_times_that_never_run_backwards(self, store, monkeypatch):
        times = iter([5_000.0, 90.0, 6_000.0])
        monkeypatch.setattr(store_file.time, "time", lambda: next(times))
        assert [store.now(), store.now(), store.now()] == [5_000.0, 5_000.0, 6_000.0]

    def test_of_names_that_are_no_text_are_stored(self, store):
        with store.transaction():
            stream = store.begin_stream("talk\udcff.wav", MODEL)
        assert store.stream_name(stream) == "talk?.wav"


class TestNearest:
    def test_is_the_vector_itself_at_any_loudness(self, store):
        vectors = directions(30)
        _, ids = filled(store, vectors)
        for i in (0, 17, 29):
            best = store.nearest(3 * vectors[i], 3, MODEL)
            assert best[0].id == ids[i]
            assert best[0].similarity == pytest.approx(1, abs=1e-5)
            assert best[1].similarity < 0.99

    def test_is_by_falling_similarity(self, store):
        vectors = directions(30)
        _, ids = filled(store, vectors)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        query = directions(1, seed=9)[0]
        cosines = units @ query / np.linalg.norm(query)
        found = store.nearest(query, 5, MODEL)
        assert [one.id for one in found] == [ids[i] for i in np.argsort(-cosines)[:5]]
        assert [one.similarity for one in found] == pytest.approx(sorted(cosines, reverse=True)[:5], abs=1e-5)

    def test_never_is_of_another_model_or_level(self, store):
        vectors = directions(4)
        other = ModelKey("b", 8)
        _, ids = filled(store, vectors)
        stream, theirs = filled(store, vectors, other)
        with store.transaction():
            third = store.add_vector(stream, Summary(3, 0, Span(0, 16), vectors[0]))
        assert {one.id for one in store.nearest(vectors[0], 10, MODEL)} == set(ids)
        assert {one.id for one in store.nearest(vectors[0], 10, other)} == set(theirs)
        assert [one.id for one in store.nearest(vectors[0], 10, other, level=3)] == [third]
        assert store.nearest(vectors[0], 10, ModelKey("c", 8)) == []

    def test_differs_by_what_vectors_do_not_share_once_there_are_enough(self, store):
        rng = np.random.default_rng(4)
        # A direction that all share drowns what tells them apart, until it is known.
        shared = np.zeros(8, np.float32)
        shared[0] = 50
        vectors = shared + rng.standard_normal((300, 8)).astype(np.float32)
        filled(store, vectors[:30])
        before = store.nearest(vectors[0], 2, MODEL)[1].similarity
        filled(store, vectors[30:])
        found = store.nearest(vectors[0], 2, MODEL)
        assert before > 0.99
        assert found[0].similarity == pytest.approx(1, abs=1e-5)
        assert found[1].similarity < 0.95
        store.check()

    def test_goes_on_when_points_get_fewer_values_than_vectors(self, store):
        vectors = directions(300, width=192)
        filled(store, vectors, ModelKey("wide", 192))
        assert store.rows("SELECT DISTINCT length(point) FROM cell_points") == [(128,)]
        store.check()
        assert [store.nearest(vectors[i], 1, ModelKey("wide", 192))[0].id for i in (0, 299)] == [1, 300]

    def test_is_seen_by_another_process_at_once(self, path, store):
        vectors = directions(600)
        with MemoryStore.open(path) as reader:
            filled(store, vectors[:100])
            assert reader.nearest(vectors[99], 1, MODEL)[0].similarity == pytest.approx(1, abs=1e-5)
            filled(store, vectors[100:])
            found = [reader.nearest(vector, 1, MODEL)[0] for vector in vectors[::50]]
        assert [one.id for one in found] == list(range(1, 601, 50))
        assert [one.similarity for one in found] == pytest.approx([1] * 12, abs=1e-5)

    def test_of_a_query_that_is_not_finite_is_refused(self, store):
        filled(store, directions(2))
        with pytest.raises(StoreError, match="NaN or infinite"):
            store.nearest(np.full(8, np.nan, np.float32), 1, MODEL)
