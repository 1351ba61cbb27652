"""One open file: its transactions, its clock, its size and whether it is whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from edgeasr.errors import StoreError
from edgeasr.store.schema import connect, store_errors

# When what there is was last seen.
TIMES = "SELECT last_seen AS t FROM vectors UNION ALL SELECT stored FROM segments"


class StoreFile:
    """A context manager over one file.

    errors: every method raises StoreError for what the file, the disk or another process can cause
    """

    def __init__(self, path: Path, *, create: bool = False, reading: bool = False) -> None:
        self.path = path
        self._connection = connect(path, create=create, reading=reading)
        self._clock = 0.0

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False, reading: bool = False) -> Self:
        """Open a store.

        create:  make it where there is none, in a folder that must be there
        reading: only to read, also where nothing can be written
        errors:  StoreError, in one line that names the path
        """
        return cls(Path(path), create=create, reading=reading)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing. Errors: StoreError, after which the store is as it was before"""
        with store_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls some failures back, a full disk among them.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self.changed_otherwise()
                raise

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query finds. Errors: StoreError"""
        with store_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def run(self, sql: str, *values: object) -> int:
        """Change the store, in a transaction; the number of rows that were changed, those of triggers left out."""
        with store_errors(self.path):
            self._connection.execute(sql, values)
            return self._connection.changes()

    def changed_otherwise(self) -> None:
        """Called when the file was changed past what is known of it in memory."""

    def now(self) -> float:
        """Seconds since 1970, but never before what the store has seen: a board may start in the past."""
        if not self._clock:
            self._clock = self.rows(f"SELECT max(t) FROM ({TIMES})")[0][0] or 0.0
        self._clock = max(self._clock, time.time())
        return self._clock

    def size_bytes(self) -> int:
        """Of the file when all is in it; pages that are free again count."""
        with store_errors(self.path):
            return int(self._connection.pragma("page_count")) * int(self._connection.pragma("page_size"))

    def file_bytes(self) -> int:
        """Of the file and its -wal file, as they are."""
        files = [self.path, self.path.with_name(f"{self.path.name}-wal")]
        return sum(file.stat().st_size for file in files if file.exists())

    def check_pages(self) -> None:
        """As `check`, of the file's pages alone: a read of the whole file. Errors: StoreError"""
        found = [row[0] for row in self.rows("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise StoreError(f"store {self.path} is damaged ({'; '.join(found)}): move it away, a new one is then made")

    def check(self) -> None:
        """Errors: StoreError for a file in which something is damaged or does not agree"""
        found = [row[0] for row in self.rows("PRAGMA integrity_check(10)")]
        found += ["a reference leads nowhere" for _ in self.rows("PRAGMA foreign_key_check")]
        entries = "SELECT cell, id AS entry FROM vectors UNION ALL SELECT cell, -id FROM occurrences"
        ((stored,),) = self.rows(f"SELECT count(*) FROM ({entries})")
        ((indexed,),) = self.rows(f"SELECT count(*) FROM ({entries}) JOIN cell_points USING (cell, entry)")
        ((sizes,),) = self.rows("SELECT ifnull(sum(size), 0) FROM cells")
        if found != ["ok"] or not indexed == stored == sizes:
            raise StoreError(f"store {self.path} is damaged: {'; '.join(found)}, {indexed} of {stored} vectors indexed")
