"""A real sound stack: what PulseAudio plays into a null sink, `edgeasr listen` hears through PortAudio."""

import json
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from edgeasr.metrics import character_errors

CLIP = Path("edgeasr", "models", "demo.flac")
PATIENCE_S = 60


@pytest.fixture
def scripts(monkeypatch):
    """Modules of this folder by their names."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sound_server = import_module("sound_server")
    if missing := sound_server.missing_programs():
        pytest.skip(f"{', '.join(missing)} not installed: {sound_server.TO_INSTALL}")
    return import_module


def test_listen_hears_what_is_played_into_a_virtual_microphone(scripts, repository, tmp_path):
    server = scripts("sound_server")
    clip = repository / CLIP
    edgeasr = (sys.executable, "-m", "edgeasr.cli.main")
    wanted = subprocess.run([*edgeasr, "transcribe", str(clip)], capture_output=True, text=True, check=True).stdout
    assert len(wanted.split()) > 5

    with server.sound_server(tmp_path) as sound, (tmp_path / "events").open("w+") as events:
        options = {"env": sound, "stdout": events, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen((*edgeasr, "listen", "--json"), **options) as process:
            opened = lambda: server.pactl(sound, "list", "short", "source-outputs")  # noqa: E731
            server.wait_until(opened, "listen to open the microphone")
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


def test_a_microphone_that_is_unplugged_twice_is_heard_again(scripts):
    came = scripts("soak_microphone").unplugged(2)
    assert (came["exit_code"], came["lines_of_gone"], came["lines_of_back"]) == (0, 2, 2)
    # With a cache of its own it compiles, and says so.
    (note,) = (line for line in came["other_lines"] if "compiling" not in line)
    assert "of audio lost while it was away" in note
    assert came["words"] > 30
    # Where each segment begins in a chunk differs, and with it a word now and then.
    assert came["words_lost"] + came["words_added"] + came["words_changed"] < 0.2 * came["words"]
    assert came["stream_time_off_s"] < 0.5
