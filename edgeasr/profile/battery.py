"""How much is left in the battery while nothing charges it."""

from __future__ import annotations

from pathlib import Path

from edgeasr.profile.sysfs import read_number, read_text

_SUPPLIES = "sys/class/power_supply"


def has_battery(root: Path = Path("/")) -> bool:
    """Whether the kernel knows of one that says how full it is."""
    return bool(_batteries(root))


def battery_percent(root: Path = Path("/")) -> float | None:
    """Of the fullest battery that is being discharged; None where none is."""
    return max((percent for status, percent in _batteries(root) if status == "Discharging"), default=None)


def _batteries(root: Path) -> list[tuple[str, float]]:
    """Status and percentage of each; those of mice and headsets are not the machine's."""
    found = []
    for folder in (root / _SUPPLIES).glob("*"):
        percent = read_number(folder / "capacity")
        of_machine = read_text(folder / "type") == "Battery" and read_text(folder / "scope") != "Device"
        if of_machine and percent is not None:
            found.append((read_text(folder / "status"), percent))
    return found
