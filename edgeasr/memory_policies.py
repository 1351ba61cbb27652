"""Ready policies of what the memory keeps. Any callable of the same form is one, see `edgeasr.memory.MemoryPolicy`.

Recognizer(memory_policy=similarity(0.9))
Recognizer(memory_policy=first_of(keyword(["doctor", "medicine"]), speech_only()))
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edgeasr.config import require
from edgeasr.memory import Decision, Floats, MemoryPolicy, SummaryContext


def everything(vector: Floats, context: SummaryContext) -> Decision:
    """Store every summary, whatever the model's gate and threshold say."""
    del vector, context
    return Decision.STORE


def similarity(threshold: float) -> MemoryPolicy:
    """Merge what has a cosine above `threshold` to something stored, and store the rest.

    errors: ConfigError for a threshold outside [-1, 1]
    """
    require(-1 <= threshold <= 1, f"the threshold of similarity is {threshold}: it must be in [-1, 1]")

    def policy(vector: Floats, context: SummaryContext) -> Decision:
        del vector
        return Decision.MERGE if context.similarity > threshold else Decision.STORE

    return policy


def speech_only(share: float = 0.05) -> MemoryPolicy:
    """Skip spans of which the model heard speech in less than `share`; leave the others to the model's rules.

    errors: ConfigError for a share outside [0, 1]
    """
    require(0 <= share <= 1, f"the share of speech is {share}: it must be in [0, 1]")

    def policy(vector: Floats, context: SummaryContext) -> Decision | None:
        del vector
        return Decision.SKIP if context.speech < share else None

    return policy


def voiced(probability: float = 0.3) -> MemoryPolicy:
    """Skip spans in which somebody spoke with less than this probability, by the level over the background and by what
    the model heard (see edgeasr.voice_activity); leave the others to the model's rules.

    errors: ConfigError for a probability outside [0, 1]
    """
    require(0 <= probability <= 1, f"the probability of speech is {probability}: it must be in [0, 1]")

    def policy(vector: Floats, context: SummaryContext) -> Decision | None:
        del vector
        return Decision.SKIP if context.voice < probability else None

    return policy


def keyword(words: Sequence[str], around_s: float = 10.0) -> MemoryPolicy:
    """Pin what is said when one of the words is heard, store what follows within `around_s`, skip the rest.

    words:  as transcripts have them
    errors: ConfigError without words, for a string instead of several, or for a negative time
    """
    require(not isinstance(words, str), f"the keyword policy got the text {words!r}: give a list of words")
    wanted = frozenset(words)
    require(bool(wanted), "the keyword policy got no words: give at least one")
    require(around_s >= 0, f"around_s is {around_s}: it must not be negative")
    until_s = float("-inf")
    counted = 0

    def policy(vector: Floats, context: SummaryContext) -> Decision:
        nonlocal until_s, counted
        del vector
        count = sum(word in wanted for word in context.text.split())
        heard, counted = count > counted, count  # a new segment begins with fewer words: nothing is heard twice
        if heard:
            until_s = context.end_s + around_s
            return Decision.PIN
        return Decision.STORE if context.start_s <= until_s else Decision.SKIP

    return policy


def budget(writes_an_hour: float) -> MemoryPolicy:
    """Store at most so many summaries within any hour; merge what comes beyond.

    errors: ConfigError for a budget that is not positive
    """
    require(writes_an_hour > 0, f"the budget is {writes_an_hour} writes an hour: it must be positive")
    written: deque[float] = deque()

    def policy(vector: Floats, context: SummaryContext) -> Decision:
        del vector
        while written and written[0] <= context.end_s - 3600:
            written.popleft()
        if len(written) >= writes_an_hour:
            return Decision.MERGE
        written.append(context.end_s)
        return Decision.STORE

    return policy


def first_of(*policies: MemoryPolicy) -> MemoryPolicy:
    """The first of these policies that decides."""

    def policy(vector: Floats, context: SummaryContext) -> Decision | None:
        wishes = (ask(vector, context) for ask in policies)
        return next((wish for wish in wishes if wish is not None), None)

    return policy
