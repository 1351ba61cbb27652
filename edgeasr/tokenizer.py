"""Text to token ids and back. The tokens are characters: index 0 is the CTC blank, one token is the space."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
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
    """Characters as tokens.

    tokens: the blank first, then single characters, each once, the space among them
    errors: ConfigError for any other list of tokens
    """

    tokens: tuple[str, ...] = CHARACTERS

    def __post_init__(self) -> None:
        if not self.tokens or self.tokens[0] != BLANK:
            raise ConfigError(f"got first token {self.tokens[:1]}, wanted {BLANK!r}: put the blank first")
        longer = [token for token in self.tokens[1:] if len(token) != 1]
        if longer:
            raise ConfigError(f"got the token {longer[0]!r}, wanted single characters: use a character model")
        if len(set(self.tokens)) != len(self.tokens):
            raise ConfigError(f"got repeats among {len(self.tokens)} tokens, wanted each once: remove them")
        if SPACE not in self.tokens:
            raise ConfigError(f"got {len(self.tokens)} tokens without a space, wanted one: it ends words")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def blank_id(self) -> int:
        return 0

    @cached_property
    def space_id(self) -> int:
        return self.tokens.index(SPACE)

    def encode(self, text: str) -> list[int]:
        """Ids of the characters of text. Errors: ConfigError for a character that has none."""
        unknown = sorted(set(text) - self._ids.keys())
        if unknown:
            raise ConfigError(
                f"got {unknown} in {text[:40]!r}, wanted only {''.join(self.tokens[1:])!r}: call normalize_text first"
            )
        return [self._ids[char] for char in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, blanks left out and repeats kept. Errors: ConfigError for an id outside the tokens."""
        chars = []
        for token_id in ids:
            if not 0 <= token_id < len(self.tokens):
                raise ConfigError(
                    f"got token id {token_id}, wanted 0 to {len(self.tokens) - 1}: "
                    "use the tokens of the model that made it"
                )
            if token_id != self.blank_id:
                chars.append(self.tokens[token_id])
        return "".join(chars)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens) if token != BLANK}
