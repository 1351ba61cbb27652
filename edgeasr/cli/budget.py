"""`--budget-rtf`, `--budget-temperature` and `--budget-battery` of a command that hears something live."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.numbers import finite
from edgeasr.cli.terminal import print_note

if TYPE_CHECKING:
    from edgeasr.recognizer import Recognizer

BudgetRtf = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="RTF",
        callback=finite,
        help="Take no more processor time than this for a second of speech, if need be with less effort.",
    ),
]
BudgetTemperature = Annotated[
    float | None,
    typer.Option(min=1, metavar="CELSIUS", callback=finite, help="Take less effort while the processor is hotter."),
]
BudgetBattery = Annotated[
    float | None,
    typer.Option(
        min=1,
        max=100,
        metavar="PERCENT",
        callback=finite,
        help="Take less effort while a battery that is used has less left.",
    ),
]


# Of audio that waits: time to do with less before any is lost.
_MAX_BACKLOG_S = 2.0


def budget_check(
    recognizer: Recognizer,
    *,
    rtf: float | None,
    temperature: float | None,
    battery: float | None,
    backlog_s: Callable[[], float] | None = None,
) -> Callable[[], None]:
    """What keeps the recogniser within the budget if it is called now and then; it says on stderr what it changes.

    backlog_s: how much audio waits that is lost if it gets too much
    """
    backlog = None if backlog_s is None else _MAX_BACKLOG_S
    if rtf is None and temperature is None and battery is None and backlog is None:
        return lambda: None
    from edgeasr.governor import Governor
    from edgeasr.ladder import Budget

    return Governor(recognizer, Budget(rtf, temperature, battery, backlog), print_note, backlog_s=backlog_s).check
