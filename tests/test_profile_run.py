import time
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import soundfile

from edgeasr.errors import AudioFormatError
from edgeasr.profile.run import StreamRun, stream_run
from edgeasr.recognizer import Recognizer

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
tone, silence = SCRIPTED["tone"], SCRIPTED["silence"]


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.concatenate([silence(0.32), tone("one two"), silence(1.6)]), 16_000)
    return path


@pytest.fixture
def recognizer():
    return Recognizer(SCRIPTED["ScriptedModel"](), decoder="greedy")


def test_a_recording_is_heard_over_and_over(recognizer, recording):
    length_s = soundfile.info(recording).duration
    shares = []
    run = stream_run(recognizer, recording, 2.5 * length_s, on_progress=shares.append)
    assert run.audio_s == pytest.approx(2.5 * length_s, abs=0.05)
    assert len(run.first_token_latency_ms) == 3, "two passes, and one that was broken off after the words"
    assert run.words == 6
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(run.chunk_ms) == pytest.approx(run.audio_s / 0.16, abs=12)
    assert run.late_chunks == 0


def test_endpoints_are_timed_from_the_last_word_and_only_where_a_rule_ended_the_segment(recognizer, recording):
    run = stream_run(recognizer, recording, soundfile.info(recording).duration)
    assert len(run.endpoint_latency_ms) == 1
    # The rule waits for 0.8 s of silence; chunks and windows add up to two tenths.
    assert 750 <= run.endpoint_latency_ms[0] <= 1200


def test_a_recording_that_ends_in_speech_has_no_endpoint(recognizer, tmp_path):
    soundfile.write(tmp_path / "cut.wav", np.concatenate([silence(0.32), tone("one")]), 16_000)
    run = stream_run(recognizer, tmp_path / "cut.wav", 0.5)
    assert (run.endpoint_latency_ms, run.words) == ([], 1)


def test_in_real_time_blocks_wait_for_the_clock(recognizer, recording, monkeypatch):
    now, slept = [100.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    run = stream_run(recognizer, recording, 2.0, real_time=True)
    assert sum(slept) == pytest.approx(run.audio_s)
    assert max(slept) == pytest.approx(0.04)


def test_rates_are_of_the_audio(recognizer, recording, monkeypatch):
    clock = [0.0]

    def tick():
        clock[0] += 0.001
        return clock[0]

    monkeypatch.setattr(time, "process_time", tick)
    run = stream_run(recognizer, recording, 1.0)
    assert run.cpu_s == pytest.approx(0.001 * 26), "25 blocks and the end"
    assert run.rtf == pytest.approx(run.cpu_s / run.audio_s)
    assert StreamRun(real_time=False).rtf == 0.0


def test_what_is_no_audio_is_refused(recognizer, tmp_path):
    (tmp_path / "notes.wav").write_text("notes")
    with pytest.raises(AudioFormatError):
        stream_run(recognizer, tmp_path / "notes.wav", 1.0)


@pytest.mark.parametrize(("num_samples", "said"), [(1, "6.25e-05 s"), (15_840, "0.99 s")])
def test_a_recording_too_short_to_repeat_is_refused_after_one_pass(recognizer, tmp_path, num_samples, said):
    soundfile.write(tmp_path / "short.wav", silence(1.0)[:num_samples], 16_000)
    shares = []
    with pytest.raises(AudioFormatError, match=rf"short.wav of {said}, wanted 1 s or more"):
        stream_run(recognizer, tmp_path / "short.wav", 120.0, on_progress=shares.append)
    assert shares[-1] == pytest.approx(num_samples / 16_000 / 120)


def test_a_recording_of_a_second_is_long_enough(recognizer, tmp_path):
    soundfile.write(tmp_path / "second.wav", silence(1.0)[:16_000], 16_000)
    assert stream_run(recognizer, tmp_path / "second.wav", 2.0).audio_s == pytest.approx(2.0)
