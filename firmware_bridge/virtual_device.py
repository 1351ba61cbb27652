"""A device without hardware: it answers as firmware does and streams a recording, over a line that may be bad."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np

from edgeasr.audio import AudioBlock, Resampler, Source
from edgeasr.config import FeatureConfig
from edgeasr.errors import ConfigError, DeviceError
from edgeasr.features import LogMel
from edgeasr.firmware_bridge.codec import AudioEncoder, Pcm
from edgeasr.firmware_bridge.feature_codec import encode_features
from edgeasr.firmware_bridge.frame import DELIMITER, Frame, FrameReader, FrameWriter
from edgeasr.firmware_bridge.messages import (
    MAX_PAYLOAD,
    PROTOCOL_VERSION,
    Ack,
    Capability,
    Codec,
    Command,
    CommandCode,
    Configure,
    Hello,
    Info,
    Message,
    Ping,
    Pong,
    Stats,
    Status,
    Transcript,
)
from edgeasr.firmware_bridge.transport import Transport, TransportEnded

RATE_HZ = 16_000
FEATURES = FeatureConfig()
HOST_PATIENCE_S = 60.0  # for a host that does not read, or says nothing
END_PATIENCE_S = 20.0  # for the last transcripts, of a host that knows that the recording has ended
LINGER_S = 3.0  # after the last one, where the stream cannot tell the host


@dataclasses.dataclass(frozen=True)
class FaultConfig:
    """What a line does: the probability of each bit to flip, and of each frame to be dropped, sent twice, to change
    places with the next, or to lose its end.
    """

    bit_errors: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if name != "seed" and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}, want a probability: choose 0 to 1")


class FaultyLine:
    """Frames in, bytes out, as a bad line gives them."""

    def __init__(self, config: FaultConfig) -> None:
        self._config = config
        self._rng = np.random.default_rng(config.seed)
        self._held = b""

    def carry(self, frame: bytes) -> bytes:
        """What arrives of a frame, and of one that was held back."""
        config = self._config
        if self._happens(config.drop):
            return b""
        if self._happens(config.truncate):
            frame = frame[: int(self._rng.integers(len(frame)))]
        if self._happens(config.duplicate):
            frame += frame
        if not self._held and self._happens(config.reorder):
            self._held = frame
            return b""
        frame, self._held = frame + self._held, b""
        return self._flipped(frame)

    def flush(self) -> bytes:
        """What was held back, at the end."""
        held, self._held = self._held, b""
        return held

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _flipped(self, data: bytes) -> bytes:
        if not self._config.bit_errors:
            return data
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        bits ^= self._rng.random(len(bits)) < self._config.bit_errors
        return np.packbits(bits).tobytes()


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """codec: the only one that the device knows, None for all; one_way: it cannot hear, and speaks unasked"""

    codec: Codec | None = None
    one_way: bool = False
    frame_ms: int = 20


class VirtualDevice:
    """Firmware as a state machine, without input or output.

    source:  what it hears
    on_text: told each transcript that the host sends for the display
    """

    def __init__(
        self, source: Source[AudioBlock], config: DeviceConfig, on_text: Callable[[Transcript], None] = lambda _: None
    ) -> None:
        self.is_streaming = config.one_way
        self.position = 0  # samples sent
        self.num_texts = 0  # transcripts shown
        self._config, self._on_text = config, on_text
        self._source = source
        self._reader, self._writer = FrameReader(), FrameWriter()
        self._codec = Codec.S16 if config.codec is None else config.codec
        self._frame_ms = config.frame_ms
        self._outgoing: list[Message] = []
        self._num_sent = 0

    @property
    def frame_samples(self) -> int:
        """Time that a frame of speech takes."""
        return RATE_HZ * self._frame_ms // 1000

    def accept(self, data: bytes) -> bytes:
        """Bytes from the host. returns: the answer"""
        for item in self._reader.accept(data):
            if isinstance(item, Frame):
                self._answer(item)
        answers, self._outgoing = self._outgoing, []
        return b"".join(map(self._encoded, answers))

    def frames(self) -> Iterator[bytes]:
        """The recording, a frame at a time; to be asked for while is_streaming."""
        if self._config.one_way:
            yield DELIMITER
        pcm = _pcm_blocks(self._source)
        encode = self._feature_frames if self._codec == Codec.FEATURES else self._audio_frames
        yield from encode(pcm)

    def _answer(self, frame: Frame) -> None:
        message = frame.message
        if isinstance(message, Hello):
            self._outgoing.append(self._hello())
        elif isinstance(message, Configure):
            self._outgoing.append(Ack(Configure.TYPE, frame.sequence, self._configured(message)))
        elif isinstance(message, Command):
            self._obey(message, frame.sequence)
        elif isinstance(message, Ping):
            self._outgoing.append(Pong(message.token))
        elif isinstance(message, Transcript):
            self.num_texts += 1
            self._on_text(message)

    def _hello(self) -> Hello:
        codecs = list(Codec) if self._config.codec is None else [self._config.codec]
        capabilities = sum(1 << codec for codec in codecs) | Capability.DISPLAY | Capability.COMMANDS
        return Hello(PROTOCOL_VERSION, RATE_HZ, MAX_PAYLOAD, capabilities, FEATURES.num_mels, "virtual device")

    def _configured(self, wanted: Configure) -> Status:
        if wanted.codec not in list(Codec) or self._config.codec not in (None, wanted.codec) or wanted.frame_ms == 0:
            return Status.BAD_ARG
        self._codec, self._frame_ms = Codec(wanted.codec), wanted.frame_ms
        return Status.OK

    def _obey(self, command: Command, sequence: int) -> None:
        if command.command in (CommandCode.START, CommandCode.STOP):
            self.is_streaming = command.command == CommandCode.START
        if command.command == CommandCode.GET_INFO:
            self._outgoing.append(Info(1, 0, 0, 0, 0, "virtual"))
        elif command.command == CommandCode.GET_STATS:
            counts = self._reader.counts
            uptime_ms = self.position * 1000 // RATE_HZ
            self._outgoing.append(Stats(self._num_sent, counts.frames, counts.errors, 0, uptime_ms, 0, 65_535))
        else:
            self._outgoing.append(Ack(Command.TYPE, sequence, Status.OK))

    def _encoded(self, message: Message) -> bytes:
        self._num_sent += 1
        return self._writer.encode(message, self.position)

    def _audio_frames(self, pcm: Iterator[Pcm]) -> Iterator[bytes]:
        encoder = AudioEncoder(self._codec)
        for part in _parts(pcm, self.frame_samples):
            frame = self._encoded(encoder.encode(part))
            self.position += len(part)
            yield frame

    def _feature_frames(self, pcm: Iterator[Pcm]) -> Iterator[bytes]:
        hop, log_mel = FEATURES.hop_length, LogMel(FEATURES)
        waveforms = (part.astype(np.float32) * np.float32(2**-15) for part in pcm)
        for part in _parts(map(log_mel.accept_waveform, waveforms), max(1, min(255, self._frame_ms * 16 // hop))):
            frame = self._encoded(encode_features(part))
            self.position += len(part) * hop
            yield frame


def _pcm_blocks(source: Source[AudioBlock]) -> Iterator[Pcm]:
    resampler = Resampler(source.sample_rate_hz, RATE_HZ)
    for block in source.blocks():
        yield _to_pcm(resampler.process(block.samples))
    yield _to_pcm(resampler.flush())


def _to_pcm(samples: np.ndarray) -> Pcm:
    pcm: Pcm = np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype(np.int16)
    return pcm


def _parts(blocks: Iterator[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Rows of any number in, `length` rows at a time out, the last ones as they are."""
    waiting: np.ndarray | None = None
    for block in blocks:
        waiting = block if waiting is None else np.concatenate([waiting, block])
        while len(waiting) >= length:
            yield waiting[:length]
            waiting = waiting[length:]
    if waiting is not None and len(waiting):
        yield waiting


