import json
import sys
from importlib import import_module
from pathlib import Path
from runpy import run_path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import soundfile

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
edgeasr, tone, silence = (SCRIPTED[name] for name in ("edgeasr", "tone", "silence"))
RATE = 16_000
HEARD_BY_THEIRS = {"one": "one", "two": "too", "six": "sicks fee", "four": None}


class FakeDecoder:
    """Knows recordings by their length; says nothing of the last."""

    lengths: ClassVar[dict[int, str | None]] = {}
    calls: ClassVar[list[str]] = []

    def __init__(self, samprate, loglevel):
        assert samprate == RATE

    def start_utt(self):
        self.calls.append("start")

    def process_raw(self, pcm, full_utt):
        assert full_utt
        self.calls.append("process")
        self._text = self.lengths[len(pcm) // 2]

    def end_utt(self):
        self.calls.append("end")

    def hyp(self):
        return None if self._text is None else SimpleNamespace(hypstr=self._text)


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """Four speakers, a word each; ours hears every word, theirs one."""
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    rows, lengths = [], {}
    for word, theirs in HEARD_BY_THEIRS.items():
        waveform = np.concatenate([silence(0.32), tone(word), silence(0.2 + len(lengths) / 100)])
        lengths[len(waveform)] = theirs
        soundfile.write(tmp_path / f"{word}.flac", waveform, RATE)
        row = {"audio_filepath": f"{word}.flac", "duration": len(waveform) / RATE, "text": word, "speaker": word}
        rows.append(row)
    monkeypatch.setattr(FakeDecoder, "lengths", lengths)
    monkeypatch.setattr(FakeDecoder, "calls", [])
    fake = ModuleType("pocketsphinx")
    fake.Decoder = FakeDecoder
    monkeypatch.setitem(sys.modules, "pocketsphinx", fake)
    sys.modules.pop("edgeasr.pocketsphinx_baseline", None)
    monkeypatch.setattr(import_module("edgeasr.pocketsphinx_baseline"), "version", lambda name: "5.9")
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    yield path
    sys.modules.pop("edgeasr.pocketsphinx_baseline", None)


def test_both_hear_the_same_and_are_scored_alike(manifest):
    code, out, err = edgeasr("bench", "pocketsphinx", manifest, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    found = json.loads(out)
    ours, theirs = found["systems"]
    assert (ours["name"], theirs["name"]) == ("edgeasr scripted", "pocketsphinx 5.9")
    assert (ours["wer"], theirs["wer"]) == (0.0, 1.0)
    counts = {"reference": 4, "errors": 4, "substitutions": 2, "deletions": 1, "insertions": 1}
    assert theirs["word_errors"] == counts
    assert FakeDecoder.calls == ["start", "process", "end"] * 4
    assert found["wer_difference"] == 1.0
    assert found["wer_difference_interval"]["low"] > 0
    assert found["ours_better_share"] > 0.95
    assert (found["utterances"], found["interval_method"]["drawn"]) == (4, "speaker")


def test_streamed_it_gets_blocks_and_the_same_samples(manifest, monkeypatch):
    parts = []

    def keep(self, pcm, full_utt):
        assert not full_utt
        parts.append(len(pcm) // 2)
        self._text = "one"

    monkeypatch.setattr(FakeDecoder, "process_raw", keep)
    found = json.loads(edgeasr("bench", "pocketsphinx", manifest, "--sample", "1", "--streamed", "--json").out)
    assert found["systems"][1]["details"].endswith("streamed")
    assert set(parts[:-1]) == {640}
    assert sum(parts) == round(found["audio_s"] * RATE)


def test_processor_time_is_that_of_each(manifest, monkeypatch):
    """A clock that a second of work moves by a second: theirs takes one in each of four utterances, ours none."""
    clock = [0.0]
    monkeypatch.setattr("time.process_time", lambda: clock[0])

    def work(self, pcm, full_utt):
        clock[0] += 1.0
        self._text = "one"

    monkeypatch.setattr(FakeDecoder, "process_raw", work)
    code, out, _ = edgeasr("bench", "pocketsphinx", manifest, "--json")
    assert code == 0
    found = json.loads(out)
    ours, theirs = found["systems"]
    assert (ours["cpu_s"], theirs["cpu_s"], found["cpu_ratio"]) == (0.0, 4.0, None)
    assert theirs["rtf"] == pytest.approx(4 / found["audio_s"], abs=1e-4)


def test_a_sample_is_spread_over_the_manifest(manifest):
    found = json.loads(edgeasr("bench", "pocketsphinx", manifest, "--sample", "2", "--json").out)
    assert found["systems"][1]["word_errors"]["reference"] == 2
    assert found["systems"][1]["word_errors"]["insertions"] == 1, "the first and the third"
    assert json.loads(edgeasr("bench", "pocketsphinx", manifest, "--sample", "9", "--json").out)["utterances"] == 4


def test_the_table_shows_them_beside_each_other(manifest):
    code, out, err = edgeasr("bench", "pocketsphinx", manifest)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    rates = [line.split() for line in lines if line.startswith(("edgeasr scripted", "pocketsphinx 5.9"))]
    assert rates[0] == ["edgeasr", "scripted", "0.000", "0.000", "to", "0.000", "0", "4", "0", "0", "0"]
    assert rates[1][:3] == ["pocketsphinx", "5.9", "1.000"]
    assert [row[:2] for row in rates[2:]] == [["edgeasr", "scripted"], ["pocketsphinx", "5.9"]]
    assert any(line.startswith("Their word error rate less ours: +1.000 (") for line in lines)


def test_unreadable_audio_is_left_out_for_both(manifest, tmp_path):
    (tmp_path / "two.flac").unlink()
    code, out, err = edgeasr("bench", "pocketsphinx", manifest, "--json")
    found = json.loads(out)
    assert (code, found["utterances"]) == (2, 3)
    assert [one["word_errors"]["reference"] for one in found["systems"]] == [3, 3]
    assert err == f"edgeasr: error: left out: {found['unreadable'][0]['error']}\n"
    assert str(tmp_path / "two.flac") in err


def test_without_pocketsphinx_the_extra_is_named(manifest, monkeypatch):
    sys.modules.pop("edgeasr.pocketsphinx_baseline")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    code, out, err = edgeasr("bench", "pocketsphinx", manifest)
    assert (code, out) == (2, "")
    assert "pip install edgeasr[benchmarks]" in err
    assert err.count("\n") == 1


def test_pocketsphinx_understands_a_reader(speech):
    pytest.importorskip("pocketsphinx", reason="the extra `benchmarks` is not installed")
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    found = json.loads(edgeasr("bench", "pocketsphinx", speech / "dev.jsonl", "--sample", "2", "--json").out)
    assert found["systems"][1]["wer"] < 0.7
    assert found["systems"][1]["cpu_s"] > 0
