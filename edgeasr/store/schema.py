"""The file: how it is opened, its tables, and how files of older versions are brought up to date.

WAL, so that a reader and the writer never wait for each other and a kill at any instant leaves whole transactions.
synchronous=FULL, so that a pulled plug, the usual end of a board's day, does too: with one transaction in some
seconds, in a thread of its own, the one fsync of each costs nothing that anyone waits for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import sqlite_vec

from edgeasr.errors import StoreBusyError, StoreError

APPLICATION_ID = 0x65617372  # "easr"
BUSY_TIMEOUT_MS = 6_000
_OWNER_ONLY = 0o600
_CHECKPOINT_PAGES = 256  # 1 MB, so that the -wal file stays small
_CACHE_KB = 512  # what a connection grows by while it is used; the system caches the file too

_VERSION_1 = """
CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    width INTEGER NOT NULL,
    mean BLOB, basis BLOB, fitted INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    model INTEGER NOT NULL REFERENCES models,
    began REAL NOT NULL
);
CREATE TABLE cells (
    id INTEGER PRIMARY KEY,
    model INTEGER NOT NULL REFERENCES models,
    level INTEGER NOT NULL,
    size INTEGER NOT NULL,
    centroid BLOB NOT NULL
);
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL REFERENCES streams,
    level INTEGER NOT NULL,
    number INTEGER NOT NULL,
    start_s REAL NOT NULL,
    end_s REAL NOT NULL,
    count INTEGER NOT NULL DEFAULT 1,
    last_seen REAL NOT NULL,
    pinned INTEGER NOT NULL,
    speech REAL NOT NULL,
    cell INTEGER NOT NULL REFERENCES cells,
    vector BLOB NOT NULL
);
CREATE TABLE contents (
    vector INTEGER PRIMARY KEY REFERENCES vectors ON DELETE CASCADE,
    shape TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX vectors_by_number ON vectors (stream, level, number);
CREATE INDEX vectors_by_last_seen ON vectors (pinned, last_seen);
CREATE INDEX pinned_vectors ON vectors (stream, start_s) WHERE pinned;
CREATE INDEX vectors_by_cell ON vectors (cell);
CREATE TABLE occurrences (
    id INTEGER PRIMARY KEY,
    vector INTEGER NOT NULL REFERENCES vectors ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start_s REAL NOT NULL,
    end_s REAL NOT NULL,
    cell INTEGER NOT NULL REFERENCES cells,
    scale REAL NOT NULL, packed BLOB NOT NULL
);
CREATE INDEX occurrences_by_vector ON occurrences (vector, start_s);
CREATE INDEX occurrences_by_cell ON occurrences (cell);
CREATE TABLE cell_points (
    cell INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    point BLOB NOT NULL,
    PRIMARY KEY (cell, entry)
) WITHOUT ROWID;
CREATE TABLE segments (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL REFERENCES streams,
    start_s REAL NOT NULL,
    end_s REAL NOT NULL,
    stored REAL NOT NULL,
    text TEXT NOT NULL,
    words TEXT NOT NULL
);
CREATE INDEX segments_by_time ON segments (stream, start_s);
CREATE INDEX segments_by_age ON segments (stored);
CREATE VIRTUAL TABLE segment_texts USING fts5 (
    text, content='segments', content_rowid='id', tokenize='porter unicode61'
);
INSERT INTO segment_texts (segment_texts, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER segment_stored AFTER INSERT ON segments BEGIN
    INSERT INTO segment_texts (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER segment_forgotten AFTER DELETE ON segments BEGIN
    INSERT INTO segment_texts (segment_texts, rowid, text) VALUES ('delete', old.id, old.text);
END;
CREATE TRIGGER vector_forgotten AFTER DELETE ON vectors BEGIN
    DELETE FROM cell_points WHERE cell = old.cell AND entry = old.id;
    UPDATE cells SET size = size - 1 WHERE id = old.cell;
END;
CREATE TRIGGER occurrence_forgotten AFTER DELETE ON occurrences BEGIN
    DELETE FROM cell_points WHERE cell = old.cell AND entry = -old.id;
    UPDATE cells SET size = size - 1 WHERE id = old.cell;
END;
"""

# MIGRATIONS[n] brings a file of version n to version n + 1.
MIGRATIONS = (_VERSION_1,)
SCHEMA_VERSION = len(MIGRATIONS)


def connect(path: Path, *, create: bool = False, reading: bool = False) -> apsw.Connection:
    """Open a store that is what it should be, of the present version.

    create:  make it, where there is none, in a folder that must be there
    reading: only to read, which goes where nothing can be written too, as long as no -wal file waits there
    errors: StoreError, in one line that names the path; StoreBusyError where another process holds it
    """
    with store_errors(path):
        if reading and path.is_file() and not _can_be_written(path):
            return _connect_unchanging(path)
        _prepare_file(path, create=create)
        connection = apsw.Connection(os.fspath(path), apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            _version(connection, path)  # before anything is written to what may be no store
            _configure(connection)
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _can_be_written(path: Path) -> bool:
    """Reading alone takes the -shm file, beside the store."""
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _connect_unchanging(path: Path) -> apsw.Connection:
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists() and wal.stat().st_size:
        raise StoreError(
            f"store {path} cannot be read where nothing can be written, since {wal.name} waits to be put "
            "into it: copy both to another place"
        )
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(f"{path.absolute().as_uri()}?immutable=1", flags)
    try:
        version = _version(connection, path)
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"store {path} has schema version {version} and cannot be brought to {SCHEMA_VERSION} "
                "where nothing can be written: copy it to another place"
            )
        _load_vectors(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """What SQLite, its extension and the file system say of a store, as errors of ours."""
    try:
        yield
    except apsw.BusyError as error:
        raise StoreBusyError(f"store {path} is locked by another process ({error}): wait for it") from error
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise StoreError(
            f"store {path} is damaged or no store ({error}): move it away, a new one is then made"
        ) from error
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from error
    except apsw.FullError as error:
        raise StoreError(f"store {path} cannot grow: {error}; make room on its disk") from error
    except apsw.IOError as error:
        raise StoreError(f"store {path} cannot be read or written ({error}): its disk may be full, or gone") from error
    except apsw.ReadOnlyError as error:
        raise StoreError(f"store {path} is read-only: {error}; make it writable") from error
    except apsw.Error as error:
        raise StoreError(f"store {path} cannot be used: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"store {path} cannot be used ({reason}): it must be a file to read and to write") from error


@contextmanager
def stored_values(path: Path) -> Iterator[None]:
    """What rows cannot hold unless something else wrote over them, as an error of ours."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, LookupError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(f"store {path} is damaged ({error}): move it away, a new one is then made")


def _prepare_file(path: Path, *, create: bool) -> None:
    """The file, readable by its owner alone; SQLite gives -wal and -shm the mode that it finds here."""
    if not path.exists():
        if not create:
            raise StoreError(f"there is no store {path}: fill one with `edgeasr listen --remember`, or give --store")
        if not path.parent.is_dir():
            # Made here, the folder of an unplugged disk would fill the disk below.
            raise StoreError(f"store {path} cannot be made, its folder is missing: make the folder or plug in its disk")
    descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_CLOEXEC, _OWNER_ONLY)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, _OWNER_ONLY)
    finally:
        os.close(descriptor)


def _load_vectors(connection: apsw.Connection) -> None:
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)


