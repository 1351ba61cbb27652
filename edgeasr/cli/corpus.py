"""`edgeasr corpus`: speech as others publish it, made into what `edgeasr train` reads."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.terminal import StatusLine, write_out
from edgeasr.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeasr.corpora.importing import Tally

corpus = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Corpora to train from: import, write shards, index shards."
)

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="A folder of LibriSpeech or of audio with .txt files beside it, a .tsv table of Common Voice, Lhotse cuts "
        "(.jsonl or .jsonl.gz), a manifest, or hf:NAME[:CONFIG]:SPLIT of Hugging Face (needs edgeasr[corpora]).",
    ),
]
Votes = Annotated[
    int, typer.Option(metavar="N", help="Common Voice: so many more people have to be for a clip than against it.")
]
TextColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Hugging Face: the column of the text, where it has no usual name.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@corpus.command("import")
def import_sources(
    sources: Sources,
    output: Annotated[Path, typer.Option(metavar="MANIFEST", help="The manifest to write, such as train.jsonl.")],
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the audio goes that is no file of its own (parts of recordings, Hugging Face); otherwise a "
            "folder beside the manifest.",
        ),
    ] = None,
    votes: Votes = 1,
    text_column: TextColumn = None,
    left_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the reason and the name of all that is left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a manifest of a corpus.

    Texts are brought into the plain form that is trained on; what has digits or other letters than a to z is left out,
    as is audio that cannot be read, and counted by reason. Stopped at any time, it leaves no half manifest.
    """
    from edgeasr.corpora.importing import import_corpus
    from edgeasr.corpora.opening import Reading, open_sources

    folder = audio or output.with_name(f"{output.stem}-audio")
    source = open_sources(sources, Reading(votes, text_column))
    began_s = time.monotonic()
    with StatusLine(sys.stderr) as status:
        tally = import_corpus(source, output, folder, _watched(status), left_out)
    _report(tally, output, began_s, json=json)


@corpus.command("shard")
def shard(
    sources: Sources,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write the shards and their index.json.")],
    shard_mb: Annotated[int, typer.Option(min=1, metavar="N", help="Megabytes in a shard, at most.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of what manifests and folders list.")] = 1,
    votes: Votes = 1,
    text_column: TextColumn = None,
    json: Json = False,
) -> None:
    """Write shards (tar files as of WebDataset) that are read as streams in training: `data.shards` of a recipe.

    Utterances come in random order, those of Hugging Face in theirs. All audio is decoded once: what is damaged is
    left out.
    """
    from edgeasr.corpora.opening import Reading, shuffled
    from edgeasr.corpora.shard_writing import write_shards

    source = shuffled(sources, Reading(votes, text_column), seed)
    began_s = time.monotonic()
    with StatusLine(sys.stderr) as status:
        tally = write_shards(source, output, shard_mb, _watched(status))
    _report(tally, output, began_s, json=json)


@corpus.command("index")
def index(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the .tar files are.")],
    json: Json = False,
) -> None:
    """Write the index.json of shards that others made: NAME.flac, wav, opus, ogg or mp3 beside NAME.json or .txt."""
    from edgeasr.corpora.shard_writing import index_shards

    began_s = time.monotonic()
    with StatusLine(sys.stderr) as status:
        tally = index_shards(folder, _watched(status))
    _report(tally, folder / "index.json", began_s, json=json)


def _watched(status: StatusLine) -> Callable[[Tally], None]:
    def watch(tally: Tally) -> None:
        if tally.utterances % 100 == 0:
            status.show(f"{tally.utterances:,} utterances, {tally.duration_s / 3600:.1f} h")

    return watch


def _report(tally: Tally, output: Path, began_s: float, *, json: bool) -> None:
    hours = tally.duration_s / 3600
    if json:
        report = {"output": str(output), "utterances": tally.utterances, "hours": round(hours, 4)}
        report |= {"left_out": dict(tally.left_out), "seconds": round(time.monotonic() - began_s, 1)}
        write_out(jsonlib.dumps(report) + "\n")
        return
    write_out(f"Wrote {output}: {tally.utterances:,} utterances, {hours:.2f} h\n")
    for reason, count in tally.left_out.most_common():
        write_out(f"left out {count:,}: {reason} (such as {visible(tally.examples[reason])})\n")
