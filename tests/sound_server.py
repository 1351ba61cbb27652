"""A PulseAudio of one's own, with a null sink named virtual that acts as the microphone of ALSA's default device."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("pulseaudio", "pactl", "paplay")
TO_INSTALL = "apt-get install pulseaudio pulseaudio-utils libasound2-plugins"
# The monitor of a null sink acts as a microphone; ALSA's default device, which PortAudio opens, is sent to it.
_ASOUNDRC = """
pcm.!default { type pulse device virtual.monitor }
ctl.!default { type pulse }
"""
_PATIENCE_S = 60


def missing_programs() -> list[str]:
    """What is not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextmanager
def sound_server(folder: Path) -> Iterator[dict[str, str]]:
    """The environment variables of programs that use it. folder: its own"""
    (folder / ".asoundrc").write_text(_ASOUNDRC)
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PULSE_", "XDG_", "DBUS_"))},
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(runtime),
        "PULSE_SERVER": f"unix:{runtime}/socket",
    }
    command = (
        *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
        *("-L", f"module-native-protocol-unix socket={runtime}/socket auth-anonymous=1"),
        *("-L", "module-null-sink sink_name=virtual rate=48000"),
    )
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: "virtual" in pactl(environment, "list", "short", "sinks"), "the null sink")
            yield environment
        finally:
            server.terminate()
            server.wait(_PATIENCE_S)


def pactl(environment: dict[str, str], *arguments: str) -> str:
    """What pactl prints."""
    return subprocess.run(["pactl", *arguments], env=environment, capture_output=True, text=True, check=False).stdout


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_PATIENCE_S} s for {what}")
        time.sleep(0.1)
