"""A real sound stack: what PulseAudio plays into a null sink, `edgeasr listen` hears through PortAudio."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeasr.metrics import character_errors

CLIP = Path("edgeasr", "models", "demo.flac")
# The monitor of a null sink acts as a microphone; ALSA's default device, which PortAudio opens, is sent to it.
ASOUNDRC = """
pcm.!default { type pulse device virtual.monitor }
ctl.!default { type pulse }
"""
PATIENCE_S = 60


@contextmanager
def running(*command, stop=signal.SIGTERM, **options):
    """A process that is stopped, and gone, at the end."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(stop)
            process.wait(PATIENCE_S)


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {PATIENCE_S} s for {what}")
        time.sleep(0.1)


@pytest.fixture
def sound(tmp_path):
    """Environment variables of a sound server of its own, with a null sink named virtual."""
    for program in ("pulseaudio", "pactl", "paplay"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install pulseaudio pulseaudio-utils libasound2-plugins")
    (tmp_path / ".asoundrc").write_text(ASOUNDRC)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PULSE_", "XDG_", "DBUS_"))},
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "PULSE_SERVER": f"unix:{runtime}/socket",
    }
    server = (
        *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"),
        *("-L", f"module-native-protocol-unix socket={runtime}/socket auth-anonymous=1"),
        *("-L", "module-null-sink sink_name=virtual rate=48000"),
    )
    with running(*server, env=environment, stderr=subprocess.DEVNULL):
        wait_until(lambda: "virtual" in pactl(environment, "sinks"), "the null sink")
        yield environment


def pactl(environment, what):
    listed = subprocess.run(
        ["pactl", "list", "short", what], env=environment, capture_output=True, text=True, check=False
    )
    return listed.stdout


def test_listen_hears_what_is_played_into_a_virtual_microphone(sound, repository, tmp_path):
    clip = repository / CLIP
    edgeasr = (sys.executable, "-m", "edgeasr.cli.main")
    wanted = subprocess.run([*edgeasr, "transcribe", str(clip)], capture_output=True, text=True, check=True).stdout
    assert len(wanted.split()) > 5

    with (tmp_path / "events").open("w+") as events:
        listener = (*edgeasr, "listen", "--json")
        with running(*listener, env=sound, stdout=events, stderr=subprocess.PIPE, stop=signal.SIGINT) as process:
            wait_until(lambda: pactl(sound, "source-outputs"), "listen to open the microphone")
            time.sleep(2)  # a null sink gives its first samples some two seconds after it was opened
            subprocess.run(["paplay", "--device=virtual", str(clip)], env=sound, check=True)
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0, process.stderr.read()
        events.seek(0)
        heard = [json.loads(line) for line in events]

    finals = [event for event in heard if event["type"] == "final"]
    assert [event["segment"] for event in finals] == list(range(len(finals)))
    live = " ".join(event["text"] for event in finals)
    # Not letter for letter: the sound server resamples twice, and chunks begin elsewhere in the clip. Of other words
    # more than half of the letters would differ.
    assert character_errors(wanted, live).rate < 0.2, f"played {wanted!r}, heard {live!r}"
