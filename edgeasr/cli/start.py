"""Where the program `edgeasr` starts: from here on Ctrl-C ends it quietly, also while it is still being imported."""

from __future__ import annotations

import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        from edgeasr.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
