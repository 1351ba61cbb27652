"""Batches made ahead, in threads, while the step before them runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_PER_THREAD = 2  # that wait or are made


def made_ahead(makings: Iterator[Callable[[], T]], threads: int) -> Iterator[T]:
    """What each of `makings` returns, in their order, up to 2 a thread ahead; with no thread, when it is wanted.

    raises: what a making raises, when its turn comes
    """
    if not threads:
        for make in makings:
            yield make()
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for make in makings:
                waiting.append(pool.submit(make))
                if len(waiting) > _PER_THREAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
