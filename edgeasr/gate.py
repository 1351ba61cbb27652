"""Silence costs little: chunks in which nobody can be speaking are held back.

Once somebody may be, the last of them are heard first, so that no word is cut.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from edgeasr.config import FrozenConfig, require
from edgeasr.features import Floats
from edgeasr.voice_activity import Activity


@dataclass(frozen=True)
class GateConfig(FrozenConfig):
    """When the gate closes and opens; docs/endpoints.md says how the numbers were chosen.

    after_s:      it closes after so long a silence in which the model heard nothing
    pre_roll_s:   once it opens, so much of what it held back is heard first
    open_db:      so far above its floor a group of bands opens it
    silent_dbfs:  below it nothing does: a model's features have a floor, too
    most_heard:   share of frames, of late, in which the model may have heard something when it closes
    errors:       ConfigError for durations that are not positive
    """

    after_s: float = 1.0
    pre_roll_s: float = 0.64
    open_db: float = 4.0
    silent_dbfs: float = -80.0
    most_heard: float = 0.2

    def __post_init__(self) -> None:
        for name in ("after_s", "pre_roll_s"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be positive")

    def is_quiet(self, activity: Activity) -> bool:
        """Whether nobody can be speaking, by the level alone."""
        return activity.excess_db < self.open_db or activity.level_db < self.silent_dbfs


class Gate:
    """Between the front end and the model, for one stream.

    config: None for a gate that never closes
    hop_s:  of a row of features
    closed: whether silence is held back
    """

    def __init__(self, config: GateConfig | None, hop_s: float) -> None:
        self._config, self._hop_s = config, hop_s
        self._held: deque[Floats] = deque()
        self._held_rows = self._passed_rows = self._told_rows = 0
        self._quiet_s = 0.0
        self.closed = False

    @property
    def is_ready(self) -> bool:
        """Whether there is a chunk to be heard now."""
        return bool(self._held) and not self.closed

    @property
    def held_s(self) -> float:
        """Of audio that is held back and may still be heard."""
        return self._held_rows * self._hop_s

    @property
    def passed_s(self) -> float:
        """Of audio that was never heard, since the beginning."""
        return self._passed_rows * self._hop_s

    @property
    def behind_s(self) -> float:
        """Of audio between what was heard, or moved on to, last and what comes next."""
        return (self._held_rows + self._passed_rows - self._told_rows) * self._hop_s

    def accept(self, chunk: Floats, activity: Activity, *, idle: bool) -> None:
        """The next chunk; whatever has to be heard because of it is ready then.

        activity: of the chunk, and of what the model heard before it
        idle:     whether no word is open
        """
        self._held.append(chunk)
        self._held_rows += len(chunk)
        if self._config is None:
            return
        quiet, chunk_s = self._config.is_quiet(activity), len(chunk) * self._hop_s
        if self.closed:
            self.closed, self._quiet_s = quiet, 0.0
            self._give_up(self._config.pre_roll_s + (0.0 if quiet else chunk_s))
            return
        silent = quiet and idle and activity.heard <= self._config.most_heard
        self._quiet_s = self._quiet_s + chunk_s if silent else 0.0
        self.closed = self._quiet_s > self._config.after_s

    def take(self) -> Floats:
        """The next chunk to be heard."""
        chunk = self._held.popleft()
        self._held_rows -= len(chunk)
        return chunk

    def take_passed(self) -> int:
        """Rows that were given up since this was last asked."""
        passed, self._told_rows = self._passed_rows - self._told_rows, self._passed_rows
        return passed

    def give_up(self) -> None:
        """Nothing that is held back will be heard."""
        self._give_up(0.0)

    def _give_up(self, but_s: float) -> None:
        """The oldest chunks, while more than so much is held."""
        most = round(but_s / self._hop_s)
        while self._held_rows > most:
            self._passed_rows += len(self._held[0])
            self.take()
