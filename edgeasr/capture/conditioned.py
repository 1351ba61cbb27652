"""A live source with its level watched, its offset taken out and its gain raised where it is too quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from edgeasr.audio import AudioBlock, AudioSource
from edgeasr.capture.conditioning import OffsetFilter, SlowGain
from edgeasr.capture.level import Level, LevelWatch
from edgeasr.capture.live import LiveSource, say_nothing
from edgeasr.capture.losses import Say


class ConditionedSource(AudioSource):
    """The blocks of a live source, conditioned.

    say:      told of a microphone that is muted, too loud or off zero
    on_level: told how loud each block was, before it was changed
    """

    duration_s = None

    def __init__(
        self, source: LiveSource, say: Say = say_nothing, on_level: Callable[[Level], None] | None = None
    ) -> None:
        self.source = source
        self._on_level = on_level
        self._watch = LevelWatch(lambda: source.name, say)
        self._set_up(source.sample_rate_hz)

    @property
    def name(self) -> str:  # type: ignore[override]  # it is found out when the device is
        return self.source.name

    @property
    def sample_rate_hz(self) -> int:  # type: ignore[override]
        return self.source.sample_rate_hz

    @property
    def drops(self) -> bool:
        """As of the source."""
        return self.source.drops

    @property
    def backlog_s(self) -> float:
        """As of the source."""
        return self.source.backlog_s

    def blocks(self) -> Iterator[AudioBlock]:
        for block in self.source.blocks():
            if self.sample_rate_hz != self._rate_hz:
                self._set_up(self.sample_rate_hz)
            level = Level.of(block.samples)
            if not self.source.is_away:
                self._watch.accept(level, len(block.samples) / self._rate_hz)
            if self._on_level:
                self._on_level(level)
            yield replace(block, samples=self._gain.process(self._offset.process(block.samples)))

    def close(self) -> None:
        self.source.close()

    def report(self) -> str | None:
        """As of the source."""
        return self.source.report()

    def _set_up(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._offset, self._gain = OffsetFilter(rate_hz), SlowGain(rate_hz)
