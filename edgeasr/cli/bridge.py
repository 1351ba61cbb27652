"""`edgeasr bridge`: microcontrollers that hear for this machine, seen, recorded, imitated and tested."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.signals import StopSignals
from edgeasr.cli.terminal import print_note, write_out
from edgeasr.wording import visible

if TYPE_CHECKING:
    from edgeasr.firmware_bridge.messages import Transcript

SourceUrl = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="serial:///dev/ttyACM0?baud=921600, tcp://HOST:PORT, tcp-listen://HOST:PORT, pty:."
    ),
]
Seconds = Annotated[float | None, typer.Option(min=0, metavar="S", help="End after so many seconds.")]
Probability = Annotated[float, typer.Option(min=0, max=1, metavar="P")]

bridge = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Work with a microcontroller that streams speech: look, record, imitate one, test.",
)


@bridge.command()
def monitor(
    source: SourceUrl,
    json: Annotated[bool, typer.Option("--json", help="Print JSON objects, one a line.")] = False,
    seconds: Seconds = None,
) -> None:
    """Print every message of a device until Ctrl-C, and what was lost at the end."""
    from edgeasr.firmware_bridge.link import open_link
    from edgeasr.firmware_bridge.monitor import as_dict, as_line

    with StopSignals(lambda: None) as stop, open_link(source, print_note) as link:
        began_s = time.monotonic()
        for received in link.received(_until(stop, seconds)):
            entry = as_dict(received, began_s)
            write_out((jsonlib.dumps(entry) if json else as_line(entry)) + "\n")
        print_note(f"{link.name}: {link.counts}")


@bridge.command()
def info(
    source: SourceUrl,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask a device what it is and how it fares."""
    from edgeasr.firmware_bridge.link import open_link
    from edgeasr.firmware_bridge.monitor import ask

    with StopSignals(lambda: None) as stop, open_link(source, print_note) as link:
        answers = ask(link, _until(stop, None))
    if json:
        write_out(jsonlib.dumps(answers) + "\n")
        return
    for title, fields in answers.items():
        for name, value in fields.items():
            write_out(f"{title} {name}: {visible(value)}\n")


@bridge.command()
def record(
    source: SourceUrl,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="A .wav or .flac file.")],
    seconds: Seconds = None,
) -> None:
    """Write what a device hears to a file, with silence for what was lost, until Ctrl-C."""
    from edgeasr.firmware_bridge.recording import record as record_source
    from edgeasr.firmware_bridge.source import BridgeSource

    with StopSignals(lambda: None) as stop:
        with BridgeSource.open(source, print_note, lambda: stop.requested) as audio:
            duration_s = record_source(audio, output, seconds)
        report = audio.report()
    print_note(f"{output}: {duration_s:.3f} s")
    if report:
        print_note(report)


@bridge.command()
def send(
    file: Annotated[str, typer.Argument(metavar="FILE", help="wav, flac, ogg, opus or mp3, at any rate.")],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="tcp-listen://HOST:PORT, tcp://, pty: or serial://.")],
    codec: Annotated[
        str, typer.Option(metavar="s16|ulaw|adpcm|features|any", help="What the device can send.")
    ] = "any",
    real_time: Annotated[bool, typer.Option("--real-time", help="Send no faster than it was spoken.")] = False,
    one_way: Annotated[bool, typer.Option("--one-way", help="Speak unasked, as a bare UART does.")] = False,
    frame_ms: Annotated[int, typer.Option(min=5, max=1000, help="Of --one-way.")] = 20,
    ppm: Annotated[float, typer.Option(min=-5000, max=5000, help="By which its clock is fast.")] = 0.0,
    bit_errors: Probability = 0.0,
    drop: Probability = 0.0,
    duplicate: Probability = 0.0,
    reorder: Probability = 0.0,
    truncate: Probability = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the faults.")] = 0,
) -> None:
    """Play a file as if a microcontroller heard it, over a line with the faults that are asked for.

    Prints the final transcripts that come back, a line each.
    """
    from edgeasr.audio import FileSource
    from edgeasr.firmware_bridge.messages import Codec
    from edgeasr.firmware_bridge.transport import open_transport
    from edgeasr.firmware_bridge.virtual_device import (
        DeviceConfig,
        DeviceRun,
        FaultConfig,
        FaultyLine,
        Pace,
        VirtualDevice,
    )

    if codec != "any" and codec.upper() not in Codec.__members__:
        raise typer.BadParameter(f"--codec {codec}: choose s16, ulaw, adpcm, features or any")
    config = DeviceConfig(None if codec == "any" else Codec[codec.upper()], one_way, frame_ms)
    line = FaultyLine(FaultConfig(bit_errors, drop, duplicate, reorder, truncate, seed))
    with StopSignals(lambda: None) as stop, FileSource(file) as source:
        device = VirtualDevice(source, config, _print_final)
        transport, options = open_transport(to, print_note)
        try:
            if options:
                raise typer.BadParameter(f"--to {to}: {', '.join(options)} is for the host's side")
            DeviceRun(device, transport, line, Pace(real_time, ppm)).run(lambda: stop.requested)
        finally:
            transport.close()


@bridge.command()
def selftest() -> None:
    """Send every message, codec and fault through a virtual device in this process; exit 1 if one fails."""
    from edgeasr.firmware_bridge.selftest import checks

    failed = 0
    for check in checks():
        failed += not check.passed
        write_out(f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}\n")
    if failed:
        print(f"edgeasr: {failed} checks failed", file=sys.stderr)
        raise typer.Exit(1)


def _print_final(transcript: Transcript) -> None:
    from edgeasr.firmware_bridge.messages import TranscriptKind

    if transcript.kind == TranscriptKind.FINAL:
        write_out(f"{transcript.text}\n")


def _until(stop: StopSignals, seconds: float | None) -> Callable[[], bool]:
    deadline_s = float("inf") if seconds is None else time.monotonic() + seconds
    return lambda: stop.requested or time.monotonic() >= deadline_s
