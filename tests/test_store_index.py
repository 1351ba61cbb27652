import math

import numpy as np
import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.store import vector_index
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.projection import Projection, packed, unpacked
from edgeasr.store.records import ModelKey, Span, Summary
from edgeasr.store.vector_index import halves

WIDTH = 16
MODEL = ModelKey("index", WIDTH)


def crowd(count, centres, seed=0):
    """Points around some centres."""
    rng = np.random.default_rng(seed)
    middles = 3 * rng.standard_normal((centres, WIDTH))
    return (middles[rng.integers(0, centres, count)] + rng.standard_normal((count, WIDTH))).astype(np.float32)


class TestHalves:
    def test_part_two_crowds(self):
        rng = np.random.default_rng(1)
        first, second = np.eye(WIDTH)[0], np.eye(WIDTH)[5]
        points = np.concatenate(
            [first + 0.1 * rng.standard_normal((30, WIDTH)), second + 0.1 * rng.standard_normal((50, WIDTH))]
        )
        moves = halves(points.astype(np.float32))
        assert set(moves[:30]) | set(moves[30:]) == {True, False}
        assert len(set(moves[:30])) == len(set(moves[30:])) == 1

    @pytest.mark.parametrize("points", [np.ones((9, WIDTH), np.float32), np.zeros((9, WIDTH), np.float32)])
    def test_of_equal_points_are_both_filled(self, points):
        assert 0 < halves(points).sum() < 9


class TestProjection:
    def test_makes_all_directions_equal(self):
        rng = np.random.default_rng(2)
        vectors = (10 + rng.standard_normal((4_000, WIDTH)) * np.geomspace(1, 30, WIDTH)).astype(np.float32)
        projection = Projection.fitted(np.split(vectors, [1_000, 1_001]))
        centred = (vectors - projection.mean) @ projection.basis
        spread = centred.std(axis=0)
        np.testing.assert_allclose(projection.mean, vectors.mean(axis=0), atol=1e-3)
        # Shrinkage leaves the narrow directions narrower.
        assert spread.max() == pytest.approx(1, abs=0.05)
        assert np.linalg.norm(projection.points(vectors), axis=1) == pytest.approx(1, abs=1e-5)

    def test_gives_what_is_at_the_mean_a_direction(self):
        projection = Projection.plain(WIDTH)
        np.testing.assert_array_equal(projection.points(np.zeros((1, WIDTH), np.float32)), np.eye(WIDTH)[:1])

    def test_is_kept_in_eight_bits_without_much_loss(self):
        points = Projection.plain(WIDTH).points(crowd(200, 5))
        again = unpacked([packed(point) for point in points])
        assert len(packed(points[0])) == WIDTH
        assert (points * again).sum(axis=1).min() > 0.9999


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A store of 6,000 vectors in cells, and the vectors."""
    vectors = crowd(6_000, 40)
    path = tmp_path_factory.mktemp("index") / "memory.db"
    with MemoryStore.open(path, create=True) as store:
        with store.transaction():
            stream = store.begin_stream("crowd", MODEL)
            for i, vector in enumerate(vectors):
                store.add_vector(stream, Summary(2, i, Span(i, i + 1), vector))
        yield store, vectors


class TestCells:
    def test_split_as_they_fill_and_lose_nothing(self, large):
        store, _ = large
        sizes = [row[0] for row in store.rows("SELECT size FROM cells")]
        counted = [row[0] for row in store.rows("SELECT count(*) FROM cell_points GROUP BY cell ORDER BY cell")]
        assert sum(sizes) == 6_000
        assert sizes == counted
        assert len(sizes) > 60
        assert max(sizes) <= 96
        store.check()

    def test_hold_nearly_all_of_the_nearest(self, large, monkeypatch):
        monkeypatch.setattr(vector_index, "_MIN_READ", 1_000)
        monkeypatch.setattr(vector_index, "_READ_GROWTH", 1)
        store, vectors = large
        (mean, basis) = store.rows("SELECT mean, basis FROM models")[0]
        projection = Projection(np.frombuffer(mean, np.float32), np.frombuffer(basis, np.float32).reshape(WIDTH, -1))
        points = projection.points(vectors)
        hits = 0
        for query in crowd(50, 40)[:50]:
            exact = (np.argsort(-(points @ projection.points(query[None])[0]))[:10] + 1).tolist()
            assert [one.id for one in store.nearest(query, 10, MODEL, effort=math.inf)] == exact
            hits += len({one.id for one in store.nearest(query, 10, MODEL)} & set(exact))
            assert store.num_read(query, MODEL) < 1_000 + 96
        assert hits / 500 > 0.9

    def test_hold_merged_vectors_too_when_they_are_made_anew(self, tmp_path):
        points = crowd(300, 3)
        with MemoryStore.open(tmp_path / "memory.db", create=True) as store:
            with store.transaction():
                stream = store.begin_stream("crowd", MODEL)
                store.add_vector(stream, Summary(2, 0, Span(0, 1), points[0]))
                for i in range(1, 300):
                    store.merge(stream, 0, Summary(2, i, Span(i, i + 1), points[i]))
            assert store.rows("SELECT fitted FROM models") == [(128,)]
            store.check()
            for i in (0, 1, 100, 299):
                (best,) = store.heard_like(points[i], 1, MODEL)
                assert (best.start_s, best.vector) == (i, 1)
                assert best.similarity > 0.999
            assert [one.count for one in store.nearest(points[5], 9, MODEL)] == [300]
            with store.transaction():
                store.run("DELETE FROM vectors")
            assert store.rows("SELECT count(*) FROM cell_points") == [(0,)]
            store.check()

    def test_go_with_their_vectors(self, large, tmp_path):
        with MemoryStore.open(tmp_path / "memory.db", create=True) as store:
            with store.transaction():
                stream = store.begin_stream("crowd", MODEL)
                for i, vector in enumerate(crowd(400, 3)):
                    store.add_vector(stream, Summary(2, i, Span(i, i + 1), vector))
            with store.transaction():
                store.run("DELETE FROM vectors WHERE id % 2")
            assert store.rows("SELECT count(*) FROM cell_points") == [(200,)]
            assert store.rows("SELECT sum(size) FROM cells") == [(200,)]
            assert all(one.id % 2 == 0 for one in store.nearest(crowd(1, 3)[0], 50, MODEL))
            store.check()
