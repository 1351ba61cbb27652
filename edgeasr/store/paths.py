"""Where the store of a user lies."""

import os
from pathlib import Path


def default_path() -> Path:
    """The store in the user's data folder (XDG Base Directory Specification)."""
    data = os.environ.get("XDG_DATA_HOME", "")
    # The specification asks to ignore paths that are not absolute.
    base = Path(data) if data.startswith("/") else Path.home() / ".local" / "share"
    return base / "edgeasr" / "memory.db"
