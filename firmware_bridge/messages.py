"""The messages of the link and its constants: the only source, from which the C header is generated.

A message is a frozen dataclass whose annotations are its wire fields, in their order, little-endian:

    frame = Ping(token=7).encode()
    Ping.decode(frame) == decode(Ping.TYPE, frame)

A line "name: text" of a class's docstring describes a field; it becomes a comment in the header.
"""

from __future__ import annotations

import dataclasses
from enum import IntEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Self, get_type_hints

from edgeasr.errors import EdgeasrError

PROTOCOL_VERSION = 1
HEADER_SIZE = 6  # version and type, sequence, time
MAX_PAYLOAD = 4096
CRC16_LIMIT = 1024  # header and payload up to this length carry a CRC-16, longer ones a CRC-32
CRC16_SIZE, CRC32_SIZE = 2, 4
LATE_FRAMES = 16  # a sequence number that is this far back at most is that of a late frame

# Rice coding of features.
RICE_PARAMETER_BITS = 3
RICE_MAX_PARAMETER = 7
RICE_ESCAPE_ONES = 20
RICE_ESCAPE_BITS = 9

FEATURE_STEP_UNIT = 1024  # a step of 1 nat
FEATURE_OFFSET_UNIT = 256  # an offset of 1 nat
DEFAULT_FEATURE_STEP = 1536
DEFAULT_FEATURE_OFFSET = -1280

ADPCM_HEADER_SIZE = 4  # predictor, step index, a reserved byte
ADPCM_MAX_STEP_INDEX = 88


class Status(IntEnum):
    """What a function of the C library returns, and what an ACK carries."""

    OK = 0
    BAD_ARG = 1
    OVERFLOW = 2
    EMPTY = 3
    MALFORMED = 4
    BAD_CRC = 5
    BAD_LENGTH = 6
    BAD_VERSION = 7
    BAD_TYPE = 8
    TRUNCATED = 9


class ProtocolError(EdgeasrError):
    """Bytes that are no frame or message of the link, or a message that does not fit into one.

    status: the same error in the C library
    """

    def __init__(self, message: str, status: Status = Status.MALFORMED) -> None:
        super().__init__(message)
        self.status = status


class Capability(IntEnum):
    """Bits of Hello.capabilities: codecs that the sender knows, and what it has."""

    S16 = 1 << 0
    ULAW = 1 << 1
    ADPCM = 1 << 2
    FEATURES = 1 << 3
    VAD = 1 << 4
    DISPLAY = 1 << 5
    COMMANDS = 1 << 6
    WAKE = 1 << 7


class Codec(IntEnum):
    """How speech travels: the first three as AUDIO, the last as FEATURES."""

    S16 = 0
    ULAW = 1
    ADPCM = 2
    FEATURES = 3


class VadMode(IntEnum):
    """What the device does with silence: it sends everything, or only speech with its pre-roll."""

    OFF = 0
    GATE = 1


class FeatureCoding(IntEnum):
    """How the int8 values of FEATURES are packed."""

    RAW = 0
    RICE = 1


class EventKind(IntEnum):
    """What happened on the device."""

    SPEECH_START = 0
    SPEECH_END = 1
    WAKE = 2
    BUTTON = 3
    CLIPPING = 4


class GapReason(IntEnum):
    """Why samples are missing."""

    OVERRUN = 0
    LINK = 1
    RESTART = 2
    GATED = 3


class LogLevel(IntEnum):
    """Severity of a LOG."""

    DEBUG = 0
    INFO = 1
    WARNING = 2
    ERROR = 3
    FATAL = 4


class TranscriptKind(IntEnum):
    """A partial is replaced by the next one of its segment; a final stays."""

    PARTIAL = 0
    FINAL = 1


class CommandCode(IntEnum):
    """What the host asks of the device."""

    STOP = 0
    START = 1
    IDENTIFY = 2
    GET_INFO = 3
    GET_STATS = 4
    CALIBRATE = 5


