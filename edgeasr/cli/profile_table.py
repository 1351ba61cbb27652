"""A profile on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeasr.profile.tables import Section, shortened

_GAP = 2  # letters between columns
# Of a name, where a narrow terminal shortens it: names up to here are always whole.
_SHORTEST_NAME = 24
_ENDLESS = 100_000  # letters of a line in a pipe


def profile_table(sections: Iterable[Section]) -> str:
    """All sections, as wide as the terminal; in a pipe as wide as they are, and without colours."""
    on_terminal = sys.stdout.isatty()
    written = StringIO()
    console = Console(
        file=written, force_terminal=on_terminal, width=None if on_terminal else _ENDLESS, highlight=False
    )
    for section in sections:
        console.print(Text(section.title, style="bold"))
        for line in section.lines:
            console.print(Text(line))
        if section.rows:
            _print_table(console, section)
        console.print()
    return written.getvalue()


def _print_table(console: Console, section: Section) -> None:
    if not any(section.header) or _whole_width(section) <= console.width:
        console.print(_table(section))
        return
    narrow, left_out = fitted(section, console.width)
    console.print(_table(narrow, [max(map(len, _unbroken(column))) for column in _columns(narrow)]))
    if left_out:
        console.print(Text(f"Left out on a terminal as narrow as this: {', '.join(left_out)}.", style="dim"))


def fitted(section: Section, width: int) -> tuple[Section, tuple[str, ...]]:
    """A table whose rows take a line each: without its dispensable columns, one after the other, then without others
    from the right, until there is room for names. Titles of columns may take several lines.

    width:   of the terminal, in letters
    returns: the narrower section, and the titles of the columns that it has no more
    """
    names, *figures = _columns(section)
    longest = max(map(len, names[1:]))
    order = [*section.dispensable, *(title for title in reversed(section.header) if title not in section.dispensable)]
    while len(figures) > 1 and min(longest, _SHORTEST_NAME) + sum(map(_taken, figures)) > width:
        least = order.pop(0)
        figures = [column for column in figures if column[0] != least]
    room = max(1, width - sum(map(_taken, figures)))
    header, *rows = zip((names[0], *(shortened(name, room) for name in names[1:])), *figures, strict=True)
    left_out = tuple(title for title in section.header if title not in header)
    return replace(section, header=header, rows=tuple(rows)), left_out


def _columns(section: Section) -> list[tuple[str, ...]]:
    """Each with its title."""
    return list(zip(section.header, *section.rows, strict=True))


def _unbroken(column: Sequence[str]) -> Iterable[str]:
    """What takes a line of its own: each word of the title, and each cell."""
    return [*column[0].split(), *column[1:]]


def _taken(column: Sequence[str]) -> int:
    """Letters of a column of figures and of the gap before it."""
    return _GAP + max(map(len, _unbroken(column)))


def _whole_width(section: Section) -> int:
    return sum(_GAP + max(map(len, column)) for column in _columns(section)) - _GAP


def _table(section: Section, widths: Sequence[int] | None = None) -> Table:
    """widths: of the columns, in letters; None for what they take"""
    # A gap is a letter of padding and the box's own.
    table = Table(
        box=box.SIMPLE_HEAD,
        show_header=any(section.header),
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
    )
    for i, name in enumerate(section.header):
        table.add_column(name, justify="right" if i else "left", overflow="fold", width=widths[i] if widths else None)
    for row in section.rows:
        table.add_row(*map(Text, row))
    return table
