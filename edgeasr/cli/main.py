"""The program `edgeasr`: its commands, and the one place where errors become lines and exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgeasr import __version__
from edgeasr.cli.bench import bench
from edgeasr.cli.bridge import bridge
from edgeasr.cli.evaluate import evaluate
from edgeasr.cli.export import export
from edgeasr.cli.listen import listen
from edgeasr.cli.lm import lm
from edgeasr.cli.terminal import print_error, write_out
from edgeasr.cli.train import train
from edgeasr.cli.transcribe import transcribe
from edgeasr.errors import EdgeasrError

# Command files import what is heavy (torch, ONNX Runtime) only when they run.
COMMANDS = (listen, transcribe, evaluate, train, export)

# rich alone takes a second to import on a small board.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(bridge, name="bridge")
app.add_typer(bench, name="bench")
app.add_typer(lm, name="lm")


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
) -> None:
    """Streaming speech recognition for small boards."""
    del version


def main() -> None:
    """Run the command line. What a caller, a file or a device caused is one line on standard error."""
    try:
        app(prog_name="edgeasr")
    except EdgeasrError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        print_error(error)
        sys.exit(EdgeasrError.exit_code)


if __name__ == "__main__":
    main()
