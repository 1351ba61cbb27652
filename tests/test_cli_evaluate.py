import json
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
    *("peak_rss_mb", "model", "backend", "threads"),
]


@pytest.fixture
def manifest(tmp_path):
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    rows = []
    for number, (said, reference) in enumerate(
        [("so it goes", "So it goes!"), ("and then", "and when then"), ("i sit", "i sat")]
    ):
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
    monkeypatch.setattr("edgeasr.evaluation.time.perf_counter", lambda: 0.0)
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
    assert "first_token_latency_ms p50  -\n" in table


def test_table_has_a_line_for_each_figure(manifest):
    code, out, err = edgeasr("evaluate", manifest)
    assert (code, err) == (0, "")
    lines = dict(line.rsplit(maxsplit=1) for line in out.splitlines())
    assert len(lines) == len(KEYS) + 2
    assert (lines["wer"], lines["utterances"], lines["model"]) == ("0.25", "3", "scripted")
    assert float(lines["chunk_ms p99"]) > 0
    assert len({line.rindex("  ") for line in out.splitlines()}) == 1


def test_missing_manifest_is_one_line(tmp_path):
    code, out, err = edgeasr("evaluate", tmp_path / "none.jsonl")
    assert (code, out) == (2, "")
    assert err.startswith("edgeasr: error: cannot read the manifest")
    assert err.count("\n") == 1


def test_missing_audio_is_one_line(manifest, tmp_path):
    (tmp_path / "1.flac").unlink()
    code, out, err = edgeasr("evaluate", manifest, "--json")
    assert (code, out) == (2, "")
    assert err.startswith(f"edgeasr: error: cannot open {tmp_path / '1.flac'}")
    assert err.count("\n") == 1


def test_without_jiwer_the_extra_is_named(manifest, monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    code, _, err = edgeasr("evaluate", manifest)
    assert code == 2
    assert "pip install edgeasr[evaluate]" in err


def test_shipped_model_understands_real_speech(speech):
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    found = report(speech / "dev.jsonl", "--limit", "12", model=load_model())
    assert found["wer"] < 0.75
    assert found["cer"] < 0.3
    assert (found["backend"], found["threads"], found["utterances"]) == ("onnxruntime", 1, 12)
