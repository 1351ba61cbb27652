import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.decoder import Word
from edgeasr.errors import StoreError
from edgeasr.memory import Admission, Decision, SummaryContext
from edgeasr.store import schema, store_file, writer
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import ModelKey, Span
from edgeasr.store.retention import Limits, forget_all
from edgeasr.store.writer import StoreWriter
from edgeasr.transcript import Final, Partial

MODEL = ModelKey("a", 8)
PATIENCE_S = 60  # for what another thread does: far more than it takes


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def warnings():
    return []


def mount(*options):
    return subprocess.run(["mount", *options], check=False, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=1m", "none", folder):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No test waits long for what is tried again."""
    monkeypatch.setattr(writer, "RETRY_S", 0.02)
    monkeypatch.setattr(writer, "COMMIT_S", 0.02)
    monkeypatch.setattr(schema, "BUSY_TIMEOUT_MS", 10)


def admission(number, decision=Decision.STORE, into=None, vector=None):
    vector = np.random.default_rng(number).standard_normal(8).astype(np.float32) if vector is None else vector
    return Admission(SummaryContext(2, number, 4.0 * number, 4.0 * number + 4), vector, decision, "similarity", into)


def final(segment, text):
    words = tuple(Word(word, segment + i / 10, segment + i / 10 + 0.1, 0.9) for i, word in enumerate(text.split()))
    return Final(segment, float(segment), segment + 1.0, text, len(text), words)


def until(condition):
    end_s = time.monotonic() + PATIENCE_S
    while not _holds(condition):
        assert time.monotonic() < end_s
        time.sleep(0.005)


def _holds(condition):
    try:
        return condition()
    except StoreError:
        return False  # the other thread is making the store just now


def listed(path):
    with MemoryStore.open(path) as store:
        store.check()
        return [vector.number for vector in store.vectors()], [segment.text for segment in store.segments()]


class TestWriter:
    def test_stores_what_was_admitted_and_said(self, path, warnings):
        partial = Partial(0, 0.0, 0.5, "so", 0, ())
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            remembering.begin_stream("talk.wav")
            remembering.admitted(admission(0))
            assert list(remembering.heard(iter([partial, final(0, "so it goes")]))) == [partial, final(0, "so it goes")]
            remembering.admitted(admission(1, Decision.SKIP))
            remembering.admitted(admission(2, Decision.PIN))
            remembering.admitted(admission(3, Decision.MERGE, into=0))
        with MemoryStore.open(path) as store:
            first, second = store.vectors()
            assert (first.number, first.count, first.pinned, first.stream_name) == (0, 2, False, "talk.wav")
            assert (second.number, second.count, second.pinned) == (2, 1, True)
            assert store.occurrences(first.id) == [Span(12, 16)]
            assert [(one.text, one.start_s, one.end_s) for one in store.segments()] == [("so it goes", 0, 1)]
        assert warnings == []

    def test_commits_while_it_goes_on(self, path, warnings):
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            remembering.begin_stream("talk.wav")
            list(remembering.heard(iter([final(0, "so it goes")])))
            until(lambda: listed(path)[1] == ["so it goes"])

    def test_keeps_streams_apart(self, path, warnings):
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            for name in ("a.wav", "b.wav"):
                remembering.begin_stream(name)
                remembering.admitted(admission(0))
        with MemoryStore.open(path) as store:
            assert [(stream.name, stream.vectors) for stream in store.streams()] == [("a.wav", 1), ("b.wav", 1)]

    def test_leaves_vectors_that_are_not_finite_out(self, path, warnings):
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            remembering.begin_stream("talk.wav")
            remembering.admitted(admission(0, vector=np.full(8, np.nan, np.float32)))
            remembering.admitted(admission(1))
        assert listed(path) == ([1], [])

    def test_begins_a_stream_anew_that_was_forgotten(self, path, warnings, monkeypatch):
        monkeypatch.setattr(schema, "BUSY_TIMEOUT_MS", 20_000)
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            remembering.begin_stream("talk.wav")
            remembering.admitted(admission(0))
            until(lambda: listed(path)[0] == [0])
            with MemoryStore.open(path) as store:
                forget_all(store)
            remembering.admitted(admission(1))
        assert listed(path) == ([1], [])
        assert warnings == []

    def test_keeps_to_its_limits(self, path, warnings, monkeypatch):
        monkeypatch.setattr(writer, "_COMMITS_A_CHECK", 2)
        model = ModelKey("wide", 512)
        with StoreWriter(path, model, warnings.append, limits=Limits(max_bytes=1 << 20)) as remembering:
            remembering.begin_stream("talk.wav")
            for number in range(1200):
                remembering.admitted(
                    admission(number, vector=np.random.default_rng(number).standard_normal(512).astype(np.float32))
                )
                if number % 100 == 99:
                    until(lambda: not remembering._waiting)
        assert path.stat().st_size <= 1 << 20
        kept = listed(path)[0]
        assert kept
        with MemoryStore.open(path) as store:
            assert store.rows("SELECT max(number) FROM vectors") == [(1199,)]
            assert store.rows("SELECT count(*) = max(number) - min(number) + 1 FROM vectors") == [(1,)]


class TestFault:
    def hear(self, path, warnings, numbers=(0, 1)):
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            remembering.begin_stream("talk.wav")
            for number in numbers:
                remembering.admitted(admission(number))
            until(lambda: warnings)

    def test_of_a_missing_folder_is_one_warning(self, tmp_path, warnings):
        self.hear(tmp_path / "none" / "memory.db", warnings)
        assert warnings[0].startswith("warning: nothing is remembered for now: ")
        assert "its folder is missing" in warnings[0]
        assert warnings[1:] == [
            f"the store {tmp_path / 'none' / 'memory.db'} did not take 2 vectors and segments: they are lost"
        ]

    def test_of_a_newer_schema_keeps_the_store(self, path, warnings):
        MemoryStore.open(path, create=True).close()
        with MemoryStore.open(path) as store:
            store.run("PRAGMA user_version = 99")
        before = path.read_bytes()
        self.hear(path, warnings)
        assert "schema version 99" in warnings[0]
        assert path.read_bytes() == before

    def test_of_a_damaged_file_keeps_it(self, path, warnings):
        path.write_bytes(b"damaged" * 1000)
        self.hear(path, warnings)
        assert "damaged" in warnings[0]
        assert path.read_bytes() == b"damaged" * 1000

    def test_of_a_file_with_a_damaged_page_keeps_it(self, path, warnings):
        with MemoryStore.open(path, create=True) as store, store.transaction():
            stream = store.begin_stream("talk.wav", MODEL)
            for number in range(200):
                store.add_segment(stream, Span(number, number + 1, "so it goes"), ())
        content = bytearray(path.read_bytes())
        content[-3 * 4096 :] = b"\x7f" * (3 * 4096)
        path.write_bytes(content)
        self.hear(path, warnings)
        assert "is damaged" in warnings[0]
        assert path.read_bytes() == content

    def test_of_values_that_no_store_holds_is_one_warning(self, path, warnings):
        with MemoryStore.open(path, create=True) as store, store.transaction():
            store.begin_stream("talk.wav", MODEL)
            store.run("UPDATE models SET mean = x'0102', basis = x'03', fitted = 64")
        self.hear(path, warnings)
        assert "is damaged" in warnings[0]

    def test_of_a_read_only_disk_is_one_warning(self, small_disk, warnings):
        path = small_disk / "memory.db"
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            remembering.begin_stream("before.wav")
            remembering.admitted(admission(0))
        mount("-o", "remount,ro", small_disk)
        self.hear(path, warnings)
        mount("-o", "remount,rw", small_disk)
        assert "Read-only file system" in warnings[0]
        assert len(warnings) == 2
        assert listed(path) == ([0], [])

    def test_of_a_lock_passes_with_it_and_loses_nothing(self, path, warnings):
        with MemoryStore.open(path, create=True) as other, StoreWriter(path, MODEL, warnings.append) as remembering:
            with other.transaction():
                remembering.begin_stream("talk.wav")
                remembering.admitted(admission(0))
                until(lambda: warnings)
                remembering.admitted(admission(1))
                list(remembering.heard(iter([final(0, "so it goes")])))
            until(lambda: len(warnings) == 2)
        assert "locked by another process" in warnings[0]
        assert warnings[1:] == [f"the store {path} works again; no vectors and segments were lost"]
        assert listed(path) == ([0, 1], ["so it goes"])

    def test_of_a_full_disk_passes_with_it(self, path, warnings, monkeypatch):
        pages = [30]
        connect = schema.connect

        def limited(path, **how):
            connection = connect(path, **how)
            connection.pragma("max_page_count", pages[0])
            return connection

        monkeypatch.setattr(store_file, "connect", limited)
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            remembering.begin_stream("talk.wav")
            for number in range(600):
                remembering.admitted(admission(number))
            until(lambda: warnings)
            pages[0] = 100_000
            until(lambda: len(warnings) == 2)
        assert "cannot grow" in warnings[0]
        assert "make room" in warnings[0]
        assert "works again; no vectors" in warnings[1]
        assert listed(path)[0] == list(range(600))[:100]
        with MemoryStore.open(path) as store:
            assert store.stats().vectors == 600

    def test_never_holds_recognition_up_nor_fills_the_memory(self, path, warnings, monkeypatch):
        monkeypatch.setattr(writer, "MAX_WAITING", 10)
        with MemoryStore.open(path, create=True) as other, StoreWriter(path, MODEL, warnings.append) as remembering:
            with other.transaction():
                remembering.begin_stream("talk.wav")
                until(lambda: warnings)
                for number in range(100):
                    remembering.admitted(admission(number))
                assert len(remembering._waiting) == 10
            until(lambda: len(warnings) == 2)
        assert warnings[1] == f"the store {path} works again; 91 vectors and segments were lost"
        assert listed(path)[0] == list(range(9))

    def test_of_a_disk_that_is_really_full_keeps_what_is_stored(self, small_disk, warnings):
        path = small_disk / "memory.db"
        with StoreWriter(path, MODEL, warnings.append) as remembering:
            remembering.begin_stream("before.wav")
            remembering.admitted(admission(0))
        before, _ = listed(path)
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        self.hear(path, warnings, range(900))
        filler.unlink()
        assert re.search("make room|its disk may be full|No space left", warnings[0])
        assert listed(path)[0] == before == [0]
