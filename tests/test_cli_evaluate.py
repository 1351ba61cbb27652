import json
import shutil
import sys
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

from edgeasr.recognizer import load_model

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
ScriptedModel, edgeasr, tone, silence = (SCRIPTED[name] for name in ("ScriptedModel", "edgeasr", "tone", "silence"))
RATE = 16_000
KEYS = [
    *("wer", "cer", "utterances", "audio_s", "cpu_s", "rtf", "chunk_ms", "first_token_latency_ms"),
    *("peak_rss_mb", "model", "backend", "threads", "artefact", "decoder", "chunk_length_ms"),
    *("wer_interval", "cer_interval", "interval_method", "normalization", "scoring"),
    *("word_errors", "character_errors", "by_speaker", "by_source", "worst", "edits", "non_speech", "unreadable"),
]
SPEECH = [("so it goes", "So it goes!"), ("and then", "and when then"), ("i sit", "i sat")]


@pytest.fixture
def manifest(tmp_path):
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    rows = []
    for number, (said, reference) in enumerate(SPEECH):
        waveform = np.concatenate([silence(0.32), tone(said), silence(0.2)])
        soundfile.write(tmp_path / f"{number}.flac", waveform, RATE)
        rows.append({"audio_filepath": f"{number}.flac", "duration": len(waveform) / RATE, "text": reference})
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def report(*arguments, model=None):
    code, out, err = edgeasr("evaluate", *arguments, "--json", model=model)
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


def test_report_has_its_keys(manifest):
    found = report(manifest)
    assert list(found) == KEYS
    assert list(found["chunk_ms"]) == ["p50", "p99"]
    assert list(found["first_token_latency_ms"]) == ["p50", "p95"]
    assert (found["model"], found["backend"], found["threads"]) == ("scripted", "numpy", 1)


def test_errors_are_counted_over_the_corpus(manifest):
    found = report(manifest)
    assert found["wer"] == pytest.approx(2 / 8, abs=1e-4)
    assert found["cer"] == pytest.approx((5 + 1) / (10 + 13 + 5), abs=1e-4)
    assert (found["utterances"], found["audio_s"]) == (3, pytest.approx(1.32 + 1.16 + 0.92))


def test_times_belong_together(manifest):
    found = report(manifest)
    assert found["cpu_s"] > 0
    assert found["rtf"] * found["audio_s"] == pytest.approx(found["cpu_s"], abs=6e-4)
    assert 0 < found["chunk_ms"]["p50"] <= found["chunk_ms"]["p99"]
    assert found["peak_rss_mb"] > 10


def test_latency_is_that_of_a_live_listener(manifest, monkeypatch):
    """The first word starts with the third chunk; the block of 40 ms that completes its window ends at 0.52 s."""
    monkeypatch.setattr("edgeasr.measurement.time.perf_counter", lambda: 0.0)
    assert report(manifest)["first_token_latency_ms"] == {"p50": 200.0, "p95": 200.0}


def test_limit_takes_the_first(manifest):
    found = report(manifest, "--limit", "1")
    assert (found["utterances"], found["wer"], found["cer"]) == (1, 0.0, 0.0)


def test_each_utterance_is_a_stream_of_its_own(manifest):
    """A model that emits late has nothing left of one utterance when the next begins."""
    assert report(manifest, model=ScriptedModel(delay=10))["wer"] == report(manifest)["wer"]


def test_without_words_there_is_no_latency(manifest, tmp_path):
    soundfile.write(tmp_path / "0.flac", silence(1.0), RATE)
    found = report(manifest, "--limit", "1")
    assert found["wer"] == 1.0
    assert found["first_token_latency_ms"] == {"p50": None, "p95": None}
    table = edgeasr("evaluate", manifest, "--limit", "1").out
    assert "first word after it began, median and 95 %  - and -\n" in table


def with_groups(manifest):
    """Speakers ann, bob and ann; bob is of another source."""
    rows = [json.loads(line) for line in manifest.read_text().split("\n")]
    for row, speaker in zip(rows, ("ann", "bob", "ann"), strict=True):
        row |= {"speaker": speaker, "source": {"ann": "books", "bob": "calls"}[speaker]}
    manifest.write_text("\n".join(map(json.dumps, rows)))
    return manifest


def test_groups_add_up(manifest):
    found = report(with_groups(manifest))
    ann, bob = (
        {"utterances": 2, "audio_s": 2.24, "words": 5, "wer": 0.2, "cer": 0.0667},
        {"utterances": 1, "audio_s": 1.16, "words": 3, "wer": 0.3333, "cer": 0.3846},
    )
    assert found["by_speaker"] == [{"speaker": "bob"} | bob, {"speaker": "ann"} | ann]
    assert found["by_source"] == [{"source": "calls"} | bob, {"source": "books"} | ann]


