"""Ctrl-C and SIGTERM as a request to stop, for commands that have something to finish first."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Self


class StopSignals:
    """A context manager inside which the first signal is a request, and a second one does what it always does.

    on_request: called once, in the signal's handler
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        self.number: int | None = None  # of the signal that came
        self._on_request = on_request

    @property
    def requested(self) -> bool:
        return self.number is not None

    def __enter__(self) -> Self:
        self._previous = {n: signal.signal(n, self._request) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.number = number
        self.__exit__()
        self._on_request()
