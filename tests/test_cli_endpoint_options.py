import json
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
ScriptedModel, edgeasr, tone, silence = (SCRIPTED[name] for name in ("ScriptedModel", "edgeasr", "tone", "silence"))


@pytest.fixture
def recording(tmp_path):
    """Two words with a pause of 0.6 s, then half a minute of silence, then a third."""
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.concatenate([tone("so"), silence(0.6), tone("it"), silence(30.0), tone("on")]), 16_000)
    return path


def ends(done):
    """(text, endpoint) of finals."""
    return [(event["text"], event["endpoint"]) for event in map(json.loads, done.out.splitlines())]


def test_a_preset_decides_which_pause_ends_a_segment(recording):
    assert ends(edgeasr("transcribe", "--json", recording)) == [("soit", "pause"), ("on", "end")]
    fast = edgeasr("transcribe", "--json", "--endpoint", "fast", recording)
    # The silence that is added at the end is longer than that of fast.
    assert ends(fast) == [("so", "pause"), ("it", "pause"), ("on", "pause")]


def test_explanations_are_notes_beside_the_transcript(recording):
    done = edgeasr("transcribe", "--explain", recording)
    assert done.out == "soit\non\n"
    first, *_, last = done.err.splitlines()
    assert first.startswith("edgeasr: endpoint at 1.76 s, pause: 1 word in 1.76 s; 0.84 s silent, wanted 0.8; level")
    assert ", end: 1 word in" in last


def test_silence_is_run_only_without_the_gate(recording):
    steps = {}
    for switch in ("--gate", "--no-gate"):
        model = ScriptedModel()
        steps[switch] = edgeasr("transcribe", switch, recording, model=model).out, model.num_steps
    assert steps["--gate"][0] == steps["--no-gate"][0] == "soit\non\n"
    assert steps["--no-gate"][1] > 190
    assert steps["--gate"][1] < 35


@pytest.mark.parametrize("command", [("transcribe",), ("listen", "--source"), ("evaluate",)])
def test_unknown_rules_are_an_error_of_one_line(recording, command):
    manifest = recording.with_name("manifest.jsonl")
    manifest.write_text(json.dumps({"audio_filepath": recording.name, "duration": 1.0, "text": "so"}))
    done = edgeasr(*command, manifest if command == ("evaluate",) else recording, "--endpoint", "slow")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "edgeasr: error: got endpoint 'slow', wanted one of fast, normal, dictation, or a .toml file with rules\n"
    )
