"""How words of the user's own are said: as a dictionary or the language model has them, or by their letters.

The CMU dictionary comes with the package, since language models of old books have few of the words of today.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeasr.language_model import LanguageModel, Words
from edgeasr.letter_to_sound import is_installed, letters_to_sounds
from edgeasr.phones import PHONES, Dictionary, Pronunciation

_DICTIONARY = Path(__file__).parent / "dictionaries" / "cmudict.dict.xz"
_LONGEST = 2000  # bytes of all pronunciations of a word, and more

Ways = Mapping[str, Sequence[Pronunciation]]


def numbers_of(words: Words, wanted: Iterable[str]) -> dict[str, int]:
    """The numbers of those wanted words that are among `words`."""
    letters = words.letters.tobytes()
    spelt = {word.encode(): word for word in wanted}
    numbers, start = {}, 0
    for number, end in enumerate(words.ends.tolist()):
        if (word := spelt.get(letters[start:end])) is not None:
            numbers[word] = number
        start = end
    return numbers


def known_pronunciations(model: LanguageModel, wanted: Iterable[str]) -> dict[str, tuple[Pronunciation, ...]]:
    """How a model's lexicon says those wanted words that it has."""
    numbers = numbers_of(model.words, wanted)
    said = model.pronunciations
    ways: dict[int, list[Pronunciation]] = {number: [] for number in numbers.values()}
    for row in np.isin(said.words, list(ways)).nonzero()[0].tolist():
        phones = said.phones[row]
        ways[int(said.words[row])].append(tuple(PHONES[phone] for phone in phones[phones > 0].tolist()))
    return {word: tuple(ways[number]) for word, number in numbers.items() if ways[number]}


def dictionary_pronunciations(wanted: Iterable[str]) -> dict[str, tuple[Pronunciation, ...]]:
    """How the CMU dictionary says those wanted words that it has."""
    content = b"\n" + lzma.decompress(_DICTIONARY.read_bytes())
    found = {}
    for word in wanted:
        # The file is sorted, and other pronunciations of a word, as word(2), come after the first.
        start = content.find(f"\n{word} ".encode()) + 1
        if not start:
            continue
        ways: list[Pronunciation] = []
        for line in content[start : start + _LONGEST].decode().splitlines():
            name, *phones = line.split()
            if name.split("(")[0] != word:
                break
            ways.append(tuple(phones))
        found[word] = tuple(ways)
    return found


def pronunciations(
    words: Iterable[str], model: LanguageModel | None, own: Dictionary
) -> dict[str, tuple[Pronunciation, ...]]:
    """How to say words, of which those are left out that cannot be said by their letters either.

    model: whose lexicon knows words; own: the user's dictionary, which goes before it
    """
    found = {word: own[word] for word in words if word in own}
    missing = [word for word in words if word not in found]
    if model is not None and missing:
        found |= known_pronunciations(model, missing)
        missing = [word for word in missing if word not in found]
    if missing:
        found |= dictionary_pronunciations(missing)
        missing = [word for word in missing if word not in found]
    if missing and is_installed():
        found |= {word: (way,) for word, way in letters_to_sounds(missing).items()}
    return found
