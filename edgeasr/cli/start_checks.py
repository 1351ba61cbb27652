"""What commands that run for long refuse at their start, and `edgeasr service install` before it writes one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeasr.cli.actions import check_actions
from edgeasr.cli.endpoint_options import listening
from edgeasr.cli.options import chosen_format
from edgeasr.cli.sources import SourceChoice

_OF_A_SOURCE = ("source", "device", "pcm", "real_time", "wait")
_OF_ACTIONS = ("exec", "exec_timeout", "webhook", "webhook_allow", "mqtt")


def check_source(choice: SourceChoice) -> None:
    """Errors: AudioFormatError for a file that is not there, or is no speech; a device may come later"""
    from edgeasr.audio import FileSource

    is_file = choice.source != "-" and not choice.is_captured and not choice.is_bridge
    if is_file and not Path(choice.source).is_fifo():
        FileSource(choice.source).close()


def check_command(command: str, values: Mapping[str, Any]) -> None:
    """For `listen` and `serve`. errors: those of the command

    values: its options, by the names of their arguments
    """
    listening(values["endpoint"], gate=values["gate"], explain=False)
    if command == "serve":
        from edgeasr.cli.front_options import FrontOptions

        front = FrontOptions.of(values)
        front.config()
        front.wyoming_address()
    else:
        chosen_format(json=values["json"], srt=values["srt"], vtt=values["vtt"])
        check_actions(**{key: values[key] for key in _OF_ACTIONS})
    check_source(SourceChoice(**{key: values[key] for key in _OF_A_SOURCE if key in values}))
