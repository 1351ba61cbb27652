import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from edgeasr.errors import EdgeasrError
from edgeasr.listen_benchmark import listen_to
from edgeasr.metrics import peak_rss_mb, peak_rss_mb_of
from edgeasr.recording import DEMO_RECORDING


def test_a_run_is_timed_and_weighed():
    found = listen_to(DEMO_RECORDING, "--decoder", "greedy")
    assert 0 < found.first_words_s < found.wall_s
    assert found.peak_rss_mb is None or 20 < found.peak_rss_mb < 400


def test_the_first_start_takes_little_more_memory_than_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = (listen_to(DEMO_RECORDING, "--decoder", "lm").peak_rss_mb for _ in range(2))
    if first is None:
        pytest.skip("/proc does not tell how much memory a program took")
    assert first < 1.15 * second


def test_a_start_imports_no_reader_of_zips():
    code = "import sys, edgeasr.recognizer; print('zipfile' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def test_what_the_program_says_is_the_error(tmp_path):
    with pytest.raises(EdgeasrError, match=r"--source .*nowhere\.wav: .*nowhere\.wav"):
        listen_to(tmp_path / "nowhere.wav")


def test_a_recording_without_words_is_an_error(tmp_path):
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(16000, np.int16), 16000)
    with pytest.raises(EdgeasrError, match="heard no word, exit code 0"):
        listen_to(silence, "--decoder", "greedy")


def test_the_command_gives_the_least_of_each_decoder():
    command = [sys.executable, "-m", "edgeasr.cli.main", "bench", "listen", "--rounds", "1", "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert report["recording"].endswith("demo.flac")
    assert [row["decoder"] for row in report["decoders"]] == ["lm", "greedy"]
    assert all(0 < row["first_words_s"] < row["wall_s"] for row in report["decoders"])


def test_memory_of_processes_that_have_ended_is_not_known():
    assert peak_rss_mb_of(2**22 + 1) is None
    assert peak_rss_mb_of("self") in (None, pytest.approx(peak_rss_mb(), rel=0.05))
