"""`--remember` of the commands that hear something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import typer

from edgeasr.cli.extras import needs_extra
from edgeasr.cli.terminal import print_note

if TYPE_CHECKING:
    from edgeasr.memory import Admission, Recall
    from edgeasr.model import AcousticModel
    from edgeasr.store.writer import StoreWriter
    from edgeasr.transcript import Event

_OWNER_ONLY = 0o700


class Remembering(TypedDict):
    """Keywords of a Recognizer."""

    on_admission: Callable[[Admission], None] | None
    recall: Recall | None


@contextmanager
def remembering(
    model: AcousticModel, path: Path | None, *, wanted: bool, max_mb: int, max_days: float | None, recall: int = 0
) -> Iterator[StoreWriter | None]:
    """What writes to the store; None where it is not wanted.

    recall: how many vectors are recalled from it after every summary
    path: None for the user's store, whose folder is made; another's must be there, it may be on a disk not plugged in
    """
    if recall and not wanted:
        raise typer.BadParameter("--recall is for --remember")
    if not wanted:
        yield None
        return
    from edgeasr.store.paths import default_path

    with needs_extra("memory"):
        from edgeasr.store.retention import Limits
        from edgeasr.store.sound_search import key_of
        from edgeasr.store.writer import StoreWriter
    if path is None:
        path = default_path()
        # The writer says what is wrong with it.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=_OWNER_ONLY)
    limits = Limits(max_mb << 20, max_days)
    with StoreWriter(path, key_of(model), print_note, limits=limits, recall_slots=recall) as writer:
        yield writer


def hooks(memory: StoreWriter | None) -> Remembering:
    """What a recogniser is given to store summaries, and to recall them."""
    if memory is None:
        return {"on_admission": None, "recall": None}
    return {"on_admission": memory.admitted, "recall": memory.recall}


def stored(memory: StoreWriter | None, name: str, events: Iterator[Event]) -> Iterator[Event]:
    """The same events, stored as those of a new stream where there is a store."""
    if memory is None:
        return events
    memory.begin_stream(name)
    return memory.heard(events)
