"""How words of the user's own are said: as a dictionary or the language model has them, or by their letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from edgeasr.language_model import LanguageModel, Words
from edgeasr.letter_to_sound import is_installed, letters_to_sounds
from edgeasr.phones import PHONES, Dictionary, Pronunciation

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
    if missing and is_installed():
        found |= {word: (way,) for word, way in letters_to_sounds(missing).items()}
    return found
