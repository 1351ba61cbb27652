"""Memory that was freed, given back to the system."""

import ctypes


def return_free_memory() -> None:
    """Fits and deletions take and free memory by the megabyte, which glibc would keep; other C libraries have no say."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
