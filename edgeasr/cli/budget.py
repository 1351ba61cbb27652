"""`--budget-rtf`, `--budget-temperature` and `--budget-battery` of a command that hears something live."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.terminal import print_note

if TYPE_CHECKING:
    from edgeasr.recognizer import Recognizer

BudgetRtf = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="RTF",
        help="Take no more processor time than this for a second of speech, if need be with less effort.",
    ),
]
BudgetTemperature = Annotated[
    float | None, typer.Option(min=1, metavar="CELSIUS", help="Take less effort while the processor is hotter.")
]
BudgetBattery = Annotated[
    float | None,
    typer.Option(
        min=1, max=100, metavar="PERCENT", help="Take less effort while a battery that is used has less left."
    ),
]


def budget_check(
    recognizer: Recognizer, *, rtf: float | None, temperature: float | None, battery: float | None
) -> Callable[[], None]:
    """What keeps the recogniser within the budget if it is called now and then; it says on stderr what it changes."""
    if rtf is None and temperature is None and battery is None:
        return lambda: None
    from edgeasr.governor import Governor
    from edgeasr.ladder import Budget

    return Governor(recognizer, Budget(rtf, temperature, battery), print_note).check