@dataclasses.dataclass(frozen=True)
class Pace:
    """When frames are sent.

    real_time: as they would be heard, else as fast as the host takes them
    ppm:       by which the device's clock is fast
    """

    real_time: bool = False
    ppm: float = 0.0
    clock: Callable[[], float] = time.monotonic


class DeviceRun:
    """A virtual device on a transport until its recording has ended and the host closed."""

    def __init__(self, device: VirtualDevice, transport: Transport, line: FaultyLine, pace: Pace) -> None:
        self._device, self._transport, self._line, self._pace = device, transport, line, pace

    def run(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """errors: DeviceError for a host that is not there or does not read; the source's AudioFormatError"""
        began_s = self._pace.clock()
        while not self._device.is_streaming and not stopped():
            if not self._serve(0.05) and self._pace.clock() - began_s > HOST_PATIENCE_S:
                raise DeviceError(
                    f"no host at {self._transport.name} for {HOST_PATIENCE_S:g} s: start `edgeasr listen`"
                )
        try:
            self._stream(stopped)
            self._wait_for_end(stopped, END_PATIENCE_S if self._transport.end() else LINGER_S)
        except TransportEnded:
            return

    def _stream(self, stopped: Callable[[], bool]) -> None:
        began_s, began_at = self._pace.clock(), self._device.position
        rate_hz = RATE_HZ * (1 + self._pace.ppm * 1e-6)
        frames = self._device.frames()
        while True:
            due_at = self._device.position + self._device.frame_samples - began_at
            due_s = began_s + due_at / rate_hz if self._pace.real_time else 0.0
            self._serve(0)
            while (wait_s := due_s - self._pace.clock()) > 0 and not stopped():
                self._serve(min(wait_s, 0.05))
            if stopped() or not self._device.is_streaming:
                return
            # Only now, since frames are numbered as they are made, and answers have gone out before.
            frame = next(frames, None)
            if frame is None:
                break
            self._write(self._line.carry(frame))
        self._write(self._line.flush())

    def _serve(self, timeout_s: float) -> bool:
        """Read and answer. returns: whether the host said something"""
        data = self._transport.read(timeout_s)
        self._write(self._device.accept(data))
        return bool(data)

    def _write(self, data: bytes) -> None:
        if data and not self._transport.write(data, HOST_PATIENCE_S):
            raise DeviceError(f"the host at {self._transport.name} takes nothing for {HOST_PATIENCE_S:g} s: check it")

    def _wait_for_end(self, stopped: Callable[[], bool], patience_s: float) -> None:
        """The host may have transcripts to send yet."""
        last_s, num_texts = self._pace.clock(), self._device.num_texts
        while self._pace.clock() - last_s < patience_s and not stopped():
            self._device.accept(self._transport.read(0.05))
            if self._device.num_texts > num_texts:
                last_s, num_texts = self._pace.clock(), self._device.num_texts


class LoopTransport(Transport):
    """A virtual device as a transport of this process: no socket, no thread, no waiting."""

    name, bytes_per_s, may_return = "loop", None, False

    def __init__(self, device: VirtualDevice, line: FaultyLine | None = None) -> None:
        self._device, self._line = device, line or FaultyLine(FaultConfig())
        self._frames: Iterator[bytes] | None = None
        self._answers = b""

    def read(self, timeout_s: float) -> bytes:
        del timeout_s
        answers, self._answers = self._answers, b""
        if not self._device.is_streaming:
            return answers
        self._frames = self._frames or self._device.frames()
        frame = next(self._frames, None)
        if frame is not None:
            return answers + self._line.carry(frame)
        rest = answers + self._line.flush()
        if not rest:
            raise TransportEnded
        return rest

    def write(self, data: bytes, timeout_s: float) -> bool:
        del timeout_s
        self._answers += self._device.accept(data)
        return True

    def end(self) -> bool:
        return False

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        self._device.is_streaming = False
