"""All checks, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from edgeasr.devices.doctor.examination import Check, Circumstances, Finding, Result, examine

_SECTIONS = ("machine", "installation", "sound", "recognition", "services")


def checkup(given: Circumstances) -> Iterator[Result]:
    """Everything that is looked at, one result after the other; nothing is raised."""
    for name in _SECTIONS:
        yield from examine(_checks(name, given))
    # Last: it compares two clocks over all that went before.
    yield from examine(check for check in _checks("clock", given))


def _checks(name: str, given: Circumstances) -> list[Check]:
    """What a section needs is imported when its turn comes: a package that is broken is found by then."""
    try:
        module = import_module(f"edgeasr.devices.doctor.{name}")
    except (ImportError, OSError) as error:
        broken = Finding("fail", f"cannot be looked at ({error})", "pip install --force-reinstall edgeasr")
        return [Check(name, "import", lambda: broken)]
    checks: list[Check] = module.checks(given)
    return checks
