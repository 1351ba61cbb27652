import numpy as np
import pytest

pytest.importorskip("apsw", reason="the store needs the extra `memory`")

from edgeasr.errors import StoreError
from edgeasr.store.memory_store import MemoryStore
from edgeasr.store.records import ModelKey, Span, SpokenWord
from edgeasr.store.text_search import search_text

SEGMENTS = (
    (0.0, "he had written a number of books and self among them"),
    (10.0, "a history of dancing a history of costume"),
    (20.0, "the cat sat on the mat"),
    (30.0, "strings are concatenated"),
)


@pytest.fixture
def store(tmp_path):
    """Words of half a second, a segment every ten."""
    with MemoryStore.open(tmp_path / "memory.db", create=True) as opened:
        with opened.transaction():
            stream = opened.begin_stream("talk.wav", ModelKey("a", 4))
            for start_s, text in SEGMENTS:
                words = [
                    SpokenWord(word, start_s + i / 2, start_s + i / 2 + 0.5) for i, word in enumerate(text.split())
                ]
                opened.add_segment(stream, Span(start_s, start_s + 10, text), words)
        yield opened


class TestSearch:
    def test_says_when_the_very_words_were_said(self, store):
        (best, *_) = search_text(store, "A history of costume!")
        assert (best.span, best.score) == (Span(12.0, 14.0, "a history of costume"), 1.0)
        assert (best.stream_name, best.segment) == ("talk.wav", 2)

    def test_finds_what_was_recognised_a_little_differently(self, store):
        (best, *_) = search_text(store, "a number of books himself among them")
        assert best.span == Span(1.5, 5.5, "a number of books and self among them")
        assert 0.9 < best.score < 1

    def test_finds_what_lies_in_two_segments(self, store):
        (best, *_) = search_text(store, "among them a history of dancing")
        assert best.span == Span(4.5, 12.0, "among them a history of dancing")
        assert best.score == 1

    def test_takes_words_as_wholes(self, store):
        (best,) = search_text(store, "cat", least_score=1.0)
        assert best.span == Span(20.5, 21.0, "cat")

    def test_finds_other_forms_of_a_word(self, store):
        assert search_text(store, "book")[0].span.text == "books"

    def test_finds_nothing_where_nothing_is_alike(self, store):
        assert search_text(store, "quantum chromodynamics") == []

    def test_gives_each_place_once(self, store):
        spans = [hit.span for hit in search_text(store, "of dancing a history of costume")]
        assert len({span.start_s for span in spans}) == len(spans)
        assert spans[0].start_s == 11.0

    @pytest.mark.parametrize("text", ['cat" OR "mat', "cat*", "NEAR(cat mat)", "text:cat", "cat -mat", "'"])
    def test_takes_no_query_language(self, store, text):
        if text == "'":
            with pytest.raises(StoreError, match="at least one word"):
                search_text(store, text)
        else:
            search_text(store, text)

    def test_of_nothing_is_refused(self, store):
        with pytest.raises(StoreError, match="at least one word"):
            search_text(store, " ... ")

    def test_goes_on_among_many_segments(self, store):
        rng = np.random.default_rng(0)
        words = ["house", "river", "night", "walk", "the", "of"]
        with store.transaction():
            stream = store.begin_stream("noise", ModelKey("a", 4))
            for i in range(500):
                text = " ".join(rng.choice(words, 12))
                times = [SpokenWord(word, 10.0 * i, 10.0 * i + 1) for word in text.split()]
                store.add_segment(stream, Span(10.0 * i, 10.0 * i + 10, text), times)
        assert search_text(store, "the cat sat on the mat")[0].span == Span(20.0, 23.0, "the cat sat on the mat")
