"""The microphone as an audio source, and the list of input devices (PortAudio, through sounddevice)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edgeasr.audio import Waveform, block_length
from edgeasr.capture.channels import ChannelMix
from edgeasr.capture.live import LiveSource, never, say_nothing
from edgeasr.capture.losses import Say
from edgeasr.capture.sound_system import Device, MutedLibraries, SoundSystem, described
from edgeasr.errors import DeviceError

STALL_S = 5.0  # without a block, after which a device counts as gone
RETRY_S = 1.0  # between attempts to open a device again: in the first minute, and at most later
RETRY_LATER_S = 5.0
MAX_CHANNELS = 8  # sound servers offer 32 and more that no microphone feeds: two of them are taken
_UNKNOWN_RATE_HZ = 16_000  # of silence before a device was seen
_SOON_S = 60.0


class Microphone(LiveSource):
    """A live input device at its own rate, its channels mixed down.

    device: None for the system's default, an index, or a part of a name in any case
    wait:   for a device that is not there yet; without it that is an error
    sound:  the sounddevice module, or a stand-in
    say, stopped, clock: as for LiveSource

    Listening begins with blocks(). What PortAudio lost is the next block's gap_samples. A device that stops, or gives
    no sound for five seconds, is waited for: the one of the same name is opened again, in the same stream. After
    close(), blocks() gives what was heard before it and ends.
    errors: DeviceError for no such device, or one that is in use
    """

    def __init__(  # noqa: PLR0913 - keywords, each a choice of its own
        self,
        device: int | str | None = None,
        block_ms: int = 40,
        *,
        say: Say = say_nothing,
        stopped: Callable[[], bool] = never,
        wait: bool = False,
        sound: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        block_length(_UNKNOWN_RATE_HZ, block_ms)
        self._system = SoundSystem(sound, clock)
        super().__init__("the microphone" if device is None else str(device), _UNKNOWN_RATE_HZ, say, stopped, clock)
        self._wanted, self._block_ms, self._wait = device, block_ms, wait
        self._muted = MutedLibraries()
        self._stream: Any = None
        self._is_known = False  # whether the device was ever opened, and so its name
        self._finished = False  # of the stream: no block comes any more
        self._tried_s = 0.0
        # Of PortAudio's thread.
        self._mix = ChannelMix(1)
        self._next_adc_s: float | None = None  # when the next sample is due, by PortAudio's clock
        try:
            self._open(self._system.find(device))
        except DeviceError as error:
            self._leave_unless_wanted_now(error)

    def _open(self, device: Device) -> None:
        """Errors: DeviceError for a device that is in use or cannot do what it says."""
        name, rate_hz = str(device["name"]), round(float(device["default_samplerate"]))
        channels = device["max_input_channels"]
        channels = channels if channels <= MAX_CHANNELS else 2
        self._finished, self._next_adc_s, self._mix = False, None, ChannelMix(channels)
        self._muted.__enter__()
        try:
            self._stream = self._system.sound.InputStream(
                device=device["index"],
                samplerate=rate_hz,
                channels=channels,
                blocksize=block_length(rate_hz, self._block_ms),
                dtype="float32",
                callback=self._hear,
                finished_callback=self._stream_finished,
            )
        except self._system.sound.PortAudioError as error:
            self._muted.__exit__()
            raise self._unusable(name, rate_hz, error) from error
        self.name = self._losses.name = name
        self._is_known = True
        if rate_hz != self.sample_rate_hz:
            self._change_rate(rate_hz)

    def _start(self) -> None:
        if self._stream is None:
            return
        try:
            self._start_stream()
        except DeviceError as error:
            self._stop()
            self._leave_unless_wanted_now(error)

    def _leave_unless_wanted_now(self, error: DeviceError) -> None:
        if not self._wait:
            raise error
        self._leave(f"is not there ({error})")

    def _start_stream(self) -> None:
        self._tried_s = self._clock()
        try:
            self._stream.start()
        except self._system.sound.PortAudioError as error:
            raise self._unusable(self.name, self.sample_rate_hz, error) from error

    def _stop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
            self._muted.__exit__()

    def _idle(self) -> None:
        if self._stream is not None:
            silent_s = self._clock() - max(self._heard_at_s, self._tried_s)
            if not self._finished and silent_s < STALL_S:
                return
            self._leave("stopped" if self._finished else f"gave no sound for {STALL_S:g} s")
            self._stop()
            self._tried_s = self._clock()
        elif self._clock() - self._tried_s >= self._retry_s:
            self._tried_s = self._clock()
            self._open_again()

    @property
    def _retry_s(self) -> float:
        return RETRY_S if self._clock() - self._away_since_s < _SOON_S else RETRY_LATER_S

    def _open_again(self) -> None:
        """Leaves things as they are if the device is not there, or not ready yet."""
        try:
            self._system.look_again()
            if self._is_known:
                device = self._system.find_again(self._wanted, self.name)
            else:
                device = self._system.find(self._wanted)
            self._open(device)
            self._start_stream()
        except DeviceError:
            self._stop()

    def _stream_finished(self) -> None:
        self._finished = True
        self._ring_bell()

    def _hear(self, frames: Waveform, num_frames: int, clock: Any, status: Any) -> None:
        """PortAudio's callback, on its own thread: must neither wait nor raise.

        frames: (num_frames, channels) float32, valid only during the call
        """
        lost = self._lost_before(num_frames, clock.inputBufferAdcTime, status.input_overflow)
        if lost:
            self._ring.skip(lost)
        self._put(self._mix.mix(frames))

    def _lost_before(self, num_frames: int, adc_s: float, overflow: bool) -> int:
        """Samples that PortAudio lost, by its clock; at least one, so that a loss shows in any case."""
        due_s, self._next_adc_s = self._next_adc_s, adc_s + num_frames / self.sample_rate_hz
        if not overflow or due_s is None:
            return 0
        return max(1, round((adc_s - due_s) * self.sample_rate_hz))

    def _unusable(self, name: str, rate_hz: int, error: Exception) -> DeviceError:
        reason = " ".join(str(error).split())
        return DeviceError(
            f"cannot listen to {name} at {rate_hz} Hz ({reason}), want a free input device: "
            f"close other programs that record, or choose another of {self._system.listing()}"
        )


def list_input_devices(*, sound: Any = None) -> list[str]:
    """A line for each input device: index, name, channels, default rate; `sound` as for Microphone."""
    return list(map(described, SoundSystem(sound).inputs()))
