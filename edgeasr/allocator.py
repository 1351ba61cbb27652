"""What allocators keep of memory that was freed: Python's, and the C library's, of which only glibc's is told."""

from __future__ import annotations

import ctypes
import gc

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 128 * 1024


def keep_little() -> None:
    """For programs that run for months: what is large goes back to the system as soon as it is freed.

    glibc raises its limits with every large block that is freed, up to 32 MB, and gives each thread a heap of its
    own. Here the limits stay where they begin, and there is one heap. To be called before threads are started.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_M_MMAP_THRESHOLD, _LARGE_BYTES), (_M_TRIM_THRESHOLD, _LARGE_BYTES), (_M_ARENA_MAX, 1)):
            mallopt(option, value)


def settle() -> None:
    """What is there now stays: it is not looked through for garbage again, so that looking takes microseconds."""
    gc.collect()
    gc.freeze()


def return_free_memory() -> None:
    """Fits and deletions take and free megabytes, which glibc would keep; other C libraries have no such call.

    CPython keeps up to 2,000 freed tuples of every length, and gives them back when it looks for garbage everywhere.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