class ResetReason(IntEnum):
    """Why the host restarts the device."""

    USER = 0
    RECOVERY = 1


class Flow(IntEnum):
    """Who sends a message."""

    BOTH = 0
    TO_HOST = 1
    TO_DEVICE = 2


@dataclasses.dataclass(frozen=True)
class IntField:
    """An integer of a fixed number of bytes."""

    size: int
    signed: bool

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest value."""
        span = 1 << (8 * self.size)
        return (-span // 2, span // 2 - 1) if self.signed else (0, span - 1)


@dataclasses.dataclass(frozen=True)
class TailField:
    """All bytes to the payload's end: any, or UTF-8 without a terminator."""

    text: bool


U8 = Annotated[int, IntField(1, signed=False)]
U16 = Annotated[int, IntField(2, signed=False)]
U32 = Annotated[int, IntField(4, signed=False)]
I16 = Annotated[int, IntField(2, signed=True)]
BytesTail = Annotated[bytes, TailField(text=False)]
TextTail = Annotated[str, TailField(text=True)]


class Message:
    """Base of all messages.

    TYPE: number on the wire; FLOW: who sends it
    """

    TYPE: ClassVar[int]
    FLOW: ClassVar[Flow]

    @classmethod
    def wire_fields(cls) -> dict[str, IntField | TailField]:
        """The fields by name, in the order of the wire; a tail is the last."""
        return _wire_fields(cls)  # type: ignore[arg-type] # mypy takes no class for hashable

    @classmethod
    def fixed_size(cls) -> int:
        """Bytes before the tail."""
        return sum(field.size for field in cls.wire_fields().values() if isinstance(field, IntField))

    @classmethod
    def title(cls) -> str:
        """The message's name in the specification."""
        return cls.__name__.upper()

    def encode(self) -> bytes:
        """The payload. errors: ProtocolError for a value that its field cannot hold, and for too long a tail"""
        payload = b"".join(self._encode_field(name, field) for name, field in self.wire_fields().items())
        if len(payload) > MAX_PAYLOAD:
            raise ProtocolError(
                f"{self.title()} takes {len(payload)} bytes, a frame holds {MAX_PAYLOAD}: send it in parts",
                Status.OVERFLOW,
            )
        return payload

    def _encode_field(self, name: str, field: IntField | TailField) -> bytes:
        value = getattr(self, name)
        if isinstance(field, TailField):
            return value.encode("utf-8", errors="replace") if field.text else bytes(value)
        low, high = field.bounds
        if not low <= value <= high:
            raise ProtocolError(f"{name} of {self.title()} is {value}, wanted {low} to {high}", Status.BAD_ARG)
        return int(value).to_bytes(field.size, "little", signed=field.signed)

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """The message of a payload; text that is no UTF-8 is read with U+FFFD in its place.

        errors: ProtocolError, TRUNCATED where a field is cut off, MALFORMED for bytes after the last field
        """
        values: dict[str, int | bytes | str] = {}
        position = 0
        for name, field in cls.wire_fields().items():
            if isinstance(field, TailField):
                tail = bytes(payload[position:])
                values[name] = tail.decode("utf-8", errors="replace") if field.text else tail
                position = len(payload)
                continue
            if position + field.size > len(payload):
                raise ProtocolError(
                    f"{name} of {cls.title()} is cut off: got {len(payload)} bytes, wanted {cls.fixed_size()} or more",
                    Status.TRUNCATED,
                )
            values[name] = int.from_bytes(payload[position : position + field.size], "little", signed=field.signed)
            position += field.size
        if position < len(payload):
            raise ProtocolError(f"{cls.title()} has {len(payload) - position} bytes after its last field")
        return cls(**values)


@cache
def _wire_fields(message: Any) -> dict[str, IntField | TailField]:
    hints = get_type_hints(message, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(message)}


