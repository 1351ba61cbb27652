"""The microphone as an audio source, and the list of input devices (PortAudio, through sounddevice)."""

from collections.abc import Iterator
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any

from edgeasr.audio import AudioBlock, AudioSource, Waveform, block_length, mix_down
from edgeasr.errors import DeviceError

QUEUE_S = 10.0  # heard but not yet taken, at most; what comes on top is lost, and counted
STALL_S = 5.0  # without a block, after which a device counts as gone
MAX_CHANNELS = 8  # sound servers offer 32 and more that no microphone feeds: two of them are taken


class Microphone(AudioSource):
    """A live input device at its own rate, all its channels mixed down.

    device: None for the system's default, an index, or a part of a name in any case
    sound:  the sounddevice module, or a stand-in

    Listening begins with blocks(). PortAudio's thread never waits: blocks go into a bounded queue, and what
    finds no room, or what PortAudio lost itself, is the next block's gap_samples. After close(), blocks()
    gives what was heard before it and ends. No such device, or one that stops, raises DeviceError.
    """

    def __init__(self, device: int | str | None = None, block_ms: int = 40, *, sound: Any = None) -> None:
        self._sound = _sounddevice() if sound is None else sound
        chosen = _find_device(self._sound, device)
        self.name = str(chosen["name"])
        self.sample_rate_hz = round(float(chosen["default_samplerate"]))
        self.duration_s = None
        self._queue: SimpleQueue[AudioBlock | None] = SimpleQueue()  # None: the stream has ended
        self._stream = self._open(chosen, block_length(self.sample_rate_hz, block_ms))
        self._max_blocks = max(1, round(QUEUE_S * 1000 / block_ms))
        self._started = self._closed = False
        # From here on only PortAudio's thread writes these.
        self._position = 0  # of the next sample, lost ones counted
        self._gap = 0  # samples lost since the last block in the queue
        self._next_adc_s: float | None = None  # when the next sample is due, by PortAudio's clock

    def blocks(self) -> Iterator[AudioBlock]:
        self._start()
        while (block := self._next_block()) is not None:
            yield block

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._stream.close()
            self._queue.put(None)

    def _open(self, device: dict[str, Any], block_samples: int) -> Any:
        channels = device["max_input_channels"]
        try:
            return self._sound.InputStream(
                device=device["index"],
                samplerate=self.sample_rate_hz,
                channels=channels if channels <= MAX_CHANNELS else 2,
                blocksize=block_samples,
                dtype="float32",
                callback=self._hear,
                finished_callback=lambda: self._queue.put(None),
            )
        except self._sound.PortAudioError as error:
            raise self._unusable(error) from error

    def _start(self) -> None:
        if self._started or self._closed:
            return
        self._started = True
        try:
            self._stream.start()
        except self._sound.PortAudioError as error:
            raise self._unusable(error) from error

    def _next_block(self) -> AudioBlock | None:
        try:
            block = self._queue.get(timeout=0 if self._closed else STALL_S)
        except Empty:
            if self._closed:
                return None
            raise self._gone(f"gave no sound for {STALL_S:g} s") from None
        if block is None and not self._closed:
            raise self._gone("stopped")
        return block

    def _hear(self, frames: Waveform, num_frames: int, clock: Any, status: Any) -> None:
        """PortAudio's callback, on its own thread: must neither wait nor raise.

        frames: (num_frames, channels) float32, valid only during the call
        """
        lost = self._lost_before(num_frames, clock.inputBufferAdcTime, status.input_overflow)
        self._position += lost
        self._gap += lost
        if self._queue.qsize() < self._max_blocks:
            self._queue.put(AudioBlock(mix_down(frames), self._position, self._gap))
            self._gap = 0
        else:
            self._gap += num_frames
        self._position += num_frames

    def _lost_before(self, num_frames: int, adc_s: float, overflow: bool) -> int:
        """Samples that PortAudio lost, by its clock; at least one, so that a loss shows in any case."""
        due_s, self._next_adc_s = self._next_adc_s, adc_s + num_frames / self.sample_rate_hz
        if not overflow or due_s is None:
            return 0
        return max(1, round((adc_s - due_s) * self.sample_rate_hz))

    def _unusable(self, error: Exception) -> DeviceError:
        reason = " ".join(str(error).split())
        return DeviceError(
            f"cannot listen to {self.name} at {self.sample_rate_hz} Hz ({reason}), want a free input device: "
            f"close other programs that record, or choose another of {_listing(self._sound)}"
        )

    def _gone(self, what: str) -> DeviceError:
        return DeviceError(f"the microphone {self.name} {what}, want a steady stream: check its plug, start again")


def list_input_devices(*, sound: Any = None) -> list[str]:
    """A line for each input device: index, name, channels, default rate; `sound` as for Microphone."""
    return [
        f"{device['index']}: {device['name']} ({device['max_input_channels']} ch, "
        f"{device['default_samplerate']:.0f} Hz)"
        for device in _input_devices(_sounddevice() if sound is None else sound)
    ]


def _sounddevice() -> Any:
    try:
        return import_module("sounddevice")
    except OSError as error:
        raise DeviceError(
            f"no PortAudio library ({error}), want libportaudio2: sudo apt install libportaudio2"
        ) from error
    except ImportError as error:
        raise DeviceError(f"no sounddevice package ({error}): pip install sounddevice") from error


def _input_devices(sound: Any) -> list[dict[str, Any]]:
    try:
        devices = sound.query_devices()
    except sound.PortAudioError as error:
        raise DeviceError(f"the sound system does not answer ({error}): check it with `arecord -l`") from error
    return [device for device in devices if device["max_input_channels"] > 0]


def _find_device(sound: Any, wanted: int | str | None) -> dict[str, Any]:
    inputs = _input_devices(sound)
    if not inputs:
        raise DeviceError("no microphone found: plug one in and check with `arecord -l` that the system sees it")
    matching = [_default_device(sound)] if wanted is None else _matching(inputs, wanted)
    if len(matching) != 1:
        found = "several input devices match" if matching else "no input device matches"
        raise DeviceError(f"{found} {wanted!r}, want exactly one: choose from {_listing(sound)}")
    return matching[0]


def _default_device(sound: Any) -> dict[str, Any]:
    try:
        default: dict[str, Any] = sound.query_devices(kind="input")
    except (sound.PortAudioError, ValueError) as error:
        raise DeviceError(f"no default microphone is set: choose from {_listing(sound)}") from error
    return default


def _matching(inputs: list[dict[str, Any]], wanted: int | str) -> list[dict[str, Any]]:
    """By index (digits too); by whole name; by part of a name."""
    if isinstance(wanted, int) or wanted.isdecimal():
        return [device for device in inputs if device["index"] == int(wanted)]
    name = wanted.casefold()
    exact = [device for device in inputs if device["name"].casefold() == name]
    return exact or [device for device in inputs if name in device["name"].casefold()]


def _listing(sound: Any) -> str:
    return "; ".join(list_input_devices(sound=sound))
