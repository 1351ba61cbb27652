"""`edgeasr memory`: what was heard and said, searched and forgotten."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeasr.cli.columns import columns
from edgeasr.cli.extras import needs_extra
from edgeasr.cli.memory_plot import plot
from edgeasr.cli.options import Model, Store, Threads
from edgeasr.cli.terminal import StatusLine, print_note, write_out
from edgeasr.wording import counted, visible

if TYPE_CHECKING:
    from edgeasr.store.memory_store import MemoryStore
    from edgeasr.store.records import SoundHit, StoredVector, StoreStats, TextHit
    from edgeasr.store.retention import Forgotten

memory = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What `listen --remember` and `transcribe --remember` stored: search it, list it, forget it.",
)
memory.command()(plot)

Limit = Annotated[int, typer.Option(min=1, metavar="N", help="At most N of them.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_TEXT_CHARS = 60


@contextmanager
def _opened(path: Path | None, *, reading: bool = True) -> Iterator[MemoryStore]:
    from edgeasr.store.paths import default_path

    with needs_extra("memory"):
        from edgeasr.store.memory_store import MemoryStore
        from edgeasr.store.schema import stored_values
    with MemoryStore.open(path or default_path(), reading=reading) as store, stored_values(store.path):
        yield store


@memory.command()
def stats(store: Store = None, json: Json = False) -> None:
    """How much is stored, since when, and how large the file is."""
    with _opened(store) as opened:
        found, path = opened.stats(), str(opened.path)
    write_out(jsonlib.dumps({"path": path, **asdict(found)}) + "\n" if json else _stats_text(path, found))


@memory.command("list")
def list_(
    stream: Annotated[
        int | None, typer.Option(metavar="ID", help="The vectors of one stream, not the streams.")
    ] = None,
    after: Annotated[int, typer.Option(metavar="ID", help="With --stream, go on behind this vector.")] = 0,
    limit: Limit = 100,
    store: Store = None,
    json: Json = False,
) -> None:
    """List the streams, or the vectors of one, oldest first."""
    with _opened(store) as opened:
        if stream is None:
            streams = opened.streams()[-limit:]
            if json:
                write_out(jsonlib.dumps({"streams": [asdict(one) for one in streams]}) + "\n")
                return
            rows: list[tuple[object, ...]] = [
                (one.id, _date(one.began), clock(one.heard_s), one.vectors, one.segments, visible(one.name))
                for one in streams
            ]
            _print_table(("stream", "began", "stored to", "vectors", "segments", "name"), rows, "<<>>><", "no streams")
            return
        opened.stream_name(stream)
        vectors = opened.vectors(stream, after=after, limit=limit)
    if json:
        write_out(jsonlib.dumps({"vectors": [_vector_dict(vector) for vector in vectors]}) + "\n")
        return
    _print_table(
        ("vector", "level", "from", "to", "times", "", "text"),
        [_vector_row(vector) for vector in vectors],
        "<<>>><<",
        "no vectors",
    )


@memory.command()
def search(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="Words; they need not have been recognised letter by letter.")
    ],
    limit: Limit = 10,
    store: Store = None,
    json: Json = False,
) -> None:
    """When something was said. The score is the share of letters that agree; exit code 1 where nothing is found."""
    with _opened(store) as opened:
        from edgeasr.store.text_search import search_text

        hits = search_text(opened, text, limit=limit)
    _print_hits(hits, json=json)


@memory.command()
def similar(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Some seconds of sound: wav, flac, ogg, opus or mp3.")],
    limit: Limit = 5,
    model: Model = None,
    threads: Threads = 1,
    store: Store = None,
    json: Json = False,
) -> None:
    """When something that sounds like a recording was heard. Exit code 1 where there is nothing to compare with.

    Only what the same model heard can be compared. The score is the mean cosine of the vectors, less what all
    vectors have in common. Of a long recording the first minute is compared.
    """
    with _opened(store) as opened:
        from edgeasr.audio import FileSource
        from edgeasr.recognizer import load_model
        from edgeasr.store.sound_search import search_sound

        with FileSource(file) as source:
            hits = search_sound(opened, load_model(model, threads=threads), source, limit=limit)
    _print_hits(hits, json=json)


@memory.command()
def show(
    vector: Annotated[int, typer.Argument(metavar="ID", help="As `edgeasr memory list --stream` shows it.")],
    store: Store = None,
    json: Json = False,
) -> None:
    """One vector: its span, what was said in it, and the spans that were merged into it."""
    with _opened(store) as opened:
        found, spans = opened.vector(vector), opened.occurrences(vector)
    if json:
        values = _vector_dict(found) | {"occurrences": [asdict(span) for span in spans]}
        write_out(jsonlib.dumps(values | {"vector": found.vector.tolist()}) + "\n")
        return
    rows = [
        ("of", visible(found.stream_name)),
        ("pinned", "yes" if found.pinned else "no"),
        ("last seen", _date(found.last_seen)),
    ]
    rows += [(f"{clock(span.start_s)} to {clock(span.end_s)}", span.text) for span in (found.span, *spans)]
    write_out("".join(f"{line}\n" for line in columns(rows, "<<")))


@memory.command()
def forget(
    vector: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="Vectors, and the words of their time.")
    ] = None,
    stream: Annotated[int | None, typer.Option(metavar="ID", help="All of a stream.")] = None,
    before: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="What was last heard before a date."),
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Segments with these very words, and their vectors.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """Forget for good: what is forgotten is overwritten in the file. Pinned vectors are forgotten too."""
    chosen = [bool(vector), stream is not None, before is not None, text is not None, everything]
    if sum(chosen) != 1:
        raise typer.BadParameter("say what to forget, one of: ID..., --stream, --before, --text, --all")
    with _opened(store, reading=False) as opened:
        what, action = _forgetting(vector or [], stream, before, text)
        if not yes:
            _confirm(f"Forget {what} in {opened.path}? [y/N] ")
        gone = action(opened)
        _reclaim(opened)
    if json:
        write_out(jsonlib.dumps(gone._asdict()) + "\n")
    else:
        counts = (gone.vectors, "vector"), (gone.segments, "segment"), (gone.streams, "whole stream")
        write_out(f"forgot {', '.join(counted(count, thing) for count, thing in counts)}\n")


@memory.command()
def export(
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Instead of standard output.")] = None,
    vectors: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the vectors' values there as .npy too.")
    ] = None,
    store: Store = None,
    json: Annotated[bool, typer.Option("--json", help="As without it: JSON lines.")] = False,
) -> None:
    """Print all streams, segments and vectors as JSON lines."""
    del json
    with _opened(store) as opened, StatusLine(sys.stderr) as status:
        from edgeasr.store.export import export_lines, export_vectors, write_lines

        if output is None:
            for line in export_lines(opened):
                write_out(line)
        else:
            write_lines(opened, output, lambda count: status.show(f"{count} lines"))
        if vectors is not None:
            print_note(f"{export_vectors(opened, vectors)} vectors are in {vectors}")


@memory.command()
def vacuum(store: Store = None, json: Json = False) -> None:
    """Check the file and give free room back to the file system."""
    with _opened(store, reading=False) as opened:
        before = opened.file_bytes()
        opened.check()
        _reclaim(opened)
        after = opened.file_bytes()
    if json:
        write_out(jsonlib.dumps({"bytes_before": before, "bytes_after": after}) + "\n")
    else:
        write_out(f"whole; {_megabytes(before)}, now {_megabytes(after)}\n")


def clock(seconds: float) -> str:
    """h:mm:ss.s"""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 10:02}.{rest % 10}"


def _forgetting(
    vectors: list[int], stream: int | None, before: datetime | None, text: str | None
) -> tuple[str, Callable[[MemoryStore], Forgotten]]:
    """What is to be forgotten in words, and how."""
    from edgeasr.store import retention

    if vectors:
        return f"{counted(len(vectors), 'vector')} and the words of their time", lambda store: retention.forget_vectors(
            store, vectors
        )
    if stream is not None:
        return f"all of stream {stream}", lambda store: retention.forget_stream(store, stream)
    if before is not None:
        return f"what was last heard before {before}", lambda store: retention.forget_before(store, before.timestamp())
    if text is not None:
        return f"where {text!r} was said", lambda store: retention.forget_text(store, text)
    return "everything", retention.forget_all


def _confirm(question: str) -> None:
    """Ends the command where the answer is not yes; standard output is for results."""
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print_note("nothing was forgotten")
        raise typer.Exit(1)


def _reclaim(store: MemoryStore) -> None:
    from edgeasr.store.retention import release, scrub

    release(store)
    if not scrub(store):
        print_note("another process reads the store: traces stay in its -wal file until that ends or more is stored")


def _print_hits(hits: list[TextHit] | list[SoundHit], *, json: bool) -> None:
    if json:
        write_out(jsonlib.dumps({"hits": [asdict(hit) for hit in hits]}) + "\n")
    else:
        rows: list[tuple[object, ...]] = [
            (
                clock(hit.span.start_s),
                clock(hit.span.end_s),
                f"{hit.score:.2f}",
                hit.stream,
                visible(hit.stream_name),
                hit.span.text,
            )
            for hit in hits
        ]
        _print_table(("from", "to", "score", "stream", "name", "text"), rows, ">>><<<", "nothing found")
    if not hits:
        raise typer.Exit(1)


def _print_table(head: tuple[str, ...], rows: list[tuple[object, ...]], sides: str, none: str) -> None:
    if not rows:
        print_note(none)
        return
    write_out("".join(f"{line}\n" for line in columns([head, *rows], sides)))


def _vector_row(vector: StoredVector) -> tuple[object, ...]:
    span = vector.span
    text = span.text if len(span.text) <= _TEXT_CHARS else f"{span.text[: _TEXT_CHARS - 3]}..."
    return (
        *(vector.id, vector.level, clock(span.start_s), clock(span.end_s)),
        *(vector.count, "pinned" if vector.pinned else "", text),
    )


def _vector_dict(vector: StoredVector) -> dict[str, Any]:
    from edgeasr.store.export import vector_dict

    return vector_dict(vector)


def _stats_text(path: str, found: StoreStats) -> str:
    oldest, newest = (_date(when) if when else "-" for when in (found.oldest, found.newest))
    rows = [
        ("store", path),
        ("size", _megabytes(found.size_bytes)),
        ("streams", str(found.streams)),
        ("segments", str(found.segments)),
        ("vectors", f"{found.vectors}, {found.pinned} of them pinned, standing for {found.vectors + found.merged}"),
        ("from", oldest),
        ("to", newest),
    ]
    return "".join(f"{line}\n" for line in columns(rows, "<<"))


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MB"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