@dataclasses.dataclass(frozen=True)
class Hello(Message):
    """Who speaks and what it can do; begins a session and restarts the counting of sequence numbers.

    protocol_version: of the sender
    sample_rate_hz: of the device's audio and clock; the host sends the rate that it would like, 0 for any
    max_payload: the longest payload that the sender can receive
    capabilities: bits of edgeasr_capability_t
    num_mels: of the sender's features, 0 where it has none
    name: of the firmware or program
    """

    TYPE: ClassVar[int] = 1
    FLOW: ClassVar[Flow] = Flow.BOTH

    protocol_version: U8
    sample_rate_hz: U32
    max_payload: U16
    capabilities: U16
    num_mels: U8
    name: TextTail


@dataclasses.dataclass(frozen=True)
class Configure(Message):
    """What the device shall send; it answers with an ACK.

    codec: one of edgeasr_codec_t
    frame_ms: audio in a frame
    vad_mode: one of edgeasr_vad_mode_t
    preroll_ms: audio before the start of speech that a gating device sends too
    flags: 0 in this version
    """

    TYPE: ClassVar[int] = 2
    FLOW: ClassVar[Flow] = Flow.TO_DEVICE

    codec: U8
    frame_ms: U16
    vad_mode: U8
    preroll_ms: U16
    flags: U8


@dataclasses.dataclass(frozen=True)
class Audio(Message):
    """Samples; the frame's time is that of the first.

    codec: one of edgeasr_codec_t, not FEATURES
    num_samples: of the decoded audio
    data: as the codec packs it
    """

    TYPE: ClassVar[int] = 3
    FLOW: ClassVar[Flow] = Flow.TO_HOST

    codec: U8
    num_samples: U16
    data: BytesTail


@dataclasses.dataclass(frozen=True)
class Features(Message):
    """Log-mel frames, value = q * step / 1024 + offset / 256; the time is that of the first window's first sample.

    num_mels: values of a frame
    num_frames: frames, one a hop
    coding: one of edgeasr_feature_coding_t
    step: in 1/1024 nats
    offset: in 1/256 nats
    data: as the coding packs it
    """

    TYPE: ClassVar[int] = 4
    FLOW: ClassVar[Flow] = Flow.TO_HOST

    num_mels: U8
    num_frames: U8
    coding: U8
    step: U16
    offset: I16
    data: BytesTail


@dataclasses.dataclass(frozen=True)
class Event(Message):
    """Something happened at the frame's time.

    kind: one of edgeasr_event_kind_t
    value: which button or wake word, else 0
    level: in 1/256 dB relative to full scale
    """

    TYPE: ClassVar[int] = 5
    FLOW: ClassVar[Flow] = Flow.TO_HOST

    kind: U8
    value: U8
    level: I16


@dataclasses.dataclass(frozen=True)
class Gap(Message):
    """Samples that the device did not send; the frame's time is that of the first.

    lost_samples: how many
    reason: one of edgeasr_gap_reason_t
    """

    TYPE: ClassVar[int] = 6
    FLOW: ClassVar[Flow] = Flow.TO_HOST

    lost_samples: U32
    reason: U8


@dataclasses.dataclass(frozen=True)
class Log(Message):
    """A line for the host's log.

    level: one of edgeasr_log_level_t
    text: without a line end
    """

    TYPE: ClassVar[int] = 7
    FLOW: ClassVar[Flow] = Flow.TO_HOST

    level: U8
    text: TextTail


@dataclasses.dataclass(frozen=True)
class Stats(Message):
    """The device's counters since it started.

    frames_sent: by the device
    frames_received: without error
    receive_errors: of all kinds
    overruns: samples lost because a buffer was full
    uptime_ms: since the start
    cpu_permille: busy time of the last second
    free_bytes: of RAM, 65535 for that many or more
    """

    TYPE: ClassVar[int] = 8
    FLOW: ClassVar[Flow] = Flow.TO_HOST

    frames_sent: U32
    frames_received: U32
    receive_errors: U32
    overruns: U32
    uptime_ms: U32
    cpu_permille: U16
    free_bytes: U16


