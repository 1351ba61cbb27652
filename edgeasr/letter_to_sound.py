"""Pronunciations of words that no dictionary has, by the letter-to-sound rules of flite.

flite's rules (Black, Lenzo and Pagel 1998) were learnt from the CMU dictionary; a system package has them. Its library
has no wheel, so the program is run, for many words at a time.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence

from edgeasr.errors import ConfigError
from edgeasr.phones import Dictionary, Pronunciation, phone

_PAUSE = "pau"
_WORDS_AT_ONCE = 100


def is_installed() -> bool:
    """Whether there are letter-to-sound rules on this machine."""
    return shutil.which("flite") is not None


def letters_to_sounds(words: Sequence[str]) -> dict[str, Pronunciation]:
    """What flite would say for each word; words that it passes over in silence are left out.

    raises: ConfigError without flite
    """
    if not is_installed():
        raise ConfigError("flite is not installed: apt-get install flite")
    said: dict[str, Pronunciation] = {}
    for start in range(0, len(words), _WORDS_AT_ONCE):
        some = words[start : start + _WORDS_AT_ONCE]
        ways = list(_between_pauses(". ".join(some) + "."))
        if len(ways) != len(some):
            ways = [tuple(p for way in _between_pauses(word) for p in way) for word in some]
        said.update(zip(some, ways, strict=True))
    return {word: way for word, way in said.items() if way}


def completed(words: Sequence[str], dictionary: Dictionary) -> dict[str, tuple[Pronunciation, ...]]:
    """Pronunciations of the words: the dictionary's, and flite's for the others where it is installed."""
    missing = [word for word in words if word not in dictionary]
    guessed = letters_to_sounds(missing) if missing and is_installed() else {}
    known = {word: dictionary[word] for word in words if word in dictionary}
    return known | {word: (way,) for word, way in guessed.items()}


def _between_pauses(text: str) -> Iterator[Pronunciation]:
    """flite's phones for a text, cut where it pauses: before and after every sentence."""
    command = ["flite", "-voice", "kal", "-t", text, "-ps", "-o", "none"]
    symbols = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    way: list[str] = []
    for symbol in [*symbols, _PAUSE]:
        if symbol != _PAUSE:
            way.append(phone(symbol))
        elif way:
            yield tuple(way)
            way = []
