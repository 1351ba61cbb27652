import subprocess
from types import SimpleNamespace

import pytest

from edgeasr import letter_to_sound
from edgeasr.errors import ConfigError
from edgeasr.letter_to_sound import completed, is_installed, letters_to_sounds

needs_flite = pytest.mark.skipif(not is_installed(), reason="flite is not installed")


@pytest.fixture
def flite(monkeypatch):
    """Stands for the program: says each sentence as the table tells, and remembers what it was given."""
    given, table = [], {}

    def run(command, **options):
        text = command[command.index("-t") + 1]
        given.append(text)
        sentences = [sentence for sentence in text.split(".") if sentence.strip()]
        said = " ".join(f"{table.get(sentence.strip(), 'z uw')} pau" for sentence in sentences)
        return SimpleNamespace(stdout=f"pau {said}\n")

    monkeypatch.setattr(letter_to_sound, "is_installed", lambda: True)
    monkeypatch.setattr(subprocess, "run", run)
    return SimpleNamespace(given=given, table=table)


@needs_flite
def test_flite_reads_words_that_no_dictionary_has():
    said = letters_to_sounds(["zorgian", "zebu", "o'clock"])
    assert said == {
        "zorgian": ("Z", "AO", "R", "JH", "IY", "AX", "N"),
        "zebu": ("Z", "EH", "B", "UW"),
        "o'clock": ("AX", "K", "L", "AA", "K"),
    }


@needs_flite
def test_words_that_are_read_out_longer_or_not_at_all_move_no_others():
    # A lone apostrophe is silent, and an abbreviation does not end its sentence.
    said = letters_to_sounds(["zebu", "'", "mr", "zorgian"])
    assert said.keys() == {"zebu", "mr", "zorgian"}
    assert said["mr"] == ("M", "IH", "S", "T", "ER")
    assert said["zorgian"] == letters_to_sounds(["zorgian"])["zorgian"]


def test_many_words_are_read_at_once(flite):
    flite.table["w150"] = "d ah0 b"
    words = [f"w{number}" for number in range(250)]
    said = letters_to_sounds(words)
    assert [text.count(".") for text in flite.given] == [100, 100, 50]
    assert list(said) == words
    assert said["w150"] == ("D", "AX", "B")
    assert said["w149"] == said["w151"] == ("Z", "UW")


def test_a_word_that_is_read_as_several_has_the_phones_of_all(flite):
    flite.table["abc"] = "ey pau b iy pau s iy"
    assert letters_to_sounds(["abc", "zoo"]) == {"abc": ("EY", "B", "IY", "S", "IY"), "zoo": ("Z", "UW")}
    assert flite.given == ["abc. zoo.", "abc", "zoo"]


def test_no_words_need_no_reading(flite):
    assert letters_to_sounds([]) == {}
    assert flite.given == []


def test_the_dictionary_comes_first_and_only_the_words_are_kept(flite):
    dictionary = {"cat": (("K", "AE", "T"),), "a": (("AX",), ("EY",)), "dog": (("D", "AO", "G"),)}
    said = completed(["a", "zoo", "cat"], dictionary)
    assert said == {"a": (("AX",), ("EY",)), "cat": (("K", "AE", "T"),), "zoo": (("Z", "UW"),)}
    assert flite.given == ["zoo."]
    assert completed(["a"], dictionary) == {"a": (("AX",), ("EY",))}
    assert flite.given == ["zoo."]


def test_without_flite_the_other_words_are_left_out(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert not is_installed()
    assert completed(["a", "zebu"], {"a": (("AX",),)}) == {"a": (("AX",),)}
    with pytest.raises(ConfigError, match="flite is not installed: apt-get install flite"):
        letters_to_sounds(["zebu"])
