from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeasr.errors import ConfigError
from edgeasr.hotwords import DEFAULT_BOOST, Hotword, PhraseAutomaton, hotword_graph, read_hotwords
from edgeasr.lexicon_decoder import LexiconDecoder
from edgeasr.lexicon_search import SearchConfig, WordGraph
from edgeasr.pronouncing import known_pronunciations, numbers_of

toys = run_path(str(Path(__file__).with_name("test_lexicon_decoder.py")))
emissions, MODEL = toys["emissions"], toys["MODEL"]
GRAPH = WordGraph(MODEL, SearchConfig(min_conf=0.0, lm_weight=0.5))


def totals(automaton, words):
    """What words earn in all after each of them."""
    state, total, earned = np.zeros(1, np.int64), 0.0, []
    for word in words:
        gained, state = automaton.step(state, np.array([word]))
        total += float(gained[0])
        earned.append(total)
    return earned, float(automaton.pending[state][0])


class TestFiles:
    def test_have_phrases_with_boosts_and_comments(self, tmp_path):
        path = tmp_path / "hot.txt"
        path.write_text(
            "\ufeff# names\nRaspberry Pi 4\nkubernetes  # default\n\ncaf\u00e9 olé: 1.5\nun-likely -2\n", "utf-8"
        )
        assert read_hotwords(path) == [
            Hotword("raspberry pi", 4.0),
            Hotword("kubernetes", DEFAULT_BOOST),
            Hotword("cafe ole", 1.5),
            Hotword("un likely", -2.0),
        ]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("good\nroom 5 a\n", "line 2: got 'room 5 a', wanted words as they are said"),
            ("good 1e9", "line 1: got the boost 1e+09 for 'good', wanted one up to 20"),
            ("good: nan", "line 1: got the boost nan for 'good', wanted one up to 20"),
            ("good -inf", "line 1: got the boost -inf for 'good', wanted one up to 20"),
            ("good 99", "line 1: got the boost 99 for 'good', wanted one up to 20"),
            ("good 0", "wanted one up to 20, and not 0"),
            ("7", "line 1: got '7'"),
            ("# nothing\n", "has no hotwords: write a phrase a line"),
        ],
    )
    def test_that_are_wrong_are_explained(self, tmp_path, content, said):
        (tmp_path / "hot.txt").write_text(content)
        with pytest.raises(ConfigError) as raised:
            read_hotwords(tmp_path / "hot.txt")
        assert said in str(raised.value)

    def test_that_are_not_there_are_explained(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot read the hotwords"):
            read_hotwords(tmp_path / "none.txt")


class TestAutomaton:
    def test_a_phrase_earns_its_boost_for_each_word(self):
        automaton = PhraseAutomaton([([7, 8, 9], 2.0)])
        assert totals(automaton, [1, 7, 8, 9, 1]) == ([0, 2, 4, 6, 6], 0)

    def test_a_phrase_that_is_broken_off_gives_it_back(self):
        automaton = PhraseAutomaton([([7, 8, 9], 2.0)])
        assert totals(automaton, [7, 8, 1]) == ([2, 4, 0], 0)
        assert totals(automaton, [7, 8]) == ([2, 4], 4)

    def test_a_phrase_that_begins_anew_counts_from_there(self):
        automaton = PhraseAutomaton([([7, 7, 8], 2.0)])
        assert totals(automaton, [7, 7, 7, 8]) == ([2, 4, 4, 6], 0)

    def test_a_complete_phrase_stays_where_a_longer_one_is_broken_off(self):
        automaton = PhraseAutomaton([([7, 8, 9], 3.0), ([7], 3.0)])
        assert totals(automaton, [7, 8, 1]) == ([3, 6, 3], 0)

    def test_the_end_of_a_phrase_may_begin_another(self):
        automaton = PhraseAutomaton([([5, 6, 7], 1.0), ([6, 8], 2.0)])
        assert totals(automaton, [5, 6, 8]) == ([1, 2, 4], 0)

    def test_words_of_any_number_are_told_apart(self):
        automaton = PhraseAutomaton([([1, 2], 1.0)])
        assert totals(automaton, [1, 65535, 2, 1, 2]) == ([1, 0, 0, 1, 2], 0)

    @given(
        st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=4),
        st.lists(st.integers(0, 4), max_size=12),
    )
    def test_nothing_is_earned_that_is_not_pending_or_of_a_phrase(self, phrases, words):
        automaton = PhraseAutomaton([(phrase, 1.0) for phrase in phrases])
        earned, pending = totals(automaton, [*words, 9])
        assert pending == 0
        said = " ".join(map(str, words))
        if not any(" ".join(map(str, phrase)) in said for phrase in phrases):
            assert not earned or earned[-1] == pytest.approx(0)
        assert all(total >= -1e-9 for total in earned)


