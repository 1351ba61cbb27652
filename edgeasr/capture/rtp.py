"""Audio that a sender on the network pushes here: RTP over UDP with L16, PCMU or PCMA."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from edgeasr.capture.channels import ChannelMix
from edgeasr.capture.live import POLL_S, LiveSource, never, say_nothing
from edgeasr.capture.losses import NETWORK, Say
from edgeasr.capture.pcm import PcmFormat, decode_pcm
from edgeasr.capture.rtp_packet import STATIC_FORMATS, Packet, PacketCounts, Reordering, format_of, parse_packet
from edgeasr.errors import AudioFormatError, ConfigError, DeviceError

STALL_S = 5.0  # without a packet, after which the sender counts as gone
_TAKEN_OVER_S = 2.0  # of silence of one sender, after which another one is heard
_LONGEST_STEP_S = 10.0  # of the sender's clock between packets that follow each other; more is another clock
_MAX_DATAGRAM = 65_536
_RECEIVE_BUFFER = 1 << 20


class RtpSource(LiveSource):
    """One sender's packets, in order; lost ones are gaps of the length that the sender's clock says.

    A pause of the sender (packets that follow each other, a step of its clock) counts as time that it was away.

    url: rtp://HOST:PORT, where packets are received: an address of this machine, or a multicast group
    pcm: of dynamic payload types (96 to 127); the static ones for L16, PCMU and PCMA are known
    say, stopped: as for LiveSource
    errors: ConfigError for what is no such URL, DeviceError for an address that cannot be used
    """

    lost_reason = NETWORK

    def __init__(
        self,
        url: str,
        pcm: PcmFormat | None = None,
        say: Say = say_nothing,
        stopped: Callable[[], bool] = never,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._told, self._format = pcm, pcm or STATIC_FORMATS[0]
        super().__init__(url, self._format.sample_rate_hz, say, stopped, clock)
        self.counts = PacketCounts()
        self._socket = _bound(url)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name=f"hears {url}", daemon=True)
        self._order = Reordering(self.counts)
        self._mix = ChannelMix(self._format.channels)
        self._sender: int | None = None
        self._due: int | None = None  # the sender's time of the next sample
        self._unknown_type: int | None = None

    def report(self) -> str | None:
        losses, counts = super().report(), str(self.counts)
        packets = f"packets: {counts}" if counts else ""
        return (
            losses + f" ({packets})"
            if losses and packets
            else losses or (packets and f"{self.name}: {packets}") or None
        )

    def _start(self) -> None:
        self._thread.start()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _idle(self) -> None:
        if self._unknown_type is not None:
            raise DeviceError(
                f"{self.name} is sent payload type {self._unknown_type}, want L16, PCMU or PCMA: say what it holds, "
                "such as --pcm 48000:1:s16be"
            )
        if not self._away_reason and self._clock() - self._heard_at_s > STALL_S:
            self._due = None
            self._leave(f"was sent nothing for {STALL_S:g} s")

    def _run(self) -> None:
        self._socket.settimeout(POLL_S)
        while not self._closed:
            try:
                data = self._socket.recv(_MAX_DATAGRAM)
            except TimeoutError:
                self._hear_all(self._order.flush())
                continue
            self._receive(data)
        self._hear_all(self._order.flush())

    def _receive(self, data: bytes) -> None:
        try:
            packet = parse_packet(data)
        except AudioFormatError:
            self.counts.malformed += 1
            return
        if packet is None:
            return
        pcm = format_of(packet.payload_type, self._told)
        if pcm is None or not self._is_of_sender(packet):
            self.counts.foreign += 1
            self._unknown_type = packet.payload_type if pcm is None and self._sender is None else None
        elif not packet.payload or len(packet.payload) % pcm.frame_bytes:
            self.counts.malformed += 1
        else:
            self._use(pcm)
            self._hear_all(self._order.accept(packet))

    def _is_of_sender(self, packet: Packet) -> bool:
        """Whether it is of the one that is heard; of a new one where that has fallen silent."""
        if packet.source == self._sender:
            return True
        if self._sender is not None and self._clock() - self._heard_at_s < _TAKEN_OVER_S:
            return False
        self._hear_all(self._order.flush())
        self._order.restart()
        self._sender, self._due = packet.source, None
        return True

    def _use(self, pcm: PcmFormat) -> None:
        if pcm == self._format:
            return
        self._hear_all(self._order.flush())
        self._format, self._mix, self._due = pcm, ChannelMix(pcm.channels), None
        if pcm.sample_rate_hz != self.sample_rate_hz:
            while self._ring.waiting and not self._closed:
                time.sleep(POLL_S / 10)  # what was heard at the other rate is taken first
            self._change_rate(pcm.sample_rate_hz)

    def _hear_all(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            self._hear(packet)

    def _hear(self, packet: Packet) -> None:
        samples = self._mix.mix(decode_pcm(packet.payload, self._format))
        step = 0 if self._due is None else (packet.time - self._due + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000
        self._due = (packet.time + len(samples)) & 0xFFFF_FFFF
        if 0 < step <= _LONGEST_STEP_S * self.sample_rate_hz and not self._returns:
            self._ring.skip(step)
            if not packet.lost:  # the sender paused
                self._absent += step
        self._put(samples)


def _bound(url: str) -> socket.socket:
    """A socket that receives what is sent to the host and port of a URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise ConfigError(f"got {url!r}, want a host and a port such as rtp://127.0.0.1:5004: add them")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unusable(url, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        group = ipaddress.ip_address(address[0])
        if group.is_multicast and group.version == 4:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group.packed + bytes(4))
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _unusable(url, error) from error
    return bound


def _unusable(url: str, error: OSError) -> DeviceError:
    return DeviceError(
        f"cannot receive at {url} ({error.strerror or error}), want an address of this machine and a free port: choose "
        "another"
    )
