"""The clock on the wall, by which the store says when something was said."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import edgeasr
from edgeasr.devices.doctor.examination import Check, Circumstances, Finding

GROUP = "machine"
_STEPPED_S = 0.2
_UNSYNCHRONISED = 5  # TIME_ERROR of ntp_adjtime(3)


def checks(given: Circumstances) -> list[Check]:
    """Those of this file."""
    return [Check(GROUP, "clock", lambda: clock(given))]


def clock(given: Circumstances) -> Finding:
    """Whether it kept its pace since the examination began, and whether anything sets it right."""
    wall_s, steady_s = time.time(), time.monotonic()
    stepped_s = (wall_s - given.began_s[0]) - (steady_s - given.began_s[1])
    return judged_clock(wall_s, stepped_s, _is_synchronised())


def judged_clock(wall_s: float, stepped_s: float, synchronised: bool | None) -> Finding:
    """synchronised: None where the kernel does not say"""
    fix = "sudo timedatectl set-ntp true, or a battery for the board's clock: times in the store would be wrong"
    if wall_s < Path(edgeasr.__file__).stat().st_mtime:
        return Finding("warn", f"it is {time.strftime('%Y-%m-%d', time.gmtime(wall_s))} by the clock: impossible", fix)
    if abs(stepped_s) > _STEPPED_S:
        return Finding("warn", f"the clock was set by {stepped_s:+.1f} s while this ran", fix)
    if synchronised is None:
        return Finding("skipped", "the kernel does not say whether the clock is synchronised")
    return Finding("ok", "synchronised") if synchronised else Finding("warn", "not synchronised", fix)


def _is_synchronised() -> bool | None:
    try:
        ask = ctypes.CDLL(None).ntp_adjtime
    except (OSError, AttributeError):
        return None
    # struct timex, all zero, asks and changes nothing; it has some 208 bytes.
    state = ask(ctypes.create_string_buffer(512))
    return None if state < 0 else state != _UNSYNCHRONISED
