"""Files of the kernel, each of which may be missing or forbidden."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """What the file says, or an empty text."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def read_number(path: Path) -> float | None:
    """The number that the file says, or None."""
    try:
        return float(read_text(path))
    except ValueError:
        return None
