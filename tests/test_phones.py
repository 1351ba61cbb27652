import pytest

from edgeasr.errors import ConfigError
from edgeasr.phones import PHONE_IDS, PHONES, missing_words, phone, pronounce, read_dictionary


@pytest.fixture
def dictionary(tmp_path):
    def read(text: str):
        path = tmp_path / "words.dict"
        path.write_text(text, encoding="utf-8")
        return read_dictionary(path)

    return read


def test_the_blank_comes_first_and_every_phone_once():
    assert PHONES[0] == "<blank>"
    assert len(PHONES) == len(set(PHONES)) == 41
    assert PHONE_IDS["AA"] == 1
    assert PHONE_IDS["ZH"] == 40


@pytest.mark.parametrize(
    ("symbol", "plain"),
    [("AH1", "AH"), ("AH2", "AH"), ("AH0", "AX"), ("ER0", "ER"), ("ax", "AX"), ("zh", "ZH"), ("T", "T")],
)
def test_stress_is_dropped_but_for_the_reduced_vowel(symbol, plain):
    assert phone(symbol) == plain


def test_a_dictionary_has_words_with_all_their_pronunciations(dictionary):
    words = dictionary("a AH0\na(2) EY1\n\ntomato T AH0 M EY1 T OW2 # American\ntomato(2) T AH0 M EY2 T OW2\n")
    assert words == {"a": (("AX",), ("EY",)), "tomato": (("T", "AX", "M", "EY", "T", "OW"),)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a AH0\nb B XX", "line 2: got the phone 'XX', wanted one of AA, AE"),
        ("a", "line 1: 'a' has no phones: add them or take it out"),
        ("a <BLANK>", "line 1: got the phone '<BLANK>'"),
    ],
)
def test_lines_that_are_no_pronunciations_are_refused(dictionary, text, message):
    with pytest.raises(ConfigError, match=message):
        dictionary(text)


def test_a_dictionary_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the dictionary .*missing\.dict: .*No such file"):
        read_dictionary(tmp_path / "missing.dict")


def test_a_text_is_said_with_first_pronunciations(dictionary):
    words = dictionary("a AH0\na(2) EY1\ncat K AE1 T\n")
    assert [PHONES[i] for i in pronounce("a cat", words)] == ["AX", "K", "AE", "T"]
    assert pronounce("", words) == []
    with pytest.raises(ConfigError, match="the word 'dog' of 'a dog' is not in the dictionary: add its pronunciation"):
        pronounce("a dog", words)
    assert missing_words(["a dog", "the cat"], words) == ["dog", "the"]
