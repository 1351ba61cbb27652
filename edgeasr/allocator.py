"""What stays in memory without need: what allocators keep of what was freed, and the code that a start alone ran.

The allocators are Python's, and the C library's, of which only glibc's is told.
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator
from pathlib import Path

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 128 * 1024

# Of Linux's mman.h, and of its proc(5).
_MADV_DONTNEED = 4
_MAPPING = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) r-.. [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [1-9].*\n"
    rb"(?:[A-Z].*\n)*?Anonymous: +0 kB\n(?:[A-Z].*\n)*?Swap: +0 kB$",
    re.MULTILINE,
)


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
    """What is there now stays: it is not looked through for garbage again, so that looking takes microseconds.

    What only the start used goes: heap that is free again, and pages of libraries and tables (a fifth of a listening
    program). Whatever of these is used after all comes back from the system's cache of files.
    """
    return_free_memory()
    gc.freeze()
    unmap_files()


def return_free_memory() -> None:
    """Fits and deletions take and free megabytes, which glibc would keep; other C libraries have no such call.

    CPython keeps up to 2,000 freed tuples of every length, and gives them back when it looks for garbage everywhere.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def unmap_files() -> None:
    """Take the pages of mapped files, code above all, out of this program's memory, where Linux can put them back.

    It does so page by page as they are used, from its cache of files: a few milliseconds in all.
    """
    try:
        mappings = Path("/proc/self/smaps").read_bytes()
    except OSError:
        return
    libc = ctypes.CDLL(None)
    for first, last in _unchanged(mappings):
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED)


def _unchanged(mappings: bytes) -> Iterator[tuple[int, int]]:
    """Where files are mapped that cannot be written to, and never were, as parts of a library are by its loader."""
    for match in _MAPPING.finditer(mappings):
        yield int(match[1], 16), int(match[2], 16)