def words_heard(path, graph):
    decoder = LexiconDecoder(graph, 0.04)
    decoder.accept(emissions(path, 0.8))
    return decoder.hypothesis()


def heard(path, graph):
    return " ".join(word.word for word in words_heard(path, graph))


class TestGraph:
    def test_of_words_that_sound_alike_the_boosted_is_heard(self):
        path = "DH AX S IY _"
        assert heard(path, GRAPH) == "the sea"
        assert heard(path, hotword_graph(GRAPH, [Hotword("the see", 3.0)], {})) == "the see"
        assert heard(path, hotword_graph(GRAPH, [Hotword("sea", -9.0)], {})) == "the see"

    def test_a_phrase_that_is_not_completed_changes_nothing(self):
        graph = hotword_graph(GRAPH, [Hotword("the see gold", 3.0)], {})
        assert heard("DH AX S IY _", graph) == "the sea"
        assert heard("DH AX S IY W AX Z K OW L D _", graph) == "the sea was cold"
        assert heard("DH AX S IY G OW L D _", graph) == "the see gold"

    def test_words_that_the_model_does_not_have_are_heard(self):
        graph = hotword_graph(GRAPH, [Hotword("zebu", 6.0)], {"zebu": (("Z", "IY", "B", "UW"),)})
        assert heard("DH AX Z IY B UW W AX Z K OW L D _", graph) == "the zebu was cold"

    def test_a_segment_ends_as_without_hotwords(self):
        plain = WordGraph(toys["language_model"](toys["ENDS"]), SearchConfig(min_conf=0.0))
        for graph in (plain, hotword_graph(plain, [Hotword("zebu", 6.0)], {"zebu": (("Z", "IY", "B", "UW"),)})):
            decoder = LexiconDecoder(graph, 0.04)
            decoder.accept(emissions("DH AX _ M _ N _", also=toys["EITHER"]))
            assert decoder.text == "the men"
            decoder.finish()
            assert decoder.text == "the man"

    def test_other_pronunciations_of_a_word_are_added(self):
        path = "DH AX M AA JH IY N _"
        graph = hotword_graph(GRAPH, [Hotword("man", 1.0)], {"man": (("M", "AA", "JH", "IY", "N"),)})
        before, after = words_heard(path, GRAPH)[-1], words_heard(path, graph)[-1]
        assert (before.word, after.word) == ("man", "man")
        assert before.conf < 0.3 < 0.75 < after.conf

    def test_what_is_far_from_a_hotword_is_heard_as_before(self):
        graph = hotword_graph(GRAPH, [Hotword("zebu", 6.0)], {"zebu": (("Z", "IY", "B", "UW"),)})
        for path in ("DH AX OW L D HH AW S W AX Z K OW L D _", "T UW OW L D M EH N _"):
            assert heard(path, graph) == heard(path, GRAPH)


def test_words_are_found_by_their_text():
    words = MODEL.words
    assert numbers_of(words, ["sea", "nowhere", "the"]) == {"sea": words[:].index("sea"), "the": words[:].index("the")}


def test_pronunciations_of_the_model_are_found():
    assert known_pronunciations(MODEL, ["to", "nowhere"]) == {"to": (("T", "UW"), ("T", "AX"))}
