"""Where a segment ends: rules in seconds, in the manner of Kaldi's online endpointing.

The silence of a rule is that of the voice of the segment: frames that the model takes for a pause, or in which only
somebody much quieter goes on. The energy of noise, which need never fall, does not count.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgeasr.config import FrozenConfig, require
from edgeasr.decoder import Decoder
from edgeasr.errors import ConfigError
from edgeasr.voice_activity import Activity


@dataclass(frozen=True)
class EndpointRule(FrozenConfig):
    """A segment ends when all conditions of one rule hold.

    must_contain_speech:    the segment must hold a word
    min_trailing_silence_s: so long since the voice was last heard; 0 lets the rule fire in the middle of a word
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

    background_db: voices so far below that of the segment do not keep it open
    """

    rules: tuple[EndpointRule, ...] = (
        EndpointRule("pause", must_contain_speech=True, min_trailing_silence_s=0.8, min_segment_s=0.0),
        EndpointRule("breath", must_contain_speech=True, min_trailing_silence_s=0.4, min_segment_s=12.0),
        EndpointRule("length", must_contain_speech=True, min_trailing_silence_s=0.0, min_segment_s=20.0),
        EndpointRule("silence", must_contain_speech=False, min_trailing_silence_s=5.0, min_segment_s=0.0),
    )
    background_db: float = 20.0

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise ConfigError(f"got endpoint rules named {names}, wanted each name once: rename one")
        require(self.background_db > 0, f"background_db is {self.background_db}: it must be positive")


def _preset(pause_s: float, breath: tuple[float, float], length_s: float) -> EndpointConfig:
    """breath: seconds of silence, and of the segment from which on they are enough"""
    return EndpointConfig(
        (
            EndpointRule("pause", True, pause_s, 0.0),
            EndpointRule("breath", True, *breath),
            EndpointRule("length", True, 0.0, length_s),
            EndpointRule("silence", False, 5.0, 0.0),
        )
    )


PRESETS: Mapping[str, EndpointConfig] = MappingProxyType(
    {
        "fast": _preset(0.4, (0.2, 8.0), 12.0),
        "normal": EndpointConfig(),
        "dictation": _preset(1.6, (0.8, 20.0), 40.0),
    }
)
"""Rules by name: for commands, for talk, for whoever thinks while speaking; docs/endpoints.md has their figures."""


def endpoint_config(wanted: EndpointConfig | str | None) -> EndpointConfig:
    """Rules as they are, those of a preset or of a TOML file; None for the default ones.

        background_db = 20.0
        [[rules]]
        name = "pause"
        must_contain_speech = true
        min_trailing_silence_s = 0.6
        min_segment_s = 0.0

    errors: ConfigError for an unknown name, and for a file that cannot be read or holds something else
    """
    if isinstance(wanted, EndpointConfig):
        return wanted
    if wanted is None or wanted in PRESETS:
        return PRESETS[wanted or "normal"]
    if not wanted.endswith(".toml"):
        raise ConfigError(f"got endpoint {wanted!r}, wanted one of {', '.join(PRESETS)}, or a .toml file with rules")
    try:
        values = tomllib.loads(Path(wanted).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the endpoint rules of {wanted} ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the endpoint rules of {wanted}: {error}") from error
    unknown = sorted(set(values) - {"rules", "background_db"})
    require(not unknown, f"unknown key {', '.join(unknown)} in {wanted}: known keys are background_db, rules")
    rules, background_db = values.get("rules"), values.get("background_db", EndpointConfig.background_db)
    tables = isinstance(rules, list) and all(isinstance(rule, dict) for rule in rules)
    require(tables, f"got no [[rules]] in {wanted}, wanted tables of endpoint rules: see docs/endpoints.md")
    number = isinstance(background_db, int | float) and not isinstance(background_db, bool)
    require(number, f"background_db in {wanted} is {background_db!r}: wanted a number of dB")
    try:
        return EndpointConfig(tuple(map(_rule, rules or (), count(1))), background_db)
    except ConfigError as error:
        raise ConfigError(f"{wanted}: {error}") from error


def _rule(table: dict[str, Any], number: int) -> EndpointRule:
    """errors: ConfigError for a table that is no rule; number: which one of the file it is"""
    missing = [field.name for field in fields(EndpointRule) if field.name not in table]
    require(not missing, f"rule {table.get('name', number)} has no {', '.join(missing)}: a rule needs all of its keys")
    return EndpointRule.from_dict(table)


# The level of a voice follows a louder chunk sooner than a softer one.
_RISE, _FALL = 0.5, 0.1


class Foreground:
    """The voice of one segment, by its level, and how long it has been silent.

    below_db: what is so far below it is another one, in the background
    """

    def __init__(self, below_db: float) -> None:
        self._below_db = below_db
        self._before_db = -math.inf
        self.begin()

    def begin(self) -> None:
        """Another segment, perhaps another voice."""
        self._voice_db: float | None = None
        self._silent_s = 0.0

    def accept(self, level_db: float, pause_s: float, chunk_s: float) -> float:
        """How long the voice has been silent after one more chunk.

        pause_s: how long the model has heard a pause; a sound is heard up to a chunk after it was made
        """
        level_db, self._before_db = max(level_db, self._before_db), level_db
        if pause_s >= chunk_s:
            self._silent_s += chunk_s
        elif self._voice_db is None or level_db > self._voice_db - self._below_db:
            before_db = level_db if self._voice_db is None else self._voice_db
            self._voice_db = before_db + (level_db - before_db) * (_RISE if level_db > before_db else _FALL)
            self._silent_s = pause_s
        else:
            self._silent_s += chunk_s
        return max(self._silent_s, pause_s)


@dataclass(frozen=True)
class Endpoint:
    """Why a segment ended.

    name:      of the rule; "gap" where time was lost, "end" where the input ended
    time_s:    in stream time, when it was decided
    segment_s: how long the segment was; words: how many it had
    silence_s: since its voice was last heard; pause_s: since the model last heard anything
    activity:  of the latest chunk
    rule:      None for a gap and the end
    """

    name: str
    time_s: float
    segment_s: float
    words: int
    silence_s: float
    pause_s: float
    activity: Activity
    rule: EndpointRule | None = None

    def __str__(self) -> str:
        parts = [f"{self.words} word{'s' * (self.words != 1)} in {self.segment_s:.2f} s"]
        if self.rule and self.rule.min_trailing_silence_s:
            parts.append(f"{self.silence_s:.2f} s silent, wanted {self.rule.min_trailing_silence_s:g}")
        if self.rule and self.rule.min_segment_s:
            parts.append(f"longer than {self.rule.min_segment_s:g} s")
        if self.silence_s > self.pause_s and self.rule and self.pause_s < self.rule.min_trailing_silence_s:
            parts.append("somebody quieter goes on")
        heard = self.activity
        parts.append(f"level {heard.level_db:.0f} dBFS over {heard.floor_db:.0f}, speech {heard.speech:.2f}")
        return f"{self.time_s:.2f} s, {self.name}: {'; '.join(parts)}"


class Endpointer:
    """Asks the rules, in order, and says which one held.

    on_endpoint: told of every segment that ends
    """

    def __init__(
        self, config: EndpointConfig | None = None, on_endpoint: Callable[[Endpoint], None] | None = None
    ) -> None:
        self.config = config or EndpointConfig()
        self._on_endpoint = on_endpoint
        self._foreground = Foreground(self.config.background_db)
        self._silence_s = 0.0

    def fired(self, has_speech: bool, trailing_silence_s: float, segment_s: float) -> EndpointRule | None:
        """The first rule that ends the segment here, or None."""
        for rule in self.config.rules:
            if rule.holds(has_speech, trailing_silence_s, segment_s):
                return rule
        return None

    def begin(self) -> None:
        """A segment begins, perhaps with another voice."""
        self._foreground.begin()
        self._silence_s = 0.0

    def accept(self, level_db: float, decoder: Decoder, chunk_s: float, segment_s: float) -> EndpointRule | None:
        """The rule that ends the segment, which is so long, after one more chunk of this level; or None."""
        self._silence_s = self._foreground.accept(level_db, decoder.trailing_silence_s, chunk_s)
        return self.fired(decoder.has_speech, self._silence_s, segment_s)

    def ended(self, name: str, rule: EndpointRule | None, decoder: Decoder, activity: Activity) -> None:
        """A segment is over; the decoder is still at it. name: as in `Endpoint`"""
        if self._on_endpoint is not None:
            words, pause_s = len(decoder.hypothesis()), decoder.trailing_silence_s
            segment_s, silence_s = decoder.end_s - decoder.start_s, max(self._silence_s, pause_s)
            self._on_endpoint(Endpoint(name, decoder.end_s, segment_s, words, silence_s, pause_s, activity, rule))
        self.begin()
