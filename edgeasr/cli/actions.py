"""`--exec`, `--webhook` and `--mqtt` of a command that hears something live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.extras import needs_extra
from edgeasr.cli.terminal import print_note

if TYPE_CHECKING:
    from edgeasr.actions.command import Command
    from edgeasr.actions.outbox import Outbox
    from edgeasr.actions.webhook import Webhook
    from edgeasr.transcript import Event

DRAIN_S = 5.0
TIMEOUT_S = 10.0

Exec = Annotated[
    list[str] | None,
    typer.Option(
        "--exec",
        metavar="'CMD {text}'",
        help="Run a program for every final segment, without a shell; {text}, {start}, {end}, {segment} and {tags} are "
        "filled in, each within its argument. May be given several times.",
    ),
]
ExecTimeout = Annotated[
    float | None,
    typer.Option(min=0.1, metavar="S", help="With --exec: a program that runs longer is killed; 10 without."),
]
ExecJobs = Annotated[int, typer.Option(min=1, max=64, metavar="N", help="With --exec: so many run at the same time.")]
WebhookUrl = Annotated[
    list[str] | None,
    typer.Option(
        "--webhook",
        metavar="URL",
        help="Post every final segment as JSON to a server on this machine. May be given several times.",
    ),
]
WebhookAllow = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST", help="With --webhook: another host, address or network that may be called."),
]
MqttUrl = Annotated[
    str | None,
    typer.Option(
        "--mqtt",
        metavar="mqtt://HOST/TOPIC",
        help="Publish every final segment as JSON; mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/TOPIC. Needs edgeasr[mqtt].",
    ),
]

Heard = Callable[["Iterator[Event]"], "Iterator[Event]"]


@contextmanager
def acting(
    *,
    exec: list[str] | None = None,
    exec_timeout: float | None = None,
    exec_jobs: int = 1,
    webhook: list[str] | None = None,
    webhook_allow: list[str] | None = None,
    mqtt: str | None = None,
) -> Iterator[Heard]:
    """What the events of a stream go through, so that its finals reach the actions.

    At the end it waits, for DRAIN_S at most, until they are delivered.
    """
    _check_together(exec, exec_timeout, webhook, webhook_allow)
    if not (exec or webhook or mqtt):
        yield lambda events: events
        return
    outboxes = _outboxes(exec or [], exec_timeout, exec_jobs, webhook or [], webhook_allow or [], mqtt)
    try:
        yield lambda events: _heard(events, outboxes)
    finally:
        deadline_s = time.monotonic() + DRAIN_S
        for outbox in outboxes:
            outbox.begin_to_close(deadline_s)
        for outbox in outboxes:
            outbox.close()


def _outboxes(
    exec: list[str],
    exec_timeout: float | None,
    exec_jobs: int,
    webhook: list[str],
    webhook_allow: list[str],
    mqtt: str | None,
) -> list[Outbox]:
    from edgeasr.actions.action import Action
    from edgeasr.actions.outbox import Outbox, OutboxLimits

    commands = _commands(exec, exec_timeout)
    others: list[Action] = [*_webhooks(webhook, webhook_allow)]
    if mqtt:
        with needs_extra("mqtt"):
            from edgeasr.actions.mqtt import Mqtt
        others.append(Mqtt(mqtt))
    outboxes = [Outbox(command, print_note, OutboxLimits(jobs=exec_jobs)) for command in commands]
    return outboxes + [Outbox(other, print_note) for other in others]


def check_actions(
    *,
    exec: list[str] | None,
    exec_timeout: float | None,
    webhook: list[str] | None,
    webhook_allow: list[str] | None,
    mqtt: str | None,
) -> None:
    """Errors: what `acting` would refuse; nothing is run or connected to"""
    _check_together(exec, exec_timeout, webhook, webhook_allow)
    _commands(exec or [], exec_timeout)
    _webhooks(webhook or [], webhook_allow or [])
    if mqtt:
        with needs_extra("mqtt"):
            from edgeasr.actions.mqtt import Broker
        Broker.parse(mqtt)


def _check_together(
    exec: list[str] | None, exec_timeout: float | None, webhook: list[str] | None, webhook_allow: list[str] | None
) -> None:
    if exec_timeout is not None and not exec:
        raise typer.BadParameter("--exec-timeout is for --exec")
    if webhook_allow and not webhook:
        raise typer.BadParameter("--webhook-allow is for --webhook")


def _commands(exec: list[str], timeout_s: float | None) -> list[Command]:
    from edgeasr.actions.command import Command

    return [Command(template, TIMEOUT_S if timeout_s is None else timeout_s) for template in exec]


def _webhooks(urls: list[str], allowed: list[str]) -> list[Webhook]:
    if not urls:
        return []
    from edgeasr.actions.hosts import HostPolicy
    from edgeasr.actions.webhook import Webhook

    hosts = HostPolicy(allowed)
    return [Webhook(url, hosts) for url in urls]


def _heard(events: Iterator[Event], outboxes: list[Outbox]) -> Iterator[Event]:
    for event in events:
        if event.type == "final":
            told = event.to_dict()
            for outbox in outboxes:
                outbox.put(told)
        yield event
