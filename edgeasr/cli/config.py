"""`edgeasr config`: what files and the environment set, and which files these are."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any, NamedTuple

import typer

from edgeasr.cli.configured import (
    Option,
    check_keys,
    check_sections,
    converted,
    effective,
    known_variables,
    options_of,
)
from edgeasr.cli.terminal import write_out
from edgeasr.errors import ConfigError
from edgeasr.settings import PREFIX, check_variables, config_paths, nearest, read_files, shown
from edgeasr.wording import visible

config = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Which configuration files there are, and what is set by them."
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Shown(NamedTuple):
    """A value that a command would get. origin: where it comes from"""

    key: str
    value: Any
    origin: str


@config.command()
def path(ctx: typer.Context, json: Json = False) -> None:
    """Print the configuration files, the one that wins last, and whether they are there."""
    paths = config_paths(ctx.find_root().params.get("config"))
    if json:
        files = [{"path": str(one), "exists": one.exists()} for one in paths]
        write_out(jsonlib.dumps({"files": files}) + "\n")
        return
    write_out("".join(f"{visible(one)}{'' if one.exists() else '  (not there)'}\n" for one in paths))


@config.command()
def show(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]...", help="Of one, such as listen or memory search."),
    ] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Leave out what nothing sets.")] = False,
    json: Json = False,
) -> None:
    """Print the value of every option, and where it comes from.

    Flags win over environment variables, these over the user's file, and that over the system's. An unknown key,
    section or variable, and a value of a wrong type, is an error.
    """
    values = settings_shown(ctx.find_root(), tuple(command or ()))
    if changed:
        values = [one for one in values if one.origin != "default"]
    if json:
        rows = [one._asdict() for one in values]
        write_out(jsonlib.dumps({"settings": rows}, default=str) + "\n")
        return
    from edgeasr.cli.columns import columns

    lines = columns(((one.key, _text(one.value), one.origin) for one in values), "<<<") if values else []
    write_out("".join(f"{line}\n" for line in lines))


def settings_shown(root: Any, wanted: tuple[str, ...] = ()) -> list[Shown]:
    """The options of all commands, or of one. errors: ConfigError for all that is wrong with what is set

    root: the context of the program
    """
    group, files = root.command, read_files(root.params.get("config"))
    names = group.list_commands(root)
    commands = {name: group.get_command(root, name) for name in names}
    check_sections(files, names)
    for name, one in commands.items():
        check_keys(files, one, (name,))
    options = [option for name, one in commands.items() for option in options_of(one, (name,))]
    check_variables(PREFIX, known_variables(options))
    # Nothing of [config] or of its commands can be set.
    chosen = [option for option in options if option.command[: len(wanted)] == wanted and option.key != "help"]
    if not chosen:
        known = {" ".join(option.command[: len(wanted)]) for option in options}
        raise ConfigError(f"got no command {' '.join(wanted)!r}", fix=nearest(" ".join(wanted), known))
    return [_shown(option, files, root) for option in chosen]


def _shown(option: Option, files: Any, root: Any) -> Shown:
    key = ".".join((*option.command, option.key))
    setting = effective(option, files, root)
    if setting is None:
        return Shown(key, shown(option.key, option.parameter.get_default(root)), "default")
    return Shown(key, shown(option.key, converted(option, setting, root)), setting.origin)


def _text(value: Any) -> str:
    return "-" if value is None else jsonlib.dumps(value, ensure_ascii=False)
