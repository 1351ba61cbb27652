import json
import shutil

import pytest

from edgeasr.errors import ConfigError
from edgeasr.phones import read_dictionary
from edgeasr.train import pronunciations
from edgeasr.train.pronunciations import complete, letters_to_sounds

WORDS = "cat K AE1 T\ndog D AO1 G\n"


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "train.jsonl"
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "The cat's Zebu"}
    path.write_text(json.dumps(row) + "\n")
    return path


def test_missing_words_are_added_behind_the_dictionary(tmp_path, manifest, monkeypatch):
    monkeypatch.setattr(
        pronunciations, "letters_to_sounds", lambda word: {"the": ["DH", "AX"], "zebu": []}.get(word, ["K"])
    )
    given, output = tmp_path / "given.dict", tmp_path / "new" / "words.dict"
    given.write_text(WORDS)
    assert complete(given, [manifest], output) == 3
    assert output.read_text() == WORDS + "cat's K\nthe DH AX\nzebu AX\n"
    assert read_dictionary(output)["dog"] == (("D", "AO", "G"),)


def test_flite_reads_words_that_no_dictionary_has():
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    assert letters_to_sounds("zorgian") == ["Z", "AO", "R", "JH", "IY", "AX", "N"]


def test_without_flite_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="flite is not installed: apt-get install flite"):
        letters_to_sounds("zebu")
