"""Silence behind a gate: a device that sends only speech says that it ended, and then nothing more comes."""

from __future__ import annotations

_WRAP = 1 << 32
MAX_SILENCE_S = 2.0  # enough for the recogniser to end a segment; the rest comes as a gap before the next speech
MARGIN_S = 0.2  # onset, line and buffers; the pre-roll comes on top


def samples_between(earlier: int, later: int) -> int:
    """Of a device's clock that wraps, by what `later` is after `earlier`: negative where it is before."""
    return (later - earlier + _WRAP // 2) % _WRAP - _WRAP // 2


class GateSilence:
    """How much silence is certain before the next speech comes.

    preroll_s: speech may begin so long before it arrives
    """

    def __init__(self, rate_hz: int, preroll_s: float) -> None:
        self._rate_hz, self._margin_s = rate_hz, preroll_s + MARGIN_S
        self._ended: tuple[int, float] | None = None  # the device's time and the host's
        self._told: int | None = None  # until when by a GAP

    def speech_ended(self, time: int, arrival_s: float) -> None:
        """The gate closed at `time`."""
        self._ended = (time, arrival_s)

    def gap_told(self, end: int) -> None:
        """Until `end` nothing comes."""
        self._told = end

    def heard(self, end: int) -> None:
        """Speech came that ends at `end`."""
        if self._ended is not None and samples_between(self._ended[0], end) > 0:
            self._ended = None
        self._told = None

    def certain(self, last: int, now_s: float) -> int:
        """Samples of silence after `last`, where the last speech ended."""
        samples = 0
        if self._told is not None:
            samples = samples_between(last, self._told)
        if self._ended is not None:
            time, arrival_s = self._ended
            passed_s = max(0.0, now_s - arrival_s - self._margin_s)
            samples = max(samples, samples_between(last, time) + int(passed_s * self._rate_hz))
        return min(max(samples, 0), int(MAX_SILENCE_S * self._rate_hz))
