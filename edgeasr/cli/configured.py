"""Options of commands, set by configuration files and the environment.

What is set becomes click's default_map, so that the command line still wins; click's own variables are not used, since
they would split a value at its spaces and name no file in an error.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import typer

from edgeasr.errors import ConfigError
from edgeasr.settings import (
    HIDDEN,
    SHARED,
    ConfigFile,
    Setting,
    check_variable_commands,
    check_variables,
    is_secret,
    nearest,
    read_files,
    settings_of,
    variable,
)

_TOML_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}


class Option(NamedTuple):
    """An option of a command. command: the path of names that lead to it; key: as files call it"""

    command: tuple[str, ...]
    key: str
    parameter: Any

    @property
    def variable(self) -> str:
        return variable((*self.command, self.key))


def options_of(command: Any, path: tuple[str, ...]) -> Iterator[Option]:
    """Of a command and of the commands in it."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield Option(path, max(parameter.opts, key=len).lstrip("-").replace("-", "_"), parameter)
    for name, below in getattr(command, "commands", {}).items():
        yield from options_of(below, (*path, name))


def configure(context: Any, name: str, command: Any, *, given: str | Path | None) -> None:
    """Let a command that is about to run have what is set for it.

    context: of the program; its default_map is what is changed
    errors:  ConfigError for an unknown key, section or variable, and for a value of a wrong type or out of its range
    """
    files = read_files(given)
    options = list(options_of(command, (name,)))
    commands = context.command.list_commands(context)
    if files:
        check_sections(files, commands)
        check_keys(files, command, (name,))
    check_variable_commands(commands)
    check_variables(f"{variable((name,))}_", known_variables(options))
    context.default_map = {name: defaults_of(options, files, context)}


def defaults_of(options: Iterable[Option], files: Iterable[ConfigFile], context: Any) -> dict[str, Any]:
    """What click takes for the default values of a command and of the commands in it. errors: as for `configure`"""
    defaults: dict[str, Any] = {}
    for option in options:
        setting = effective(option, files, context)
        if setting is not None:
            table = defaults
            for part in option.command[1:]:
                table = table.setdefault(part, {})
            table[option.parameter.name] = setting.value
            _let_be_switched_off(option.parameter)
    return defaults


def effective(option: Option, files: Iterable[ConfigFile], context: Any) -> Setting | None:
    """What of all that is set for an option counts, ready for click. errors: ConfigError as for `configure`"""
    found = [_checked(option, setting, context) for setting in settings_of(option.key, option.command, files)]
    return found[-1] if found else None


def check_sections(files: Iterable[ConfigFile], commands: Iterable[str]) -> None:
    """Errors: ConfigError for what stands before the first section and is not shared, and for an unknown section"""
    commands = list(commands)
    for file in files:
        for key, value in file.table.items():
            if isinstance(value, Mapping) and key not in commands:
                raise ConfigError(f"{file.path}: unknown section [{key}]", fix=nearest(key, commands))
            if not isinstance(value, Mapping) and key not in SHARED:
                raise ConfigError(
                    f"{file.path}: unknown key {key} before the first section",
                    fix=f"{nearest(key, SHARED)} (what one command alone has stands in its section)",
                )


def check_keys(files: Iterable[ConfigFile], command: Any, path: tuple[str, ...]) -> None:
    """Errors: ConfigError for a key in the section of a command that it has not, nor a command in it"""
    keys = {option.key for option in options_of(command, path)}
    below = getattr(command, "commands", {})
    for file in files:
        for key, value in file.section(path).items():
            is_section = isinstance(value, Mapping)
            if key not in (below if is_section else keys):
                kind, known = ("section", below) if is_section else ("key", keys)
                where = f"[{'.'.join(path)}]"
                raise ConfigError(f"{file.path}: unknown {kind} {key} in {where}", fix=nearest(key, known))
    for name, one in below.items():
        check_keys(files, one, (*path, name))


def known_variables(options: Iterable[Option]) -> Iterator[str]:
    """All that could set one of these options."""
    for option in options:
        for depth in range(1, len(option.command) + 1):
            yield variable((*option.command[:depth], option.key))
        if option.key in SHARED:
            yield variable((option.key,))


def _checked(option: Option, setting: Setting, context: Any) -> Setting:
    """The setting in the form that click wants."""
    value = setting.value
    if setting.text:
        value = _from_text(option.parameter, value)
    else:
        _check_type(option, setting)
    checked = Setting(value, setting.origin)
    try:
        converted(option, checked, context)
    except (typer.BadParameter, ValueError) as error:
        reason = error.message if isinstance(error, typer.BadParameter) else str(error)
        raise _wrong(option, setting, reason) from error
    return checked


def converted(option: Option, setting: Setting, context: Any) -> Any:
    """The value as the command gets it."""
    return option.parameter.type_cast_value(context, setting.value)


def _from_text(parameter: Any, text: str) -> Any:
    """Of an option that may be given several times, one value a line."""
    if parameter.multiple:
        return text.splitlines()
    return shlex.split(text) if parameter.nargs > 1 else text


def _check_type(option: Option, setting: Setting) -> None:
    """TOML has types: a number in quotes is none."""
    parameter, value = option.parameter, setting.value
    kind = _kind(parameter)
    if parameter.multiple or parameter.nargs > 1:
        if not isinstance(value, list) or not all(_is_a(kind, one) for one in value):
            raise _wrong(option, setting, f"got {value!r}, wanted a list: of each, {_TOML_NAMES[kind]}")
        if parameter.nargs > 1 and len(value) != parameter.nargs:
            raise _wrong(option, setting, f"got {len(value)} values, wanted {parameter.nargs}")
    elif not _is_a(kind, value):
        raise _wrong(option, setting, f"got {value!r}, wanted {_TOML_NAMES[kind]}")


def _kind(parameter: Any) -> type:
    name = str(parameter.type.name)
    if parameter.is_flag or name.startswith("bool"):
        return bool
    return int if name.startswith("int") else float if name.startswith("float") else str


def _is_a(kind: type, value: object) -> bool:
    """A whole number is a number too; a truth value is none."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _wrong(option: Option, setting: Setting, reason: str) -> ConfigError:
    where = "" if setting.text else f" [{'.'.join(option.command)}] {option.key}:"
    # The reason may quote the value.
    return ConfigError(f"{setting.origin}:{where} {HIDDEN if is_secret(option.key) else reason.rstrip('.')}", fix="")


def _let_be_switched_off(parameter: Any) -> None:
    """A flag that a file switched on gets a --no-FLAG, so that the command line has the last word here too."""
    if getattr(parameter, "is_bool_flag", False) and not parameter.secondary_opts:
        long = max(parameter.opts, key=len)
        parameter.secondary_opts.append(f"--no-{long.removeprefix('--')}")
