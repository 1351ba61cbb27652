"""What a running recogniser hears, written down in the background.

Recognition never waits for the disk: it hands what it has to a queue of bounded length. A thread commits at every final
and every few seconds. Whatever goes wrong with the store is one warning; what waits is kept, within a bound, and tried
again, so that a store that was locked or whose disk was full goes on where it was.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from edgeasr.allocator import return_free_memory
from edgeasr.errors import StoreError
from edgeasr.memory import Admission, Decision, Recall
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.recall import StoreRecall
from edgeasr.store.records import ModelKey, Span, SpokenWord, Summary
from edgeasr.store.retention import Limits, enforce
from edgeasr.store.schema import stored_values
from edgeasr.transcript import Event, Final

COMMIT_S = 4.0
RETRY_S = 5.0
MAX_WAITING = 4_096  # 3 MB of vectors
CLOSE_S = 10.0
_COMMITS_A_CHECK = 32  # of the limits


class _NewStream(NamedTuple):
    name: str


_Item = _NewStream | Admission | Final


class StoreWriter:
    """A context manager that writes to one store; leaving it waits, for a while, until all is written.

    model: whose vectors they are, see `key_of`
    warn:  told, from another thread, of a fault and of its end, once each
    recall_slots: above 0, vectors are stored with what it takes to recall them, and `recall` reads them
    """

    def __init__(
        self,
        path: str | Path,
        model: ModelKey,
        warn: Callable[[str], None],
        *,
        limits: Limits | None = None,
        recall_slots: int = 0,
    ) -> None:
        self._path, self._model, self._warn = Path(path), model, warn
        self._limits, self._recall_slots = limits or Limits(), recall_slots
        self._recall = StoreRecall(self._path, model, warn) if recall_slots else None
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._lost, self._urgent, self._closing = 0, False, False
        self._store: MemoryStore | None = None
        self._name, self._stream = "", 0
        self._faulty, self._commits = False, 0
        self._thread = threading.Thread(target=self._run, name="memory-store", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        if self._recall is not None:
            self._recall.close()
        with self._changed:
            lost = self._lost + sum(not isinstance(item, _NewStream) for item in self._waiting)
        if lost:
            self._warn(f"the store {self._path} did not take {lost} vectors and segments: they are lost")

    @property
    def recall(self) -> Recall | None:
        """For `Recognizer(recall=...)`."""
        return self._recall.as_recall(self._recall_slots) if self._recall else None

    def begin_stream(self, name: str) -> None:
        """What comes from here on belongs to a new stream."""
        self._put(_NewStream(name))

    def admitted(self, admission: Admission) -> None:
        """For `Recognizer(on_admission=...)`."""
        if admission.decision is not Decision.SKIP:
            self._put(admission)

    def heard(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events as they come; finals are stored."""
        for event in events:
            if isinstance(event, Final):
                self._put(event)
            yield event

    def _put(self, item: _Item) -> None:
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                self._lost += 1
                return
            self._waiting.append(item)
            if isinstance(item, Final):
                self._urgent = True
                self._changed.notify()

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._wait()
            with self._changed:
                batch = list(self._waiting)
            if not batch:
                continue
            try:
                with stored_values(self._path):
                    self._write(batch)
            except StoreError as error:
                self._failed(error)
            else:
                self._succeeded(len(batch))
                if self._commits % _COMMITS_A_CHECK == 0:
                    self._keep_limits()
        if self._store is not None and self._keep_limits():
            self._store.close()

    def _wait(self) -> bool:
        """Until it is time to commit, or to try again; whether it is for the last time."""
        with self._changed:
            if self._faulty:
                self._changed.wait_for(lambda: self._closing, RETRY_S)
            else:
                self._changed.wait_for(lambda: self._urgent or self._closing, COMMIT_S)
            self._urgent = False
            return self._closing

    def _failed(self, error: StoreError) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
        if not self._faulty:
            self._warn(f"warning: nothing is remembered for now: {error}")
        self._faulty = True

    def _succeeded(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                self._waiting.popleft()
            lost, self._lost = self._lost, 0
        if self._faulty:
            self._warn(f"the store {self._path} works again; {lost or 'no'} vectors and segments were lost")
        self._faulty = False
        self._commits += 1

    def _keep_limits(self) -> bool:
        """False where the store cannot be used any more."""
        assert self._store is not None
        try:
            with stored_values(self._path):
                enforce(self._store, self._limits, self._stream)
        except StoreError as error:
            self._failed(error)
            return False
        return_free_memory()
        return True

    def _opened(self) -> MemoryStore:
        """Whole: in a damaged file, what is written next may be written over what is there."""
        store = MemoryStore.open(self._path, create=True)
        try:
            store.check_pages()
        except BaseException:
            store.close()
            raise
        return store

    def _write(self, batch: list[_Item]) -> None:
        if self._store is None:
            self._store = self._opened()
        name, stream = self._name, self._stream
        with self._store.transaction():
            for item in batch:
                if isinstance(item, _NewStream):
                    name, stream = item.name, 0
                    continue
                # A stream may have been forgotten while it is heard.
                if not stream or not self._store.has_stream(stream):
                    stream = self._store.begin_stream(name, self._model)
                _write_item(self._store, stream, item, with_content=self._recall is not None)
        self._name, self._stream = name, stream


def _write_item(store: MemoryStore, stream: int, item: Admission | Final, *, with_content: bool) -> None:
    if isinstance(item, Final):
        words = tuple(SpokenWord(word.word, word.start, word.end) for word in item.words)
        store.add_segment(stream, Span(item.start, item.end, item.text), words)
        return
    context = item.context
    if not np.isfinite(item.vector).all():
        return
    span, pinned = Span(context.start_s, context.end_s), item.decision is Decision.PIN
    content = item.content if with_content else None
    summary = Summary(context.level, context.number, span, item.vector, context.speech, pinned, content)
    if item.decision is Decision.MERGE and item.into is not None:
        store.merge(stream, item.into, summary)
    else:
        store.add_vector(stream, summary)
