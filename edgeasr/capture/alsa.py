"""Microphones through arecord, where PortAudio cannot be had or does not know the device."""

from __future__ import annotations

import re
import subprocess

from edgeasr.capture.pcm import PcmFormat
from edgeasr.capture.process import ProcessFeed
from edgeasr.errors import DeviceError

_PROBE_S = 5.0
_USUAL_HZ = 48_000
_BUFFER_US = 2_000_000  # in the kernel: what arecord may be late
# arecord's names.
_FORMATS = {"s16": "S16_LE", "s16be": "S16_BE", "s24": "S24_3LE", "s32": "S32_LE", "f32": "FLOAT_LE", "u8": "U8"}
_FORMATS |= {"ulaw": "MU_LAW", "alaw": "A_LAW"}
_PREFERRED = ("s16", "s32", "s24", "f32", "u8")
_RANGE = re.compile(r"[\[(]?(\d+)(?: (\d+)[\])])?")


def alsa_feed(device: str, pcm: PcmFormat | None) -> tuple[ProcessFeed, PcmFormat]:
    """What a device of ALSA's hears, as `arecord -L` and `-l` name them; started again when it is unplugged.

    pcm:    None for what the device can do, best of all 48 kHz, one channel, 16 bits
    errors: DeviceError for no such device, or without arecord
    """
    pcm = pcm or own_format(device)
    return ProcessFeed(f"alsa:{device}", record_command(device, pcm), returns=True), pcm


def record_command(device: str, pcm: PcmFormat) -> list[str]:
    """The arguments that record until arecord is ended."""
    return [
        *("arecord", "-q", "-D", device, "-t", "raw", "-f", _FORMATS[pcm.encoding]),
        *("-r", str(pcm.sample_rate_hz), "-c", str(pcm.channels), f"--buffer-time={_BUFFER_US}"),
    ]


def own_format(device: str) -> PcmFormat:
    """What a device can do, by its hardware parameters. errors: DeviceError"""
    command = ["arecord", "-D", device, "--dump-hw-params", "-s", "1", "-t", "raw", "/dev/null"]
    try:
        probed = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PROBE_S, check=False
        )
    except OSError as error:
        raise DeviceError(
            f"cannot run arecord ({error.strerror}), want alsa-utils: sudo apt install alsa-utils"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"alsa:{device} does not answer within {_PROBE_S:g} s: check it with `arecord -l`") from error
    pcm = parse_parameters(probed.stderr)
    if pcm is None:
        lines = [line for line in probed.stderr.splitlines() if line.startswith("arecord:")] or ["it said nothing"]
        raise DeviceError(
            f"alsa:{device} cannot be opened ({lines[-1]}), want a device of `arecord -L`: check its name"
        )
    return pcm


def parse_parameters(text: str) -> PcmFormat | None:
    """Of what arecord says of hardware parameters; None where it says nothing of them."""
    found = dict(re.findall(r"^([A-Z_]+): +(.*)$", text, re.MULTILINE))
    rates, channels = _range(found.get("RATE", "")), _range(found.get("CHANNELS", ""))
    if rates is None or channels is None or "FORMAT" not in found:
        return None
    named = found["FORMAT"].split()
    encoding = next((name for name in _PREFERRED if _FORMATS[name] in named), "s16")
    return PcmFormat(min(max(_USUAL_HZ, rates[0]), rates[1]), channels[0], encoding)


def _range(text: str) -> tuple[int, int] | None:
    """`48000`, `[44100 48000]` or `[4000 4294967295)`."""
    found = _RANGE.match(text)
    return (int(found[1]), int(found[2] or found[1])) if found else None
