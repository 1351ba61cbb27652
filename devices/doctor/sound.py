"""The sound system: its library, the devices, their rates, the rights of the user, and how loud a microphone is."""

from __future__ import annotations

import getpass
import grp
import os
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgeasr.audio import Waveform
from edgeasr.capture.sound_system import Device, MutedLibraries, SoundSystem, described
from edgeasr.devices.doctor.examination import Check, Circumstances, Finding
from edgeasr.errors import DeviceError
from edgeasr.microphone import Microphone

GROUP = "sound"
_RATES_HZ = (8_000, 16_000, 22_050, 44_100, 48_000, 96_000)
_FIRST_SOUND_S = 3.0
_FULL_SCALE = 0.99
_MOST_CLIPPED = 1e-3
_MOST_OFFSET = 0.05
_FAINT_DB, _SILENT_DB = -60.0, -90.0
_MIXER = "check that it is not muted: `alsamixer` (F4 shows inputs), `wpctl status`"


def checks(given: Circumstances, sound: Any = None) -> list[Check]:
    """Those of this file. sound: the sounddevice module, or a stand-in"""
    looks = _Looks(given, sound)
    return [
        Check(GROUP, "portaudio", looks.portaudio),
        Check(GROUP, "rights", lambda: rights(given.root)),
        Check(GROUP, "devices", looks.devices),
        Check(GROUP, "rates", looks.rates),
        Check(GROUP, "microphone", looks.microphone, limit_s=2 * _FIRST_SOUND_S + 10),
        Check(GROUP, "level", looks.level, limit_s=given.level_s + 15),
    ]


class _Looks:
    """The sound system is loaded once, and what needs it is left out where it cannot be."""

    def __init__(self, given: Circumstances, sound: Any) -> None:
        self._given, self._sound = given, sound

    @cached_property
    def _system(self) -> SoundSystem | None:
        try:
            with MutedLibraries():
                return SoundSystem(self._sound)
        except DeviceError:
            return None

    @cached_property
    def _device(self) -> Device | None:
        """What `listen` would hear."""
        try:
            return self._system.find(self._given.device) if self._system else None
        except DeviceError:
            return None

    def portaudio(self) -> Finding:
        with MutedLibraries():
            system = SoundSystem(self._sound)
        version = getattr(system.sound, "get_portaudio_version", lambda: (0, "PortAudio"))()[1]
        return Finding("ok", str(version).partition(", revision")[0])

    def devices(self) -> Finding:
        if self._system is None:
            return Finding("skipped", "without PortAudio no devices are known")
        inputs = self._system.inputs()
        if not inputs:
            fix = "plug a microphone in; `arecord -l` must list it. In a container: --device /dev/snd"
            return Finding("fail", "no microphone", fix)
        default = self._system.find(self._given.device)
        return Finding("ok", f"{'; '.join(map(described, inputs))}; heard is {default['index']}")

    def rates(self) -> Finding:
        if self._system is None or self._device is None:
            return Finding("skipped", "there is no device to ask")
        taken = [rate_hz for rate_hz in _RATES_HZ if self._takes(self._device, rate_hz)]
        own_hz = round(float(self._device["default_samplerate"]))
        if own_hz not in taken and not self._takes(self._device, own_hz):
            fix = "choose another device, or let a sound server (PipeWire, PulseAudio) convert"
            return Finding("warn", f"the device's own rate of {own_hz} Hz is refused", fix)
        listed = ", ".join(str(rate_hz) for rate_hz in taken) or "no other"
        return Finding("ok", f"its own is {own_hz} Hz, taken are {listed} Hz; whatever it is, it is resampled")

    def _takes(self, device: Device, rate_hz: int) -> bool:
        assert self._system is not None
        try:
            with MutedLibraries():
                self._system.sound.check_input_settings(device["index"], channels=1, samplerate=rate_hz)
        except (self._system.sound.PortAudioError, ValueError):
            return False
        return True

    def microphone(self) -> Finding:
        if self._device is None:
            return Finding("skipped", "there is no device to open")
        samples, rate_hz, name = self._heard(0.05)
        if not len(samples):
            fix = "check its plug, and that no other program holds it: `fuser -v /dev/snd/*`"
            return Finding("fail", f"{name} opens at {rate_hz} Hz, but no sound comes within {_FIRST_SOUND_S:g} s", fix)
        return Finding("ok", f"{name} opens at {rate_hz} Hz and gives sound")

    def level(self) -> Finding:
        if not self._given.level_s:
            return Finding("skipped", "nothing is heard unless you ask for it: `edgeasr doctor --level 3`, and speak")
        if self._device is None:
            return Finding("skipped", "there is no device to hear")
        samples, _, name = self._heard(self._given.level_s)
        return judged_level(samples, name)

    def _heard(self, seconds: float) -> tuple[Waveform, int, str]:
        """So much sound, or what came in time. errors: DeviceError"""
        deadline_s = time.monotonic() + seconds + _FIRST_SOUND_S
        parts, num_samples = [], 0
        with Microphone(self._given.device, stopped=_passed(deadline_s), sound=self._sound) as microphone:
            for block in microphone.blocks():
                parts.append(block.samples)
                num_samples += len(block.samples)
                if num_samples >= seconds * microphone.sample_rate_hz:
                    break
            heard = np.concatenate(parts) if parts else np.zeros(0, np.float32)
            return heard, microphone.sample_rate_hz, microphone.name


