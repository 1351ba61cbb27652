"""Results on standard output, diagnostics on standard error, and a line that is rewritten in place."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

from edgeasr.wording import visible

if TYPE_CHECKING:
    from edgeasr.capture.level import Level

_ERASE_LINE = "\r\x1b[K"
_CUT_MARK = "..."
_USUAL_WIDTH = 80
_LEVEL_EVERY_S = 0.1


def write_out(text: str, *, styled: bool = False) -> None:
    """Results, seen at once also through a pipe. What could rule a terminal is escaped, as in JSON.

    styled: where it is meant to
    """
    if text:
        sys.stdout.write(text if styled else visible(text, but="\n\t", kinds=("Cc", "Cs")))
        sys.stdout.flush()


def print_error(message: object) -> None:
    """One line on standard error."""
    print("edgeasr: error:", _line(str(message)), file=sys.stderr)


def print_note(message: str) -> None:
    """One line on standard error that is no error; a line that is being rewritten makes room."""
    erase = _ERASE_LINE if sys.stderr.isatty() else ""
    print(f"{erase}edgeasr: {_line(message)}", file=sys.stderr)


def _line(message: str) -> str:
    return visible(" ".join(message.splitlines()))


class StatusLine:
    """The last line of a terminal, rewritten in place; elsewhere, nothing. A context manager, to clear it.

    enabled: False for no status on a terminal either
    """

    def __init__(self, stream: TextIO, *, enabled: bool = True) -> None:
        self.enabled = enabled and stream.isatty()
        self._stream = stream
        self._shown = self._text = self._level = ""
        self._level_shown_s = -_LEVEL_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Of a text wider than the terminal, its end."""
        self._text = text
        if not self.enabled:
            return
        width = self._width()
        prefix = f"{self._level} " if self._level and len(self._level) < width else ""
        width -= len(prefix)
        if len(text) > width:
            text = (_CUT_MARK + text[len(text) - max(0, width - len(_CUT_MARK)) :])[-width:]
        if prefix + text != self._shown:
            self._stream.write(_ERASE_LINE + prefix + text)
            self._stream.flush()
            self._shown = prefix + text

    def show_level(self, level: Level) -> None:
        """Of what is heard now, before the text; ten times a second at most."""
        if time.monotonic() - self._level_shown_s >= _LEVEL_EVERY_S:
            self._level_shown_s = time.monotonic()
            self._level = level.bar()
            self.show(self._text)

    def clear(self) -> None:
        """Make room for a line of output."""
        self._text = ""
        if self._shown:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()
            self._shown = ""

    def _width(self) -> int:
        """Columns without those for the ^C that a terminal echoes, since a full line would wrap."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            columns = 0
        return max(1, (columns or _USUAL_WIDTH) - len("^C") - 1)
