"""Tables in columns."""

from __future__ import annotations

from collections.abc import Iterable


def columns(rows: Iterable[Iterable[object]], sides: str) -> list[str]:
    """A line a row.

    sides: "<" or ">" for each column, the side to which its cells are moved
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in cells
    ]
