"""PortAudio, through sounddevice: which input devices there are, and those that are plugged in later."""

from __future__ import annotations

import ctypes
import platform
import re
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Self

from edgeasr.errors import DeviceError

_DEVICE_NODES = Path("/dev/snd")
# Each new look costs PortAudio 13 kB for good (V19.6 on ALSA), so that they get rarer where nothing shows a reason.
_FIRST_LOOK_S = 5.0
_RAREST_LOOK_S = 600.0
_CARD = re.compile(r" \(hw:\d+,\d+\)$")  # at the end of ALSA's names; another number after the next plugging

Device = dict[str, Any]


class SoundSystem:
    """Finds input devices.

    sound: the sounddevice module, or a stand-in; None for the module. errors: DeviceError where it cannot be had
    clock: seconds
    """

    def __init__(self, sound: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.sound = _sounddevice() if sound is None else sound
        self._clock = clock
        self._nodes = _device_nodes()
        self._looked_s, self._next_look_s = clock(), _FIRST_LOOK_S

    def inputs(self) -> list[Device]:
        """errors: DeviceError where the sound system does not answer"""
        try:
            devices = self.sound.query_devices()
        except self.sound.PortAudioError as error:
            raise DeviceError(f"the sound system does not answer ({error}): check it with `arecord -l`") from error
        return [device for device in devices if device["max_input_channels"] > 0]

    def find(self, wanted: int | str | None) -> Device:
        """The device of an index (digits too), of a name or of a part of one, None for the default.

        errors: DeviceError where it is not exactly one
        """
        inputs = self.inputs()
        if not inputs:
            raise DeviceError("no microphone found: plug one in and check with `arecord -l` that the system sees it")
        matching = [self._default()] if wanted is None else _matching(inputs, wanted)
        if len(matching) != 1:
            found = "several input devices match" if matching else "no input device matches"
            raise DeviceError(f"{found} {wanted!r}, want exactly one", fix=f"choose from {self.listing()}")
        return matching[0]

    def find_again(self, wanted: int | str | None, name: str) -> Device:
        """The device that was found as `wanted` earlier and had this name; an index may be another one's by now.

        errors: DeviceError where it is not there
        """
        inputs = self.inputs()
        same = [device for device in inputs if bare_name(device["name"]) == bare_name(name)]
        if not same and isinstance(wanted, str) and not wanted.isdecimal():
            same = _matching(inputs, wanted)
        if not same:
            raise DeviceError(f"no input device {name}, want it plugged in", fix=f"choose from {self.listing()}")
        return same[0]

    def look_again(self) -> None:
        """See what was plugged in or out: at once where the kernel shows a change, else now and then.

        PortAudio sees devices only when it begins: no stream may be open. errors: DeviceError
        """
        nodes, now_s = _device_nodes(), self._clock()
        if nodes == self._nodes and now_s - self._looked_s < self._next_look_s:
            return
        changed = nodes != self._nodes
        self._next_look_s = _FIRST_LOOK_S if changed else min(2 * self._next_look_s, _RAREST_LOOK_S)
        self._nodes, self._looked_s = nodes, now_s
        try:
            self.sound._terminate()
            self.sound._initialize()
        except self.sound.PortAudioError as error:
            raise DeviceError(f"the sound system does not begin ({error}): check it with `arecord -l`") from error

    def listing(self) -> str:
        """All input devices in a line."""
        return "; ".join(map(described, self.inputs()))

    def _default(self) -> Device:
        try:
            default: Device = self.sound.query_devices(kind="input")
        except (self.sound.PortAudioError, ValueError) as error:
            raise DeviceError("no default microphone is set", fix=f"choose from {self.listing()}") from error
        return default


class MutedLibraries:
    """A context manager inside which C libraries write nothing to standard error; may be nested.

    PortAudio and ALSA tell there, in several lines each time, what they also return: that a device is gone. Python and
    the kernel write to the descriptor and are still seen. Where the C library is not GNU's, nothing is done.
    """

    _lock = Lock()
    _depth = 0
    _real: int | None = None
    _nowhere: int | None = None  # stays open: a library may be about to write to it

    def __enter__(self) -> Self:
        with self._lock:
            MutedLibraries._depth += 1
            if self._depth == 1 and platform.libc_ver()[0] == "glibc":
                if self._nowhere is None:
                    MutedLibraries._nowhere = _open_nowhere()
                MutedLibraries._real = _exchange_stderr(self._nowhere)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            MutedLibraries._depth -= 1
            if self._depth == 0 and self._real is not None:
                _exchange_stderr(self._real)
                MutedLibraries._real = None


def described(device: Device) -> str:
    """Index, name, channels, default rate."""
    return (
        f"{device['index']}: {device['name']} ({device['max_input_channels']} ch, "
        f"{device['default_samplerate']:.0f} Hz)"
    )


def bare_name(name: str) -> str:
    """The name of a device without the number of its card."""
    return _CARD.sub("", name)


def _sounddevice() -> Any:
    try:
        return import_module("sounddevice")
    except OSError as error:
        raise DeviceError(
            f"no PortAudio library ({error}), want libportaudio2: sudo apt install libportaudio2"
        ) from error
    except ImportError as error:
        raise DeviceError(f"no sounddevice package ({error}): pip install sounddevice") from error


def _open_nowhere() -> int | None:
    fopen = ctypes.CDLL(None).fopen
    fopen.restype = ctypes.c_void_p
    opened: int | None = fopen(b"/dev/null", b"w")
    return opened


def _exchange_stderr(stream: int | None) -> int | None:
    """The C library's stderr becomes this stream, unless that is None. returns: what it was, None if it stays"""
    if stream is None:
        return None
    variable = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr")
    before, variable.value = variable.value, stream
    return before


def _device_nodes() -> tuple[int, tuple[str, ...]] | None:
    """What the kernel shows of sound cards; None where it shows nothing, as in a container."""
    try:
        return _DEVICE_NODES.stat().st_mtime_ns, tuple(sorted(path.name for path in _DEVICE_NODES.iterdir()))
    except OSError:
        return None


def _matching(inputs: list[Device], wanted: int | str) -> list[Device]:
    """By index (digits too); by whole name; by part of a name."""
    if isinstance(wanted, int) or wanted.isdecimal():
        return [device for device in inputs if device["index"] == int(wanted)]
    name = wanted.casefold()
    exact = [device for device in inputs if device["name"].casefold() == name]
    return exact or [device for device in inputs if name in device["name"].casefold()]
