"""The program `edgeasr`: its commands, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgeasr import __version__
from edgeasr.cli.terminal import print_error, write_out
from edgeasr.errors import ConfigError, EdgeasrError

# Each is a function, or a group of such, in a module of its name. Only the one that runs is imported, which is most of
# what a start takes on a small board; what is heavy (torch, ONNX Runtime) they import when they run.
COMMANDS = (
    "listen",
    "transcribe",
    "serve",
    "evaluate",
    "profile",
    "corpus",
    "train",
    "export",
    "describe",
    "bridge",
    "bench",
    "devices",
    "lm",
    "transducer",
    "memory",
    "service",
    "doctor",
    "config",
)

# What is wrong with the configuration files is theirs to say.
_ABOUT_THE_CONFIGURATION = ("config", "doctor")


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"edgeasr.cli.{cmd_name}"), cmd_name)
        holder = _new_app(callback=_holder)
        if isinstance(command, typer.Typer):
            holder.add_typer(command, name=cmd_name)
        else:
            holder.command(cmd_name)(command)
        group = typer.main.get_command(holder)
        assert isinstance(group, TyperGroup)
        return group.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not {"-h", "--help"} & set(rest):
            from edgeasr.cli.configured import configure

            with suppress(ConfigError) if name in _ABOUT_THE_CONFIGURATION else nullcontext():
                configure(ctx, str(name), command, given=ctx.params.get("config"))
        return name, command, rest


def _holder() -> None:
    """Makes a group also of one command."""


def _new_app(**options: Any) -> typer.Typer:
    # rich alone takes a second to import on a small board.
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, **options)


app = _new_app(cls=_Commands, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})


def _print_version(wanted: bool) -> None:
    if wanted:
        write_out(f"edgeasr {__version__}\n")
        raise typer.Exit


@app.callback()
def edgeasr(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", envvar="EDGEASR_CONFIG", help="Read this configuration file alone, see `edgeasr config`."
        ),
    ] = None,
) -> None:
    """Streaming speech recognition for small boards."""
    del version, config  # the groups above take it from the context


def main() -> None:
    """Run the command line. What a caller, a file or a device caused is one line on standard error."""
    # Before numpy is imported: its products are too small here for threads that wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app(prog_name="edgeasr")
    except EdgeasrError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print_error(f"{error.strerror or error}{where}")
        sys.exit(EdgeasrError.exit_code)


if __name__ == "__main__":
    main()