def test_without_speakers_there_is_no_breakdown(manifest):
    found = report(manifest)
    assert (found["by_speaker"], found["by_source"]) == ([], [])
    assert "By speaker" not in edgeasr("evaluate", manifest).out


def test_intervals_say_how_they_were_made(manifest):
    """Of the utterances 0 of 3, 1 of 3 and 1 of 2 words are wrong; of the speakers 1 of 5 and 1 of 3."""
    found = report(manifest)
    assert found["wer_interval"] == {"low": 0.0, "high": 0.5}
    method = found["interval_method"]
    assert (method["drawn"], method["units"], method["samples"], method["confidence"]) == ("utterance", 3, 1000, 0.95)
    found = report(with_groups(manifest))
    assert found["wer_interval"] == {"low": 0.2, "high": 0.3333}
    assert (found["interval_method"]["drawn"], found["interval_method"]["units"]) == ("speaker", 2)


def test_one_utterance_has_no_interval(manifest):
    found = report(manifest, "--limit", "1")
    assert (found["wer_interval"], found["cer_interval"]) == (None, None)
    assert "Interval: none, of one utterance.\n" in edgeasr("evaluate", manifest, "--limit", "1").out


def test_edits_are_listed(manifest):
    found = report(manifest)
    assert found["edits"] == {
        "substitutions": [{"reference": "sat", "hypothesis": "sit", "count": 1}],
        "deletions": [{"word": "when", "count": 1}],
        "insertions": [],
    }
    kinds = {"reference": 8, "errors": 2, "substitutions": 1, "deletions": 1, "insertions": 0}
    assert found["word_errors"] == kinds


def test_the_worst_come_first_and_the_right_ones_not_at_all(manifest, tmp_path):
    first, second = report(manifest)["worst"]
    assert first == {
        "audio": str(tmp_path / "2.flac"),
        "speaker": None,
        "errors": 1,
        "words": 2,
        "wer": 0.5,
        "reference": "i sat",
        "hypothesis": "i sit",
        "alignment": [["i", "i"], ["sat", "sit"]],
    }
    assert (second["audio"], second["wer"]) == (str(tmp_path / "1.flac"), 0.3333)


def test_the_method_is_stated(manifest):
    found = report(manifest)
    assert found["scoring"].startswith("jiwer 4")
    assert "lower case" in found["normalization"]
    assert (found["artefact"], found["chunk_length_ms"]) == ("scripted-fp32", 160)


def test_the_figures_are_last_on_the_screen(manifest):
    code, out, err = edgeasr("evaluate", with_groups(manifest))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    words = next(line for line in lines[-6:] if line.startswith("words"))
    assert words.split() == ["words", "0.250", "0.200", "to", "0.333", "2", "8", "1", "1", "0"]
    assert "    ref  i SAT" in lines
    assert "    hyp  i SIT" in lines
    assert any(line.split() == ["sat", ">", "sit", "1", "when", "1"] for line in lines)
    assert any(line.split() == ["bob", "0.333", "0.385", "3", "1", "1"] for line in lines)
    assert "scripted: scripted-fp32 on numpy, 1 thread, chunks of 160 ms, decoder greedy" in lines


def test_without_errors_there_is_nothing_to_list(manifest):
    assert edgeasr("evaluate", manifest, "--limit", "1").out.startswith("Speed\n")


@pytest.fixture
def short_silence(monkeypatch):
    monkeypatch.setattr("edgeasr.nonspeech.SILENCE_S", 1.0)


def test_words_are_counted_where_nobody_speaks(manifest, tmp_path, short_silence):
    noise = tmp_path / "noise"
    noise.mkdir()
    soundfile.write(noise / "hum.flac", np.concatenate([silence(0.4), tone("hm oh"), silence(1.0)]), RATE)
    soundfile.write(noise / "still.wav", silence(1.0), RATE)
    (noise / "README").write_text("no audio")
    found = report(manifest, "--noise", noise)["non_speech"]
    assert found["noise"]["words"] == 2
    assert found["noise"]["words_per_hour"] == pytest.approx(2 * 3600 / 2.8, abs=0.01)
    hum, still = found["noise"]["recordings"]
    assert hum == {"audio": str(noise / "hum.flac"), "audio_s": 1.8, "words": 2, "text": "hm oh"}
    assert (still["words"], still["text"]) == (0, "")
    assert (found["silence"]["words"], found["silence"]["words_per_hour"]) == (0, 0.0)
    assert [one["audio"] for one in found["silence"]["recordings"]] == ["digital silence", "white noise at -70 dBFS"]
    table = edgeasr("evaluate", manifest, "--noise", noise).out
    assert any(line.split() == ["2571", "2", "3", "all", "noise"] for line in table.splitlines())
    assert any(line.split() == ["0", "0", "2", "all", "silence"] for line in table.splitlines())


