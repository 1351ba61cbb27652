import math
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr import grammar_decoder
from edgeasr.decoder import Decoder
from edgeasr.grammar_automaton import WordAutomaton
from edgeasr.grammar_decoder import GrammarDecoder
from edgeasr.grammar_graph import AutomatonModel, GrammarGraph
from edgeasr.grammar_network import Network
from edgeasr.grammar_parser import parse_grammar
from edgeasr.lexicon import ROOT
from edgeasr.lexicon_search import SearchConfig

toys = run_path(str(Path(__file__).with_name("test_lexicon_decoder.py")))
dictionary, emissions, SAID = toys["dictionary"], toys["emissions"], toys["SAID"]

FRAME_S = 0.04
RULES = """
public <tale> = the (old {old} | cold {cold}) (man {man} | house {house}) | how to see <whom>+;
<whom> = (the man | the men) {seen};
"""


def graph_of(rules, **search):
    grammar = parse_grammar(f"#JSGF V1.0;\ngrammar test;\n{rules}")
    network = Network(grammar)
    config = SearchConfig(**({"blank_penalty": 0.0, "beam": 18.0} | search))
    return GrammarGraph(network, WordAutomaton.of(network, "test"), dictionary(SAID), config)


GRAPH = graph_of(RULES)
OLD_MAN = "_ DH AX _ OW L D _ M AE N _"


def heard(path, graph=GRAPH, posterior=0.9):
    decoder = GrammarDecoder(graph, FRAME_S)
    decoder.accept(emissions(path, posterior))
    return decoder


def sentence(path, graph=GRAPH, posterior=0.9):
    found, words = heard(path, graph, posterior).sentence()
    return " ".join(word.word for word in words), found


class TestSentences:
    def test_are_heard_with_rule_and_tags(self):
        text, found = sentence(OLD_MAN)
        assert (text, found.rule, found.tags) == ("the old man", "tale", ("old", "man"))

    def test_may_repeat(self):
        text, found = sentence("HH AW T UW S IY DH AX M AE N DH AX M EH N _")
        assert text == "how to see the man the men"
        assert found.tags == ("seen", "seen")

    def test_sound_like_what_the_grammar_has(self):
        # Goldmen are not in the grammar.
        text, found = sentence("DH AX G OW L D M EH N _")
        assert text in ("the old man", "the cold man")
        assert found.fit < 0.5 < sentence("DH AX K OW L D M AE N _")[1].fit

    def test_have_words_with_times_and_confidences(self):
        _, words = heard(OLD_MAN).sentence()
        times = [time for word in words for time in (word.start, word.end)]
        assert times == pytest.approx([0.04, 0.12, 0.16, 0.28, 0.32, 0.44])
        assert [word.conf for word in words] == pytest.approx([0.9, 0.9, 0.9])

    def test_of_a_language_of_weights_the_likelier_is_heard(self):
        path = "DH AX _ _ OW L D M AE N _"  # old or cold, had the K been missed
        for weights, text in ((("9", "1"), "the gold man"), (("1", "9"), "the cold man")):
            rules = f"public <a> = the (/{weights[0]}/ gold | /{weights[1]}/ cold) man;"
            assert sentence(path, graph_of(rules, min_fit=0.0))[0] == text

    def test_of_public_rules_the_name_is_told(self):
        graph = graph_of("public <one> = old man {m}; public <two> = old house {h};")
        assert sentence("OW L D HH AW S _", graph)[1].rule == "two"

    def test_do_not_depend_on_the_length_of_chunks(self):
        log_probs = emissions(OLD_MAN, 0.9)
        decoder = GrammarDecoder(GRAPH, FRAME_S)
        for row in log_probs:
            decoder.accept(row[None])
        assert decoder.sentence() == heard(OLD_MAN).sentence()


class TestRejection:
    @pytest.mark.parametrize(
        "path",
        [
            "HH IY T OW L D DH AX M AE N _",  # he told the man
            "DH AX OW L D M AE N W AX Z IH N DH AX HH AW S _",  # the old man was in the house
            "OW L D M AE N _",  # old man
            "DH AX OW L D _",  # the old
        ],
    )
    def test_of_other_speech(self, path):
        text, found = sentence(path, posterior=0.97)
        assert (text, found.rule, found.tags) == ("", None, ())
        assert found.fit < GRAPH.config.min_fit

    def test_is_looser_with_a_lower_threshold(self):
        path = "DH AX OW L D M AE N W AX Z K OW L D _"
        assert sentence(path)[0] == ""
        assert sentence(path, graph_of(RULES, min_fit=0.0))[0] == "the old man"

    def test_does_not_depend_on_the_size_of_the_grammar(self):
        many = " | ".join(f"in the {a} {b}" for a in ("old", "cold", "gold") for b in ("man", "men", "house", "sea"))
        larger = graph_of(f"{RULES} public <more> = {many} | how told | it was told | the sea;")
        assert sentence(OLD_MAN, larger)[1].fit == pytest.approx(sentence(OLD_MAN)[1].fit, rel=0.02)

    def test_silence_is_no_speech(self):
        decoder = heard("_ " * 30)
        assert not decoder.has_speech
        assert decoder.hypothesis() == ()
        assert decoder.sentence()[1] == ()

    def test_a_click_is_no_speech_but_other_words_are(self):
        assert not heard("_ K _ T _").has_speech
        assert heard("_ K AE T _").has_speech


