"""`edgeasr service`: hears or serves in the background, for months."""

from __future__ import annotations

import getpass
import json as jsonlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeasr.cli.terminal import print_note, write_out
from edgeasr.errors import ServiceError
from edgeasr.settings import SYSTEM_FILE, holds_secret, is_secret, read_files, user_file

if TYPE_CHECKING:
    from edgeasr.service.systemd import ServiceStatus, Systemd
    from edgeasr.service.unit import Unit

service = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Hear or serve in the background, started by systemd."
)

System = Annotated[bool, typer.Option("--system", help="Of the whole machine, not of this user; needs root.")]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of the service, where there are several; edgeasr-COMMAND without.")
]


@service.command()
def install(
    ctx: typer.Context,
    command: Annotated[Literal["listen", "serve"], typer.Argument(metavar="listen|serve")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTION...]", help="What the command is given, after a --.")
    ] = None,
    system: System = False,
    run_as: Annotated[
        str | None,
        typer.Option(metavar="USER", help="With --system: who it runs as, not a user that is made up for it."),
    ] = None,
    name: Name = None,
    memory_max: Annotated[
        int, typer.Option(min=64, metavar="MB", help="It is ended and started again when it takes more.")
    ] = 512,
    watchdog: Annotated[
        float,
        typer.Option(min=1, metavar="S", help="It is ended and started again when recognition stands still."),
    ] = 30.0,
    writable: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Another folder that it, or what --exec runs, may write to."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Keep what is said out of the journal.")] = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it now, not with the next boot.")] = True,
    print: Annotated[bool, typer.Option("--print", help="Print the unit and change nothing.")] = False,
) -> None:
    """Write a systemd unit and start it: edgeasr service install listen -- --remember --json.

    It may read what it needs and write its store and cache, and little else. It is started again when it fails, when
    recognition stands still and when it takes too much memory.
    """
    from edgeasr.service.systemd import Systemd

    values = _parsed(ctx, command, arguments or [], system_file_alone=system)
    manager = Systemd("system" if system else "user")
    if not print:
        manager.require()
    unit = _unit(
        command,
        arguments or [],
        values,
        scope=manager.scope,
        run_as=run_as,
        name=name or f"edgeasr-{command}",
        watchdog_s=watchdog,
        memory_mb=memory_max,
        writable=writable or [],
        quiet=quiet,
    )
    if print:
        write_out(unit.text())
        return
    from edgeasr.service.needs import make_folders

    make_folders(unit.writable, unit.run_as)
    write_out(f"wrote {manager.install(unit, start=start)}\n")
    _hint(manager, unit, started=start)


@service.command()
def uninstall(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="As `edgeasr service status` has it.")
    ] = "edgeasr-listen",
    system: System = False,
) -> None:
    """Stop a service and remove its unit; its store and cache stay."""
    from edgeasr.service.systemd import Systemd

    write_out(f"removed {Systemd('system' if system else 'user').uninstall(name)}\n")


