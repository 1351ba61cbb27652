"""Where options are set beside the command line: configuration files and environment variables.

Later ones win: what the program assumes, the system's file, the user's file, the environment, the command line.

    model = "/opt/models/mine.edgeasr"    # the few keys of SHARED: for every command that has the option

    [listen]                              # a command, its options as they are called, with _ for -
    remember = true
    store_days = 30.0

    [memory.search]                       # a command of a command; what stands in [memory] is for all of its commands
    limit = 20

In the environment the same is EDGEASR_MODEL, EDGEASR_LISTEN_STORE_DAYS and EDGEASR_MEMORY_SEARCH_LIMIT.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgeasr.errors import ConfigError

PREFIX = "EDGEASR_"
SYSTEM_FILE = Path("/etc/edgeasr/config.toml")
# The options that may stand before the first section, and as EDGEASR_MODEL in the environment.
SHARED = ("backend", "decoder", "model", "threads")
# Variables of our own that set no option: which file is read, and what --exec tells its programs.
OTHER_VARIABLES = ("EDGEASR_CONFIG", "EDGEASR_EVENT")

HIDDEN = "(hidden)"
_SECRET_WORDS = ("token", "password", "secret")
_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


@dataclass(frozen=True)
class Setting:
    """A value that is set somewhere.

    origin: the path of a file, or `environment variable NAME`
    text:   whether it is text that has to be converted, as the environment's is, and not a TOML value
    """

    value: Any
    origin: str
    text: bool = False


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file that was read. table: as tomllib gives it"""

    path: Path
    table: Mapping[str, Any]

    def section(self, path: Iterable[str]) -> Mapping[str, Any]:
        """The table of a command. errors: ConfigError for something else in its place"""
        table = self.table
        for name in path:
            table = table.get(name, {})
            if not isinstance(table, Mapping):
                raise ConfigError(f"{self.path}: got {name} = {table!r}, wanted a section [{name}]", fix="")
        return table


def user_file() -> Path | None:
    """Where the user's file would be (XDG base directories); None for a user without a home."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        folder = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    except RuntimeError:
        return None
    return folder / "edgeasr" / "config.toml"


def config_paths(given: str | Path | None = None) -> tuple[Path, ...]:
    """The files that are read where they exist, the one that wins last. given: read instead of all others"""
    if given is not None:
        return (Path(given),)
    paths = (SYSTEM_FILE, user_file())
    return tuple(dict.fromkeys(path for path in paths if path is not None))


def read_files(given: str | Path | None = None) -> tuple[ConfigFile, ...]:
    """Those that exist, the one that wins last. errors: ConfigError for one that cannot be read or is no TOML"""
    found = []
    for path in config_paths(given):
        if given is not None or path.exists():
            read = _read(path)
            found += [read] if read else []
    return tuple(found)


def _read(path: Path) -> ConfigFile | None:
    import tomllib  # only where there is a file: every start pays for an import

    try:
        return ConfigFile(path, tomllib.loads(path.read_text(encoding="utf-8")))
    except PermissionError as error:
        # It may hold the token of a server, which is none of this user's business.
        if path == SYSTEM_FILE:
            return None
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML ({error}): correct it") from error


def settings_of(key: str, command: tuple[str, ...], files: Iterable[ConfigFile]) -> Iterator[Setting]:
    """All that is set for an option of a command, what wins last.

    key:     of the option, such as "store_days"
    command: its name, such as ("memory", "search")
    """
    depths = range(0 if key in SHARED else 1, len(command) + 1)
    for file in files:
        for depth in depths:
            value = file.section(command[:depth]).get(key)
            if value is not None and not isinstance(value, Mapping):
                yield Setting(value, str(file.path))
    for depth in depths:
        name = variable((*command[:depth], key))
        if os.environ.get(name):
            yield Setting(os.environ[name], f"environment variable {name}", text=True)


def variable(names: Iterable[str]) -> str:
    """The environment variable of an option: ("listen", "store_days") is EDGEASR_LISTEN_STORE_DAYS."""
    return PREFIX + "_".join(names).upper().replace("-", "_")


def check_variables(prefix: str, known: Iterable[str]) -> None:
    """Errors: ConfigError for a variable with this prefix that sets nothing"""
    known = {*known, *OTHER_VARIABLES}
    for name in sorted(os.environ):
        if name.startswith(prefix) and name not in known:
            raise ConfigError(f"got environment variable {name}, which sets nothing", fix=nearest(name, known))


def check_variable_commands(commands: Iterable[str]) -> None:
    """Errors: ConfigError for a variable of ours that is of no command, and is none that all of them share"""
    commands = list(commands)
    alone = {*(variable((key,)) for key in SHARED), *OTHER_VARIABLES}
    prefixes = tuple(f"{variable((name,))}_" for name in commands)
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in alone and not name.startswith(prefixes):
            first, _, key = name.removeprefix(PREFIX).partition("_")
            close = get_close_matches(first.lower(), commands, n=1)
            meant = {*alone, *([variable((close[0], key))] if close and key else [])}
            raise ConfigError(f"got environment variable {name}, which sets nothing", fix=nearest(name, meant))


def nearest(given: str, known: Iterable[str]) -> str:
    """What to do about a name that is not known: what was meant, or what there is; empty where that is too much."""
    known = sorted(known)
    close = get_close_matches(given, known, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"known are {', '.join(known)}" if 0 < len(known) <= 40 else ""


def is_open_to_others(path: Path) -> bool:
    """Whether others than its owner may read, or change, a file."""
    try:
        return bool(path.stat().st_mode & 0o066)
    except OSError:
        return False


def is_secret(key: str) -> bool:
    """Whether the value of an option is nobody's business; where it lies is no secret."""
    return any(word in key for word in _SECRET_WORDS) and not key.endswith("_file")


def holds_secret(key: str, value: Any) -> bool:
    """Whether a value is a secret, or has an address with a password in it."""
    if isinstance(value, list | tuple):
        return any(holds_secret(key, one) for one in value)
    return isinstance(value, str) and (is_secret(key) or _PASSWORD.search(value) is not None)


def shown(key: str, value: Any) -> Any:
    """A value as it may be printed: secrets, and what of an address may be one, are hidden."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [shown(key, one) for one in value]
    if is_secret(key):
        return HIDDEN
    return _without_secrets(value) if isinstance(value, str) else str(value)


def _without_secrets(text: str) -> str:
    """Of an address, without the password, and the path of a web hook, which is as good as one."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return text
    if parts.scheme in ("http", "https") and parts.path.strip("/"):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{HIDDEN}"
    if parts.password:
        return text.replace(f":{parts.password}@", f":{HIDDEN}@", 1)
    return text
