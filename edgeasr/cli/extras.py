"""Commands that need optional packages say which ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeasr.errors import ExtraMissingError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Imports inside need the packages of an extra. Errors: ExtraMissingError that names it"""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.split(".")[0] in ("", "edgeasr"):
            raise
        raise ExtraMissingError(
            f"got no package {missing}, wanted what edgeasr[{extra}] brings: pip install edgeasr[{extra}]"
        ) from error
