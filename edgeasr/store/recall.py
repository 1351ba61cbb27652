"""Sparse reads of a store by the encoder's memory, as in Rae et al. 2016 (arXiv 1610.09027)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeasr.errors import StoreError
from edgeasr.memory import Floats, Recall, Recalled
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import ModelKey
from edgeasr.store.schema import stored_values

RETRY_S = 30.0


class StoreRecall:
    """The vectors of a store that are most like a summary, for `edgeasr.memory.Recall`; used in one thread.

    A store that cannot be read is one warning; nothing is recalled until it can be read again.

    warn: told of the first fault
    """

    def __init__(self, path: Path, model: ModelKey, warn: Callable[[str], None]) -> None:
        self._path, self._model, self._warn = path, model, warn
        self._store: MemoryStore | None = None
        self._again_s, self._warned = 0.0, False

    def as_recall(self, slots: int) -> Recall:
        """For `Recognizer(recall=...)`."""
        return Recall(self, slots)

    def __call__(self, vector: Floats, k: int) -> Sequence[Recalled]:
        """Up to k vectors with their content, the most similar first."""
        if time.monotonic() < self._again_s or not self._path.exists():
            return []
        try:
            if self._store is None:
                self._store = MemoryStore.open(self._path)
            with stored_values(self._path):
                near = self._store.nearest(vector, k, self._model)
                content = self._store.contents([one.id for one in near])
        except StoreError as error:
            self._failed(error)
            return []
        return [Recalled(one.count, content[one.id]) for one in near if one.id in content]

    def close(self) -> None:
        """Let go of the file."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _failed(self, error: StoreError) -> None:
        if not self._warned:
            self._warn(f"warning: nothing is recalled for now: {error}")
        self._warned, self._again_s = True, time.monotonic() + RETRY_S
        self.close()
