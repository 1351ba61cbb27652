"""The host's side of the link without input or output: bytes and times in, messages and bytes out.

    session.begin(now_s)
    for received in session.accept(data, now_s): ...
    session.tick(now_s)
    transport.write(session.take_outgoing())

Greeting (HELLO until the device answers) -> configuring (CONFIGURE until it agrees) -> starting (COMMAND start until it
is acknowledged or speech comes) -> running. A device that only talks is taken as it is after ONE_WAY_S.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from edgeasr.errors import ConfigError, DeviceError
from edgeasr.firmware_bridge.frame import DELIMITER, Counts, Fault, Frame, FrameReader, FrameWriter
from edgeasr.firmware_bridge.messages import (
    MAX_PAYLOAD,
    PROTOCOL_VERSION,
    Ack,
    Audio,
    Capability,
    Codec,
    Command,
    CommandCode,
    Configure,
    Features,
    Hello,
    Message,
    Ping,
    Pong,
    Status,
    VadMode,
)

DEFAULT_RATE_HZ = 16_000
NUM_MELS = 80
AUDIO_MS, FEATURES_MS = 20, 160
ONE_WAY_S = 2.0  # without a HELLO, after which a device that talks is taken as it is
REPEAT_S = 0.5  # until a message that wants an answer is sent again
GREET_AGAIN_S = 1.0  # where nothing at all came
MAX_REPEATS = 3
PING_S = 5.0
SILENT_S = 15.0  # without a frame from a device that answers: it is greeted anew
NOISE_S = 3.0  # of bytes without a frame: it is said that the speed may be wrong
NOISE_BYTES = 64

# Best first, with the bytes that a second of 16 kHz takes, framing in frames of 20 ms included.
_CODECS = {Codec.S16: 32_600, Codec.ULAW: 16_600, Codec.ADPCM: 8_800, Codec.FEATURES: 2_500}
_CAPABILITY_OF = {codec: Capability(1 << codec) for codec in Codec}

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class LinkConfig:
    """What the device is asked for.

    codec:    None for the best that both know and the line carries
    frame_ms: None for what suits the codec: features are predicted from the frames before them in their message
    """

    codec: Codec | None = None
    frame_ms: int | None = None
    vad_mode: VadMode = VadMode.OFF
    preroll_ms: int = 300

    def __post_init__(self) -> None:
        if not 5 <= (20 if self.frame_ms is None else self.frame_ms) <= 1000 or not 0 <= self.preroll_ms <= 10_000:
            raise ConfigError(
                f"got frames of {self.frame_ms} ms, a pre-roll of {self.preroll_ms} ms, want 5 to 1000 and up to 10000"
            )

    def configure(self, codec: Codec) -> Configure:
        """The message that asks for this."""
        frame_ms = self.frame_ms or (FEATURES_MS if codec == Codec.FEATURES else AUDIO_MS)
        return Configure(codec, frame_ms, self.vad_mode, self.preroll_ms, 0)

    @classmethod
    def from_options(cls, options: dict[str, str]) -> LinkConfig:
        """From the query of a URL: codec, frame_ms, vad, preroll_ms. errors: ConfigError, for unknown ones too"""
        values: dict[str, object] = {}
        for key, text in options.items():
            if key == "codec" and text.upper() in Codec.__members__:
                values[key] = Codec[text.upper()]
            elif key == "vad" and text.upper() in VadMode.__members__:
                values["vad_mode"] = VadMode[text.upper()]
            elif key in ("frame_ms", "preroll_ms") and text.isdecimal():
                values[key] = int(text)
            else:
                raise ConfigError(
                    f"got {key}={text} in the source, want codec=s16|ulaw|adpcm|features, vad=off|gate, frame_ms=N or "
                    "preroll_ms=N: correct it"
                )
        return cls(**values)  # type: ignore[arg-type]


class Received(NamedTuple):
    """A frame from the device, and when it came by the host's clock."""

    frame: Frame
    arrival_s: float


class State(Enum):
    """How far the greeting is."""

    GREETING = "greeting"
    CONFIGURING = "configuring"
    STARTING = "starting"
    RUNNING = "running"


