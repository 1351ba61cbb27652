import math

import pytest

from edgeasr import grammar_network
from edgeasr.errors import GrammarError
from edgeasr.grammar_automaton import WordAutomaton
from edgeasr.grammar_benchmark import home_grammar, orders_grammar, sentences
from edgeasr.grammar_network import Network, Reading
from edgeasr.grammar_parser import parse_grammar


def grammar_of(rules):
    return parse_grammar(f"#JSGF V1.0;\ngrammar test;\n{rules}")


def network_of(rules):
    return Network(grammar_of(rules))


def automaton_of(rules):
    return WordAutomaton.of(network_of(rules), "test")


def log_prob(automaton, sentence):
    """Of the likeliest way to say it."""
    ways = {0: 0.0}
    for word in sentence.split():
        after = {}
        for state, so_far in ways.items():
            for arc in automaton.arcs[state]:
                if arc.word == word:
                    after[arc.target] = max(so_far + arc.log_prob, after.get(arc.target, -math.inf))
        ways = after
    return max((so_far + automaton.finals[state] for state, so_far in ways.items()), default=-math.inf)


LIGHTS = """
public <switch> = turn (on {on} | off {off}) the <device> {done} [please];
<device> = (light | lamp) {light} | radio {radio};
public <stop> = stop {stop};
"""


class TestReading:
    @pytest.mark.parametrize(
        ("sentence", "reading"),
        [
            ("turn on the lamp", Reading("switch", ("on", "light", "done"))),
            ("turn off the radio please", Reading("switch", ("off", "radio", "done"))),
            ("stop", Reading("stop", ("stop",))),
            ("turn on the", None),
            ("turn on the lamp lamp", None),
            ("", None),
        ],
    )
    def test_tags_come_in_their_order_with_the_public_rule(self, sentence, reading):
        assert network_of(LIGHTS).read(sentence.split()) == reading

    def test_repeats_report_a_tag_each_time(self):
        network = network_of("public <count> = (one {1} | two {2})+ {end};")
        assert network.read(["two", "one", "two"]).tags == ("2", "1", "2", "end")

    def test_the_likelier_of_two_ways_is_read(self):
        rules = "public <a> = /1/ <x> | /3/ <y>; <x> = go {x}; <y> = go {y};"
        assert network_of(rules).read(["go"]).tags == ("y",)

    def test_of_equal_ways_the_first_is_read(self):
        assert network_of("public <a> = go {x} | go {y};").read(["go"]).tags == ("x",)

    def test_a_rule_may_end_with_itself(self):
        network = network_of("public <digits> = <digit> | <digit> <digits>; <digit> = one {1} | two {2};")
        assert network.read(["two", "two", "one"]).tags == ("2", "2", "1")


class TestRecursion:
    @pytest.mark.parametrize(
        ("rules", "said"),
        [
            ("public <a> = <a> x | y;", r"column 14: a rule may name itself only at its end \(<a> -> <a>\)"),
            ("public <a> = x <b> z; <b> = y | <a>;", r"\(<a> -> <b> -> <a>\)"),
            ("public <a> = x (y <a>)*;", r"\(<a> -> <a>\)"),
            ("public <a> = x [<a> {tag}];", r"\(<a> -> <a>\)"),
        ],
    )
    def test_elsewhere_than_at_the_end_is_refused(self, rules, said):
        with pytest.raises(GrammarError, match=said):
            network_of(rules)

    @pytest.mark.parametrize("rules", ["public <a> = x [<a>];", "public <a> = x <b>; <b> = y | z (<a> | <b>);"])
    def test_at_the_end_is_a_circle(self, rules):
        assert len(network_of(rules).arcs) < 30

    def test_of_nothing_but_itself_has_no_sentence(self):
        with pytest.raises(GrammarError, match="no sentence has a word that could be said"):
            automaton_of("public <a> = <a>;")


def test_long_chains_of_rules_are_no_deep_recursion():
    rules = "".join(f"<r{i}> = w <r{i + 1}>;\n" for i in range(3000))
    network = network_of(f"{rules}<r3000> = {{end}} ; public <a> = <r0>;".replace("{end}", "x {end}"))
    assert network.read(["w"] * 3000 + ["x"]).tags == ("end",)


def test_what_ends_alike_is_there_once():
    tails = "".join(f"| w{'x' * i} (<a> <b> | <b> <a>) <c>" for i in range(100))
    network = network_of(f"<a> = a | b; <b> = c | d; <c> = e | f; public <s> = go {tails};")
    assert len(network.arcs) < 400


def test_rules_that_double_each_other_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(grammar_network, "MAX_STATES", 5000)
    rules = "".join(f"<r{i}> = <r{i + 1}> <r{i + 1}>;" for i in range(40))
    with pytest.raises(GrammarError, match="written out, its rules have more than 5000 places for a word"):
        network_of(f"{rules} <r40> = x; public <a> = <r0>;")


class TestAutomaton:
    def test_weights_are_those_of_the_grammar(self):
        automaton = automaton_of("public <a> = /1/ go [home] | /3/ stay;")
        assert math.exp(log_prob(automaton, "go home")) == pytest.approx(0.125)
        assert math.exp(log_prob(automaton, "go")) == pytest.approx(0.125)
        assert math.exp(log_prob(automaton, "stay")) == pytest.approx(0.75)
        assert log_prob(automaton, "home") == -math.inf

    def test_of_two_ways_the_likelier_counts(self):
        automaton = automaton_of("public <a> = /1/ go home {x} | /3/ go (home {y} | away);")
        assert math.exp(log_prob(automaton, "go home")) == pytest.approx(0.375, rel=0.01)

    def test_has_one_way_for_each_word(self):
        automaton = automaton_of("public <a> = the old house | the old man | the man;")
        assert all(len({arc.word for arc in arcs}) == len(arcs) for arcs in automaton.arcs)
        assert [arc.word for arc in automaton.arcs[0]] == ["the"]

    def test_repeats_may_be_within_repeats(self):
        automaton = automaton_of("public <a> = ((a | b)* | (c | d*)+)* x;")
        assert log_prob(automaton, "d c a b a x") > -math.inf
        assert log_prob(automaton, "x") > -math.inf
        assert log_prob(automaton, "a") == -math.inf

    def test_ends_that_can_never_be_said_are_left_out(self):
        automaton = automaton_of("public <a> = go (home | away <VOID>);")
        assert sorted(sentences(grammar_of("public <a> = go (home | away <VOID>);"))) == ["go home"]
        assert automaton.num_arcs == 2

    def test_without_determinisation_it_says_the_same(self, monkeypatch):
        rules = "public <a> = (a | b)* a (a | b) (a | b) (a | b);"
        deterministic = automaton_of(rules)
        monkeypatch.setattr("edgeasr.grammar_automaton._SMALL", -(10**6))
        other = automaton_of(rules)
        assert other.num_arcs < deterministic.num_arcs
        for sentence in ("b a a b b", "a b b b", "b b b b"):
            assert log_prob(other, sentence) == pytest.approx(log_prob(deterministic, sentence), abs=0.01)

    @pytest.mark.parametrize("rules", ["public <a> = <VOID>;", "public <a> = <NULL>;", "public <a> = x <VOID>;"])
    def test_a_grammar_without_a_sentence_is_refused(self, rules):
        with pytest.raises(GrammarError, match="test: no sentence has a word"):
            automaton_of(rules)


def test_the_grammars_of_the_benchmark_are_what_it_says():
    commands = list(sentences(home_grammar()))
    assert len(commands) == len(set(commands)) == 200
    assert len(orders_grammar().rules["order"].expansion.parts) == 100
