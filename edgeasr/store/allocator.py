"""Memory that was freed, given back to the system."""

import ctypes


def return_free_memory() -> None:
    """Fits and deletions take and free megabytes, which glibc would keep; other C libraries have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
