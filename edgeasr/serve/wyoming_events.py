"""Wyoming's events from a socket, with bounds.

The library's own reader takes as many bytes as a header announces, and leaves by whatever exception a header of another
shape causes: it is made for peers that are trusted.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from wyoming.event import Event

from edgeasr.errors import ServeError

MAX_HEADER_BYTES = 1 << 16  # of the line, and of the data behind it


class EventError(ServeError):
    """An event that is not one, or is too large, or cut off."""


async def read_event(reader: asyncio.StreamReader, max_payload_bytes: int) -> Event | None:
    """The next event, None at the end of the stream.

    reader: its limit bounds the header, see asyncio.start_server
    errors: EventError; what follows in the stream has no meaning then
    """
    try:
        line = await reader.readline()
    except ValueError as error:
        raise EventError("got a header without an end, want one line of JSON: speak Wyoming here") from error
    if not line:
        return None
    header = _object(line, "a header")
    kind, data = header.get("type"), header.get("data")
    if not isinstance(kind, str) or not isinstance(data, dict | None):
        raise EventError("got a header without a type, or with data that are no object: speak Wyoming here")
    event = Event(kind, dict(data or {}))
    num_data_bytes = _length(header, "data_length", MAX_HEADER_BYTES)
    if num_data_bytes:
        event.data |= _object(await _exactly(reader, num_data_bytes), "data")
    num_payload_bytes = _length(header, "payload_length", max_payload_bytes)
    event.payload = await _exactly(reader, num_payload_bytes)
    return event


def number(event: Event, key: str) -> int:
    """A whole number of the event's data. errors: EventError"""
    value = event.data.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise EventError(f"got {event.type} with {key} {value!r:.40}, want a whole number")
    return value


def text_of(event: Event, key: str) -> str | None:
    """A text of the event's data, None where there is none. errors: EventError"""
    value = event.data.get(key)
    if not isinstance(value, str | None):
        raise EventError(f"got {event.type} with {key} {value!r:.40}, want a text")
    return value


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EventError(f"got {what} that is no JSON, or cut off: speak Wyoming here") from error
    if not isinstance(value, dict):
        raise EventError(f"got {what} that is no JSON object: speak Wyoming here")
    return value


def _length(header: dict[str, Any], key: str, most: int) -> int:
    value = header.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise EventError(f"got {key} {value!r:.40}, want 0 to {most}: send less at a time")
    return value


async def _exactly(reader: asyncio.StreamReader, num_bytes: int) -> bytes:
    try:
        return await reader.readexactly(num_bytes)
    except asyncio.IncompleteReadError as error:
        raise EventError(f"got {len(error.partial)} bytes of {num_bytes}, then the end: send all of them") from error
