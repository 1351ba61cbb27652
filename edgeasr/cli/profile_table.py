"""A profile on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeasr.profile.tables import Section

_PIPE_WIDTH = 160


def profile_table(sections: Iterable[Section]) -> str:
    """All sections, as wide as the terminal; in a pipe as wide as they are, and without colours."""
    on_terminal = sys.stdout.isatty()
    written = StringIO()
    console = Console(
        file=written, force_terminal=on_terminal, width=None if on_terminal else _PIPE_WIDTH, highlight=False
    )
    for section in sections:
        console.print(Text(section.title, style="bold"))
        for line in section.lines:
            console.print(Text(line))
        if section.rows:
            console.print(_table(section))
        console.print()
    return written.getvalue()


def _table(section: Section) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_header=any(section.header), pad_edge=False)
    for i, name in enumerate(section.header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in section.rows:
        table.add_row(*map(Text, row))
    return table
