"""Options that commands share, and the format of a transcript that they choose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from edgeasr.transcript import TranscriptWriter

Model = Annotated[
    str | None,
    typer.Option(metavar="BUNDLE", help="Folder or .edgeasr file of another model than the bundled one."),
]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="What runs the model: a runtime, onnxruntime say, or an artefact of the bundle, such as onnx-fp32; on an "
        "NVIDIA GPU onnxruntime-cuda, onnxruntime-tensorrt or tensorrt (docs/jetson.md).",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the model; one is best for most boards.")]
DecoderName = Annotated[
    Literal["greedy", "lm"] | None,
    typer.Option(
        "--decoder",
        help="Words of the bundle's language model, or spelt from pieces that are heard; lm where the bundle has one.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON objects, one a line, with the times of all words.")]
Srt = Annotated[bool, typer.Option("--srt", help="Print SubRip subtitles.")]
Vtt = Annotated[bool, typer.Option("--vtt", help="Print WebVTT subtitles.")]

Store = Annotated[
    Path | None,
    typer.Option("--store", metavar="PATH", help="Another store than edgeasr/memory.db in the user's data folder."),
]
Remember = Annotated[
    bool,
    typer.Option("--remember", help="Store what is heard and said, for `edgeasr memory`. Needs edgeasr[memory]."),
]
StoreMb = Annotated[
    int, typer.Option(min=1, metavar="MB", help="With --remember: the oldest is forgotten when the store is larger.")
]
StoreDays = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="DAYS", help="With --remember: what was last heard earlier is forgotten."),
]

RecallSlots = Annotated[
    int,
    typer.Option(
        "--recall",
        min=0,
        max=64,
        metavar="N",
        help="With --remember: after every summary the encoder reads the N stored vectors most like it, too.",
    ),
]

Format = Literal["text", "json", "srt", "vtt"]


def chosen_format(*, json: bool, srt: bool, vtt: bool) -> Format:
    """Text where no other is asked for. Errors: a usage error for more than one."""
    if json + srt + vtt > 1:
        raise typer.BadParameter("choose one of --json, --srt and --vtt")
    return "json" if json else "srt" if srt else "vtt" if vtt else "text"


def transcript_writer(format: Format, extra: Mapping[str, str] | None = None) -> TranscriptWriter:
    """A new writer. extra: what JSON objects carry beside the event"""
    from edgeasr.transcript import JsonLinesWriter, SrtWriter, TextWriter, VttWriter

    if format == "json":
        return JsonLinesWriter(extra)
    if format == "srt":
        return SrtWriter()
    return VttWriter() if format == "vtt" else TextWriter()
