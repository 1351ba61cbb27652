"""`edgeasr bench store`: how the time of a search grows with the store."""

from __future__ import annotations

import json as jsonlib
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.columns import columns
from edgeasr.cli.extras import needs_extra
from edgeasr.cli.terminal import StatusLine, write_out

if TYPE_CHECKING:
    from edgeasr.store.benchmark import StoreRow


def store(
    sizes: Annotated[
        str, typer.Option(metavar="N,N,...", help="Vectors in the store, rising.")
    ] = "10000,100000,1000000",
    queries: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Searches at each size.")] = 100,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to make the store, of 1.5 GB a million vectors.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time of a search for the 10 nearest vectors, and how many of the exact 10 it finds, as a store grows.

    The vectors are random, with the variances of the shipped model's. A million takes some minutes to store.
    Needs edgeasr[memory].
    """
    with needs_extra("memory"):
        from edgeasr.store.benchmark import measure
    try:
        wanted = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise typer.BadParameter(f"got --sizes {sizes!r}, wanted numbers and commas") from None
    with tempfile.TemporaryDirectory(dir=folder) as made, StatusLine(sys.stderr) as status:
        rows = list(measure(Path(made, "memory.db"), wanted, queries, status.show))
    write_out(jsonlib.dumps({"rows": [asdict(row) for row in rows]}) + "\n" if json else _table(rows))


def _table(rows: list[StoreRow]) -> str:
    head = ("vectors", "search ms", "99 %", "exact ms", "recall@10", "found again", "read", "cells", "insert ms", "MB")
    cells = [
        (
            f"{row.vectors:,}",
            *(f"{value:.2f}" for value in (row.query_ms, row.query_ms_p99, row.exact_ms)),
            *(f"{value:.3f}" for value in (row.recall_at_10, row.found_again)),
            *(f"{row.read:,.0f}", row.cells, f"{row.insert_ms:.3f}", f"{row.bytes / 2**20:,.0f}"),
        )
        for row in rows
    ]
    return "".join(f"{line}\n" for line in columns([head, *cells], ">>>>>>>>>>"))
