import json
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

from edgeasr.endpoint import PRESETS, Endpoint
from edgeasr.endpoint_benchmark import Background, Figures, Spoken, measure, streams_of, voice_span
from edgeasr.manifest import read_manifest
from edgeasr.transcript import Final
from edgeasr.voice_activity import Activity

pytest.importorskip("jiwer", reason="word errors need the extra `evaluate`")
SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
ScriptedModel, edgeasr, tone, silence = (SCRIPTED[name] for name in ("ScriptedModel", "edgeasr", "tone", "silence"))
RATE = 16_000


@pytest.fixture
def manifest(tmp_path):
    """Three utterances with 0.2 s of silence before and 0.4 s after the voice."""
    lines = []
    for i, text in enumerate(["so it goes", "and on", "it is"]):
        soundfile.write(tmp_path / f"{i}.wav", np.concatenate([silence(0.2), tone(text), silence(0.4)]), RATE)
        lines.append(json.dumps({"audio_filepath": f"{i}.wav", "duration": 1.0, "text": text}))
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_voice_begins_and_ends_where_its_energy_does():
    waveform = np.concatenate([silence(0.5), tone("so"), silence(0.3), tone("on"), silence(0.7)])
    assert voice_span(waveform, RATE) == (pytest.approx(0.5, abs=0.011), pytest.approx(1.12, abs=0.011))
    assert voice_span(silence(0.004), RATE) == (0.0, pytest.approx(0.004))


def test_utterances_become_a_stream_that_says_where_each_is(manifest):
    (spoken,) = streams_of(read_manifest(manifest), 2.0, None, RATE)
    assert spoken.text == "so it goes and on it is"
    for start_s, end_s in spoken.spans:
        voice = spoken.waveform[round(start_s * RATE) : round(end_s * RATE)]
        assert np.abs(voice).max() > 0.2
        assert not spoken.waveform[round((start_s - 2.0) * RATE) : round((start_s - 0.02) * RATE)].any()
        assert not spoken.waveform[round((end_s + 0.02) * RATE) : round((end_s + 2.0) * RATE)].any()


def test_background_is_as_loud_as_asked_for(manifest):
    utterances = read_manifest(manifest)
    noise = np.random.default_rng(0).standard_normal(5000, np.float32)
    (clean,), (mixed,) = (
        list(streams_of(utterances, 2.0, background, RATE)) for background in (None, Background(noise, 20.0))
    )
    speech = np.concatenate([soundfile.read(utterance.path)[0] for utterance in utterances])
    behind = np.square(mixed.waveform - clean.waveform).mean()
    assert 10 * np.log10(np.square(speech).mean() / behind) == pytest.approx(20.0, abs=0.2)


def test_endpoints_are_counted_by_where_they_fall():
    spoken = Spoken(np.zeros(RATE), ((1.0, 2.0), (5.0, 6.0), (9.0, 10.0)), "so it goes")

    def at(time_s, words=1, rule=PRESETS["normal"].rules[0]):
        return Endpoint("pause", time_s, 1.0, words, 0.8, 0.8, Activity(), rule)

    finals = [Final(i, 0.0, 1.0, text, 0, ()) for i, text in enumerate(["so", "it", "goes"])]
    figures = Figures("normal", gate=False)
    figures.audio_s = 12.0
    figures.add(spoken, finals, [at(1.5), at(2.9), at(4.0, words=0), at(6.5), at(8.0), at(11.0, rule=None)])
    assert (figures.inside, figures.missed, figures.segments, figures.utterances) == (1, 1, 3, 3)
    assert figures.latency_ms == pytest.approx([900, 500])
    assert figures.to_dict()["wer"] == 0.0
    assert figures.to_dict()["latency_ms"] == {"p50": 700, "p95": 880}


def test_presets_and_the_gate_are_measured_on_a_model(manifest):
    streams = list(streams_of(read_manifest(manifest), 6.0, None, RATE))
    trials = [("fast", False), ("normal", False), ("normal", True), ("dictation", True)]
    found = measure(ScriptedModel(), streams, trials)
    fast, normal, gated, dictation = (figures.to_dict() for figures in found)
    assert [one["missed"] for one in (fast, normal, gated, dictation)] == [0, 0, 0, 0]
    assert fast["latency_ms"]["p50"] < normal["latency_ms"]["p50"] < dictation["latency_ms"]["p50"]
    assert 800 <= normal["latency_ms"]["p50"] <= 1000
    assert gated["latency_ms"] == normal["latency_ms"]
    assert normal["gated"] == 0.0
    assert gated["gated"] > 0.5


def test_the_command_prints_a_row_for_each_trial(manifest):
    done = edgeasr("bench", "endpoints", manifest, "--endpoint", "fast", "--sample", 2, "--json")
    report = json.loads(done.out)
    assert (report["utterances"], report["pause_s"], report["background"]) == (2, 2.0, None)
    assert [(one["endpoint"], one["gate"]) for one in report["trials"]] == [("fast", False), ("fast", True)]
    table = edgeasr("bench", "endpoints", manifest, "--endpoint", "fast", "--sample", 2).out.splitlines()
    assert [line.split()[:2] for line in table] == [["endpoint", "gate"], ["fast", "no"], ["fast", "yes"]]
