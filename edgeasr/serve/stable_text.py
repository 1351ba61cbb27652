"""Text that only grows: for protocols and readers that cannot take back what they said."""

from __future__ import annotations

from edgeasr.transcript import Event, Final


class StableText:
    """What will not change of a stream's transcript: all finals, and the stable prefix of the last partial.

    text: all of it so far, segments joined by spaces
    """

    def __init__(self) -> None:
        self.text = ""
        self._finals = ""

    def advance(self, event: Event) -> str:
        """The text that this event adds; may be empty."""
        stable = event.text[: event.stable]
        grown = f"{self._finals} {stable}" if self._finals and stable else self._finals or stable
        added = grown[len(self.text) :]
        self.text += added
        if isinstance(event, Final):
            self._finals = self.text
        return added
