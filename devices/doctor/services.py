"""What runs in the background, and what it keeps: the store and systemd's units."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgeasr.devices.doctor.examination import Check, Circumstances, Finding
from edgeasr.errors import ServiceError
from edgeasr.service.systemd import Systemd
from edgeasr.store.paths import default_path

GROUP = "service"


def checks(given: Circumstances) -> list[Check]:
    """Those of this file."""
    return [
        Check(GROUP, "store", lambda: store(given.store or default_path()), limit_s=120),
        Check(GROUP, "user services", lambda: services("user")),
        Check(GROUP, "system services", lambda: services("system")),
    ]


def store(path: Path) -> Finding:
    """errors: StoreError for one that is damaged"""
    if not path.exists():
        return Finding("skipped", f"there is none at {path}: `edgeasr listen --remember` makes one")
    try:
        from edgeasr.store.memory_store import MemoryStore
    except ModuleNotFoundError as error:
        return Finding("skipped", f"{path} cannot be looked at without {error.name}", "pip install 'edgeasr[memory]'")
    with MemoryStore.open(path) as opened:
        opened.check()
        stats = opened.stats()
    return Finding("ok", f"{path} is whole: {stats.vectors} vectors, {stats.size_bytes / 1e6:.1f} MB")


def services(scope: Literal["system", "user"]) -> Finding:
    """Those that `edgeasr service install` made."""
    manager = Systemd(scope)
    try:
        manager.require()
        found = [manager.status(name, 0) for name in manager.installed()]
    except ServiceError as error:
        return Finding("skipped", str(error).split(":", maxsplit=1)[0])
    if not found:
        return Finding("skipped", "none is installed: `edgeasr service install listen`")
    text = ", ".join(f"{one.name} {one.active} ({one.state}, {one.restarts or 0} restarts)" for one in found)
    if all(one.is_active for one in found):
        return Finding("ok", text)
    option = " --system" if scope == "system" else ""
    return Finding("fail", text, f"`edgeasr service status{option}` shows its last lines")
