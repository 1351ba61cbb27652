"""RTP (RFC 3550) as audio needs it: packets from datagrams, and packets in order."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from edgeasr.capture.pcm import PcmFormat
from edgeasr.errors import AudioFormatError

# RFC 3551, table 4: what can be decoded without being told.
STATIC_FORMATS = {
    0: PcmFormat(8_000, 1, "ulaw"),
    8: PcmFormat(8_000, 1, "alaw"),
    10: PcmFormat(44_100, 2, "s16be"),
    11: PcmFormat(44_100, 1, "s16be"),
}
_DYNAMIC = range(96, 128)
_RTCP = range(72, 77)  # the other protocol on the same port (RFC 5761)
_HEADER = struct.Struct(">BBHII")
_VERSION = 2

MAX_WAITING = 8  # packets that came too early, before what is between is given up
_MAX_DROPOUT = 3_000  # RFC 3550, appendix A.1: a larger step in sequence numbers is another stream


class Packet(NamedTuple):
    """lost: packets that are missing just before it, once it is in order"""

    sequence: int
    time: int
    source: int
    payload_type: int
    payload: bytes
    lost: int = 0


def parse_packet(data: bytes) -> Packet | None:
    """None for RTCP. errors: AudioFormatError for what is no RTP"""
    if len(data) < _HEADER.size or data[0] >> 6 != _VERSION:
        raise AudioFormatError(f"got {len(data)} bytes that are no RTP packet of version {_VERSION}")
    first, second, sequence, time, source = _HEADER.unpack_from(data)
    if second & 127 in _RTCP:
        return None
    start, end = _HEADER.size + 4 * (first & 15), len(data)
    if first & 16 and start + 4 <= end:
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 32:
        end -= data[-1] or end
    if start > end:
        raise AudioFormatError(
            f"got an RTP packet of {len(data)} bytes, want {start} bytes of header and what is padded"
        )
    return Packet(sequence, time, source, second & 127, data[start:end])


def format_of(payload_type: int, told: PcmFormat | None) -> PcmFormat | None:
    """What a payload holds; of a dynamic type what somebody told. None where it is not known"""
    known = STATIC_FORMATS.get(payload_type)
    if known is not None:
        return known
    return told if payload_type in _DYNAMIC else None


@dataclass
class PacketCounts:
    """Of packets: what became of those that were not heard."""

    lost: int = 0
    late: int = 0
    duplicate: int = 0
    malformed: int = 0
    foreign: int = 0  # of another sender, or of a type that is not known

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in vars(self).items() if count)


@dataclass
class Reordering:
    """Packets of one sender in order and once; what is missing is waited for a little.

    counts: told what is lost, late and double
    """

    counts: PacketCounts
    _next: int | None = None
    _waiting: dict[int, Packet] = field(default_factory=dict)
    _strays: int = 0  # in a row

    def accept(self, packet: Packet) -> Iterator[Packet]:
        """Those that are in order now."""
        if self._next is None:
            self._next = packet.sequence
        ahead = (packet.sequence - self._next + 0x8000 & 0xFFFF) - 0x8000
        if abs(ahead) > _MAX_DROPOUT:
            yield from self._stray(packet)
            return
        self._strays = 0
        if ahead < 0:
            self.counts.late += 1
        elif packet.sequence in self._waiting:
            self.counts.duplicate += 1
        else:
            self._waiting[packet.sequence] = packet
            yield from self._in_order()

    def flush(self) -> Iterator[Packet]:
        """All that waits: nothing else comes."""
        while self._waiting:
            yield self._give_up()
            yield from self._in_order()

    def restart(self) -> None:
        """What comes next is another stream."""
        self._next = None
        self._waiting.clear()

    def _in_order(self) -> Iterator[Packet]:
        while self._waiting:
            if self._next in self._waiting:
                yield self._taken(0)
            elif len(self._waiting) >= MAX_WAITING:
                yield self._give_up()
            else:
                return

    def _give_up(self) -> Packet:
        assert self._next is not None
        lost = min((sequence - self._next) & 0xFFFF for sequence in self._waiting)
        self.counts.lost += lost
        self._next = (self._next + lost) & 0xFFFF
        return self._taken(lost)

    def _taken(self, lost: int) -> Packet:
        assert self._next is not None
        packet = self._waiting.pop(self._next)
        self._next = (self._next + 1) & 0xFFFF
        return packet._replace(lost=lost)

    def _stray(self, packet: Packet) -> Iterator[Packet]:
        """One is an accident; after two in a row the sender has begun anew."""
        self._strays += 1
        if self._strays > 1:
            self._strays = 0
            yield from self.flush()
            self.restart()
            yield from self.accept(packet)
        else:
            self.counts.malformed += 1
