"""Frames on the wire: header, payload and CRC, stuffed by COBS and ended by a zero.

writer, reader = FrameWriter(), FrameReader()
for item in reader.accept(writer.encode(Ping(token=7))):
    if isinstance(item, Frame): ...    # item.message is good
    else: ...                          # a Fault: counted, and here is why
"""

from __future__ import annotations

import binascii
import dataclasses
import zlib
from typing import NamedTuple

from edgeasr.firmware_bridge import cobs
from edgeasr.firmware_bridge.messages import (
    CRC16_LIMIT,
    CRC16_SIZE,
    CRC32_SIZE,
    HEADER_SIZE,
    LATE_FRAMES,
    MAX_PAYLOAD,
    PROTOCOL_VERSION,
    Hello,
    Message,
    ProtocolError,
    Status,
    decode,
)

DELIMITER = b"\0"
TYPE_BITS = 5
_SHORTEST = HEADER_SIZE + CRC16_SIZE

# What a frame with each error counts as.
_KINDS = {
    Status.MALFORMED: "cobs",
    Status.BAD_LENGTH: "length",
    Status.BAD_CRC: "crc",
    Status.BAD_VERSION: "version",
    Status.BAD_TYPE: "type",
}


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE (also CRC-16/IBM-3740): polynomial 0x1021 from 0xFFFF, not reflected."""
    return binascii.crc_hqx(data, 0xFFFF)


class Packet(NamedTuple):
    """A frame whose check sum is right; its type may be unknown and its payload malformed."""

    type: int
    sequence: int
    time: int
    payload: bytes


class Frame(NamedTuple):
    """A message that came through.

    time: the sender's sample clock
    lost: frames that are missing before this one
    """

    message: Message
    sequence: int
    time: int
    lost: int


class Fault(NamedTuple):
    """A frame that was refused. kind: the counter's name"""

    kind: str
    reason: str


@dataclasses.dataclass
class Counts:
    """What a reader has seen: good frames; errors by kind; and frames by their sequence numbers.

    lost:      frames that never came, or came damaged
    duplicate: repeats of the last frame, dropped
    late:      frames that came after a later one, dropped
    """

    frames: int = 0
    cobs: int = 0
    crc: int = 0
    length: int = 0
    version: int = 0
    type: int = 0
    payload: int = 0
    lost: int = 0
    duplicate: int = 0
    late: int = 0

    @property
    def errors(self) -> int:
        """Frames that were refused."""
        return self.cobs + self.crc + self.length + self.version + self.type + self.payload

    def __str__(self) -> str:
        """One line: the good frames, and each count that is not 0."""
        others = {name: n for name, n in dataclasses.asdict(self).items() if n and name != "frames"}
        return ", ".join([f"{self.frames} frames", *[f"{n} {name}" for name, n in others.items()]])


def encode_packet(packet: Packet) -> bytes:
    """The bytes of a frame, with the delimiter at its end.

    errors: ProtocolError for a type, sequence number or time that its field cannot hold, and for too long a payload
    """
    for name, value, bits in (
        ("type", packet.type, TYPE_BITS),
        ("sequence", packet.sequence, 8),
        ("time", packet.time, 32),
    ):
        if not 0 <= value < 1 << bits:
            raise ProtocolError(f"{name} of a frame is {value}, wanted 0 to {(1 << bits) - 1}", Status.BAD_ARG)
    if len(packet.payload) > MAX_PAYLOAD:
        raise ProtocolError(
            f"got a payload of {len(packet.payload)} bytes, a frame holds {MAX_PAYLOAD}", Status.OVERFLOW
        )
    first = PROTOCOL_VERSION << TYPE_BITS | packet.type
    body = bytes([first, packet.sequence]) + packet.time.to_bytes(4, "little") + packet.payload
    return cobs.encode(body + _check(body)) + DELIMITER


def encode_frame(message: Message, sequence: int, time: int = 0) -> bytes:
    """The bytes of a message's frame; errors as those of `Message.encode` and `encode_packet`."""
    return encode_packet(Packet(message.TYPE, sequence, time, message.encode()))


def decode_packet(encoded: bytes) -> Packet:
    """The packet of a frame.

    encoded: without the delimiter
    errors:  ProtocolError, MALFORMED (no COBS), BAD_LENGTH, BAD_CRC or BAD_VERSION
    """
    body = _checked(cobs.decode(encoded))
    version, message_type = body[0] >> TYPE_BITS, body[0] & ((1 << TYPE_BITS) - 1)
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the other side speaks version {version} of the protocol, this one {PROTOCOL_VERSION}: update the older",
            Status.BAD_VERSION,
        )
    return Packet(message_type, body[1], int.from_bytes(body[2:HEADER_SIZE], "little"), body[HEADER_SIZE:])


def _check_size(size: int) -> int:
    return CRC16_SIZE if size <= CRC16_LIMIT else CRC32_SIZE


def _check(body: bytes) -> bytes:
    size = _check_size(len(body))
    return (crc16(body) if size == CRC16_SIZE else zlib.crc32(body)).to_bytes(size, "little")


