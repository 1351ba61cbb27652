from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.manifest import Utterance
from edgeasr.store import search_benchmark
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import ModelKey, Span, SpokenWord
from edgeasr.store.search_benchmark import by_text, noisy, telephone

TEXT = "it was the first time that she had seen the old house"
RATE_HZ = search_benchmark.RATE_HZ


@pytest.fixture
def store(tmp_path):
    """Two streams of twelve words, a word a second; of the second one two words were not understood."""
    with MemoryStore.open(tmp_path / "memory.db", create=True) as opened:
        with opened.transaction():
            for heard in (TEXT, TEXT.replace("she had", "xi hat")):
                stream = opened.begin_stream("talk", ModelKey("a", 4))
                words = [SpokenWord(word, i, i + 0.9) for i, word in enumerate(heard.split(), 10)]
                opened.add_segment(stream, Span(10, 22, heard), words)
        yield opened


def said(store, stream, text=TEXT):
    return search_benchmark._said(store, Utterance(Path("talk.wav"), 12.0, text), stream, Span(10.0, 22.0))


class TestPlaces:
    def test_of_words_that_were_not_recognised_lie_between_the_others(self, store):
        assert said(store, 2).starts_s == pytest.approx(range(10, 22))
        assert said(store, 2, "zebra " * 11 + "giraffe").starts_s == pytest.approx(np.linspace(10, 22, 14)[1:-1])

    def test_of_a_phrase_are_all_where_it_was_said(self, store):
        both = [said(store, 1), said(store, 2)]
        assert search_benchmark._where_said(both, ("old", "house")) == [(1, 20.0), (2, 20.0)]
        assert search_benchmark._where_said(both, ("house", "old")) == []


class TestText:
    def test_counts_hits_that_begin_where_the_phrase_was_said(self, store):
        rows = list(by_text(store, [said(store, 1)], 20, np.random.default_rng(0)))
        assert [row.asked for row in rows] == ["2 words", "3 words", "4 words", "6 words"]
        assert [(row.of, row.among_five) for row in rows] == [(20, 20)] * 4

    def test_counts_none_elsewhere(self, store):
        late = replace(said(store, 1), starts_s=(30.0,) * 12)
        assert [row.among_five for row in by_text(store, [late], 5, np.random.default_rng(0))] == [0, 0, 0, 0]


class TestChannels:
    def test_keep_length_and_lose_what_they_should(self):
        rng = np.random.default_rng(0)
        time_s = np.arange(RATE_HZ) / RATE_HZ
        tone = (0.3 * np.sin(2 * np.pi * 6_000 * time_s)).astype(np.float32)
        assert len(telephone(tone, rng)) == len(tone)
        assert np.abs(telephone(tone, rng)).max() < 0.05
        difference = noisy(tone, rng) - tone
        assert 10 * np.log10(np.mean(tone**2) / np.mean(difference**2)) == pytest.approx(10, abs=0.01)
