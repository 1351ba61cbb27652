"""Options that say where segments end, why, and whether silence is heard at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from edgeasr.cli.terminal import print_note

if TYPE_CHECKING:
    from edgeasr.endpoint import Endpoint, EndpointConfig
    from edgeasr.gate import GateConfig

EndpointRules = Annotated[
    str,
    typer.Option(
        "--endpoint",
        metavar="fast|normal|dictation|FILE",
        help="How long a pause ends a segment: for commands, for talk, for whoever thinks while speaking, or by the "
        "rules of a .toml file.",
    ),
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Say on standard error which rule ended each segment, when and why.")
]
GateSwitch = Annotated[
    bool,
    typer.Option("--gate/--no-gate", help="Hold back silence, which then costs next to nothing, or hear all of it."),
]


class Listening(TypedDict):
    """What `Recognizer` takes of these options."""

    endpoint: EndpointConfig
    gate: GateConfig | None
    on_endpoint: Callable[[Endpoint], None] | None


def listening(endpoint: str, *, gate: bool, explain: bool) -> Listening:
    """Errors: ConfigError for rules that are unknown or cannot be read"""
    from edgeasr.endpoint import endpoint_config
    from edgeasr.gate import GateConfig

    def say(ended: Endpoint) -> None:
        print_note(f"endpoint at {ended}")

    return Listening(
        endpoint=endpoint_config(endpoint),
        gate=GateConfig() if gate else None,
        on_endpoint=say if explain else None,
    )
