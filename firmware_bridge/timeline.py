"""Where the blocks of a device belong in time: its sample clock wraps, blocks get lost, and a device restarts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from edgeasr.firmware_bridge.messages import Gap, GapReason
from edgeasr.firmware_bridge.silence import samples_between

_WRAP = 1 << 32
# A longer jump that was not announced, and any jump backwards, counts only when the next block goes on from there: a
# damaged frame whose check sum is right by chance (1 in 65536) would otherwise move the whole stream.
MAX_SUDDEN_GAP_S = 10.0

DataT = TypeVar("DataT")


class TimedBlock(NamedTuple, Generic[DataT]):
    """What a frame brought. time: of its first sample, by the device; num_samples: that it moves the time on by"""

    time: int
    num_samples: int
    arrival_s: float
    data: DataT


class Placed(NamedTuple, Generic[DataT]):
    """A block in its place.

    position:    of its first sample, counted from the stream's first one and over gaps
    gap_samples: missing just before it
    restarted:   the device began to count anew before it
    """

    block: TimedBlock[DataT]
    position: int
    gap_samples: int
    restarted: bool


class Missing(NamedTuple):
    """Samples that did not come. link: lost on the way; device: not sent, with or without saying so; gated: silence"""

    link: int = 0
    device: int = 0
    gated: int = 0


class Timeline(Generic[DataT]):
    """Puts blocks into their place.

    origin:    the device's time of the stream's first sample, None before it
    misplaced: blocks that were dropped because their time cannot be
    """

    def __init__(self, rate_hz: int) -> None:
        self.missing = Missing()
        self.misplaced = 0
        self._rate_hz = rate_hz
        self.origin: int | None = None
        self._position = 0  # of the next sample, and what it would be by the device's clock
        self._expected: int | None = None
        self._last: TimedBlock[DataT] | None = None
        self._held: TimedBlock[DataT] | None = None
        self._announced: list[tuple[int, Gap]] = []
        self._ahead = 0  # samples of silence that were given before the gap that they are of

    def announce(self, time: int, gap: Gap) -> None:
        """A GAP message came."""
        self._announced.append((time, gap))

    @property
    def end(self) -> int | None:
        """The device's time of the next sample, None before the first one."""
        return self._expected

    def give_silence(self, num_samples: int) -> int:
        """Silence is given before the block behind it: the gap before that is shorter. returns: where it ends"""
        self._ahead += num_samples
        return self._position + self._ahead

    def place(self, block: TimedBlock[DataT], frames_lost: bool) -> Iterator[Placed[DataT]]:
        """The blocks that are good now, none while one is in doubt. frames_lost: since the last block"""
        held, self._held = self._held, None
        if self._expected is None or 0 <= (jump := self._jump(block)) <= self._plausible():
            self.misplaced += held is not None
            gap = 0 if self._expected is None else jump
            self._count(gap, frames_lost)
            yield self._placed(block, gap, restarted=False)
        elif held is not None and (held.time + held.num_samples) % _WRAP == block.time:
            gap, restarted = self._gap_before(held)
            self._count(gap, frames_lost)
            yield self._placed(held, gap, restarted=restarted)
            yield self._placed(block, 0, restarted=False)
        else:
            self.misplaced += held is not None
            self._held = block

    def _jump(self, block: TimedBlock[DataT]) -> int:
        assert self._expected is not None
        return samples_between(self._expected, block.time)

    def _plausible(self) -> float:
        """The longest jump that a block may make unconfirmed."""
        announced = sum(gap.lost_samples for _, gap in self._announced)
        return announced + MAX_SUDDEN_GAP_S * self._rate_hz

    def _gap_before(self, held: TimedBlock[DataT]) -> tuple[int, bool]:
        """A confirmed jump forwards is a gap; after one backwards the host's clock tells what is missing."""
        jump = self._jump(held)
        if jump >= 0:
            return jump, False
        assert self._last is not None
        waited = (held.arrival_s - self._last.arrival_s) * self._rate_hz
        return max(0, round(waited) - held.num_samples), True

    def _placed(self, block: TimedBlock[DataT], gap: int, *, restarted: bool) -> Placed[DataT]:
        if self.origin is None:
            self.origin = block.time
        given = min(self._ahead, gap)
        self._ahead -= given
        placed = Placed(block, self._position + gap, gap - given, restarted)
        self._position = placed.position + block.num_samples
        self._expected = (block.time + block.num_samples) % _WRAP
        self._last = block
        return placed

    def _count(self, gap: int, frames_lost: bool) -> None:
        """Whose fault a gap is: what was announced is the device's, the rest the link's if frames are missing."""
        gated = sum(message.lost_samples for _, message in self._announced if message.reason == GapReason.GATED)
        told = sum(message.lost_samples for _, message in self._announced if message.reason != GapReason.GATED)
        self._announced.clear()
        gated = min(gap, gated)
        told = min(gap - gated, told)
        rest = gap - gated - told
        link, device, all_gated = self.missing
        self.missing = Missing(
            link + (rest if frames_lost else 0), device + told + (0 if frames_lost else rest), all_gated + gated
        )
