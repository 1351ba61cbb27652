"""Checks, and what they found: each apart from the others and for a bounded time, so that one that fails says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgeasr.errors import EdgeasrError

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What a check found. fix: what to do about it, empty where nothing need be done"""

    status: Status
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """Something that is looked at.

    look:    may raise
    limit_s: after which it is given up
    """

    group: str
    name: str
    look: Callable[[], Finding]
    limit_s: float = 10.0


@dataclass(frozen=True)
class Result:
    """A finding and whose it is. timed_out: whether the check still runs"""

    group: str
    name: str
    status: Status
    found: str
    fix: str
    took_s: float
    timed_out: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"took_s": round(self.took_s, 3)}


@dataclass(frozen=True)
class Circumstances:
    """What is examined.

    root:          below which /proc, /sys and /dev lie
    model, device: as for `listen`; None for the usual ones
    level_s:       for how long the level of the microphone is measured, 0 for not at all
    store:         None for the user's
    config:        the configuration file that is read alone, None for the usual ones
    configuration: raises what is wrong with configuration files and variables
    began_s:       when the examination began, by the clock on the wall and by one that nobody sets
    """

    root: Path = Path("/")
    model: str | None = None
    device: str | None = None
    level_s: float = 0.0
    store: Path | None = None
    config: Path | None = None
    configuration: Callable[[], None] = lambda: None
    began_s: tuple[float, float] = field(default_factory=lambda: (time.time(), time.monotonic()))


def examine(checks: Iterable[Check]) -> Iterator[Result]:
    """The results, one after the other; nothing is raised."""
    for check in checks:
        yield _examined(check)


def _examined(check: Check) -> Result:
    findings: list[Finding] = []
    # A thread that hangs, in a sound system say, cannot be ended: it must not keep the program from ending.
    thread = threading.Thread(target=lambda: findings.append(_looked(check)), name=check.name, daemon=True)
    began_s = time.monotonic()
    thread.start()
    thread.join(check.limit_s)
    took_s = time.monotonic() - began_s
    timed_out = not findings
    finding = findings[0] if findings else Finding("fail", f"no answer within {check.limit_s:g} s", "try it again")
    return Result(check.group, check.name, finding.status, finding.found, finding.fix, took_s, timed_out)


def _looked(check: Check) -> Finding:
    try:
        return check.look()
    except EdgeasrError as error:
        return Finding("fail", *_parted(error))
    except Exception as error:  # noqa: BLE001 - a check that breaks is a finding, and the others go on
        return Finding("fail", f"the check broke: {type(error).__name__}: {error}", "please report this")


def _parted(error: EdgeasrError) -> tuple[str, str]:
    """What is wrong, and what to do about it, which may have colons too."""
    text = str(error)
    if error.fix is not None:
        return text.removesuffix(f": {error.fix}"), error.fix
    found, wanted, rest = text.partition(", want")
    if wanted:
        clause, _, fix = rest.partition(": ")
        return f"{found}{wanted}{clause}", fix
    found, _, fix = text.rpartition(": ")
    return (found, fix) if found else (text, "")