@dataclasses.dataclass(frozen=True)
class Ping(Message):
    """Answered with a PONG.

    token: comes back
    """

    TYPE: ClassVar[int] = 9
    FLOW: ClassVar[Flow] = Flow.BOTH

    token: U32


@dataclasses.dataclass(frozen=True)
class Pong(Message):
    """The answer to a PING.

    token: of the PING
    """

    TYPE: ClassVar[int] = 10
    FLOW: ClassVar[Flow] = Flow.BOTH

    token: U32


@dataclasses.dataclass(frozen=True)
class Transcript(Message):
    """Words for the device's display.

    kind: one of edgeasr_transcript_kind_t
    segment: number of the segment, wraps
    stable_bytes: leading bytes of the text that no later partial changes
    text: of the segment, cut at a character to fit
    """

    TYPE: ClassVar[int] = 11
    FLOW: ClassVar[Flow] = Flow.TO_DEVICE

    kind: U8
    segment: U16
    stable_bytes: U16
    text: TextTail


@dataclasses.dataclass(frozen=True)
class Command(Message):
    """What the device shall do; it answers with an ACK, or with what was asked for.

    command: one of edgeasr_command_code_t
    argument: 0 where the command has none
    """

    TYPE: ClassVar[int] = 12
    FLOW: ClassVar[Flow] = Flow.TO_DEVICE

    command: U8
    argument: U32


@dataclasses.dataclass(frozen=True)
class Reset(Message):
    """The device starts anew.

    reason: one of edgeasr_reset_reason_t
    """

    TYPE: ClassVar[int] = 13
    FLOW: ClassVar[Flow] = Flow.TO_DEVICE

    reason: U8


@dataclasses.dataclass(frozen=True)
class Info(Message):
    """The firmware.

    major: of its version
    minor: of its version
    patch: of its version
    flash_bytes: taken by it
    ram_bytes: taken by it
    board: what it runs on
    """

    TYPE: ClassVar[int] = 14
    FLOW: ClassVar[Flow] = Flow.TO_HOST

    major: U8
    minor: U8
    patch: U8
    flash_bytes: U32
    ram_bytes: U32
    board: TextTail


@dataclasses.dataclass(frozen=True)
class Ack(Message):
    """What became of a CONFIGURE or COMMAND.

    type: of the frame that is answered
    sequence: of that frame
    status: one of edgeasr_status_t
    """

    TYPE: ClassVar[int] = 15
    FLOW: ClassVar[Flow] = Flow.BOTH

    type: U8
    sequence: U8
    status: U8


MESSAGES: dict[int, type[Message]] = {message.TYPE: message for message in Message.__subclasses__()}
ENUMS: tuple[type[IntEnum], ...] = (
    Capability,
    Codec,
    VadMode,
    FeatureCoding,
    EventKind,
    GapReason,
    LogLevel,
    TranscriptKind,
    CommandCode,
    ResetReason,
)


def decode(message_type: int, payload: bytes) -> Message:
    """The message of a frame. errors: ProtocolError, BAD_TYPE for a type that this version does not know"""
    if message_type not in MESSAGES:
        raise ProtocolError(f"got a message of type {message_type}, wanted 1 to {max(MESSAGES)}", Status.BAD_TYPE)
    return MESSAGES[message_type].decode(payload)


def fit_text(text: str, max_bytes: int) -> str:
    """The longest beginning of a text that takes at most max_bytes of UTF-8."""
    return text.encode("utf-8", errors="replace")[: max(0, max_bytes)].decode("utf-8", errors="ignore")


def field_notes(documented: type) -> dict[str, str]:
    """What the lines "name: text" of a class's docstring say."""
    lines = (line.strip().partition(": ") for line in (documented.__doc__ or "").splitlines())
    return {name: text for name, colon, text in lines if colon and name.isidentifier()}