def _checked(packet: bytes) -> bytes:
    """Header and payload of a packet whose length and check sum are right."""
    size = len(packet) - (CRC16_SIZE if len(packet) <= CRC16_LIMIT + CRC16_SIZE else CRC32_SIZE)
    if not HEADER_SIZE <= size <= HEADER_SIZE + MAX_PAYLOAD or (
        len(packet) - size == CRC32_SIZE and size <= CRC16_LIMIT
    ):
        raise ProtocolError(f"a frame of {len(packet)} bytes cannot be: some were lost or added", Status.BAD_LENGTH)
    if packet[size:] != _check(packet[:size]):
        raise ProtocolError(f"the check sum of a frame of {len(packet)} bytes is wrong", Status.BAD_CRC)
    return packet[:size]


class FrameWriter:
    """Frames of one direction, numbered."""

    def __init__(self) -> None:
        self._sequence = 0

    def encode(self, message: Message, time: int = 0) -> bytes:
        """The bytes of the next frame; time wraps at 2^32. errors: as those of `Message.encode`"""
        frame = encode_frame(message, self._sequence, time % (1 << 32))
        self._sequence = (self._sequence + 1) % 256
        return frame


class FrameReader:
    """Bytes in, frames and faults out. Garbage raises nothing: reading goes on behind the next delimiter.

    max_payload: longer payloads are refused; memory is bounded by it

    A frame counts by its sequence number before its type and payload are looked at. HELLO begins a new count.
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        if not 0 <= max_payload <= MAX_PAYLOAD:
            raise ProtocolError(f"max_payload is {max_payload}, wanted 0 to {MAX_PAYLOAD}", Status.BAD_ARG)
        self.counts = Counts()
        self._longest = cobs.max_encoded_size(HEADER_SIZE + max_payload + CRC32_SIZE)
        self._max_payload = max_payload
        self._pending = bytearray()
        self._too_long = False
        self._last: Packet | None = None  # that was not dropped
        self._after_late: int | None = None  # number of the frame after one that was dropped as late just before

    def accept(self, data: bytes) -> list[Frame | Fault]:
        """What these bytes complete, in their order; duplicates and late frames are only counted."""
        items: list[Frame | Fault] = []
        *ended, rest = data.split(DELIMITER)
        for part in ended:
            self._extend(part)
            item = self._end_frame()
            if item is not None:
                items.append(item)
        self._extend(rest)
        return items

    def refuse(self, frame: Frame, error: ProtocolError) -> Fault:
        """Count a frame as a fault after all: what its payload holds makes no sense."""
        self.counts.frames -= 1
        return self._fault("payload", f"frame {frame.sequence}: {error}")

    def _extend(self, part: bytes) -> None:
        room = self._longest - len(self._pending)
        self._too_long = self._too_long or len(part) > room
        self._pending += part[:room]

    def _end_frame(self) -> Frame | Fault | None:
        encoded, too_long = bytes(self._pending), self._too_long
        self._pending.clear()
        self._too_long = False
        if too_long:
            return self._fault(
                "length", f"got more than {self._longest} bytes without a delimiter: no frame is that long"
            )
        if not encoded:
            return None
        try:
            packet = decode_packet(encoded)
        except ProtocolError as error:
            return self._fault(_KINDS[error.status], str(error))
        return self._accept_packet(packet)

    def _accept_packet(self, packet: Packet) -> Frame | Fault | None:
        if len(packet.payload) > self._max_payload:
            return self._fault(
                "length", f"got a payload of {len(packet.payload)} bytes, wanted {self._max_payload} at most"
            )
        lost = self._place(packet)
        if lost is None:
            return None
        try:
            message = decode(packet.type, packet.payload)
        except ProtocolError as error:
            return self._fault(_KINDS[Status.BAD_TYPE] if error.status == Status.BAD_TYPE else "payload", str(error))
        self.counts.frames += 1
        return Frame(message, packet.sequence, packet.time, lost)

    def _place(self, packet: Packet) -> int | None:
        """How many frames are missing before this one; None for one to be dropped.

        Two frames in a row that look late, one number after the other and neither before the last one in time, are new
        ones: so many were lost between that the numbers went around.
        """
        last, after_late = self._last, self._after_late
        self._after_late = None
        if last is None or packet.type == Hello.TYPE:
            self._last = packet
            return 0
        back = (last.sequence - packet.sequence) % 256
        is_new_time = (packet.time - last.time) % (1 << 32) < 1 << 31
        if back <= LATE_FRAMES and not (packet.sequence == after_late and is_new_time):
            if back == 0:
                self.counts.duplicate += 1
                return None
            self.counts.late += 1
            if is_new_time:
                self._after_late = (packet.sequence + 1) % 256
            return None
        lost = (packet.sequence - last.sequence - 1) % 256
        self.counts.lost += lost
        self._last = packet
        return lost

    def _fault(self, kind: str, reason: str) -> Fault:
        setattr(self.counts, kind, getattr(self.counts, kind) + 1)
        return Fault(kind, reason)