def _passed(deadline_s: float) -> Callable[[], bool]:
    return lambda: time.monotonic() >= deadline_s


def judged_level(samples: Waveform, name: str) -> Finding:
    """samples: (num_samples,) float32 of somebody who speaks"""
    if not len(samples):
        return Finding("fail", f"{name} gives no sound", "check its plug, and that no other program holds it")
    offset = float(samples.mean())
    peak, rms = float(np.abs(samples).max()), float(np.sqrt(np.mean(np.square(samples - offset, dtype=np.float64))))
    clipped = float(np.mean(np.abs(samples) >= _FULL_SCALE))
    text = f"{name}: loudest {_db(peak):.0f} dB, mean {_db(rms):.0f} dB of full scale"
    if _db(rms) < _SILENT_DB:
        return Finding("fail", f"{text}: silence", _MIXER)
    if clipped > _MOST_CLIPPED:
        return Finding("warn", f"{text}: {clipped:.1%} of it clipped", "turn the input down: `alsamixer`, F4")
    if abs(offset) > _MOST_OFFSET:
        return Finding("warn", f"{text}, off its zero by {offset:+.2f}", "the sound card or its supply is at fault")
    if _db(rms) < _FAINT_DB:
        return Finding("warn", f"{text}: faint", f"speak, come nearer, or turn the input up; {_MIXER}")
    return Finding("ok", text)


def _db(amplitude: float) -> float:
    """Of full scale."""
    return float(20 * np.log10(max(amplitude, 1e-10)))


def rights(root: Path) -> Finding:
    """Sound cards are open to the group audio, and to a sound server of the user, which is what most desktops have."""
    cards = sorted((root / "dev/snd").glob("pcmC*c"))
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere")
    servers = [name for name in ("pipewire-0", "pulse/native") if (runtime / name).exists()]
    if os.environ.get("PULSE_SERVER"):
        servers.append("PULSE_SERVER")
    if cards and all(os.access(card, os.R_OK | os.W_OK) for card in cards):
        return Finding("ok", f"{len(cards)} sound cards may be opened{_also(servers)}")
    if servers:
        return Finding("ok", f"a sound server is there: {', '.join(servers)}")
    if not cards:
        fix = "plug a microphone in; in a container: --device /dev/snd"
        return Finding("warn", f"the kernel shows no sound card that records; group audio: {_in_audio()}", fix)
    user = getpass.getuser()
    fix = f"sudo usermod -aG audio {user}, then log in again; services: `edgeasr service install` sees to it"
    return Finding("fail", f"{user} may not open {cards[0]}; group audio: {_in_audio()}", fix)


def _also(servers: list[str]) -> str:
    return f", and a sound server is there: {', '.join(servers)}" if servers else ""


def _in_audio() -> str:
    try:
        return "yes" if grp.getgrnam("audio").gr_gid in (*os.getgroups(), os.getegid()) else "no"
    except KeyError:
        return "there is none"