def test_noise_may_be_a_manifest_without_words(manifest, tmp_path, short_silence):
    soundfile.write(tmp_path / "hiss.flac", silence(1.0), RATE)
    noise = tmp_path / "noise.jsonl"
    noise.write_text(json.dumps({"audio_filepath": "hiss.flac", "duration": 1, "text": ""}))
    found = report(manifest, "--noise", noise)["non_speech"]["noise"]
    assert (found["words"], len(found["recordings"])) == (0, 1)


def test_a_manifest_of_speech_is_no_noise(manifest):
    code, out, err = edgeasr("evaluate", manifest, "--noise", manifest)
    assert (code, out) == (2, "")
    assert "holds the words 'So it goes!', wanted recordings without speech" in err


def test_a_folder_without_audio_is_no_noise(manifest, tmp_path):
    (tmp_path / "empty").mkdir()
    code, out, err = edgeasr("evaluate", manifest, "--noise", tmp_path / "empty")
    assert (code, out) == (2, "")
    assert "holds no .flac, .mp3, .ogg, .opus, .wav file" in err


def test_the_chunk_is_that_of_the_graph(manifest):
    assert report(manifest, "--chunk-ms", "160")["chunk_length_ms"] == 160
    code, out, err = edgeasr("evaluate", manifest, "--chunk-ms", "320")
    assert (code, out) == (2, "")
    assert "got chunks of 320 ms, but the graph of scripted was exported for 160 ms" in err
    assert err.count("\n") == 1


def test_missing_manifest_is_one_line(tmp_path):
    code, out, err = edgeasr("evaluate", tmp_path / "none.jsonl")
    assert (code, out) == (2, "")
    assert err.startswith("edgeasr: error: cannot read the manifest")
    assert err.count("\n") == 1


def test_unreadable_audio_is_left_out_and_named(manifest, tmp_path, short_silence):
    """The others are scored, also where the words of a broken file had already been heard."""
    whole = (tmp_path / "0.flac").read_bytes()
    (tmp_path / "0.flac").write_bytes(whole[: len(whole) * 3 // 4])
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "torn.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "noise" / "whole.wav", silence(1.0), RATE)
    code, out, err = edgeasr("evaluate", manifest, "--noise", tmp_path / "noise", "--json")
    found = json.loads(out)
    assert code == 2
    assert (found["utterances"], found["wer"], found["audio_s"]) == (2, 0.4, pytest.approx(1.16 + 0.92))
    names = [tmp_path / "0.flac", tmp_path / "noise" / "torn.wav"]
    assert [one["audio"] for one in found["unreadable"]] == [str(name) for name in names]
    assert err.splitlines() == [f"edgeasr: error: left out: {one['error']}" for one in found["unreadable"]]
    assert all(str(name) in line for name, line in zip(names, err.splitlines(), strict=True))
    assert len(found["non_speech"]["noise"]["recordings"]) == 1
    table = edgeasr("evaluate", manifest, "--noise", tmp_path / "noise").out
    assert "2 utterances, 0.0 minutes; 2 unreadable files left out\n" in table


def test_where_nothing_is_readable_there_are_no_figures(manifest, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.flac").unlink()
    code, out, err = edgeasr("evaluate", manifest, "--json")
    assert (code, out) == (2, "")
    assert err.startswith(
        f"edgeasr: error: none of 3 files could be read; the first: cannot open {tmp_path / '0.flac'}"
    )
    assert err.count("\n") == 1


def test_without_jiwer_the_extra_is_named(manifest, monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    code, _, err = edgeasr("evaluate", manifest)
    assert code == 2
    assert "pip install edgeasr[evaluate]" in err


def test_shipped_model_understands_real_speech(speech):
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    found = report(speech / "dev.jsonl", "--limit", "12", model=load_model())
    assert found["wer"] < 0.35
    assert found["cer"] < 0.2
    backend = "native" if any(map(shutil.which, ("cc", "gcc", "clang"))) else "onnxruntime"
    assert (found["backend"], found["threads"], found["utterances"]) == (backend, 1, 12)
