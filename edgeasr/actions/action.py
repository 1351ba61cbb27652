"""What an action is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Action(Protocol):
    """Something that is done with every final. name: as reports call it"""

    name: str

    def deliver(self, event: Mapping[str, Any]) -> None:
        """Do it, in a bounded time; called by threads of the action's outbox.

        event:  a final as `Event.to_dict` gives it
        errors: ActionError where it was not done
        """

    def close(self) -> None:
        """End what still runs; nothing is delivered afterwards."""
