import bz2
import sys
from pathlib import Path
from runpy import run_path
from xml.sax.saxutils import escape

import pytest

from edgeasr.corpora.texts import sentences
from edgeasr.errors import ConfigError, ExtraMissingError

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]

MARKUP = """{{Infobox|name=Anton}}
'''Mr. Anton''' (born 1905) was the 21st of [[painter|the painters]] who came to [[New York City|NY]].\
<ref>No.</ref> He didn't sell 40 pictures, for people&rsquo;s taste had changed by 1998, so he went home again!

[[File:Anton.jpg|thumb|A picture of a painter who stands before his house in the north of the country, in summer.]]
* too short
Energy is x^2 + y^2 = z^2 / (3 + 4) * 5 - {6} + <7> = 8 ^ 9. It was all that there was to be said about this matter.
[[Category:Painters]]"""
SAID = [
    "mister anton born nineteen oh five was the twenty first of the painters who came to ny",
    "he didn't sell forty pictures for people's taste had changed by nineteen ninety eight so he went home again",
    "it was all that there was to be said about this matter",
]
NOUNS = """  1 This software and database is being provided to you, the LICENSEE,
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is (or was) perceived; "it's 'real', they said"
00002137 03 n 02 abstraction 0 abstract 0 000 | (music) 3 notes; alone
00002138 03 n 02 nothing 0
"""


def dump(*pages):
    """A dump of articles."""
    inner = "".join(f"<page><title>A</title><revision><text>{escape(page)}</text></revision></page>" for page in pages)
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo/>{inner}</mediawiki>'.encode()


@pytest.fixture
def wordnet(tmp_path):
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for name in ("data.verb", "data.adj", "data.adv"):
        (folder / name).write_text("  1 licence | of the whole\n")
    (folder / "data.noun").write_text(NOUNS, encoding="latin-1")
    return folder


@pytest.mark.parametrize("suffix", [".xml", ".xml.bz2"])
def test_articles_become_sentences_as_they_are_said(tmp_path, suffix):
    content = dump(MARKUP, "#REDIRECT [[Anton]]", MARKUP)
    path = tmp_path / f"articles{suffix}"
    path.write_bytes(bz2.compress(content) if suffix.endswith("bz2") else content)
    assert list(sentences(path)) == SAID * 2


def test_definitions_and_examples_become_sentences(wordnet):
    assert list(sentences(wordnet)) == ["that which is perceived", "it's real they said", "three notes"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("1900", "nineteen hundred"),
        ("2005", "two thousand and five"),
        ("2015", "twenty fifteen"),
        ("1000", "one thousand"),
        ("12,345", "twelve thousand three hundred and forty five"),
        ("2nd", "second"),
        ("1234567890", ""),
    ],
)
def test_numbers_are_said(wordnet, number, said):
    (wordnet / "data.noun").write_text(f"0 | in {number} or so\n")
    assert list(sentences(wordnet)) == [" ".join(f"in {said} or so".split())]


def test_abbreviations_are_said(wordnet):
    (wordnet / "data.noun").write_text(
        "0 | Mr. and Mrs. Best, of St. Ives, e.g. etc.\n0 | the best drill vs no drill\n"
    )
    assert list(sentences(wordnet)) == [
        "mister and missus best of saint ives for example et cetera",
        "the best drill versus no drill",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gone.xml", None),
        ("text.txt", b"a b c"),
        ("cut.xml", dump(MARKUP)[:-30]),
        ("cut.xml.bz2", bz2.compress(dump(MARKUP))[:-9]),
        ("other.xml.bz2", b"no"),
        ("empty.xml", b""),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        list(sentences(tmp_path / name))


@pytest.mark.parametrize(("package", "name"), [("inflect", "wordnet"), ("mwparserfromhell", "articles.xml")])
def test_a_missing_package_is_named(tmp_path, wordnet, monkeypatch, package, name):
    (tmp_path / "articles.xml").write_bytes(dump(MARKUP))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExtraMissingError, match=rf"{package}.*pip install edgeasr\[text\]"):
        list(sentences(tmp_path / name))


def test_the_command_writes_all_or_nothing(tmp_path, wordnet):
    output = tmp_path / "text.txt"
    done = edgeasr("lm", "text", wordnet, "--output", output)
    assert (done.code, done.out) == (0, f"Wrote {output}: 3 sentences, 10 words\n")
    assert output.read_text() == "that which is perceived\nit's real they said\nthree notes\n"
    (tmp_path / "cut.xml").write_bytes(dump(MARKUP, MARKUP)[:-30])
    failed = edgeasr("lm", "text", wordnet, tmp_path / "cut.xml", "--output", output)
    assert failed.code != 0
    assert f"cannot read {tmp_path / 'cut.xml'}" in failed.err
    assert output.read_text().count("\n") == 3


def test_only_articles_are_taken_of_a_dump(tmp_path):
    content = dump(MARKUP).replace(b"<revision>", b"<ns>%d</ns><revision>")
    (tmp_path / "a.xml").write_bytes(content % 0)
    (tmp_path / "talk.xml").write_bytes(content % 1)
    assert list(sentences(tmp_path / "a.xml")) == SAID
    with pytest.raises(ConfigError, match=r"no sentence in .*talk\.xml"):
        list(sentences(tmp_path / "talk.xml"))


def test_what_is_read_is_not_written_over(tmp_path, wordnet):
    (tmp_path / "a.xml").write_bytes(dump(MARKUP))
    before = (tmp_path / "a.xml").read_bytes()
    done = edgeasr("lm", "text", tmp_path / "a.xml", "--output", tmp_path / "a.xml")
    assert (done.code, (tmp_path / "a.xml").read_bytes()) == (2, before)
    assert "which is read, too" in done.err
    (tmp_path / "pipe").symlink_to("/dev/null")
    assert "wanted a file" in edgeasr("lm", "text", wordnet, "--output", tmp_path / "pipe").err
    assert (tmp_path / "pipe").is_symlink()


def test_a_missing_source_is_named_before_the_first_is_read(tmp_path, wordnet):
    done = edgeasr("lm", "text", wordnet, tmp_path / "no.xml", "--output", tmp_path / "text.txt")
    assert done.code != 0
    assert f"no file or folder {tmp_path / 'no.xml'}" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wordnet"]
