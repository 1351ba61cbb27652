"""What clients may use of a server; whatever is more is refused with a message."""

from __future__ import annotations

from dataclasses import dataclass, fields

from edgeasr.config import require

_MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """All of them are positive; sizes in bytes, times in seconds.

    max_streams:       that are heard at once, of all protocols together
    max_connections:   open at once at one port
    max_uploads:       files that are transcribed at once
    max_message_bytes: of one web socket message
    max_request_bytes: of an HTTP request
    max_audio_s:       length of an uploaded recording
    queue_s:           audio of a stream that waits; then its socket is not read until there is room
    max_finals:        that wait for a client to read them; then its stream is not stepped until there is room
    idle_s:            without anything from a client, after which its stream is finished and closed
    unread_s:          for which a client takes nothing of what is sent to it, after which it is cut off
    request_s:         for an HTTP request to arrive whole; its head has a tenth of it
    stop_s:            for streams to end when the server is stopped
    errors:            ConfigError for what is not positive
    """

    max_streams: int = 16
    max_connections: int = 128
    max_uploads: int = 4
    max_message_bytes: int = _MB
    max_request_bytes: int = 25 * _MB
    max_audio_s: float = 4 * 3600.0
    queue_s: float = 5.0
    max_finals: int = 64
    idle_s: float = 60.0
    unread_s: float = 10.0
    request_s: float = 300.0
    stop_s: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            require(value > 0, f"got {field.name} {value}, wanted a number above 0")
