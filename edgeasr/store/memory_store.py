"""The store: streams, the vectors that the encoder admitted, and what was said. One object a thread.

What changes the store happens inside `transaction()`; a kill loses the open one and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeasr.errors import StoreError
from edgeasr.store.projection import FIT_AT, Projection, packed, scale_of
from edgeasr.store.records import (
    Floats,
    Heard,
    ModelKey,
    Neighbour,
    Segment,
    Span,
    SpokenWord,
    StoredVector,
    StoreStats,
    Stream,
    Summary,
)
from edgeasr.store.schema import store_errors
from edgeasr.store.store_file import TIMES, StoreFile
from edgeasr.store.vector_index import CellIndex
from edgeasr.store.vector_pages import floats, values_of, vector_pages

_CANDIDATES = 2  # of the index, for each that is wanted
_LISTED = "SELECT value FROM json_each(?)"
_VECTOR_COLUMNS = (
    "v.id, v.stream, s.name, v.level, v.number, v.start_s, v.end_s, v.count, v.last_seen, v.pinned, v.vector"
)


class MemoryStore(StoreFile):
    """What is written to a store, and read from it.

    errors: every method raises StoreError for what the file, the disk or another process can cause
    """

    def __init__(self, path: Path, *, create: bool = False, reading: bool = False) -> None:
        super().__init__(path, create=create, reading=reading)
        self._indexes: dict[tuple[int, int], CellIndex] = {}
        self._projections: dict[int, tuple[int, Projection]] = {}

    def changed_otherwise(self) -> None:
        """To be called after vectors were deleted: what was known of their cells no longer holds."""
        self._indexes.clear()
        self._projections.clear()

    # What is written

    def begin_stream(self, name: str, model: ModelKey) -> int:
        """A new stream; its id. Errors: StoreError where the model's vectors were of another width"""
        self.run(
            "INSERT INTO models (fingerprint, width) VALUES (?, ?) ON CONFLICT DO NOTHING",
            model.fingerprint,
            model.width,
        )
        ((key, width),) = self.rows("SELECT id, width FROM models WHERE fingerprint = ?", model.fingerprint)
        if width != model.width:
            raise StoreError(f"got vectors of {model.width} values, wanted {width} as before: give another fingerprint")
        # The names of files need not be text.
        plain = name.encode("utf-8", "replace").decode()
        self.run("INSERT INTO streams (name, model, began) VALUES (?, ?, ?)", plain, key, self.now())
        return self._connection.last_insert_rowid()

    def has_stream(self, stream: int) -> bool:
        return bool(self.rows("SELECT 1 FROM streams WHERE id = ?", stream))

    def add_vector(self, stream: int, summary: Summary) -> int:
        """Store a summary; its id.

        errors: StoreError for another width than the stream's model has, or a value that is not finite
        """
        vector, point, index = self._checked(stream, summary)
        with store_errors(self.path):
            cell = index.cell_of(point)
            self.run(
                "INSERT INTO vectors (stream, level, number, start_s, end_s, last_seen, pinned, speech, cell, vector) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(stream, summary.level, summary.number, summary.span.start_s, summary.span.end_s),
                *(self.now(), summary.pinned, summary.speech, cell, vector.tobytes()),
            )
            new = self._connection.last_insert_rowid()
            index.put(new, cell, point)
            if summary.content is not None:
                shape = json.dumps(summary.content.shape)
                self.run("INSERT INTO contents VALUES (?, ?, ?)", new, shape, summary.content.tobytes())
        self._fit_when_due(stream)
        return new

    def merge(self, stream: int, into: int, summary: Summary) -> bool:
        """Record a summary that was merged into summary `into` of its level; False where that is not stored.

        So that it can be found by sound, its vector is kept too, in 8 bits a value.
        errors: as for add_vector
        """
        found = self.rows(
            "SELECT id FROM vectors WHERE stream = ? AND level = ? AND number = ? ORDER BY id DESC LIMIT 1",
            *(stream, summary.level, into),
        )
        if not found:
            return False
        vector, point, index = self._checked(stream, summary)
        with store_errors(self.path):
            cell = index.cell_of(point)
            self.run("UPDATE vectors SET count = count + 1, last_seen = ? WHERE id = ?", self.now(), found[0][0])
            self.run(
                "INSERT INTO occurrences (vector, number, start_s, end_s, cell, scale, packed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                *(found[0][0], summary.number, summary.span.start_s, summary.span.end_s),
                *(cell, scale_of(vector), packed(vector)),
            )
            index.put(-self._connection.last_insert_rowid(), cell, point)
        self._fit_when_due(stream)
        return True

    def add_segment(self, stream: int, span: Span, words: Sequence[SpokenWord], *, stored: float | None = None) -> int:
        """Store a final transcript, of which span has the text; its id. stored: seconds since 1970, None for now"""
        listed = json.dumps([[word.word, round(word.start_s, 3), round(word.end_s, 3)] for word in words])
        self.run(
            "INSERT INTO segments (stream, start_s, end_s, stored, text, words) VALUES (?, ?, ?, ?, ?, ?)",
            *(stream, span.start_s, span.end_s, self.now() if stored is None else stored, span.text, listed),
        )
        return self._connection.last_insert_rowid()

    # What is read

    def streams(self) -> list[Stream]:
        """Oldest first."""
        return [
            Stream(*row)
            for row in self.rows(
                "SELECT id, name, began, "
                "max((SELECT ifnull(max(end_s), 0) FROM vectors WHERE stream = streams.id), "
                "    (SELECT ifnull(max(end_s), 0) FROM segments WHERE stream = streams.id)), "
                "(SELECT count(*) FROM vectors WHERE stream = streams.id), "
                "(SELECT count(*) FROM segments WHERE stream = streams.id) FROM streams ORDER BY id"
            )
        ]

    def vectors(self, stream: int | None = None, *, after: int = 0, limit: int = 100) -> list[StoredVector]:
        """By id, those with larger ids than `after`."""
        return self._vectors(
            "v.id > ? AND (? IS NULL OR v.stream = ?) ORDER BY v.id LIMIT ?", after, stream, stream, limit
        )

    def vector(self, vector: int) -> StoredVector:
        """Errors: StoreError where there is none of this id"""
        found = self._vectors("v.id = ?", vector)
        if not found:
            raise StoreError(f"got vector {vector}, the store has none of that id: see `edgeasr memory list`")
        return found[0]

    def occurrences(self, vector: int) -> list[Span]:
        """Spans that were merged into a vector, without those of its own."""
        found = self.rows(
            "SELECT v.stream, o.start_s, o.end_s FROM occurrences o JOIN vectors v ON v.id = o.vector "
            "WHERE o.vector = ? ORDER BY o.start_s",
            vector,
        )
        return [Span(start_s, end_s, self.text_between(stream, start_s, end_s)) for stream, start_s, end_s in found]

    def kinds(self) -> list[tuple[str, int, int]]:
        """Fingerprint of the model, width and level of the vectors that there are."""
        sql = (
            "SELECT DISTINCT m.fingerprint, m.width, c.level FROM cells c JOIN models m ON m.id = c.model ORDER BY 1, 3"
        )
        return [(fingerprint, width, level) for fingerprint, width, level in self.rows(sql)]

    def ids(self, fingerprint: str, level: int) -> list[int]:
        """Of the vectors of one kind, ascending."""
        sql = (
            "SELECT v.id FROM vectors v JOIN streams s ON s.id = v.stream JOIN models m ON m.id = s.model "
            "WHERE m.fingerprint = ? AND v.level = ? ORDER BY v.id"
        )
        return [row[0] for row in self.rows(sql, fingerprint, level)]

    def values(self, vector: int) -> Floats:
        """(C,) of one vector. Errors: StoreError where there is none of this id"""
        found = self.rows("SELECT vector FROM vectors WHERE id = ?", vector)
        if not found:
            raise StoreError(f"got vector {vector}, the store has none of that id: see `edgeasr memory list`")
        return floats(found[0][0])

    def stream_name(self, stream: int) -> str:
        """Errors: StoreError where there is none of this id"""
        found = self.rows("SELECT name FROM streams WHERE id = ?", stream)
        if not found:
            raise StoreError(f"got stream {stream}, the store has none of that id: see `edgeasr memory list`")
        return str(found[0][0])

    def segments(self, stream: int | None = None, *, after: int = 0, limit: int = 100) -> list[Segment]:
        """By id, those with larger ids than `after`."""
        return [
            _segment(row)
            for row in self.rows(
                "SELECT id, stream, start_s, end_s, text, words FROM segments "
                "WHERE id > ? AND (? IS NULL OR stream = ?) ORDER BY id LIMIT ?",
                *(after, stream, stream, limit),
            )
        ]

    def text_between(self, stream: int, start_s: float, end_s: float) -> str:
        """The words of a stream whose middle lies in a span."""
        words = (word for segment in self.segments_between(stream, start_s, end_s) for word in segment.words)
        return " ".join(word.word for word in words if start_s <= (word.start_s + word.end_s) / 2 < end_s)

    def segments_between(self, stream: int, start_s: float, end_s: float) -> list[Segment]:
        """Those of a stream that reach into a span, by time."""
        rows = self.rows(
            "SELECT id, stream, start_s, end_s, text, words FROM segments "
            "WHERE stream = ? AND start_s < ? AND end_s > ? ORDER BY start_s",
            *(stream, end_s, start_s),
        )
        return [_segment(row) for row in rows]

    def nearest(
        self, vector: Floats, k: int, model: ModelKey, *, level: int = 2, effort: float = 1.0
    ) -> list[Neighbour]:
        """The most similar vectors of a model and level, best first; of a large store, most of the k best.

        vector: (C,)
        effort: how much of the store is read, 1 for a share that falls as the store grows; infinite for all of it
        """
        placed = self._placed(vector, model, level)
        if placed is None:
            return []
        index, projection, point = placed
        with store_errors(self.path):
            found = index.nearest(point, _CANDIDATES * k, effort=effort, occurrences=False)
        rows = self.rows(f"SELECT id, count, vector FROM vectors WHERE id IN ({_LISTED})", json.dumps(found))
        vectors = [floats(row[2]) for row in rows]
        # In 8 bits a value, near ties may be in the wrong order.
        ranked = _ranked(projection, point, vectors)[:k]
        return [Neighbour(rows[i][0], rows[i][1], similarity, vectors[i]) for i, similarity in ranked]

    def heard_like(
        self, vector: Floats, k: int, model: ModelKey, *, level: int = 2, effort: float = 1.0
    ) -> list[Heard]:
        """As `nearest`, but spans: those of vectors, and those that were merged into them, by their own vectors."""
        placed = self._placed(vector, model, level)
        if placed is None:
            return []
        index, projection, point = placed
        with store_errors(self.path):
            found = index.nearest(point, _CANDIDATES * k, effort=effort, occurrences=True)
        rows = self.rows(
            f"SELECT stream, start_s, id, 1, vector FROM vectors WHERE id IN ({_LISTED}) UNION ALL "
            "SELECT v.stream, o.start_s, o.vector, o.scale, o.packed FROM occurrences o "
            f"JOIN vectors v ON v.id = o.vector WHERE -o.id IN ({_LISTED})",
            *(json.dumps(found), json.dumps(found)),
        )
        vectors = [values_of(row[3:], len(vector)) for row in rows]
        ranked = _ranked(projection, point, vectors)[:k]
        return [Heard(rows[i][0], rows[i][1], rows[i][2], similarity) for i, similarity in ranked]

    def num_read(self, vector: Floats, model: ModelKey, *, level: int = 2) -> int:
        """Vectors that `nearest` reads."""
        placed = self._placed(vector, model, level)
        return placed[0].num_read(placed[2]) if placed else 0

    def contents(self, ids: Sequence[int]) -> dict[int, NDArray[np.float16]]:
        """Keys and values of those vectors that were stored with them."""
        listed = json.dumps(list(ids))
        rows = self.rows(f"SELECT vector, shape, content FROM contents WHERE vector IN ({_LISTED})", listed)
        return {row[0]: np.frombuffer(row[2], np.float16).reshape(json.loads(row[1])) for row in rows}

    def _placed(self, vector: Floats, model: ModelKey, level: int) -> tuple[CellIndex, Projection, Floats] | None:
        """The cells to search, and the query as a point; None where there is nothing of the model."""
        found = self.rows("SELECT id, width, fitted FROM models WHERE fingerprint = ?", model.fingerprint)
        if not found:
            return None
        ((key, width, fitted),) = found
        if np.shape(vector) != (width,) or not np.isfinite(vector).all():
            raise StoreError(f"got a query {_described(vector)}, wanted {width} finite values: mend it")
        projection = self._projection(key, fitted)
        return self._index(key, level), projection, projection.points(np.asarray(vector)[None])[0]

    def stats(self) -> StoreStats:
        counts = self.rows(
            "SELECT (SELECT count(*) FROM streams), (SELECT count(*) FROM segments), (SELECT count(*) FROM vectors), "
            "(SELECT count(*) FROM vectors WHERE pinned), (SELECT count(*) FROM occurrences), "
            "(SELECT count(*) FROM models), (SELECT count(*) FROM cells), "
            f"(SELECT min(t) FROM ({TIMES})), (SELECT max(t) FROM ({TIMES}))"
        )[0]
        return StoreStats(*(*counts, self.size_bytes()))

    # How vectors are compared

    def _checked(self, stream: int, summary: Summary) -> tuple[Floats, Floats, CellIndex]:
        """Vector, point and cells of a summary that is to be stored."""
        model, width, fitted = self._model_of(stream)
        vector = np.ascontiguousarray(summary.vector, np.float32)
        if vector.shape != (width,) or not np.isfinite(vector).all():
            raise StoreError(f"got a vector {_described(vector)}, wanted {width} finite values: it is not stored")
        point = self._projection(model, fitted).points(vector[None])[0]
        return vector, point, self._index(model, summary.level)

    def _model_of(self, stream: int) -> tuple[int, int, int]:
        found = self.rows(
            "SELECT m.id, m.width, m.fitted FROM streams s JOIN models m ON m.id = s.model WHERE s.id = ?", stream
        )
        if not found:
            raise StoreError(f"got stream {stream}, the store has none of that id: begin one")
        ((model, width, fitted),) = found
        return model, width, fitted

    def _index(self, model: int, level: int) -> CellIndex:
        return self._indexes.setdefault((model, level), CellIndex(self._connection, model, level))

    def _projection(self, model: int, fitted: int) -> Projection:
        """fitted: as the database has it, which another process may have changed"""
        known = self._projections.get(model)
        if known is None or known[0] != fitted:
            ((width, mean, basis),) = self.rows("SELECT width, mean, basis FROM models WHERE id = ?", model)
            projection = Projection.plain(width)
            if mean is not None:
                projection = Projection(floats(mean), floats(basis).reshape(width, -1))
            known = self._projections[model] = (fitted, projection)
        return known[1]

    def _fit_when_due(self, stream: int) -> None:
        model, width, fitted = self._model_of(stream)
        due = next((size for size in FIT_AT if size > fitted), None)
        if due is None:
            return
        ((stored,),) = self.rows("SELECT sum(size) FROM cells WHERE model = ? AND level = 2", model)
        if (stored or 0) < due:
            return
        # Level by level and page by page: a board that had enough memory at the start has enough then.
        levels = self.rows("SELECT DISTINCT level FROM cells WHERE model = ? ORDER BY 1", model)
        projection = Projection.fitted(page for _, page in vector_pages(self, model, 2, width))
        self.run(
            "UPDATE models SET mean = ?, basis = ?, fitted = ? WHERE id = ?",
            *(projection.mean.tobytes(), projection.basis.tobytes(), due, model),
        )
        for (level,) in levels:
            pages = vector_pages(self, model, level, width)
            with store_errors(self.path):
                self._index(model, level).build((entries, projection.points(page)) for entries, page in pages)

    def _vectors(self, condition: str, *values: object) -> list[StoredVector]:
        sql = f"SELECT {_VECTOR_COLUMNS} FROM vectors v JOIN streams s ON s.id = v.stream WHERE {condition}"
        return [self._vector(row) for row in self.rows(sql, *values)]

    def _vector(self, row: tuple[Any, ...]) -> StoredVector:
        key, stream, name, level, number, start_s, end_s, count, last_seen, pinned, values = row
        span = Span(float(start_s), float(end_s), self.text_between(stream, start_s, end_s))
        return StoredVector(key, stream, name, level, number, span, count, last_seen, bool(pinned), floats(values))


def _ranked(projection: Projection, point: Floats, vectors: list[Floats]) -> list[tuple[int, float]]:
    """Positions and cosines, the most similar first."""
    if not vectors:
        return []
    similarity = projection.points(np.stack(vectors)) @ point
    return [(i, float(similarity[i])) for i in np.argsort(-similarity, kind="stable").tolist()]


def _described(vector: Floats) -> str:
    """What is wrong with a vector that is refused."""
    values = np.asarray(vector)
    return f"of shape {values.shape}" if np.isfinite(values).all() else "with a NaN or infinite value"


def _segment(row: tuple[Any, ...]) -> Segment:
    key, stream, start_s, end_s, text, words = row
    spoken = tuple(SpokenWord(*word) for word in json.loads(words))
    return Segment(key, stream, float(start_s), float(end_s), text, spoken)
