"""A device on a link as a source for the recogniser: of samples, or of features where the device computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from edgeasr.audio import AudioBlock, Source, Waveform, check_sample_rate
from edgeasr.errors import DeviceError
from edgeasr.features import FeatureBlock, Floats
from edgeasr.firmware_bridge.codec import decode_audio
from edgeasr.firmware_bridge.drift import DriftCorrector
from edgeasr.firmware_bridge.feature_codec import decode_features
from edgeasr.firmware_bridge.link import Link, open_link
from edgeasr.firmware_bridge.messages import (
    Audio,
    Capability,
    EventKind,
    Features,
    Gap,
    GapReason,
    Hello,
    Log,
    LogLevel,
    Message,
    ProtocolError,
    Transcript,
    TranscriptKind,
    fit_text,
)
from edgeasr.firmware_bridge.messages import Event as DeviceEvent
from edgeasr.firmware_bridge.session import DEFAULT_RATE_HZ, Received, Say
from edgeasr.firmware_bridge.silence import GateSilence
from edgeasr.firmware_bridge.timeline import Placed, TimedBlock, Timeline
from edgeasr.transcript import Event, Final

HOP_LENGTH = 160  # of FEATURES, as the model's front end has it
SILENCE_S = 0.1  # of silence behind a gate is handed on at once

Block = AudioBlock | FeatureBlock
Decoded = Waveform | Floats  # (num_samples,) or (T, M)


class BridgeSource(Source[Block]):
    """What a device hears, in the time of the link's clock.

    say:     told in one line what a user should know: losses, a device that comes and goes, its log
    stopped: asked often, ends blocks() even where nothing comes

    Lost samples become gaps; behind a gate that closed silence is handed on before the next speech comes. Only frames
    whose check sum, fields and place in time are right are handed on.
    """

    duration_s = None

    def __init__(
        self,
        link: Link,
        say: Say,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = link.name
        self.sample_rate_hz = DEFAULT_RATE_HZ
        self.link = link
        self._say, self._stopped = say, stopped
        self._timeline: Timeline[Decoded] = Timeline(self.sample_rate_hz)
        self._corrector = DriftCorrector(self.sample_rate_hz)
        self._silence = GateSilence(self.sample_rate_hz, self.link.session.preroll_s)
        self._given = 0  # samples of silence since the last block
        self._of_features = 0  # values of a frame of it, 0 where it was of samples
        self._early: list[Received] = []  # before it was known what the device is
        self._is_settled = False
        self._num_blocks = 0
        self._lost = 0  # frames since the last block
        self._gap = 0  # samples since the last block that was given

    @classmethod
    def open(cls, url: str, say: Say, stopped: Callable[[], bool] = lambda: False) -> BridgeSource:
        """The source that a URL names. errors: ConfigError, DeviceError, ExtraMissingError"""
        return cls(open_link(url, say), say, stopped)

    def blocks(self) -> Iterator[Block]:
        failure: DeviceError | None = None
        try:
            for received in self.link.arrivals(self._stopped):
                if received is not None:
                    self._early.append(received)
                    if self._is_settled or self.link.session.is_settled:
                        yield from self._of_early()
                # By the host's clock only when all that came has been looked at.
                yield from self._silent_block(self.link.now_s() if received is None else received.arrival_s)
        except DeviceError as error:
            failure = error
        yield from self._of_early()
        yield from self._audio_block(self._corrector.flush(), 0)
        if failure is not None:
            raise failure
        if not self._num_blocks and not self._stopped():
            raise DeviceError(f"{self.name} ended before the first sample, want speech: check the device")

    @property
    def origin(self) -> int | None:
        """The device's time of the stream's first sample, None before it: what was lost before is not known."""
        return self._timeline.origin

    def show(self, event: Event) -> None:
        """Send a transcript to a device that has a display."""
        device = self.link.session.device
        if device is not None and self.link.session.has(Capability.DISPLAY):
            self.link.send(transcript_message(event, device.max_payload))

    def shown(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events, each shown on the device when it has come."""
        for event in events:
            self.show(event)
            yield event

    def close(self) -> None:
        self.link.close()

    def report(self) -> str | None:
        """One line on what was lost or damaged; None where nothing was."""
        counts, missing = self.link.counts, self._timeline.missing
        parts = [
            f"{samples / self.sample_rate_hz * 1000:.0f} ms of audio lost {where}"
            for samples, where in ((missing.link, "on the link"), (missing.device, "in the device"))
            if samples
        ]
        if self._timeline.misplaced:
            parts.append(f"{self._timeline.misplaced} frames of impossible time")
        if counts.errors or counts.lost or counts.duplicate or counts.late or parts:
            return ", ".join([f"{self.name}: {counts}", *parts])
        return None

    def _of_early(self) -> Iterator[Block]:
        """The blocks of what came, once it is known what the device is."""
        if not self._is_settled:
            self._is_settled = True
            self.sample_rate_hz = check_sample_rate(self.link.session.sample_rate_hz, self.name)
            self._timeline = Timeline(self.sample_rate_hz)
            self._corrector = DriftCorrector(self.sample_rate_hz)
            self._silence = GateSilence(self.sample_rate_hz, self.link.session.preroll_s)
        early, self._early = self._early, []
        for received in early:
            yield from self._of_message(received)

    def _of_message(self, received: Received) -> Iterator[Block]:
        message = received.frame.message
        self._lost += received.frame.lost
        if isinstance(message, Hello) and message.sample_rate_hz != self.sample_rate_hz:
            raise DeviceError(
                f"{self.name} changed its rate from {self.sample_rate_hz} to {message.sample_rate_hz} Hz, want one "
                "rate in a stream: start again"
            )
        if isinstance(message, Gap):
            self._timeline.announce(received.frame.time, message)
            if message.reason == GapReason.GATED:
                self._silence.gap_told(received.frame.time + message.lost_samples)
        elif isinstance(message, DeviceEvent):
            if message.kind == EventKind.SPEECH_END and self.link.session.is_gated:
                self._silence.speech_ended(received.frame.time, received.arrival_s)
        elif isinstance(message, Log) and message.level >= LogLevel.WARNING:
            self._say(f"{self.name}: the device says: {message.text}")
        elif isinstance(message, Audio | Features):
            block = self._decoded(received, message)
            if block is not None:
                lost, self._lost = self._lost, 0
                for placed in self._timeline.place(block, frames_lost=lost > 0):
                    yield from self._in_host_time(placed)

    def _decoded(self, received: Received, message: Audio | Features) -> TimedBlock[Decoded] | None:
        """None for what is empty, or makes no sense, which is counted."""
        frame = received.frame
        data: Decoded
        try:
            if isinstance(message, Audio):
                data = decode_audio(message).astype(np.float32) * np.float32(2**-15)
                num_samples = len(data)
            else:
                data = decode_features(message)
                num_samples = len(data) * HOP_LENGTH
        except ProtocolError as error:
            self.link.refuse(frame, error)
            return None
        if num_samples == 0:
            return None
        self._num_blocks += 1
        return TimedBlock(frame.time, num_samples, received.arrival_s, data)

    def _silent_block(self, now_s: float) -> Iterator[Block]:
        """Silence that is certain, so that the recogniser can end a segment while nothing comes."""
        last = self._timeline.end
        if last is None:
            return
        num_samples = self._silence.certain(last, now_s) - self._given
        num_samples -= num_samples % HOP_LENGTH
        if num_samples < SILENCE_S * self.sample_rate_hz:
            return
        self._given += num_samples
        rest, gap = self._corrector.gap(self._timeline.give_silence(num_samples), num_samples)
        yield from self._audio_block(rest, 0, behind=gap)
        if self._of_features:
            yield FeatureBlock(np.zeros((0, self._of_features), np.float32), self._corrector.produced, gap)
        else:
            yield from self._audio_block(np.zeros(gap, np.float32), 0)

    def _in_host_time(self, placed: Placed[Decoded]) -> Iterator[Block]:
        gap, self._given = 0, 0
        self._silence.heard(placed.block.time + placed.block.num_samples)
        self._of_features = placed.block.data.shape[1] if placed.block.data.ndim == 2 else 0
        if placed.restarted:
            self._corrector.estimator.restart()
        if placed.gap_samples:
            rest, gap = self._corrector.gap(placed.position, placed.gap_samples)
            yield from self._audio_block(rest, 0, behind=gap)
        end, arrival_s = placed.position + placed.block.num_samples, placed.block.arrival_s
        if placed.block.data.ndim == 1:
            samples = self._corrector.samples(end, placed.block.data, arrival_s)
            yield from self._audio_block(samples, gap)
        else:
            features = self._corrector.features(end, placed.block.data, HOP_LENGTH, arrival_s)
            yield FeatureBlock(features, self._corrector.produced - len(features) * HOP_LENGTH, gap)

    def _audio_block(self, samples: Waveform, gap: int, behind: int = 0) -> Iterator[AudioBlock]:
        """Samples that end `behind` before what was produced; a gap waits for the first of them."""
        self._gap += gap
        if len(samples):
            yield AudioBlock(samples, self._corrector.produced - behind - len(samples), self._gap)
            self._gap = 0


def transcript_message(event: Event, max_payload: int) -> Message:
    """A transcript for a display, cut at a character to fit."""
    kind = TranscriptKind.FINAL if isinstance(event, Final) else TranscriptKind.PARTIAL
    text = fit_text(event.text, max_payload - Transcript.fixed_size())
    stable_bytes = len(event.text[: event.stable].encode())
    return Transcript(kind, event.segment % 65_536, min(stable_bytes, len(text.encode())), text)
