"""Text to token ids and back. The tokens are characters or pieces of words; index 0 is the CTC blank."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from string import ascii_lowercase

from edgeasr.errors import ConfigError

BLANK = "<blank>"
SPACE = " "
CHARACTERS: tuple[str, ...] = (BLANK, SPACE, "'", *ascii_lowercase)

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\uff07`\u00b4", "'"))


def normalize_text(text: str) -> str:
    """The plain form in which text is trained on and scored: a-z, apostrophe and single spaces.

    Lower case; typographic apostrophes become '; accents are dropped (cafe); every other character, digits
    and hyphens included, becomes a space (so spell numbers out first); runs of spaces become one and the ends
    are stripped. Normalising twice changes nothing, and `Tokenizer()` encodes every result.
    """
    decomposed = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).casefold()
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(re.sub("[^a-z']", SPACE, bare).split())


@dataclass(frozen=True)
class Tokenizer:
    """Characters or pieces of words as tokens.

    A piece that begins a word begins with the space before it (" the"), so a text of pieces begins with a space that
    is not written. Pieces are joined from characters by byte-pair encoding (Sennrich et al. 2016): those that come
    first in `tokens` are joined first.

    tokens: the blank first, then characters and pieces, each once, the space among them
    errors: ConfigError for any other list of tokens
    """

    tokens: tuple[str, ...] = CHARACTERS

    def __post_init__(self) -> None:
        if not self.tokens or self.tokens[0] != BLANK:
            raise ConfigError(f"got first token {self.tokens[:1]}, wanted {BLANK!r}: put the blank first")
        wrong = [token for token in self.tokens[1:] if not token or SPACE in token[1:]]
        if wrong:
            raise ConfigError(f"got the token {wrong[0]!r}, wanted letters, after a space at most: mend the tokens")
        if len(set(self.tokens)) != len(self.tokens):
            raise ConfigError(f"got repeats among {len(self.tokens)} tokens, wanted each once: remove them")
        if SPACE not in self.tokens:
            raise ConfigError(f"got {len(self.tokens)} tokens without a space, wanted one: it parts words")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def blank_id(self) -> int:
        return 0

    @cached_property
    def has_pieces(self) -> bool:
        """Whether tokens are longer than a character."""
        return any(len(token) > 1 for token in self.tokens[1:])

    def encode(self, text: str) -> list[int]:
        """Ids of a text. Errors: ConfigError for a character that has none."""
        unknown = sorted(set(text) - self._ids.keys())
        if unknown:
            known = "".join(token for token in self.tokens if len(token) == 1)
            raise ConfigError(f"got {unknown} in {text[:40]!r}, wanted only {known!r}: call normalize_text first")
        if not self.has_pieces:
            return [self._ids[char] for char in text]
        return [self._ids[piece] for word in text.split() for piece in self._pieces(SPACE + word)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, blanks left out and repeats kept. Errors: ConfigError for an id outside the tokens."""
        parts = []
        for token_id in ids:
            if not 0 <= token_id < len(self.tokens):
                raise ConfigError(
                    f"got token id {token_id}, wanted 0 to {len(self.tokens) - 1}: "
                    "use the tokens of the model that made it"
                )
            if token_id != self.blank_id:
                parts.append(self.tokens[token_id])
        text = "".join(parts)
        return text.removeprefix(SPACE) if self.has_pieces else text

    def _pieces(self, word: str) -> list[str]:
        """A word, joined from its characters two neighbours at a time, those that make the earliest token first."""
        parts = list(word)
        while len(parts) > 1:
            joined = [self._ids.get(a + b, len(self.tokens)) for a, b in pairwise(parts)]
            first = min(joined)
            if first == len(self.tokens):
                break
            at = joined.index(first)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return parts

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens) if token != BLANK}