@service.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="All that are installed without one.")] = None,
    system: System = False,
    lines: Annotated[int, typer.Option(min=0, max=10_000, metavar="N", help="So many of its last lines.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how services are. The exit code is 1 where one does not run, or none is installed."""
    from edgeasr.service.systemd import Systemd

    manager = Systemd("system" if system else "user")
    try:
        manager.require()
    except ServiceError as error:
        if json:
            write_out(jsonlib.dumps({"services": [], "error": str(error)}) + "\n")
        raise
    found = [manager.status(one, lines) for one in ([name] if name else manager.installed())]
    if json:
        write_out(jsonlib.dumps({"services": [one.to_dict() for one in found]}) + "\n")
    elif found:
        write_out("\n".join(_text(one) for one in found))
    else:
        print_note(f"no service is installed in {manager.folder}: `edgeasr service install listen`")
    if not found or not all(one.is_active for one in found):
        raise typer.Exit(1)


def _parsed(ctx: typer.Context, command: str, arguments: list[str], *, system_file_alone: bool) -> Mapping[str, Any]:
    """The options that the service will have, those of configuration files too. errors: those of the command"""
    from edgeasr.cli.configured import defaults_of, options_of
    from edgeasr.cli.start_checks import check_command

    root = ctx.find_root()
    assert hasattr(root.command, "get_command")
    found = root.command.get_command(root, command)
    files = read_files(root.params.get("config"))
    if system_file_alone:
        files = tuple(file for file in files if file.path == SYSTEM_FILE)
    defaults = defaults_of(options_of(found, (command,)), files, root)
    inner = found.make_context(f"edgeasr {command}", list(arguments), default_map=defaults)
    values: Mapping[str, Any] = inner.params
    _refuse_secrets(command, inner, system=system_file_alone)
    check_command(command, values)
    return values


def _refuse_secrets(command: str, context: Any, *, system: bool) -> None:
    """Of what was given on the command line, which becomes the unit's. errors: ServiceError

    context: of the command
    """
    file = SYSTEM_FILE if system else user_file() or "a configuration file"
    owner = ", owned by a user that --run-as names" if system else ""
    for parameter in context.command.params:
        value = context.params.get(parameter.name)
        if context.get_parameter_source(parameter.name).name != "COMMANDLINE" or not holds_secret(
            parameter.name, value
        ):
            continue
        option = max(parameter.opts, key=len)
        what = option if is_secret(parameter.name) else f"a password in {option}"
        instead = "--token-file FILE, or " if option == "--token" else ""
        raise ServiceError(
            f"got {what} for a service, whose unit anybody can read: give {instead}"
            f"`{parameter.name} = ...` in [{command}] of {file}, with mode 0600{owner}"
        )


def _unit(
    command: str,
    arguments: list[str],
    values: Mapping[str, Any],
    *,
    run_as: str | None,
    writable: list[Path],
    **settings: Any,
) -> Unit:
    from edgeasr.service.needs import (
        groups_for,
        lie_at_home,
        made_of,
        needs_of,
        own_folders,
        program,
        user_to_run_as,
    )
    from edgeasr.service.unit import Unit

    needs, system = needs_of(command, values, settings["name"]), settings["scope"] == "system"
    if system and run_as is None:
        run_as = user_to_run_as((*made_of(), *needs.reads))
    of_a_user = not system or run_as is not None
    folders = [*(own_folders(run_as, settings["scope"]) if of_a_user else ())]
    folders += [path.parent for path in needs.written] + [folder.absolute() for folder in writable]
    return Unit(
        program=program(),
        arguments=(command, *arguments),
        run_as=run_as,
        groups=groups_for(needs) if system else (),
        writable=tuple(dict.fromkeys(folders)),
        # A user's sound server has its socket below /run/user, which counts as home.
        read_home=of_a_user or lie_at_home((*made_of(), *needs.reads)),
        network=needs.network,
        online=needs.online,
        serial=needs.serial,
        **settings,
    )


def _hint(manager: Systemd, unit: Unit, *, started: bool) -> None:
    user = " --user" if manager.scope == "user" else ""
    print_note(f"`journalctl{user} -u {unit.name} -f` shows what it says, `edgeasr service status` how it is")
    if not started:
        print_note(f"it is not started yet: systemctl{user} start {unit.name}")
    if unit.run_as is not None:
        print_note(f"it runs as {unit.run_as}")
    name = getpass.getuser()
    if not manager.lingers(name):
        print_note(
            f"it runs while {name} is logged in; from boot on, and after a logout: sudo loginctl enable-linger {name}"
        )


def _text(status: ServiceStatus) -> str:
    from edgeasr.cli.columns import columns

    memory = f"{int(status.memory_bytes) / 2**20:.0f} MB" if status.memory_bytes.isdecimal() else ""
    rows = [
        (
            "state",
            f"{status.active} ({status.state})" if status.loaded == "loaded" else f"no such unit ({status.loaded})",
        ),
        ("since", status.since),
        ("result", status.result if status.result != "success" else ""),
        ("says", status.status),
        ("process", status.process if status.process != "0" else ""),
        ("restarts", status.restarts),
        ("memory", memory),
        ("watchdog", status.watchdog if status.watchdog != "infinity" else ""),
        ("last sign", status.last_sign),
        ("at boot", status.starts),
        ("unit", status.file),
    ]
    table = columns([row for row in rows if row[1]], "<<")
    return "".join(f"{line}\n" for line in (status.name, *(f"  {line}" for line in (*table, *status.lines))))
