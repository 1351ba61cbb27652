"""Options for grammars and words of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

import typer

GrammarFile = Annotated[
    Path | None,
    typer.Option("--grammar", metavar="FILE", help="Hear only the sentences of a JSGF grammar, and report their tags."),
]
GrammarThreshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="FIT",
        help="With --grammar: reject what fits its sentences less. 0 rejects nothing; without it as the model says.",
    ),
]
HotwordFile = Annotated[
    Path | None,
    typer.Option(
        "--hotwords", metavar="FILE", help="Phrases that are likelier than usual, one a line, each with a boost if any."
    ),
]
DictionaryFile = Annotated[
    Path | None,
    typer.Option(
        "--dictionary",
        metavar="FILE",
        help="How words of the grammar or of the hotwords are said, in the format of the CMU dictionary.",
    ),
]


class OwnWordOptions(TypedDict):
    """What `Recognizer` takes of these options."""

    grammar: Path | None
    grammar_threshold: float | None
    hotwords: Path | None
    dictionary: Path | None


def own_words(
    grammar: Path | None, grammar_threshold: float | None, hotwords: Path | None, dictionary: Path | None
) -> OwnWordOptions:
    """The options by the names of `Recognizer`."""
    return OwnWordOptions(
        grammar=grammar, grammar_threshold=grammar_threshold, hotwords=hotwords, dictionary=dictionary
    )
