"""`edgeasr doctor`: whether this machine can hear, and what to do where it cannot."""

from __future__ import annotations

import json as jsonlib
import os
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.options import Model, Store
from edgeasr.cli.terminal import StatusLine, write_out
from edgeasr.wording import visible

if TYPE_CHECKING:
    from edgeasr.devices.doctor.examination import Result

_WIDTH = 120
_STATUSES = ("ok", "warn", "fail", "skipped")
_COLUMNS = (8, 14, 17)  # status, group, name


def doctor(
    ctx: typer.Context,
    level: Annotated[
        float, typer.Option(min=0, max=60, metavar="S", help="Hear the microphone for so long and say how loud it is.")
    ] = 0.0,
    device: Annotated[
        str | None, typer.Option(metavar="N|NAME", help="Microphone, by its number or a part of its name.")
    ] = None,
    model: Model = None,
    store: Store = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at everything that listening needs: machine, packages, model, sound, speed, store, services, clock.

    What is wrong comes with its fix. The exit code is 1 where anything fails; warnings do not count. Nothing is heard
    without --level.
    """
    from edgeasr.cli.config import settings_shown
    from edgeasr.devices.doctor.checkup import checkup
    from edgeasr.devices.doctor.examination import Circumstances

    root = ctx.find_root()
    given = Circumstances(
        model=model,
        device=device,
        level_s=level,
        store=store,
        config=root.params.get("config"),
        configuration=lambda: _ignored(settings_shown(root)),
    )
    results = []
    with StatusLine(sys.stderr) as status:
        status.show("looking ...")
        for result in checkup(given):
            results.append(result)
            status.clear()
            if not json:
                write_out(_text(result))
            status.show("looking ...")
    failed = [result for result in results if result.status == "fail"]
    if json:
        write_out(jsonlib.dumps({"ok": not failed, "findings": [one.to_dict() for one in results]}) + "\n")
    else:
        write_out(_summary(results))
    if any(result.timed_out for result in results):
        # What hangs, hangs in a library, which would be waited for at the end.
        sys.stdout.flush()
        os._exit(1)
    if failed:
        raise typer.Exit(1)


def _ignored(_: object) -> None:
    """Only whether it raises matters."""


def _text(result: Result) -> str:
    indent = sum(_COLUMNS)
    cells = (result.status, result.group, result.name)
    head = "".join(f"{cell:{width}}" for cell, width in zip(cells, _COLUMNS, strict=True))
    texts = [visible(result.found)] + ([f"-> {visible(result.fix)}"] if result.fix else [])
    lines = [line for text in texts for line in textwrap.wrap(text, _WIDTH - indent, break_on_hyphens=False)]
    return "".join(f"{'' if number else head:{indent}}{line}\n" for number, line in enumerate(lines))


def _summary(results: list[Result]) -> str:
    right, look, wrong, left_out = (sum(one.status == status for one in results) for status in _STATUSES)
    return f"\n{right} right, {look} to look at, {wrong} wrong, {left_out} left out\n"
