"""Messages that wait for one page: of those that tell how things are now, only the latest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]

_PASSING = ("partial", "level", "status")  # a later one of its type says all that it said


class Mailbox:
    """Put from the event loop, taken there by one sender.

    overflowed: whether more than `room` messages that must not be left out have waited; then some were
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: list[Message] = []
        self._passing: dict[str, Message] = {}
        self._something = asyncio.Event()
        self.overflowed = False

    def put(self, message: Message) -> None:
        """Add a message, an object of JSON with a type."""
        kind = message["type"]
        if kind in _PASSING:
            self._passing[kind] = message
        elif len(self._kept) < self._room:
            if kind in ("final", "rejected"):
                self._passing.pop("partial", None)
            self._kept.append(message)
        else:
            self.overflowed = True
        self._something.set()

    async def take(self) -> list[Message]:
        """What waits, at least one message: those that must not be left out in order, then the others."""
        await self._something.wait()
        self._something.clear()
        taken = [*self._kept, *self._passing.values()]
        self._kept, self._passing = [], {}
        return taken

    @property
    def is_full(self) -> bool:
        return len(self._kept) >= self._room
