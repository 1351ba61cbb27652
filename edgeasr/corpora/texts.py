"""Sentences for language models from texts as others publish them: Wikipedia's dumps, WordNet's definitions.

Books that are free are old: what people say today has words and turns that they lack. Everything becomes the form of
transcripts, numbers as they are said.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from edgeasr.errors import ConfigError, ExtraMissingError
from edgeasr.ngram_estimation import ABBREVIATIONS
from edgeasr.tokenizer import normalize_text

_WORDNET_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_DUMP_SUFFIXES = (".xml", ".bz2")
_ARTICLES = "0"  # among talk, templates and programs
_FEWEST_WORDS, _MOST_WORDS = 2, 60
_SHORTEST_PARAGRAPH = 80  # in characters; what is shorter is a heading, a caption or an entry of a list
_LETTERS = 0.85  # of a sentence are letters or spaces, or it is a formula

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_NOTE = re.compile(r"<ref[^>/]*>.*?</ref>|<ref[^>]*/>|<!--.*?-->", re.DOTALL)
_ORDINAL = re.compile(r"\b(\d{1,5})(?:st|nd|rd|th)\b")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+|\d+")
_YEAR = re.compile(r"1[1-9]\d\d|20[1-9]\d")
_ABBREVIATION = re.compile(rf"\b({'|'.join(ABBREVIATIONS)})\b\.?", re.IGNORECASE)
_LATIN = {"e.g.": "for example", "i.e.": "that is"}
_LONGEST_NUMBER = 9  # in digits
_QUOTE = re.compile(r"(?<![^\W_])'|'(?![^\W_])")


def sentences(source: Path) -> Iterator[str]:
    """What is said in a text, a sentence at a time, normalised. That it is a text is looked at at once.

    source: a dump of MediaWiki's articles, .xml or .xml.bz2, or WordNet's folder with `data.noun` in it
    raises: ConfigError for a source that is neither, cannot be read or has no sentence; ExtraMissingError
    """
    if not source.exists():
        raise ConfigError(f"no file or folder {source}: check the path")
    if source.is_dir() and all((source / name).is_file() for name in _WORDNET_FILES):
        found = _wordnet(source)
    elif source.is_file() and source.suffix in _DUMP_SUFFIXES:
        found = _articles(source)
    else:
        raise ConfigError(
            f"got {source}, wanted a dump of Wikipedia's articles (.xml or .xml.bz2) or the folder of WordNet, with "
            f"{', '.join(_WORDNET_FILES)} in it: name one of these"
        )
    return _normalised(found, source, _sayer())


def _normalised(found: Iterator[str], source: Path, say: Callable[[str], str]) -> Iterator[str]:
    """raises: ConfigError for a source without sentences"""
    is_empty = True
    for sentence in found:
        said = normalize_text(_QUOTE.sub(" ", say(sentence.replace("\u2019", "'"))))
        if _FEWEST_WORDS <= len(said.split()) <= _MOST_WORDS:
            is_empty = False
            yield said
    if is_empty:
        raise ConfigError(
            f"got no sentence in {source}, wanted paragraphs of {_SHORTEST_PARAGRAPH} letters or more, or "
            "definitions: name another source"
        )


def _wordnet(folder: Path) -> Iterator[str]:
    """Definitions and examples."""
    for name in _WORDNET_FILES:
        for line in _readable(folder / name, _lines(folder / name)):
            _, bar, gloss = line.partition("|")
            if bar and not line.startswith("  "):  # the licence stands before the first entry, indented
                for part in re.split(r";|--", re.sub(r"\([^)]*\)", " ", gloss)):
                    yield part.strip(' "\n')


def _articles(dump: Path) -> Iterator[str]:
    """Sentences of the paragraphs of all articles."""
    try:
        from mwparserfromhell import parse
    except ModuleNotFoundError as error:
        raise _missing("mwparserfromhell") from error
    for markup in _readable(dump, _pages(dump)):
        code = parse(_NOTE.sub("", markup))
        for link in code.filter_wikilinks(recursive=False):
            if ":" in link.title:  # a picture, a category
                code.remove(link)
        for line in code.strip_code().split("\n"):
            paragraph = line.strip()
            if len(paragraph) >= _SHORTEST_PARAGRAPH:
                # Whose dots end no sentence.
                yield from filter(_is_prose, _SENTENCE_END.split(_in_full(unescape(paragraph))))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="latin-1") as file:
        yield from file


def _pages(dump: Path) -> Iterator[str]:
    """The markup of every article of a dump, not of what only leads to another."""
    opener: Callable[[Path], IO[Any]] = bz2.open if dump.suffix == ".bz2" else lambda path: path.open("rb")
    with opener(dump) as file:
        events = ElementTree.iterparse(file, ("start", "end"))
        _, root = next(events)
        for event, element in events:
            if event == "end" and element.tag.rpartition("}")[2] == "page":
                is_article = element.findtext("{*}ns", _ARTICLES) == _ARTICLES
                markup = element.findtext("{*}revision/{*}text") or ""
                root.clear()  # else the whole dump stays in memory
                if is_article and not markup.lower().startswith("#redirect"):
                    yield markup


def _is_prose(sentence: str) -> bool:
    letters = sum(char.isalpha() or char == " " for char in sentence)
    return letters >= _LETTERS * len(sentence)


def _in_full(text: str) -> str:
    """Without abbreviations."""
    for written, said in _LATIN.items():
        text = text.replace(written, said)
    return _ABBREVIATION.sub(lambda match: ABBREVIATIONS[match[1].lower()], text)


def _sayer() -> Callable[[str], str]:
    """What spells numbers and abbreviations out. raises: ExtraMissingError"""
    try:
        from inflect import engine
    except ModuleNotFoundError as error:
        raise _missing("inflect") from error
    words = engine()

    def ordinal(match: re.Match[str]) -> str:
        return f" {words.number_to_words(words.ordinal(match[1]))} "

    def number(match: re.Match[str]) -> str:
        digits = match[0].replace(",", "")
        if len(digits) > _LONGEST_NUMBER:
            return " "
        if not _YEAR.fullmatch(match[0]):
            return f" {words.number_to_words(digits)} "
        if digits.endswith("00"):
            return f" {words.number_to_words(digits[:2])} hundred "
        return f" {words.number_to_words(digits, group=2, zero='oh')} "

    return lambda sentence: _NUMBER.sub(number, _ORDINAL.sub(ordinal, _in_full(sentence)))


def _readable(path: Path, read: Iterator[str]) -> Iterator[str]:
    """raises: ConfigError for what cannot be read, whenever that shows"""
    try:
        yield from read
    except (OSError, EOFError, ElementTree.ParseError) as error:
        raise ConfigError(f"cannot read {path}: {error}: load it anew") from error


def _missing(package: str) -> ExtraMissingError:
    return ExtraMissingError(f"got no package {package}, wanted what edgeasr[text] brings: pip install edgeasr[text]")
