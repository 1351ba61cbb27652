"""Nearest vectors without reading all of them: an inverted file whose cells split as they fill.

A point belongs to the cell of the nearest centroid. A cell that outgrows its limit, some times the square root of the
number of points, is split in two by 2-means; so there is never a rebuild. A search reads the cells whose centroids are
nearest until it has read a budget that grows with that square root too. Cells are rows of ordinary tables, stored
together by their key in 8 bits a value, and go with the transaction that filled them; sqlite-vec computes the
distances. An entry is the id of a vector, or less than 0, that of an occurrence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from edgeasr.store.projection import packed, unpacked
from edgeasr.store.records import Floats

# Small cells are read more aptly, many cells take longer to choose from.
_MIN_CELL = 96
_CELL_GROWTH = 0.3
_MIN_READ = 8_192
_READ_GROWTH = 96
_ROUNDS = 6


class _Cells:
    """The cells of one model and level: a copy of what the database has, kept up to date with it.

    version: of the database when it was read; changed by other connections alone
    """

    def __init__(self, version: int, rows: list[tuple[Any, ...]]) -> None:
        self.version = version
        self.ids: list[int] = [row[0] for row in rows]
        self.at = {cell: i for i, cell in enumerate(self.ids)}
        self.sizes = np.array([row[1] for row in rows], np.int64)
        self.centroids: Floats = np.zeros((0, 0), np.float32)
        if rows:
            self.centroids = np.stack([np.frombuffer(row[2], np.float32) for row in rows])

    def add(self, cell: int, size: int, centroid: Floats) -> None:
        self.at[cell] = len(self.ids)
        self.ids.append(cell)
        self.sizes = np.append(self.sizes, size)
        known = self.centroids if self.ids[:-1] else np.zeros((0, len(centroid)), np.float32)
        self.centroids = np.vstack([known, centroid], dtype=np.float32)

    def probed(self, point: Floats, effort: float) -> list[int]:
        """The cells that a search reads, the most similar first."""
        if not self.ids:
            return []
        order = np.argsort(-(self.centroids @ point))
        budget = effort * max(_MIN_READ, _READ_GROWTH * math.sqrt(self.sizes.sum()))
        before = np.concatenate([[0], self.sizes[order].cumsum()[:-1]])
        return [self.ids[i] for i in order[before < budget]]


class CellIndex:
    """The cells of one model and level, in a database that other connections may change between transactions."""

    def __init__(self, connection: apsw.Connection, model: int, level: int) -> None:
        self._connection, self._model, self._level = connection, model, level
        self._cells: _Cells | None = None

    def cell_of(self, point: Floats) -> int:
        """The cell for a new point, made where there is none yet."""
        cells = self._read()
        if not cells.ids:
            return self._new_cell(point, 0)
        return cells.ids[int((cells.centroids @ point).argmax())]

    def put(self, entry: int, cell: int, point: Floats) -> None:
        """Put the point of an entry, whose row has it as its cell already, into its cell."""
        self._connection.execute("INSERT INTO cell_points VALUES (?, ?, ?)", (cell, entry, packed(point)))
        self._connection.execute("UPDATE cells SET size = size + 1 WHERE id = ?", (cell,))
        cells = self._read()
        cells.sizes[cells.at[cell]] += 1
        if cells.sizes[cells.at[cell]] > _cell_limit(int(cells.sizes.sum())):
            self._split(cell)

    def build(self, pages: Iterable[tuple[list[int], Floats]]) -> None:
        """Put all entries into new cells, in place of the old ones, page by page.

        pages: entries and their points (N, R)
        """
        old = self._connection.execute(
            "SELECT id FROM cells WHERE model = ? AND level = ?", (self._model, self._level)
        ).fetchall()
        self._connection.executemany("DELETE FROM cell_points WHERE cell = ?", old)
        self._cells = _Cells(self._version(), [])
        for entries, points in pages:
            for entry, point in zip(entries, points, strict=True):
                cell = self.cell_of(point)
                self._place(cell, [entry])
                self.put(entry, cell, point)
        self._connection.executemany("DELETE FROM cells WHERE id = ?", old)

    def num_read(self, point: Floats, effort: float = 1.0) -> int:
        """Points that a search reads."""
        cells = self._read()
        return sum(int(cells.sizes[cells.at[cell]]) for cell in cells.probed(point, effort))

    def nearest(self, point: Floats, k: int, *, effort: float, occurrences: bool) -> list[int]:
        """The k entries with the most similar points in the cells that are read, best first.

        effort:      how much is read, in budgets; infinite for all there is
        occurrences: whether these are wanted, beside vectors
        """
        probed = self._read().probed(point, effort)
        rows = self._connection.execute(
            "SELECT entry FROM cell_points WHERE cell IN (SELECT value FROM json_each(?)) AND (entry > 0 OR ?) "
            "ORDER BY vec_distance_cosine(vec_int8(point), vec_int8(?)) LIMIT ?",
            (json.dumps(probed), occurrences, packed(point), k),
        )
        return [entry for (entry,) in rows]

    def _read(self) -> _Cells:
        version = self._version()
        if self._cells is None or self._cells.version != version:
            rows: list[tuple[Any, ...]] = self._connection.execute(
                "SELECT id, size, centroid FROM cells WHERE model = ? AND level = ? ORDER BY id",
                (self._model, self._level),
            ).fetchall()
            self._cells = _Cells(version, rows)
        return self._cells

    def _version(self) -> int:
        return int(self._connection.pragma("data_version"))

    def _new_cell(self, centroid: Floats, size: int) -> int:
        self._connection.execute(
            "INSERT INTO cells (model, level, size, centroid) VALUES (?, ?, ?, ?)",
            (self._model, self._level, size, centroid.tobytes()),
        )
        cell = self._connection.last_insert_rowid()
        self._read().add(cell, size, centroid)
        return cell

    def _split(self, cell: int) -> None:
        sql = "SELECT entry, point FROM cell_points WHERE cell = ?"
        rows: list[tuple[Any, ...]] = self._connection.execute(sql, (cell,)).fetchall()
        points = unpacked([row[1] for row in rows])
        moves = halves(points)
        moved = [row for row, moves_on in zip(rows, moves, strict=True) if moves_on]
        kept = _centroid(points[~moves])
        self._connection.execute(
            "UPDATE cells SET size = ?, centroid = ? WHERE id = ?", (len(rows) - len(moved), kept.tobytes(), cell)
        )
        cells = self._read()
        cells.sizes[cells.at[cell]] = len(rows) - len(moved)
        cells.centroids[cells.at[cell]] = kept
        self._connection.executemany(
            "DELETE FROM cell_points WHERE cell = ? AND entry = ?", [(cell, entry) for entry, _ in moved]
        )
        self._move(moved, self._new_cell(_centroid(points[moves]), len(moved)))

    def _move(self, rows: list[tuple[int, bytes]], cell: int) -> None:
        """Entries and their packed points into a new cell of that size."""
        self._connection.executemany(
            "INSERT INTO cell_points VALUES (?, ?, ?)", [(cell, entry, point) for entry, point in rows]
        )
        self._place(cell, [entry for entry, _ in rows])

    def _place(self, cell: int, entries: Sequence[int]) -> None:
        """Say in the rows of entries in which cell they are."""
        for table, sign in (("vectors", 1), ("occurrences", -1)):
            ids = [(cell, sign * entry) for entry in entries if sign * entry > 0]
            self._connection.executemany(f"UPDATE {table} SET cell = ? WHERE id = ?", ids)


def halves(points: Floats) -> NDArray[np.bool_]:
    """Two clusters by spherical 2-means, begun at the direction of largest variance; neither is empty.

    points:  (N, R), N at least 2
    returns: (N,) which points belong to the second
    """
    centred = points - points.mean(axis=0)
    along = centred @ centred[np.square(centred).sum(axis=1).argmax()]
    for _ in range(_ROUNDS):  # of power iteration: about the direction is enough
        along = centred @ (along @ centred)
        along /= np.linalg.norm(along) or 1.0
    second = along > np.median(along)
    for _ in range(_ROUNDS):
        if second.all() or not second.any():
            break
        centroids = np.stack([_centroid(points[~second]), _centroid(points[second])])
        similarity = points @ centroids.T
        second = similarity[:, 1] > similarity[:, 0]
    if second.all() or not second.any():
        second = np.arange(len(points)) >= len(points) // 2
    return np.asarray(second)


def _cell_limit(num_points: int) -> int:
    return max(_MIN_CELL, int(_CELL_GROWTH * math.sqrt(num_points)))


def _centroid(points: Floats) -> Floats:
    mean = points.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length if length > 0 else mean, np.float32)
