"""What `--source` names, opened."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, BinaryIO, cast

import typer

from edgeasr.cli.terminal import print_note
from edgeasr.firmware_bridge.transport import is_bridge_url

if TYPE_CHECKING:
    from edgeasr.audio import AudioBlock, Source
    from edgeasr.features import FeatureBlock
    from edgeasr.service.watchdog import StopRequest

_STDIN_FILENO = 0
_POLL_S = 0.2


def check_source(source: str, device: str | None, *, real_time: bool) -> None:
    """Refuse options that are for other sources. errors: typer.BadParameter"""
    if device is not None and source != "mic":
        raise typer.BadParameter("--device is for --source mic")
    if real_time and (source in ("mic", "-") or is_bridge_url(source)):
        raise typer.BadParameter("--real-time is for --source FILE")


def open_source(
    source: str, device: str | None, stop: StopRequest, *, real_time: bool
) -> Source[AudioBlock | FeatureBlock]:
    """The source of that name. errors: those of the source"""
    if source == "mic":
        from edgeasr.microphone import Microphone

        return Microphone(device, say=print_note, stopped=lambda: stop.requested)
    if is_bridge_url(source):
        from edgeasr.firmware_bridge.source import BridgeSource

        return BridgeSource.open(source, print_note, lambda: stop.requested)
    from edgeasr.audio import FileSource, RawSource

    if source == "-":
        return RawSource(cast(BinaryIO, _StandardInput(stop)))
    return FileSource(source, real_time=real_time)


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
