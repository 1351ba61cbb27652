"""Writes what follows from the Python sources: C headers and tables, and the test vectors.

python -m edgeasr.firmware_bridge.generate           # writes
python -m edgeasr.firmware_bridge.generate --check   # fails where a file is stale
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeasr.config import FeatureConfig
from edgeasr.firmware_bridge.c_header import messages_header, status_header
from edgeasr.firmware_bridge.tables import tables_header, tables_source
from edgeasr.firmware_bridge.vector_cases import vector_files

FOLDER = Path(__file__).resolve().parent


def generated_files() -> dict[str, str]:
    """The text of each generated file, by its path in the folder of this package."""
    config = FeatureConfig()
    return {
        "c/include/edgeasr_status.h": status_header(),
        "c/include/edgeasr_messages.h": messages_header(),
        "c/include/edgeasr_tables.h": tables_header(config),
        "c/src/edgeasr_tables.c": tables_source(config),
        **{f"vectors/{name}.txt": text for name, text in vector_files().items()},
    }


def stale_files(folder: Path) -> list[str]:
    """Paths of the generated files that are missing or not what the sources say."""
    return [name for name, text in generated_files().items() if _read(folder / name) != text]


def write_files(folder: Path) -> list[str]:
    """Write the stale ones; returns their paths."""
    stale = stale_files(folder)
    texts = generated_files()
    for name in stale:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(texts[name], encoding="utf-8")
    return stale


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 1 where --check finds a stale file."""
    parser = argparse.ArgumentParser(prog="python -m edgeasr.firmware_bridge.generate")
    parser.add_argument("--check", action="store_true", help="change nothing, fail where a file is stale")
    check = parser.parse_args(arguments).check
    names = stale_files(FOLDER) if check else write_files(FOLDER)
    for name in names:
        sys.stderr.write(f"{'stale: run without --check' if check else 'written'}: {FOLDER / name}\n")
    return int(check and bool(names))


if __name__ == "__main__":
    sys.exit(main())