def _configure(connection: apsw.Connection) -> None:
    _load_vectors(connection)
    # These two write; a file that has them is only read, by whoever opens it.
    if not connection.pragma("page_count"):
        connection.pragma("auto_vacuum", 2)
    if connection.pragma("journal_mode") != "wal":
        connection.pragma("journal_mode", "wal")
    for pragma in (
        "synchronous = FULL",
        f"cache_size = -{_CACHE_KB}",
        "secure_delete = ON",
        "foreign_keys = ON",
        "recursive_triggers = ON",
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
        f"journal_size_limit = {_CHECKPOINT_PAGES * 4096}",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _migrate(connection: apsw.Connection, path: Path) -> None:
    if _version(connection, path) == SCHEMA_VERSION:
        return
    # Another process may have been faster: the version is read again under the lock.
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[_version(connection, path) :]:
            connection.execute(script)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls some failures back, a full disk among them
            connection.execute("ROLLBACK")
        raise


def _version(connection: apsw.Connection, path: Path) -> int:
    """errors: StoreError for a database of something else, or of a version to come"""
    version = int(connection.pragma("user_version"))
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if connection.pragma("application_id") != APPLICATION_ID and (version or tables):
        raise StoreError(f"{path} is a database of another program: give the path of a store, or of a new file")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"store {path} has schema version {version}, this edgeasr knows versions up to {SCHEMA_VERSION}: "
            "update edgeasr, or give another store"
        )
    return version
