"""`edgeasr transcribe`: the words of recordings."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeasr.cli.endpoint_options import EndpointRules, Explain, GateSwitch, listening
from edgeasr.cli.options import (
    Backend,
    DecoderName,
    Format,
    Json,
    Model,
    RecallSlots,
    Remember,
    Srt,
    Store,
    StoreDays,
    StoreMb,
    Threads,
    Vtt,
    chosen_format,
    transcript_writer,
)
from edgeasr.cli.own_word_options import DictionaryFile, GrammarFile, GrammarThreshold, HotwordFile, own_words
from edgeasr.cli.remember import hooks, remembering, stored
from edgeasr.cli.terminal import StatusLine, print_error, write_out
from edgeasr.errors import EdgeasrError
from edgeasr.wording import visible

if TYPE_CHECKING:
    from edgeasr.audio import AudioBlock, AudioSource
    from edgeasr.recognizer import Recognizer
    from edgeasr.store.writer import StoreWriter

_SUFFIXES: dict[Format, str] = {"text": ".txt", "json": ".jsonl", "srt": ".srt", "vtt": ".vtt"}
_BAR_CHARS = 20
_REFRESH_S = 0.1


def transcribe(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="wav, flac, ogg, opus or mp3, at any rate.")],
    output_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write talk.txt (.jsonl, .srt, .vtt) there for talk.wav instead of printing.",
        ),
    ] = None,
    json: Json = False,
    srt: Srt = False,
    vtt: Vtt = False,
    partials: Annotated[
        bool, typer.Option("--partials", help="With --json, print partial segments too, as `listen` does.")
    ] = False,
    model: Model = None,
    backend: Backend = None,
    decoder: DecoderName = None,
    threads: Threads = 1,
    grammar: GrammarFile = None,
    grammar_threshold: GrammarThreshold = None,
    hotwords: HotwordFile = None,
    dictionary: DictionaryFile = None,
    endpoint: EndpointRules = "normal",
    explain: Explain = False,
    gate: GateSwitch = True,
    remember: Remember = False,
    store: Store = None,
    store_mb: StoreMb = 256,
    store_days: StoreDays = None,
    recall: RecallSlots = 0,
) -> None:
    """Print the words of recordings, a line for each segment.

    With several files each line begins with the file's name and a colon; a JSON object always has it, as
    "file". Where a file cannot be read, the error is printed, the others are still done, and the exit code
    is 2.
    """
    wanted = chosen_format(json=json, srt=srt, vtt=vtt)
    output = _Output(wanted, output_dir, prefixed=len(files) > 1, partials=partials)
    output.check(files)
    if store and not remember:
        raise typer.BadParameter("--store is for --remember")
    hearing = listening(endpoint, gate=gate, explain=explain)
    own = own_words(grammar, grammar_threshold, hotwords, dictionary)
    from edgeasr.recognizer import Recognizer, load_model

    loaded = load_model(model, backend=backend, threads=threads, words=decoder != "greedy")
    exit_code = 0
    with remembering(loaded, store, wanted=remember, max_mb=store_mb, max_days=store_days, recall=recall) as memory:
        recognizer = Recognizer(loaded, decoder=decoder, **own, **hearing, **hooks(memory))
        for file in files:
            try:
                _transcribe(recognizer, file, output, memory)
            except EdgeasrError as error:
                print_error(error)
                exit_code = max(exit_code, error.exit_code)
    raise typer.Exit(exit_code)


@dataclass(frozen=True)
class _Output:
    """Where transcripts go, and how."""

    format: Format
    folder: Path | None
    prefixed: bool
    partials: bool

    def check(self, files: list[str]) -> None:
        """Errors: a usage error for what would overwrite itself or could not be read."""
        if self.partials and self.format != "json":
            raise typer.BadParameter("--partials is for --json")
        if self.folder is None:
            if self.format in ("srt", "vtt") and self.prefixed:
                raise typer.BadParameter(f"--{self.format} of several files needs --output-dir")
            return
        recordings = {os.path.realpath(file): file for file in files}
        files_of: dict[Path, str] = {}
        for file in files:
            path = self.path(self.folder, file)
            if (recording := recordings.get(os.path.realpath(path))) is not None:
                raise typer.BadParameter(f"the text of {file} would overwrite {recording}: choose another folder")
            if path in files_of:
                raise typer.BadParameter(f"{files_of[path]} and {file} would both be written to {path}")
            files_of[path] = file
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, folder: Path, file: str) -> Path:
        return folder / f"{Path(file).stem}{_SUFFIXES[self.format]}"

    @contextmanager
    def opened(self, file: str) -> Iterator[Callable[[str], object]]:
        """A function that adds to the transcript of `file`."""
        if self.folder is not None:
            with self.path(self.folder, file).open("w", encoding="utf-8") as stream:
                yield stream.write
        elif self.prefixed and self.format == "text":
            yield lambda text: write_out(text and f"{visible(file)}: {text}")
        else:
            yield write_out


def _transcribe(recognizer: Recognizer, file: str, output: _Output, memory: StoreWriter | None) -> None:
    from edgeasr.audio import FileSource
    from edgeasr.transcript import Partial

    writer = transcript_writer(output.format, {"file": file})
    with FileSource(file) as source, output.opened(file) as write, StatusLine(sys.stderr) as status:
        write(writer.header)
        for event in stored(memory, file, recognizer.stream(source, _progress(source, status))):
            if output.partials or not isinstance(event, Partial):
                status.clear()
                write(writer.write(event))
        write(writer.footer)


def _progress(source: AudioSource, status: StatusLine) -> Callable[[AudioBlock], None] | None:
    """Shows how far the recognition is; None where nobody would see it."""
    if not status.enabled:
        return None
    began_s, shown_s = time.monotonic(), -math.inf

    def show(block: AudioBlock) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if now_s - shown_s < _REFRESH_S:
            return
        shown_s = now_s
        heard_s = (block.start_sample + len(block.samples)) / source.sample_rate_hz
        status.show(_progress_text(source, heard_s, heard_s / max(now_s - began_s, 1e-3)))

    return show


def _progress_text(source: AudioSource, heard_s: float, speed: float) -> str:
    """speed: as a multiple of real time"""
    if not source.duration_s:
        return f"{source.name}  {_clock(heard_s)}  {speed:.0f}x"
    done = min(1.0, heard_s / source.duration_s)
    bar = "#" * round(done * _BAR_CHARS)
    times = f"{_clock(heard_s)} of {_clock(source.duration_s)}"
    return f"{source.name}  [{bar:-<{_BAR_CHARS}}] {done:4.0%}  {times}  {speed:.0f}x"


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{s:02}"
