"""Where this user's programs keep what they can make again."""

from __future__ import annotations

import os
from pathlib import Path

# Not the folder of temporary files: others could put something there for us to load.
_NOWHERE = Path("/dev/null/edgeasr")


def cache_folder() -> Path:
    """edgeasr's in the user's cache folder (XDG base directories); for a user without a home one that cannot be."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if Path(given).is_absolute():
        return Path(given, "edgeasr")
    try:
        return Path.home() / ".cache" / "edgeasr"
    except RuntimeError:
        return _NOWHERE
