"""systemd's side of a service: the file is put where a manager finds it, and the manager is told and asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeasr.errors import ServiceError
from edgeasr.service.unit import MARK, Scope, Unit

_BOOTED = Path("/run/systemd/system")
_SYSTEM_FOLDER = Path("/etc/systemd/system")
_LINGER_FOLDER = Path("/var/lib/systemd/linger")
_PATIENCE_S = 60
_SHOWN = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "state",
    "Result": "result",
    "StatusText": "status",
    "ActiveEnterTimestamp": "since",
    "MainPID": "process",
    "NRestarts": "restarts",
    "MemoryCurrent": "memory_bytes",
    "WatchdogUSec": "watchdog",
    "WatchdogTimestamp": "last_sign",
    "UnitFileState": "starts",
    "FragmentPath": "file",
}


@dataclass(frozen=True)
class ServiceStatus:
    """What a manager says of a service, in its words; empty for what it does not say.

    lines: the last ones of its output
    """

    name: str
    loaded: str = ""
    active: str = ""
    state: str = ""
    result: str = ""
    status: str = ""
    since: str = ""
    process: str = ""
    restarts: str = ""
    memory_bytes: str = ""
    watchdog: str = ""
    last_sign: str = ""
    starts: str = ""
    file: str = ""
    lines: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        return self.active == "active"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


class Systemd:
    """A manager: the system's, or that of the user who runs this.

    errors: ServiceError where there is none, from every method
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    @property
    def folder(self) -> Path:
        """Where its units lie."""
        if self.scope == "system":
            return _SYSTEM_FOLDER
        given = os.environ.get("XDG_CONFIG_HOME", "")
        return (Path(given) if given.startswith("/") else Path.home() / ".config") / "systemd" / "user"

    def require(self) -> None:
        """Errors: ServiceError, which says why there is no manager to speak to"""
        if shutil.which("systemctl") is None or not _BOOTED.is_dir():
            raise ServiceError(
                "this system was not started by systemd, which is what runs services here: print the unit with "
                "--print, or let another supervisor start `edgeasr listen` again when it ends"
            )
        if self.scope == "user" and not os.environ.get("XDG_RUNTIME_DIR"):
            raise ServiceError(
                "there is no systemd for this user (XDG_RUNTIME_DIR is not set): log in as the user, without sudo "
                "or su, or install with --system"
            )

    def install(self, unit: Unit, *, start: bool) -> Path:
        """Write the unit, let it start with the machine or the user's session, and start it now if asked.

        errors: ServiceError, also for a unit of that name that we did not write
        """
        self.require()
        path = self.folder / unit.file_name
        self._require_ours(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, unit.text())
        except PermissionError as error:
            raise ServiceError(f"{path} cannot be written ({error.strerror}): run it with sudo") from error
        self._call("daemon-reload")
        self._call("enable", unit.file_name)
        if start:
            self._call("restart", unit.file_name)
        return path

    def uninstall(self, name: str) -> Path:
        """Stop a service and remove its unit. errors: ServiceError where there is none that we wrote"""
        self.require()
        path = self.folder / f"{name}.service"
        if not path.exists():
            raise ServiceError(f"there is no {path}: `edgeasr service status` says what is installed")
        self._require_ours(path)
        self._call("disable", "--now", path.name)
        try:
            path.unlink()
        except PermissionError as error:
            raise ServiceError(f"{path} cannot be removed ({error.strerror}): run it with sudo") from error
        self._call("daemon-reload")
        return path

    def installed(self) -> list[str]:
        """Names of the services that we wrote."""
        return sorted(path.stem for path in self.folder.glob("*.service") if _is_ours(path))

    def status(self, name: str, num_lines: int) -> ServiceStatus:
        """What the manager knows of a service. errors: ServiceError"""
        self.require()
        told = self._call("show", f"{name}.service", f"--property={','.join(_SHOWN)}")
        found = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
        values = {_SHOWN[key]: _plain(value) for key, value in found.items() if key in _SHOWN}
        return ServiceStatus(name, lines=self._lines(name, num_lines), **values)

    def lingers(self, user: str) -> bool:
        """Whether the services of a user run while nobody is logged in."""
        return self.scope == "system" or (_LINGER_FOLDER / user).exists()

    def _lines(self, name: str, count: int) -> tuple[str, ...]:
        program = shutil.which("journalctl")
        if program is None or count == 0:
            return ()
        unit = f"--{'user-' if self.scope == 'user' else ''}unit={name}.service"
        done = _run([program, unit, f"--lines={count}", "--no-pager", "--output=short-iso", "--quiet"])
        return tuple(done.stdout.splitlines()) if done.returncode == 0 else ()

    def _call(self, *arguments: str) -> str:
        done = _run(["systemctl", *(["--user"] if self.scope == "user" else []), "--no-pager", *arguments])
        if done.returncode:
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise ServiceError(f"systemctl {arguments[0]} failed: {reason}")
        return done.stdout

    def _require_ours(self, path: Path) -> None:
        if path.exists() and not _is_ours(path):
            raise ServiceError(f"{path} was not written by `edgeasr service install`: choose another --name")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"{command[0]} does not answer ({error})") from error


def _plain(value: str) -> str:
    """What systemd says of what it does not know is no value."""
    return "" if value in ("[not set]", "n/a", "18446744073709551615") else value


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(errors="replace").startswith(MARK)
    except OSError:
        return False


def _write(path: Path, text: str) -> None:
    """Beside it, then renamed: a manager never reads half a unit."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.chmod(0o644)
    aside.replace(path)
