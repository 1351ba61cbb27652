import json

import pytest

from edgeasr.errors import ConfigError
from edgeasr.phones import read_dictionary
from edgeasr.train import pronunciations
from edgeasr.train.pronunciations import complete

WORDS = "cat K AE1 T\ndog D AO1 G\n"


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "train.jsonl"
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "The cat's Zebu"}
    path.write_text(json.dumps(row) + "\n")
    return path


def test_missing_words_are_added_behind_the_dictionary(tmp_path, manifest, monkeypatch):
    monkeypatch.setattr(
        pronunciations, "letters_to_sounds", lambda words: {"cat's": ("K", "AE", "T", "S"), "the": ("DH", "AX")}
    )
    given, output = tmp_path / "given.dict", tmp_path / "new" / "words.dict"
    given.write_text(WORDS)
    assert complete(given, [manifest], output) == 3
    assert output.read_text() == WORDS + "cat's K AE T S\nthe DH AX\nzebu AX\n"
    assert read_dictionary(output)["dog"] == (("D", "AO", "G"),)


def test_without_flite_it_says_what_to_install(tmp_path, manifest, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (tmp_path / "given.dict").write_text(WORDS)
    with pytest.raises(ConfigError, match="flite is not installed: apt-get install flite"):
        complete(tmp_path / "given.dict", [manifest], tmp_path / "words.dict")
    assert not (tmp_path / "words.dict").exists()
