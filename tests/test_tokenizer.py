import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr.errors import ConfigError
from edgeasr.tokenizer import BLANK, CHARACTERS, Tokenizer, normalize_text


def test_characters_are_the_blank_the_space_the_apostrophe_and_a_to_z():
    assert len(CHARACTERS) == 29
    assert CHARACTERS[:4] == (BLANK, " ", "'", "a")
    assert CHARACTERS[-1] == "z"
    assert (Tokenizer().blank_id, len(Tokenizer())) == (0, 29)


def test_text_becomes_ids_and_text_again():
    tokenizer = Tokenizer()
    assert tokenizer.encode("it's a") == [11, 22, 2, 21, 1, 3]
    assert tokenizer.decode([11, 22, 2, 21, 1, 3]) == "it's a"


def test_empty_text_has_no_ids():
    assert Tokenizer().encode("") == []
    assert Tokenizer().decode([]) == ""


PIECES = Tokenizer((BLANK, "th", " a", "the", " the", "in", " c", "hin", " ", "a", "c", "e", "h", "i", "n", "t"))


def test_pieces_are_joined_in_the_order_of_the_tokens():
    assert [PIECES.tokens[i] for i in PIECES.encode("the thin thane ate a chin")] == [
        *(" the", " ", "th", "in", " ", "th", "a", "n", "e", " a", "t", "e", " a"),
        *(" c", "hin"),
    ]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text("aceihnt", min_size=1), max_size=5).map(" ".join))
def test_pieces_become_the_text_again(text):
    assert PIECES.decode(PIECES.encode(text)) == text


def test_characters_are_no_pieces():
    assert (PIECES.has_pieces, Tokenizer().has_pieces) == (True, False)
    assert Tokenizer().decode([1, 3]) == " a"  # only pieces imply a space before the first word


def test_decode_leaves_blanks_out_and_keeps_repeats():
    assert Tokenizer().decode([0, 3, 3, 0, 4]) == "aab"


def test_an_unknown_character_is_named():
    with pytest.raises(ConfigError, match=r"got \['5', 'I'\] in 'I have 5'.*normalize_text"):
        Tokenizer().encode("I have 5")


@pytest.mark.parametrize("token_id", [-1, 29])
def test_an_id_outside_the_tokens_is_refused(token_id):
    with pytest.raises(ConfigError, match=f"got token id {token_id}, wanted 0 to 28"):
        Tokenizer().decode([token_id])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((), "put the blank first"),
        ((" ", BLANK, "a"), "put the blank first"),
        ((BLANK, " ", "a b"), "'a b', wanted letters, after a space at most"),
        ((BLANK, " ", "a "), "'a ', wanted letters, after a space at most"),
        ((BLANK, " ", ""), "'', wanted letters, after a space at most"),
        ((BLANK, " ", "a", "a"), "wanted each once"),
        ((BLANK, "a"), "without a space"),
    ],
)
def test_tokens_that_no_model_can_have_are_refused(tokens, message):
    with pytest.raises(ConfigError, match=message):
        Tokenizer(tokens)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The CAT", "the cat"),
        ("  two\n spaces\t", "two spaces"),
        ("don\u2019t", "don't"),
        ("Caf\u00e9, stra\u00dfe", "cafe strasse"),
        ("well-known; 22 times", "well known times"),
        ("\u4f60\u597d", ""),
    ],
)
def test_normalized_text_is_plain(text, plain):
    assert normalize_text(text) == plain


@settings(deadline=None, derandomize=True)
@given(st.text())
def test_normalized_text_can_be_encoded_and_stays_as_it_is(text):
    plain = normalize_text(text)
    assert normalize_text(plain) == plain
    assert Tokenizer().decode(Tokenizer().encode(plain)) == plain
