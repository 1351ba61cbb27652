"""What a service has to reach, from what it is asked to do: all else is closed to it."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import edgeasr
from edgeasr.errors import ServiceError
from edgeasr.service.unit import AUDIO_GROUP, SERIAL_GROUP, Scope, runtime_folder

_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
# Options whose value is a path; a service has no folder in which a relative one would be looked up.
_WRITTEN = ("store", "remembered")
_READ = ("model", "grammar", "hotwords", "dictionary", "certificate", "key", "token_file")


@dataclass(frozen=True)
class Needs:
    """Of a service.

    network: whether it may use sockets of the network
    online:  whether what it is asked to do needs more of it than this machine
    written: files for whose folders it needs the right to write
    reads:   what it reads
    """

    network: bool
    online: bool
    serial: bool
    written: tuple[Path, ...]
    reads: tuple[Path, ...]


def needs_of(command: str, values: Mapping[str, Any], name: str = "edgeasr-serve") -> Needs:
    """What a service named `name` needs, or may need.

    values: the options of the command, by the names of their arguments
    errors: ServiceError for a relative path
    """
    source = str(values.get("source") or "")
    if source == "-":
        raise ServiceError("got --source - for a service, which has no standard input: name a source")
    scheme = source.partition(":")[0] if "://" in source else ""
    paths = {name: Path(values[name]) for name in (*_WRITTEN, *_READ) if values.get(name)}
    if source and scheme == "" and source.partition(":")[0] not in ("mic", "alsa", "pipe", "pty"):
        paths["source"] = Path(source)
    socket = urlsplit(str(values.get("wyoming") or ""))
    if socket.scheme == "unix" and Path(socket.path).parent != runtime_folder(name):
        paths["wyoming"] = Path(socket.path)
    for option, path in paths.items():
        if not path.is_absolute():
            raise ServiceError(f"got {option} {path} for a service, wanted an absolute path: {path.absolute()}")
    # What --exec and pipe: run may want the network.
    actions = any(values.get(option) for option in ("exec", "webhook", "mqtt")) or source.startswith("pipe:")
    elsewhere = actions or scheme not in ("", "serial")
    return Needs(
        network=command == "serve" or elsewhere,
        online=elsewhere or not _serves_this_machine(values),
        serial=scheme == "serial",
        written=tuple(path for option, path in paths.items() if option in (*_WRITTEN, "wyoming")),
        reads=tuple(path for option, path in paths.items() if option in (*_READ, "source")),
    )


def _serves_this_machine(values: Mapping[str, Any]) -> bool:
    """Whether a server is asked for at addresses of loopback alone, or none is."""
    wyoming = urlsplit(str(values.get("wyoming") or ""))
    hosts = [host for host in (values.get("host"), wyoming.hostname if wyoming.scheme == "tcp" else None) if host]
    if not hosts:
        return True
    from edgeasr.serve.security import is_loopback

    return all(is_loopback(str(host)) for host in hosts)


def program() -> tuple[str, ...]:
    """How this very installation is started."""
    script = Path(sys.executable).with_name("edgeasr")
    return (str(script),) if script.exists() else (sys.executable, "-m", "edgeasr.cli.main")


def made_of() -> tuple[Path, ...]:
    """Where this installation lies: the interpreter, its packages, and ourselves."""
    return tuple(Path(path) for path in (sys.prefix, sys.base_prefix, Path(edgeasr.__file__).parent))


def user_to_run_as(reads: Iterable[Path]) -> str | None:
    """None where anybody can read all of this; otherwise whose it is.

    errors: ServiceError for what only root can read, as whom nothing should run that hears the world
    """
    for path in reads:
        closed = _closed_folder(path)
        if closed is None:
            continue
        owner = pwd.getpwuid(closed.stat().st_uid)
        if owner.pw_uid == 0:
            raise ServiceError(
                f"{path} lies below {closed}, where only root can read: install edgeasr elsewhere, such as in "
                "/opt/edgeasr, or say --run-as root"
            )
        return owner.pw_name
    return None


def _closed_folder(path: Path) -> Path | None:
    """The uppermost folder on the way to `path` that others may not pass; None where they may."""
    for folder in reversed([path, *path.resolve().parents]):
        if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def lie_at_home(paths: Iterable[Path]) -> bool:
    """Whether any of these is where ProtectHome= hides things."""
    return any(path.resolve().is_relative_to(home) for path in paths for home in _HOMES)


def groups_for(needs: Needs) -> tuple[str, ...]:
    """Those that there are on this system."""
    wanted = (AUDIO_GROUP, *([SERIAL_GROUP] if needs.serial else []))
    known = {group.gr_name for group in grp.getgrall()}
    return tuple(group for group in wanted if group in known)


def own_folders(user: str | None, scope: Scope) -> tuple[Path, ...]:
    """Where edgeasr keeps the store and the cache of a user, of the one who runs this for None."""
    if scope == "user" or user in (None, pwd.getpwuid(os.getuid()).pw_name):
        from edgeasr.store.paths import default_path
        from edgeasr.user_cache import cache_folder

        return (default_path().parent, cache_folder())
    try:
        home = Path(pwd.getpwnam(str(user)).pw_dir)
    except KeyError:
        raise ServiceError(f"got user {user!r} to run as, whom this system does not know") from None
    return (home / ".local" / "share" / "edgeasr", home / ".cache" / "edgeasr")


def make_folders(folders: Iterable[Path], user: str | None) -> None:
    """Those that are not there yet: what a service may write to has to be there when it starts.

    errors: ServiceError where one cannot be made
    """
    owner = pwd.getpwnam(user) if user is not None and os.getuid() == 0 else None
    for folder in folders:
        for one in reversed([folder, *folder.parents]):
            try:
                if not one.exists():
                    one.mkdir(mode=0o700)
                    if owner is not None:
                        os.chown(one, owner.pw_uid, owner.pw_gid)
            except OSError as error:
                raise ServiceError(f"the folder {one} cannot be made ({error.strerror}): make it") from error