class TestPartials:
    def test_show_the_likeliest_beginning(self):
        decoder = heard("DH AX OW L D M AE")
        assert [word.word for word in decoder.hypothesis()] == ["the", "old", "man"]

    def test_of_what_does_not_fit_are_empty(self):
        assert heard("Z UW Z UW Z UW Z UW").hypothesis() == ()

    def test_are_not_stable_since_all_may_be_rejected(self):
        assert heard("DH AX OW L D M AE").stable_words == 0


class TestSegments:
    def test_begin_anew(self):
        decoder = heard(OLD_MAN)
        decoder.reset()
        decoder.accept(emissions("DH AX K OW L D HH AW S _", 0.9))
        assert decoder.sentence()[0].tags == ("cold", "house")
        assert decoder.start_s == pytest.approx(12 * FRAME_S)

    def test_that_are_cut_keep_what_is_a_sentence(self):
        decoder = heard("HH AW T UW S IY DH AX M AE N _")
        assert " ".join(word.word for word in decoder.cut()) == "how to see the man"
        assert decoder.num_frames == 0
        assert heard("HH AW T UW").cut() == ()

    def test_follow_a_jump(self):
        decoder: Decoder = heard(OLD_MAN)
        decoder.reset(100)
        assert (decoder.start_s, decoder.end_s) == (4.0, 4.0)

    def test_without_end_keep_bounded_records(self, monkeypatch):
        monkeypatch.setattr(grammar_decoder, "_MAX_RECORDS", 200)
        graph = graph_of("public <a> = (the | a | old | man | men | house)+;")
        decoder = GrammarDecoder(graph, FRAME_S)
        for _ in range(200):
            decoder.accept(emissions("DH AX OW L D M AE N", 0.6))
            assert len(decoder._search.records) < 800


def test_states_followed_by_the_same_words_share_them():
    rules = "public <a> = old <x> man | cold <x> men; <x> = the | a | in | was;"
    network = Network(parse_grammar(f"#JSGF V1.0;\ngrammar test;\n{rules}"))
    automaton = WordAutomaton.of(network, "test")
    model = AutomatonModel(automaton)
    assert len(model.classes) < len(automaton.arcs)
    states = np.array([arc.target for arc in automaton.arcs[0]])
    assert len(set(model.class_of[states].tolist())) == 1
    arcs = np.array([model.words.index("in")] * 2)
    log_probs, after = model.score(states, arcs)
    assert np.exp(log_probs) == pytest.approx([0.25, 0.25])
    assert [[arc.word for arc in automaton.arcs[state]] for state in after.tolist()] == [["men"], ["man"]]


@pytest.mark.parametrize("num_states", [1, 2, 40, 2000])
def test_each_state_has_its_own_words(num_states):
    words = sorted(SAID)
    chain = " ".join(words[i * (i + 3) % len(words)] for i in range(num_states))
    graph = graph_of(f"public <a> = {chain};")
    automaton = WordAutomaton.of(graph.network, "test")
    phones = np.arange(1, 40)
    for state, arcs in enumerate(automaton.arcs):
        first = {way.split()[0] for arc in arcs for way in SAID[arc.word].split("|")}
        _, found, _ = graph.children(np.array([ROOT]), np.array([state]), phones)
        assert {toys["PHONES"][phone] for phone in found} == first


heard_phones = st.sampled_from(["_", "DH", "AX", "OW", "L", "D", "K", "M", "AE", "N", "HH", "AW", "S"])
paths = st.lists(heard_phones, min_size=1, max_size=25).map(" ".join)


@settings(max_examples=60)
@given(paths, st.floats(0.5, 0.999))
def test_whatever_is_heard_is_a_sentence_or_rejected(path, posterior):
    decoder = heard(path, posterior=posterior)
    found, words = decoder.sentence()
    assert 0 <= found.fit <= 1
    assert (found.rule is None) == (not words)
    if words:
        reading = GRAPH.network.read([word.word for word in words])
        assert (reading.rule, reading.tags) == (found.rule, found.tags)
        assert found.fit >= GRAPH.config.min_fit
    times = [time for word in decoder.hypothesis() for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(math.isfinite(word.conf) for word in words)