class Session:
    """One device on one stream.

    name:        of the stream, for what is said
    bytes_per_s: that the line carries, None for no limit
    say:         told, once each, what a user should know
    device:      its HELLO, None where it said none
    """

    def __init__(self, name: str, config: LinkConfig, say: Say, bytes_per_s: float | None = None) -> None:
        self.device: Hello | None = None
        self.codec: Codec | None = None
        self.state = State.GREETING
        self.round_trip_s: float | None = None
        self._name, self._config, self._bytes_per_s = name, config, bytes_per_s
        self._say_line, self._said = say, set[str]()
        self._counts = Counts()  # of readers before this one
        self._candidates: deque[Codec] = deque()
        self._outgoing: deque[bytes | Message] = deque()
        self._asked: Message | None = None  # what wants an answer, since when and how often it was sent
        self._sent_s, self._num_sent = 0.0, 0
        self._num_bytes, self._ended_whole = 0, True
        self._began_s = self._greeted_s = self._first_byte_s = self._last_frame_s = 0.0
        self._frames_before = 0  # the greeting
        self._num_pings = 0
        self._ping_sent_s = 0.0
        self.reader, self._writer = FrameReader(), FrameWriter()

    @property
    def is_settled(self) -> bool:
        """Whether it is known what comes: codec and sample rate."""
        return self.state == State.RUNNING

    @property
    def sample_rate_hz(self) -> int:
        return self.device.sample_rate_hz if self.device else DEFAULT_RATE_HZ

    @property
    def is_gated(self) -> bool:
        """Whether the device was asked to keep silence back."""
        return self._config.vad_mode == VadMode.GATE

    @property
    def preroll_s(self) -> float:
        """What it was asked to send from before the beginning of speech."""
        return self._config.preroll_ms / 1000

    @property
    def counts(self) -> Counts:
        """Over all sessions of this stream."""
        now = dataclasses.asdict(self.reader.counts)
        return Counts(**{name: n + now[name] for name, n in dataclasses.asdict(self._counts).items()})

    @property
    def is_within_frame(self) -> bool:
        """Whether the last bytes were the beginning of a frame."""
        return self._num_bytes > 0 and not self._ended_whole

    def begin(self, now_s: float) -> None:
        """A stream is there, or there again."""
        self._counts = self.counts
        self.reader, self._writer = FrameReader(), FrameWriter()
        self.device = self.codec = None
        self._outgoing.clear()
        self._num_bytes, self._ended_whole = 0, True
        self._first_byte_s = now_s
        self._outgoing.append(DELIMITER)
        self._begin_greeting(now_s)

    def accept(self, data: bytes, now_s: float) -> list[Received]:
        """Bytes of the device. errors: DeviceError where it cannot send what is wanted"""
        if not data:
            return []
        if self._num_bytes == 0:
            self._first_byte_s = now_s
        self._num_bytes += len(data)
        self._ended_whole = data.endswith(DELIMITER)
        received = []
        for item in self.reader.accept(data):
            if isinstance(item, Fault):
                if item.kind == "version":
                    self._say(item.reason)
                continue
            self._last_frame_s = now_s
            self._answer(item, now_s)
            received.append(Received(item, now_s))
        return received

    def tick(self, now_s: float) -> None:
        """Time passes: what was not answered is sent again."""
        self._look_for_noise(now_s)
        waited_s = now_s - self._sent_s
        if self.state == State.RUNNING:
            self._keep_alive(now_s)
        elif self.state == State.GREETING:
            self._keep_greeting(now_s)
        elif waited_s >= REPEAT_S and self._asked is not None and self._num_sent < MAX_REPEATS:
            self._ask(self._asked, now_s, again=True)
        elif waited_s >= REPEAT_S:
            self._say("the device acknowledges nothing: going on with what it sends")
            self._start(now_s) if self.state == State.CONFIGURING else self._run()

    def send(self, message: Message) -> None:
        """Queue a message to the device."""
        self._outgoing.append(message)

    def take_outgoing(self) -> bytes:
        """The bytes to write now."""
        parts = []
        while self._outgoing:
            item = self._outgoing.popleft()
            parts.append(item if isinstance(item, bytes) else self._writer.encode(item))
        return b"".join(parts)

    def has(self, capability: Capability) -> bool:
        """Whether the device said that it can do this."""
        return self.device is not None and bool(self.device.capabilities & capability)

    def _begin_greeting(self, now_s: float) -> None:
        self._began_s = self._last_frame_s = now_s
        self._frames_before = self.reader.counts.frames
        self._greet(now_s)

    def _greet(self, now_s: float) -> None:
        self.state = State.GREETING
        self._writer = FrameWriter()
        capabilities = sum(_CAPABILITY_OF.values())
        hello = Hello(PROTOCOL_VERSION, DEFAULT_RATE_HZ, MAX_PAYLOAD, capabilities, NUM_MELS, "edgeasr")
        self._ask(hello, now_s, again=False)
        self._greeted_s = now_s

    def _ask(self, message: Message, now_s: float, *, again: bool) -> None:
        self._asked, self._sent_s = message, now_s
        self._num_sent = self._num_sent + 1 if again else 1
        self._outgoing.append(message)

    def _keep_greeting(self, now_s: float) -> None:
        """A device that sends speech but no HELLO within ONE_WAY_S is one that cannot hear."""
        if now_s - self._began_s >= ONE_WAY_S and self.reader.counts.frames > self._frames_before:
            self._say(f"the device does not say what it is: taking what it sends, at {DEFAULT_RATE_HZ} Hz")
            self._run()
        elif now_s - self._sent_s >= (REPEAT_S if now_s - self._began_s < ONE_WAY_S else GREET_AGAIN_S):
            self._greet(now_s)

    def _keep_alive(self, now_s: float) -> None:
        if self.device is None:
            return
        if now_s - self._last_frame_s >= SILENT_S:
            self._say(f"nothing from the device for {SILENT_S:g} s: greeting it anew")
            self._begin_greeting(now_s)
        elif now_s - self._ping_sent_s >= PING_S:
            self._num_pings, self._ping_sent_s = self._num_pings + 1, now_s
            self._outgoing.append(Ping(self._num_pings))

    def _answer(self, frame: Frame, now_s: float) -> None:
        message = frame.message
        if isinstance(message, Hello):
            self._meet(message, now_s)
        elif isinstance(message, Ping):
            self._outgoing.append(Pong(message.token))
        elif isinstance(message, Pong) and message.token == self._num_pings:
            self.round_trip_s = now_s - self._ping_sent_s
        elif isinstance(message, Ack):
            self._acknowledged(message, now_s)
        elif isinstance(message, Audio | Features) and self.state == State.STARTING:
            self._run()

    def _meet(self, hello: Hello, now_s: float) -> None:
        """A HELLO is an answer, or that of a device that started anew."""
        late_answer = self.state != State.GREETING and now_s - self._greeted_s < ONE_WAY_S
        if late_answer and self.device == hello:
            return
        if hello.protocol_version != PROTOCOL_VERSION:
            self._say(
                f"{hello.name} knows version {hello.protocol_version} of the protocol, this is {PROTOCOL_VERSION}"
            )
        if self.state != State.GREETING and self.device is not None:
            self._say_line(f"{self._name}: the device started anew")
        self.device = hello
        self._candidates = deque(self._eligible(hello))
        self._configure(now_s)

    def _eligible(self, hello: Hello) -> list[Codec]:
        """Codecs to ask for, the best first."""
        known = [codec for codec in _CODECS if hello.capabilities & _CAPABILITY_OF[codec]]
        if hello.num_mels != NUM_MELS and Codec.FEATURES in known:
            known.remove(Codec.FEATURES)
        if self._config.codec is not None:
            if self._config.codec not in known:
                names = ", ".join(codec.name.lower() for codec in known) or "none"
                raise DeviceError(
                    f"{self._name} cannot send {self._config.codec.name.lower()}, it knows {names}: choose one of these"
                )
            return [self._config.codec]
        limit = self._bytes_per_s or float("inf")
        scale = hello.sample_rate_hz / DEFAULT_RATE_HZ
        return [codec for codec in known if _CODECS[codec] * scale <= limit] or known[-1:]

    def _configure(self, now_s: float) -> None:
        if not self._candidates:
            raise DeviceError(f"{self._name} accepts no codec that this side knows: update the firmware")
        self.state, self.codec = State.CONFIGURING, self._candidates.popleft()
        self._ask(self._config.configure(self.codec), now_s, again=False)

    def _acknowledged(self, ack: Ack, now_s: float) -> None:
        if self.state == State.CONFIGURING and ack.type == Configure.TYPE:
            self._start(now_s) if ack.status == Status.OK else self._configure(now_s)
        elif self.state == State.STARTING and ack.type == Command.TYPE:
            if ack.status != Status.OK:
                raise DeviceError(f"{self._name} does not start (status {ack.status}): look at its log")
            self._run()

    def _start(self, now_s: float) -> None:
        self.state = State.STARTING
        self._ask(Command(CommandCode.START, 0), now_s, again=False)

    def _run(self) -> None:
        self.state = State.RUNNING

    def _look_for_noise(self, now_s: float) -> None:
        counts = self.reader.counts
        heard_nothing = counts.frames == 0 and counts.version == 0 and self._num_bytes >= NOISE_BYTES
        if heard_nothing and now_s - self._first_byte_s >= NOISE_S:
            self._say(
                f"nothing understood, {self._num_bytes} bytes without a frame: check the baud rate and the firmware",
                once="noise",
            )

    def _say(self, what: str, once: str = "") -> None:
        """Say something the first time."""
        if (once or what) not in self._said:
            self._said.add(once or what)
            self._say_line(f"{self._name}: {what}")
