import json
import shutil
from pathlib import Path
from runpy import run_path

import pytest
import soundfile

from edgeasr.bundle import Bundle
from edgeasr.errors import BundleError
from edgeasr.language_model import LanguageModel
from edgeasr.letter_to_sound import is_installed
from edgeasr.recognizer import Recognizer

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]
SOURCE = ("--source", "two lines", "--licence", "CC0-1.0")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("Abcd abca, bdda!\nabcd ccab\nc dbca abca\n")
    return tmp_path / "text.txt"


@pytest.fixture
def dictionary(toy_folder):
    return toy_folder / "words.dict"


@pytest.fixture
def words(text, dictionary, tmp_path):
    assert edgeasr("lm", "build", text, "--dictionary", dictionary, "--output", tmp_path / "words.lm").code == 0
    return tmp_path / "words.lm"


@pytest.fixture
def bundle(exported, tmp_path):
    return Path(shutil.copytree(exported.bundle.path, tmp_path / "toy-model"))


@pytest.fixture
def spoken(bundle, words):
    assert edgeasr("lm", "add", bundle, words, *SOURCE).code == 0
    return bundle


@pytest.fixture
def no_flite(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_text_becomes_a_language_model(text, dictionary, tmp_path):
    options = ("--dictionary", dictionary, "--order", 2, "--max-words", 3)
    done = edgeasr("lm", "build", text, "--output", tmp_path / "words.lm", *options)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Wrote {tmp_path / 'words.lm'}: 6 1-grams, ")
    model = LanguageModel.load(tmp_path / "words.lm")
    assert (tuple(model.words), model.order) == (("abca", "abcd", "bdda"), 2)
    assert model.pronunciations.dictionary(model.words) == {
        "abca": (("AA", "B", "K", "AA"),),
        "abcd": (("AA", "B", "K", "D"),),
        "bdda": (("B", "D", "D", "AA"),),
    }


def test_what_was_built_as_json(text, dictionary, tmp_path):
    options = ("--dictionary", dictionary, "--max-ngrams", 12, "--json")
    report = json.loads(edgeasr("lm", "build", text, "--output", tmp_path / "words.lm", *options).out)
    assert sum(report["ngrams"]) <= 12
    assert report["unpronounced"] == 0
    assert report["bytes"] == (tmp_path / "words.lm").stat().st_size


def test_words_that_cannot_be_said_are_counted(text, tmp_path, no_flite):
    (tmp_path / "some.dict").write_text("abca AA1 B K AA0\nABCA(2) AA1 B\nccab K AA1 B\n")
    options = ("--dictionary", tmp_path / "some.dict", "--output", tmp_path / "words.lm")
    done = edgeasr("lm", "build", text, *options)
    assert done.code == 0
    assert done.err == "4 words have no pronunciation and will not be heard: apt-get install flite\n"
    model = LanguageModel.load(tmp_path / "words.lm")
    assert tuple(model.words) == ("abca", "abcd", "bdda", "c", "ccab", "dbca")
    said = {"abca": (("AA", "B", "K", "AA"), ("AA", "B")), "ccab": (("K", "AA", "B"),)}
    assert model.pronunciations.dictionary(model.words) == said
    assert json.loads(edgeasr("lm", "build", text, *options, "--json").out)["unpronounced"] == 4


@pytest.mark.skipif(not is_installed(), reason="flite is not installed")
def test_words_that_the_dictionary_has_not_are_read_by_flite(text, tmp_path):
    (tmp_path / "text.txt").write_text("zebu abca\n")
    (tmp_path / "some.dict").write_text("abca AA1 B\n")
    options = ("--dictionary", tmp_path / "some.dict", "--output", tmp_path / "words.lm")
    done = edgeasr("lm", "build", text, *options)
    assert (done.code, done.err) == (0, "")
    model = LanguageModel.load(tmp_path / "words.lm")
    said = {"abca": (("AA", "B"),), "zebu": (("Z", "EH", "B", "UW"),)}
    assert model.pronunciations.dictionary(model.words) == said


def test_without_a_dictionary_words_are_said_as_those_of_the_bundled_model(spoken, tmp_path, no_flite, monkeypatch):
    monkeypatch.setattr("edgeasr.bundle_language_model.default_bundle", lambda: spoken)
    (tmp_path / "text.txt").write_text("abca zebu\n")
    done = edgeasr("lm", "build", tmp_path / "text.txt", "--output", tmp_path / "other.lm")
    assert done.err.startswith("1 words have no pronunciation")
    model = LanguageModel.load(tmp_path / "other.lm")
    assert tuple(model.words) == ("abca", "zebu")
    assert model.pronunciations.dictionary(model.words) == {"abca": (("AA", "B", "K", "AA"),)}


def test_words_none_of_which_can_be_said_are_refused(exported, text, tmp_path, no_flite, monkeypatch):
    monkeypatch.setattr("edgeasr.bundle_language_model.default_bundle", lambda: exported.bundle.path)
    done = edgeasr("lm", "build", text, "--output", tmp_path / "words.lm")
    assert (done.code, done.out) == (2, "")
    assert "the dictionary has none of the 6 words" in done.err
    assert not (tmp_path / "words.lm").exists()


@pytest.mark.parametrize("content", [None, "abca AA QQ\n"])
def test_a_dictionary_that_is_none_is_refused(text, tmp_path, content):
    if content:
        (tmp_path / "bad.dict").write_text(content)
    done = edgeasr("lm", "build", text, "--dictionary", tmp_path / "bad.dict", "--output", tmp_path / "words.lm")
    assert (done.code, done.out) == (2, "")
    assert "bad.dict" in done.err
    assert not (tmp_path / "words.lm").exists()


def test_a_text_that_is_not_there_is_explained(tmp_path):
    done = edgeasr("lm", "build", tmp_path / "no.txt", "--output", tmp_path / "words.lm")
    assert (done.code, done.out) == (2, "")
    assert "no.txt" in done.err
    assert not (tmp_path / "words.lm").exists()


def test_a_bundle_carries_its_language_model(exported, spoken, words):
    loaded = Bundle.load(spoken)
    assert loaded.content(loaded.language_model.file) == words.read_bytes()
    assert loaded.language_model.sources == ({"name": "two lines", "licence": "CC0-1.0"},)
    assert loaded.artefacts == exported.bundle.artefacts
    assert Recognizer(spoken).decoder == "lm"
    assert Recognizer(spoken, decoder="greedy").decoder == "greedy"
    assert Recognizer(exported.bundle).decoder == "greedy"


def test_a_language_model_may_go_into_an_archive(bundle, words, tmp_path):
    done = edgeasr("lm", "add", bundle, words, *SOURCE, "--output", tmp_path / "new.edgeasr")
    assert done.code == 0
    assert Bundle.load(tmp_path / "new.edgeasr").language_model
    assert Bundle.load(bundle).language_model is None


def test_another_language_model_takes_its_place_and_one_is_taken_out(spoken, text, dictionary, tmp_path, exported):
    edgeasr("lm", "build", text, "--dictionary", dictionary, "--output", tmp_path / "other.lm", "--order", 1)
    assert edgeasr("lm", "add", spoken, tmp_path / "other.lm", *SOURCE).code == 0
    assert len(list(spoken.glob("*.lm"))) == 1
    assert edgeasr("lm", "remove", spoken).code == 0
    assert Bundle.load(spoken).files == exported.bundle.files


def test_words_are_heard_with_a_language_model(spoken, exported):
    from edgeasr.audio import FileSource

    with FileSource(exported.recording) as source:
        events = list(Recognizer(spoken).stream(source))
    assert events[-1].text == "abcd abca bdda c ccab dbca"
    assert [word.start for word in events[-1].words] == pytest.approx([0.0, 0.6, 1.2, 1.8, 2.04, 2.64], abs=0.12)


def test_words_that_sound_alike_are_heard_as_the_language_model_expects(bundle, exported, toy_folder, tmp_path):
    from edgeasr.audio import FileSource

    # "c" and "see" sound the same.
    said = (toy_folder / "words.dict").read_text() + "see K\nsea K\n"
    (tmp_path / "more.dict").write_text(said)
    heard = {}
    for word, other in (("see", "sea"), ("sea", "see")):
        (tmp_path / "text.txt").write_text(f"abcd abca bdda {word} ccab dbca\nabca {other} bdda\n")
        edgeasr(
            "lm", "build", tmp_path / "text.txt", "--dictionary", tmp_path / "more.dict", "--output", tmp_path / "lm"
        )
        assert edgeasr("lm", "add", bundle, tmp_path / "lm", *SOURCE).code == 0
        with FileSource(exported.recording) as source:
            heard[word] = list(Recognizer(bundle).stream(source))[-1].text
    assert heard == {word: f"abcd abca bdda {word} ccab dbca" for word in ("see", "sea")}


def test_weights_are_tuned_and_written(spoken, toy_folder, tmp_path):
    pytest.importorskip("jiwer", reason="scoring needs the extra `evaluate`")
    done = edgeasr("lm", "tune", spoken, toy_folder / "dev.jsonl", "--sample", 2, "--json")
    assert (done.code, done.err) == (0, "edgeasr: 2 utterances can hardly tell weights apart: take 100 or more\n")
    trials = json.loads(done.out)["trials"]
    best = min(trials, key=lambda trial: trial["wer"])
    assert Bundle.load(spoken).language_model.search.lm_weight == pytest.approx(best["lm_weight"])
    assert len({(trial["lm_weight"], trial["word_score"]) for trial in trials}) >= 3


def test_tuning_wants_a_language_model(bundle, toy_folder):
    done = edgeasr("lm", "tune", bundle, toy_folder / "dev.jsonl")
    assert done.code == 2
    assert "has no language model" in done.err


def test_a_decoder_that_the_bundle_has_not_is_refused(bundle):
    with pytest.raises(BundleError, match="no language model"):
        Recognizer(bundle, decoder="lm")


@pytest.mark.parametrize("content", [b"no model", None])
def test_a_file_that_is_no_language_model_is_refused(bundle, tmp_path, content):
    if content:
        (tmp_path / "bad.lm").write_bytes(content)
    done = edgeasr("lm", "add", bundle, tmp_path / "bad.lm", *SOURCE)
    assert (done.code, done.out) == (2, "")
    assert "bad.lm" in done.err
    assert Bundle.load(bundle).language_model is None


def without_phones(bundle):
    """A manifest that tells of a model of characters only."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["config"]["phone_vocabulary_size"] = 0
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_model_without_phones_takes_no_language_model(bundle, words):
    without_phones(bundle)
    before = (bundle / "manifest.json").read_bytes()
    done = edgeasr("lm", "add", bundle, words, *SOURCE)
    assert (done.code, done.out) == (2, "")
    assert "a model of 0 phones, a language model wants 41: train with data.dictionary" in done.err
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_language_model_beside_a_model_without_phones_is_refused(spoken):
    without_phones(spoken)
    with pytest.raises(BundleError, match="a language model beside a model without the 41 phones: export the model"):
        Bundle.load(spoken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.update(more=1), "unknown key 'more'"),
        (lambda entry: entry.pop("sources"), "lacks the key 'sources'"),
        (lambda entry: entry.update(file="no.lm"), "language_model.file"),
        (lambda entry: entry["search"].update(beam="wide"), "language_model.search.beam"),
        (lambda entry: entry["search"].update(depth=1), "unknown key 'depth'"),
        (lambda entry: entry["search"].update(lm_weight=-1), "lm_weight -1"),
        (lambda entry: entry["sources"][0].pop("licence"), "licence"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(spoken, change, message):
    manifest = json.loads((spoken / "manifest.json").read_text())
    change(manifest["language_model"])
    (spoken / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        Bundle.load(spoken)


def test_a_language_model_that_was_changed_is_refused(spoken):
    file = next(spoken.glob("*.lm"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="SHA-256"):
        Bundle.load(spoken)


def test_commands_take_a_decoder(tmp_path):
    soundfile.write(tmp_path / "silence.wav", [0.0] * 16000, 16000)
    listening = ("listen", "--source", tmp_path / "silence.wav")
    for command in (("transcribe", tmp_path / "silence.wav"), listening):
        assert edgeasr(*command, "--decoder", "greedy").code == 0
        without = edgeasr(*command, "--decoder", "lm")
        assert without.code == 2
        assert "has no language model" in without.err
        assert "Invalid value for '--decoder'" in edgeasr(*command, "--decoder", "guess").err


def test_words_that_the_text_lacks_come_from_a_list_of_frequencies(text, dictionary, tmp_path):
    (tmp_path / "frequencies.txt").write_text("abca 50\ndada 30\n")
    (tmp_path / "more.dict").write_text(dictionary.read_text() + "dada D AA1 D AA0\n")
    options = ("--dictionary", tmp_path / "more.dict", "--frequencies", tmp_path / "frequencies.txt")
    done = edgeasr("lm", "build", text, *options, "--max-words", 2, "--output", tmp_path / "words.lm")
    assert done.code == 0
    assert tuple(LanguageModel.load(tmp_path / "words.lm").words) == ("abca", "dada")


def test_a_list_without_numbers_is_refused(text, dictionary, tmp_path):
    (tmp_path / "frequencies.txt").write_text("abca\n")
    options = ("--dictionary", dictionary, "--frequencies", tmp_path / "frequencies.txt")
    done = edgeasr("lm", "build", text, *options, "--output", tmp_path / "words.lm")
    assert done.code != 0
    assert "frequencies.txt, line 1: got 'abca', wanted a word and a number above 0" in done.err
    assert not (tmp_path / "words.lm").exists()


def test_each_source_of_a_language_model_has_its_licence(bundle, words):
    several = ("--source", "books", "--licence", "public domain", "--source", "talks", "--licence", "CC-BY-4.0")
    assert edgeasr("lm", "add", bundle, words, *several).code == 0
    sources = [{"name": "books", "licence": "public domain"}, {"name": "talks", "licence": "CC-BY-4.0"}]
    assert json.loads(edgeasr("describe", bundle, "--json").out)["language_model_sources"] == sources
    assert "Language model made of:\n  books: public domain\n  talks: CC-BY-4.0\n" in edgeasr("describe", bundle).out


def test_a_source_without_a_licence_is_refused(bundle, words):
    before = (bundle / "manifest.json").read_bytes()
    done = edgeasr("lm", "add", bundle, words, *SOURCE, "--source", "talks")
    assert done.code == 2
    assert "got 2 sources and 1 licences" in done.err
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_text_is_not_written_over(text, dictionary):
    before = text.read_text()
    done = edgeasr("lm", "build", text, "--dictionary", dictionary, "--output", text)
    assert (done.code, text.read_text()) == (2, before)
    assert "which is read, too: name another file" in done.err


def test_an_empty_source_is_refused(bundle, words):
    done = edgeasr("lm", "add", bundle, words, "--source", "", "--licence", "CC0-1.0")
    assert done.code == 2
    assert "got '' as a source or its licence" in done.err
