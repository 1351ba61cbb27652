"""Where a segment ends: rules in seconds, in the manner of Kaldi's online endpointing."""

import math
from dataclasses import dataclass

from edgeasr.errors import ConfigError


@dataclass(frozen=True)
class EndpointRule:
    """A segment ends when all conditions of one rule hold.

    must_contain_speech:    the segment must hold a word
    min_trailing_silence_s: so long since the last letter; 0 lets the rule fire in the middle of a word
    min_segment_s:          so long since the segment's start
    errors:                 ConfigError for a negative or infinite duration, or if both are 0
    """

    name: str
    must_contain_speech: bool
    min_trailing_silence_s: float
    min_segment_s: float

    def __post_init__(self) -> None:
        for key in ("min_trailing_silence_s", "min_segment_s"):
            seconds = getattr(self, key)
            if not 0 <= seconds < math.inf:
                raise ConfigError(f"got {key} {seconds} in endpoint rule {self.name!r}, wanted 0 or more seconds")
        if self.min_trailing_silence_s == self.min_segment_s == 0:
            raise ConfigError(
                f"got 0 for both durations of endpoint rule {self.name!r}, wanted one above 0: "
                "it would end a segment at every step"
            )

    @property
    def interrupts_speech(self) -> bool:
        """Whether the rule can fire in the middle of a word."""
        return self.min_trailing_silence_s == 0

    def holds(self, has_speech: bool, trailing_silence_s: float, segment_s: float) -> bool:
        return (
            (has_speech or not self.must_contain_speech)
            and trailing_silence_s >= self.min_trailing_silence_s
            and segment_s >= self.min_segment_s
        )


@dataclass(frozen=True)
class EndpointConfig:
    """Rules in order of precedence; without rules a stream is one segment, however long.

    pause:   the speaker has finished
    breath:  a long segment ends at a short pause, rather than in the middle of a word later
    length:  nobody pauses, but a segment must stay bounded
    silence: nobody speaks
    """

    rules: tuple[EndpointRule, ...] = (
        EndpointRule("pause", must_contain_speech=True, min_trailing_silence_s=0.8, min_segment_s=0.0),
        EndpointRule("breath", must_contain_speech=True, min_trailing_silence_s=0.4, min_segment_s=12.0),
        EndpointRule("length", must_contain_speech=True, min_trailing_silence_s=0.0, min_segment_s=20.0),
        EndpointRule("silence", must_contain_speech=False, min_trailing_silence_s=5.0, min_segment_s=0.0),
    )

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ConfigError(f"got endpoint rules named {names}, wanted each name once: rename one")


@dataclass(frozen=True)
class Endpointer:
    """Asks the rules, in order."""

    config: EndpointConfig = EndpointConfig()

    def fired(self, has_speech: bool, trailing_silence_s: float, segment_s: float) -> EndpointRule | None:
        """The first rule that ends the segment here, or None."""
        for rule in self.config.rules:
            if rule.holds(has_speech, trailing_silence_s, segment_s):
                return rule
        return None
