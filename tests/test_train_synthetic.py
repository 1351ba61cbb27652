import lzma
import shutil

import numpy as np
import pytest
import soundfile

from edgeasr.errors import ConfigError
from edgeasr.manifest import read_manifest
from edgeasr.train.synthetic import draw_sentences, synthesize

SENTENCES = ("too short", "The ship left the harbour at dawn.", "nobody had seen the captain since", "word " * 17)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "sentences.txt.xz"
    path.write_bytes(lzma.compress("\n".join(SENTENCES).encode()))
    return path


def test_sentences_of_suitable_length_are_drawn_once_and_normalised(text):
    drawn = draw_sentences(text, 2, np.random.default_rng(0))
    assert sorted(drawn) == ["nobody had seen the captain since", "the ship left the harbour at dawn"]
    with pytest.raises(ConfigError, match="has 2 sentences of 4 to 16 words, wanted 3"):
        draw_sentences(text, 3, np.random.default_rng(0))


def test_the_manifest_says_what_was_spoken_and_how_long_it_took(text, tmp_path):
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed: apt-get install flite")
    utterances = read_manifest(synthesize(text, tmp_path / "speech", 2, seed=1))
    assert {u.text for u in utterances} == {"nobody had seen the captain since", "the ship left the harbour at dawn"}
    assert [u.speaker for u in utterances] == ["flite/slt", "flite/rms"]
    for utterance in utterances:
        samples, rate_hz = soundfile.read(utterance.path)
        assert (rate_hz, samples.ndim) == (16_000, 1)
        assert utterance.duration_s == pytest.approx(len(samples) / rate_hz, abs=1e-3)
        assert np.abs(samples).max() > 0.05
    assert sorted(path.suffix for path in (tmp_path / "speech").iterdir()) == [".flac", ".flac", ".jsonl"]


def test_a_machine_without_flite_is_told_what_to_install(text, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="flite is not installed: apt-get install flite"):
        synthesize(text, tmp_path / "speech", 1, seed=1)
