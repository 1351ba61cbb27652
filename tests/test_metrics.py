import subprocess
import sys
from pathlib import Path

import pytest

from edgeasr.decoder import Word
from edgeasr.errors import ExtraMissingError, ManifestError
from edgeasr.metrics import (
    ErrorCounts,
    LatencyMeter,
    character_error_rate,
    character_errors,
    peak_rss_mb,
    percentiles,
    word_error_rate,
    word_errors,
)
from edgeasr.transcript import Final, Partial

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("the cat sat", "the cat sat", ErrorCounts(hits=3)),
        ("the cat sat on the mat", "so the cat sit on mat", ErrorCounts(4, 1, 1, 1)),
        ("the cat", "", ErrorCounts(deletions=2)),
        ("", "the cat", ErrorCounts(insertions=2)),
        ("", "", ErrorCounts()),
    ],
)
def test_word_errors(reference, hypothesis, counts):
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    assert word_errors(reference, hypothesis) == counts


def test_character_errors_count_spaces():
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    assert character_errors("a cat", "acat") == ErrorCounts(hits=4, deletions=1)
    assert character_errors("", "ab") == ErrorCounts(insertions=2)


def test_texts_are_normalised_before_they_are_compared():
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    assert word_errors("Don\u2019t stop,  now!", "don't stop now") == ErrorCounts(hits=3)
    assert character_errors("Don\u2019t,  now!", "don't now") == ErrorCounts(hits=9)


def test_the_rate_of_a_corpus_is_all_errors_over_all_references():
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    references = ["one two three four five six seven eight nine", "yes"]
    hypotheses = ["one two three four five six seven eight nine", "no"]
    assert word_error_rate(references, hypotheses) == pytest.approx(1 / 10)
    assert character_error_rate(["abcdefgh", "ab"], ["abcdefgh", "xx"]) == pytest.approx(2 / 10)


def test_a_missing_hypothesis_is_not_passed_over():
    pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")
    with pytest.raises(ValueError, match="shorter"):
        word_error_rate(["one", "two"], ["one"])


def test_counts_add_up():
    counts = sum([ErrorCounts(1, 2, 3, 4), ErrorCounts(10, 20, 30, 40)], ErrorCounts())
    assert counts == ErrorCounts(11, 22, 33, 44)
    assert (counts.errors, counts.reference_length) == (99, 77)
    assert counts.rate == pytest.approx(99 / 77)


@pytest.mark.parametrize("counts", [ErrorCounts(), ErrorCounts(insertions=3)])
def test_without_reference_text_there_is_no_rate(counts):
    with pytest.raises(ManifestError, match="got references without text"):
        _ = counts.rate


@pytest.mark.parametrize("measure", [word_errors, character_errors])
def test_without_jiwer_the_extra_is_named(monkeypatch, measure):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ExtraMissingError, match=r"pip install edgeasr\[evaluate\]"):
        measure("a", "a")


def test_percentiles():
    assert percentiles([4.0, 1.0, 3.0, 2.0, 5.0], (50, 75, 99)) == {
        "p50": 3.0,
        "p75": 4.0,
        "p99": pytest.approx(4.96),
    }
    assert percentiles([7.0], (50, 99)) == {"p50": 7.0, "p99": 7.0}
    assert percentiles([], (50, 99)) == {"p50": None, "p99": None}


def partial(*words):
    return Partial(0, 0.0, 9.0, " ".join(word.word for word in words), 0, words)


def test_first_token_latency_counts_from_the_start_of_the_first_word():
    meter = LatencyMeter()
    hello = Word("hello", 0.4, 0.6, 1.0)
    meter.add(0.32, 0.002, [])
    meter.add(0.48, 0.003, [partial()])
    assert meter.first_token_latency_ms is None
    meter.add(0.64, 0.005, [partial(hello)])
    meter.add(0.80, 0.009, [partial(hello, Word("you", 0.7, 0.8, 1.0))])
    assert meter.first_token_latency_ms == pytest.approx(240 + 5)
    assert meter.step_ms == pytest.approx([2, 3, 5, 9])


def test_a_final_can_be_the_first_event_with_text():
    meter = LatencyMeter()
    meter.add(1.0, 0.01, [Final(0, 0.0, 0.9, "no", 2, (Word("no", 0.8, 0.9, 1.0),))])
    assert meter.first_token_latency_ms == pytest.approx(210)


def test_a_device_that_falls_behind_answers_late():
    meter = LatencyMeter()
    meter.add(0.1, 0.3, [])
    meter.add(0.2, 0.3, [partial(Word("a", 0.1, 0.2, 1.0))])
    assert meter.first_token_latency_ms == pytest.approx(600)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_peak_memory_is_of_this_process_alone():
    ballast = b"x" * 300_000_000
    program = "from edgeasr.metrics import *; print(peak_rss_mb()); x = b'x' * 100_000_000; print(peak_rss_mb())"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    before, after = map(float, result.stdout.split())
    assert len(ballast) / 1e6 < peak_rss_mb()
    assert before < 250
    assert after - before == pytest.approx(100, abs=2)
