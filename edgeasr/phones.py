"""Phones, and how words are said: pronunciations as in the CMU dictionary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgeasr.errors import ConfigError
from edgeasr.tokenizer import BLANK

_ARPABET = "AA AE AH AO AW AX AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
# Without stress, but with the reduced vowel (AH0) as a phone of its own, AX: it sounds like no stressed one.
PHONES: tuple[str, ...] = (BLANK, *_ARPABET.split())
PHONE_IDS: Mapping[str, int] = {phone: index for index, phone in enumerate(PHONES) if phone != BLANK}

Pronunciation = tuple[str, ...]
Dictionary = Mapping[str, tuple[Pronunciation, ...]]


def phone(symbol: str) -> str:
    """The phone of a symbol of the CMU dictionary. raises: ConfigError for a symbol that is none"""
    plain = "AX" if symbol.upper() == "AH0" else symbol.upper().rstrip("012")
    if plain not in PHONE_IDS:
        raise ConfigError(f"got the phone {symbol!r}, wanted one of {', '.join(PHONES[1:])}")
    return plain


def read_dictionary(path: Path) -> Dictionary:
    """Every word with its pronunciations, the first listed first.

    A line is a word and its phones; `word(2)` adds another pronunciation, and what follows # is a comment.

    raises: ConfigError for a file that cannot be read, or a line that is not like this
    """
    words: dict[str, list[Pronunciation]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the dictionary {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        try:
            pronunciation = tuple(phone(symbol) for symbol in fields[1:])
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
        if not pronunciation:
            raise ConfigError(f"{path}, line {number}: {fields[0]!r} has no phones: add them or take it out")
        known = words.setdefault(re.sub(r"\(\d+\)$", "", fields[0].lower()), [])
        if pronunciation not in known:
            known.append(pronunciation)
    return {word: tuple(pronunciations) for word, pronunciations in words.items()}


def pronounce(text: str, dictionary: Dictionary) -> list[int]:
    """Ids of the phones of a text, each word by its first pronunciation. raises: ConfigError for a word without one"""
    try:
        return [PHONE_IDS[p] for word in text.split() for p in dictionary[word][0]]
    except KeyError as error:
        raise ConfigError(
            f"the word {error} of {text[:40]!r} is not in the dictionary: add its pronunciation"
        ) from error


def missing_words(texts: Iterable[str], dictionary: Dictionary) -> list[str]:
    """The words of the texts that have no pronunciation, in alphabetical order."""
    return sorted({word for text in texts for word in text.split()} - dictionary.keys())
