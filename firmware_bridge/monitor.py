"""Messages made readable, and the questions that a device answers about itself."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from edgeasr.errors import DeviceError
from edgeasr.firmware_bridge.link import Link
from edgeasr.firmware_bridge.messages import (
    Ack,
    Audio,
    Capability,
    Codec,
    Command,
    CommandCode,
    Event,
    EventKind,
    FeatureCoding,
    Features,
    Gap,
    GapReason,
    Hello,
    Info,
    Log,
    LogLevel,
    Message,
    Stats,
    Status,
)
from edgeasr.firmware_bridge.session import Received

ANSWER_S = 3.0
_NAMES: dict[tuple[type[Message], str], type[IntEnum]] = {
    (Audio, "codec"): Codec,
    (Features, "coding"): FeatureCoding,
    (Event, "kind"): EventKind,
    (Gap, "reason"): GapReason,
    (Log, "level"): LogLevel,
    (Ack, "status"): Status,
}


def as_dict(received: Received, began_s: float) -> dict[str, Any]:
    """A message for JSON: when it came, its header and its fields; of data only the length, of numbers the names."""
    frame = received.frame
    entry: dict[str, Any] = {
        "at_s": round(received.arrival_s - began_s, 4),
        "message": frame.message.title(),
        "sequence": frame.sequence,
        "time": frame.time,
        "lost": frame.lost,
    }
    return entry | fields_of(frame.message)


def fields_of(message: Message) -> dict[str, Any]:
    """The fields by name, readable."""
    return {
        ("data_bytes" if field.name == "data" else field.name): _readable(message, field.name)
        for field in dataclasses.fields(message)  # type: ignore[arg-type]  # each message is a dataclass
    }


def as_line(entry: dict[str, Any]) -> str:
    """An entry of `as_dict` as text."""
    rest = " ".join(f"{name}={value}" for name, value in entry.items() if name not in ("at_s", "message", "lost"))
    lost = f" ({entry['lost']} lost before it)" if entry["lost"] else ""
    return f"{entry['at_s']:9.3f} {entry['message']:<10} {rest}{lost}"


def ask(link: Link, stopped: Callable[[], bool]) -> dict[str, dict[str, Any]]:
    """HELLO, INFO and STATS of a device, what it gives of them. errors: DeviceError for one that says nothing"""
    answers: dict[type[Message], Message] = {}
    deadline_s = time.monotonic() + ANSWER_S
    asked = False
    for received in link.received(lambda: stopped() or time.monotonic() > deadline_s):
        message = received.frame.message
        if isinstance(message, Hello | Info | Stats):
            answers[type(message)] = message
        if not asked and isinstance(message, Hello):
            asked = True
            link.send(Command(CommandCode.GET_INFO, 0))
            link.send(Command(CommandCode.GET_STATS, 0))
        if len(answers) == 3:
            break
    if not answers:
        raise DeviceError(f"{link.name} does not say what it is within {ANSWER_S:g} s: check that it can hear the host")
    return {message.title().lower(): fields_of(message) for message in answers.values()}


def _readable(message: Message, name: str) -> Any:
    value = getattr(message, name)
    if isinstance(value, bytes):
        return len(value)
    if isinstance(message, Hello) and name == "capabilities":
        return [capability.name for capability in Capability if value & capability]
    kind = _NAMES.get((type(message), name))
    return kind(value).name if kind is not None and value in list(kind) else value
