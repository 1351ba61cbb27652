import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeasr.errors import GrammarError
from edgeasr.grammar import Alternatives, Optional, Place, Repeat, RuleReference, Sequence, Tagged, Token, parts_of
from edgeasr.grammar_parser import parse_grammar, read_grammar

HEADER = "#JSGF V1.0;\ngrammar test;\n"


def grammar_of(rules):
    return parse_grammar(HEADER + rules)


def plain(expansion):
    """An expansion as nested lists, to compare with."""
    match expansion:
        case Token(word=word):
            return word
        case RuleReference(name=name):
            return f"<{name}>"
        case Sequence(parts=parts):
            return ["seq", *map(plain, parts)]
        case Alternatives(parts=parts):
            return ["or", *map(plain, parts)]
        case Optional(part=part):
            return ["opt", plain(part)]
        case Repeat(part=part, is_required=is_required):
            return ["+" if is_required else "*", plain(part)]
        case Tagged(part=part, tag=tag):
            return ["tag", plain(part), tag]
    raise AssertionError(expansion)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("turn on", ["seq", "turn", "on"]),
        ("on | off now", ["or", "on", ["seq", "off", "now"]]),
        ("(on | off) now", ["seq", ["or", "on", "off"], "now"]),
        ("[please] go", ["seq", ["opt", "please"], "go"]),
        ("very* big+", ["seq", ["*", "very"], ["+", "big"]]),
        ("a b* c", ["seq", "a", ["*", "b"], "c"]),
        ("yes {ok} | no {bad}{really}", ["or", ["tag", "yes", "ok"], ["tag", ["tag", "no", "bad"], "really"]]),
        ("(a b)+ {many}", ["tag", ["+", ["seq", "a", "b"]], "many"]),
        (r"yes {a = \{1\} \\ }", ["tag", "yes", r"a = {1} \ "[:-1]]),
        ("<other>", "<other>"),
        ("<test.other> <NULL>", ["seq", "<other>", ["seq"]]),
        ("a | <VOID>", ["or", "a", ["or"]]),
        ('"new york" "o\\"clock"', ["seq", ["seq", "new", "york"], ["seq", "o", "clock"]]),
        ("New-York caf\u00e9 don\u2019t", ["seq", ["seq", "new", "york"], "cafe", "don't"]),
        ("a /* b | */ c // d\n e", ["seq", "a", "c", "e"]),
        ("/0.5/ a | /2e1/ b c", ["or", "a", ["seq", "b", "c"]]),
    ],
)
def test_what_is_written_is_understood(written, meant):
    grammar = grammar_of(f"public <rule> = {written}; <other> = x;")
    assert plain(grammar.rules["rule"].expansion) == meant


def test_weights_are_shares():
    grammar = grammar_of("public <rule> = /1/ a | /3.0f/ b | /0/ c;")
    log_probs = grammar.rules["rule"].expansion.log_probs
    assert [math.exp(one) for one in log_probs] == pytest.approx([0.25, 0.75, 0])


def test_words_are_listed_with_their_first_place():
    grammar = grammar_of("public <rule> = turn (on |\n  off) on;\n")
    assert grammar.words == {"turn": Place(3, 17), "on": Place(3, 23), "off": Place(4, 3)}


def test_public_rules_are_those_marked():
    grammar = grammar_of("<a> = x; public <b> = <a>; public <c> = y;")
    assert [rule.name for rule in grammar.public_rules] == ["b", "c"]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("public <a> = [x;", "line 3, column 16: got ;, wanted ] for the [ at line 3, column 14"),
        ("public <a> = x\n | ;", "line 4, column 4: got ;, wanted words or <NULL>"),
        ("public <a> = x {foo;", "line 3, column 16: { is not closed: wanted }"),
        ('public <a> = "x;', 'line 3, column 14: " is not closed'),
        ("public <a> = /* x;", "line 3, column 14: / is not closed"),
        ("public <a> = x", "line 3, column 15: got the end, wanted ; at the end of <a>"),
        ("public <a> = x\n } y;", "line 4, column 2: got }"),
        ("<a> = x;", "no rule is public"),
        (
            "public <a> = <bc>; <bcd> = x;",
            "column 14: there is no rule <bc>: write it, or take its name out; did you mean",
        ),
        ("public <a> = /1/ x | y;", "1 of 2 alternatives have a weight: give all one, or none"),
        ("public <a> = /0/ x | /0/ y;", "all weights are 0"),
        ("public <a> = x /2/ y;", "/2/ weighs no alternative"),
        ("public <a> = /-2/ x | /1/ y;", "got the weight /-2/, wanted a number from 0 on"),
        ("public <a> = room 5;", "got 5, wanted words as they are said: write numbers and signs out"),
        ("public <a> = x; public <a> = y;", "column 24: <a> is there already, at line 3, column 8"),
        ("public <NULL> = x;", "<NULL> means something already"),
        ("public <a b> = x;", "wanted a name without spaces"),
        ("public <com.b> = x;", "<com.b> is a rule of another grammar"),
        ("import <com.b.*>;\npublic <a> = x;", "line 3, column 1: rules of other grammars cannot be imported"),
        (f"public <a> = {'(' * 60}x{')' * 60};", "more than 50 groups in each other"),
    ],
)
def test_mistakes_are_named_with_their_place(rules, said):
    with pytest.raises(GrammarError) as raised:
        grammar_of(rules)
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["", "grammar a;", "#JSGF V2.0;\ngrammar a;", "#ABNF 1.0;", "#JSGF V1.0\n"])
def test_other_formats_are_refused(text):
    with pytest.raises(GrammarError, match=r"wanted #JSGF V1.0; as the first line"):
        parse_grammar(text)


@pytest.mark.parametrize(
    ("header", "encoding"), [("", "utf-8"), (" ISO8859-1 fr", "latin-1"), (" UTF-8 fr", "utf-8-sig")]
)
def test_the_header_names_the_encoding(tmp_path, header, encoding):
    path = tmp_path / "a.jsgf"
    path.write_bytes(f"#JSGF V1.0{header};\ngrammar a;\npublic <a> = caf\u00e9;".encode(encoding))
    assert read_grammar(path).words.keys() == {"cafe"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"#JSGF V1.0;\ngrammar a;\npublic <a> = caf\xe9;", "line 3: the bytes are not utf-8"),
        (b"#JSGF V1.0 UTF-99;\ngrammar a;", "there is no encoding UTF-99"),
    ],
)
def test_an_encoding_that_does_not_fit_is_explained(tmp_path, content, said):
    (tmp_path / "a.jsgf").write_bytes(content)
    with pytest.raises(GrammarError, match=said):
        read_grammar(tmp_path / "a.jsgf")


def test_a_file_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(GrammarError, match=r"cannot read the grammar .*: check the path"):
        read_grammar(tmp_path / "none.jsgf")


@given(st.text(st.sampled_from(list('ab<>()[]{}|*+/;="\\ \n1.')), max_size=60))
def test_any_text_is_a_grammar_or_an_error(text):
    try:
        grammar = grammar_of(f"public <a> = {text}")
    except GrammarError:
        return
    words = [part.word for part in parts_of(grammar.rules["a"].expansion) if isinstance(part, Token)]
    assert all(set(word) <= set("ab") for word in words)
