"""What `--source` names, opened."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from edgeasr.cli.terminal import print_note
from edgeasr.errors import ConfigError
from edgeasr.firmware_bridge.transport import SCHEMES, TransportEnded, is_bridge_url

if TYPE_CHECKING:
    from edgeasr.audio import AudioBlock, Source
    from edgeasr.capture.feed import Feed
    from edgeasr.capture.level import Level
    from edgeasr.capture.live import LiveSource
    from edgeasr.capture.pcm import PcmFormat
    from edgeasr.features import FeatureBlock
    from edgeasr.service.watchdog import StopRequest

_STDIN_FILENO = 0
_POLL_S = 0.2
_TCP, _TCP_LISTEN = "tcp-audio://", "tcp-audio-listen://"
_CAPTURED = ("mic", "alsa:", "pipe:", "rtp://", _TCP, _TCP_LISTEN)
_BARE = ("-", *_CAPTURED[1:])  # samples without a header

Pcm = Annotated[
    str | None,
    typer.Option(
        metavar="RATE[:CHANNELS[:ENCODING]]",
        help="What -, alsa:, pipe:, rtp: and tcp-audio: give, such as 48000:2:s24. Encodings: s16 (usual), s16be, s24, "
        "s32, f32, u8, ulaw, alaw.",
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for a microphone that is not there yet.")]
ShowLevel = Annotated[bool, typer.Option("--level", help="Show on the terminal how loud it is.")]


@dataclass(frozen=True)
class SourceChoice:
    """The options that name a source.

    errors: typer.BadParameter for those that are for another one
    """

    source: str
    device: str | None = None
    pcm: str | None = None
    real_time: bool = False
    wait: bool = False

    def __post_init__(self) -> None:
        if self.device is not None and self.source != "mic":
            raise typer.BadParameter("--device is for --source mic")
        is_file = self.source != "-" and not self.is_captured and not self.is_bridge
        if self.real_time and not is_file:
            raise typer.BadParameter("--real-time is for --source FILE")
        if self.pcm is not None and not self.source.startswith(_BARE):
            raise typer.BadParameter("--pcm is for --source -, alsa:, pipe:, rtp: and tcp-audio:")
        if self.wait and self.source != "mic":
            raise typer.BadParameter("--wait is for --source mic")

    @property
    def is_captured(self) -> bool:
        """Whether it is a source of edgeasr.capture; standard input is, where it is said what it holds."""
        told = self.source == "-" and self.pcm is not None
        return told or self.source == "mic" or self.source.startswith(_CAPTURED[1:])

    @property
    def is_bridge(self) -> bool:
        """Whether it is a microcontroller."""
        return is_bridge_url(self.source) and not self.is_captured


def open_source(
    choice: SourceChoice, stop: StopRequest, on_level: Callable[[Level], None] | None = None
) -> Source[AudioBlock | FeatureBlock]:
    """The source that was chosen. errors: those of the source

    on_level: told how loud each block of a captured one is
    """
    source = choice.source
    if choice.is_captured:
        from edgeasr.capture.conditioned import ConditionedSource

        return ConditionedSource(_captured(choice, lambda: stop.requested), print_note, on_level)
    if choice.is_bridge:
        _check_scheme(source)
        from edgeasr.firmware_bridge.source import BridgeSource

        return BridgeSource.open(source, print_note, lambda: stop.requested)
    from edgeasr.audio import FileSource, RawSource

    if source == "-":
        return RawSource(cast(BinaryIO, _StandardInput(stop)))
    return FileSource(source, real_time=choice.real_time)


def _check_scheme(source: str) -> None:
    if source.partition(":")[0] not in SCHEMES:
        known = ", ".join((*_CAPTURED[1:], *(f"{scheme}:" for scheme in SCHEMES)))
        raise ConfigError(f"got source {source!r}, wanted mic, a file, -, or one that begins with {known}")


def backlog_of(source: Source[AudioBlock | FeatureBlock]) -> Callable[[], float] | None:
    """How much audio waits, of a source that would lose some; None of another one."""
    from edgeasr.capture.conditioned import ConditionedSource

    return (lambda: source.backlog_s) if isinstance(source, ConditionedSource) and source.drops else None


def report_losses(source: Source[AudioBlock | FeatureBlock]) -> None:
    """Say in one line what was lost, if anything was."""
    report = getattr(source, "report", lambda: None)()
    if report is not None:
        print_note(report)


def _captured(choice: SourceChoice, stopped: Callable[[], bool]) -> LiveSource:
    source, pcm = choice.source, _told_format(choice)
    if source == "mic":
        from edgeasr.microphone import Microphone

        return Microphone(choice.device, say=print_note, stopped=stopped, wait=choice.wait)
    if source.startswith("rtp://"):
        from edgeasr.capture.rtp import RtpSource

        return RtpSource(source, pcm, print_note, stopped)
    from edgeasr.capture.feed import FeedSource
    from edgeasr.capture.pcm import PcmFormat

    if source.startswith("alsa:"):
        from edgeasr.capture.alsa import alsa_feed

        recorder, pcm = alsa_feed(source.removeprefix("alsa:"), pcm)
        return FeedSource(recorder, pcm, print_note, stopped, live=True)
    return FeedSource(_feed(source), pcm or PcmFormat(), print_note, stopped)


def _feed(source: str) -> Feed:
    if source == "-":
        return _InputFeed()
    if source.startswith("pipe:"):
        from edgeasr.capture.process import ProcessFeed, split_command

        return ProcessFeed(source, split_command(source.removeprefix("pipe:")))
    from edgeasr.firmware_bridge.transport import open_transport

    return open_transport(source, print_note, "tcp-audio")[0]


def _told_format(choice: SourceChoice) -> PcmFormat | None:
    if choice.pcm is None:
        return None
    from edgeasr.capture.pcm import PcmFormat

    return PcmFormat.parse(choice.pcm)


class _InputFeed:
    """Standard input as a feed."""

    name = "standard input"
    may_return = False

    def read(self, timeout_s: float) -> bytes:
        if not select.select([_STDIN_FILENO], [], [], timeout_s)[0]:
            return b""
        data = os.read(_STDIN_FILENO, 65_536)
        if not data:
            raise TransportEnded
        return data

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        """It is not ours."""


class _StandardInput:
    """Standard input, which ends on a request to stop even while no data come."""

    name = "standard input"

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def read(self, num_bytes: int) -> bytes:
        while not self._stop.requested:
            if select.select([_STDIN_FILENO], [], [], _POLL_S)[0]:
                return os.read(_STDIN_FILENO, num_bytes)
        return b""
