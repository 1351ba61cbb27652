"""`edgeasr listen`: the words of a live source, as they are spoken."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edgeasr.allocator import keep_little, settle, unmap_files
from edgeasr.cli.actions import Exec, ExecJobs, ExecTimeout, MqttUrl, WebhookAllow, WebhookUrl, acting
from edgeasr.cli.budget import BudgetBattery, BudgetRtf, BudgetTemperature, budget_check
from edgeasr.cli.endpoint_options import EndpointRules, Explain, GateSwitch, listening
from edgeasr.cli.options import (
    Backend,
    DecoderName,
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
from edgeasr.cli.signals import StopSignals
from edgeasr.cli.sources import Pcm, ShowLevel, SourceChoice, Wait, backlog_of, open_source, report_losses
from edgeasr.cli.terminal import StatusLine, write_out
from edgeasr.errors import AudioFormatError, DeviceError
from edgeasr.service.notify import ServiceManager
from edgeasr.service.watchdog import Watchdog, WatchedStop
from edgeasr.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeasr.audio import AudioBlock, Source
    from edgeasr.features import FeatureBlock
    from edgeasr.firmware_bridge.source import BridgeSource
    from edgeasr.recognizer import Recognizer
    from edgeasr.transcript import Event, TranscriptWriter


def listen(
    remembered: Annotated[
        Path | None, typer.Argument(metavar="[PATH]", help="With --remember: as --store.", show_default=False)
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            metavar="mic|FILE|-|alsa:NAME|pipe:COMMAND|URL",
            help="- is standard input: raw 16-bit little-endian mono, 16 kHz. alsa: is a device of arecord's, pipe: "
            "what a command writes, rtp://HOST:PORT and tcp-audio://HOST:PORT what is sent there. Another URL is a "
            "microcontroller: serial:///dev/ttyACM0?baud=921600, tcp://HOST:PORT, tcp-listen://HOST:PORT, pty:.",
        ),
    ] = "mic",
    device: Annotated[
        str | None, typer.Option(metavar="N|NAME", help="Microphone, by its number or a part of its name.")
    ] = None,
    pcm: Pcm = None,
    wait: Wait = False,
    level: ShowLevel = False,
    real_time: Annotated[bool, typer.Option("--real-time", help="Hear a FILE no faster than it was spoken.")] = False,
    json: Json = False,
    srt: Srt = False,
    vtt: Vtt = False,
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
    budget_rtf: BudgetRtf = None,
    budget_temperature: BudgetTemperature = None,
    budget_battery: BudgetBattery = None,
    exec: Exec = None,
    exec_timeout: ExecTimeout = None,
    exec_jobs: ExecJobs = 1,
    webhook: WebhookUrl = None,
    webhook_allow: WebhookAllow = None,
    mqtt: MqttUrl = None,
) -> None:
    """Print what is being said.

    On a terminal the current segment is rewritten in place until it is final. Through a pipe come final
    segments, a line each, and with --json partial ones too. Ctrl-C ends it, after the last words. With a
    --grammar speech that is none of its sentences prints nothing, and with --json an event "rejected".

    With a --budget it does with less where it would take more, and where the processor is throttled: one thread,
    longer chunks if the bundle has them, a narrower beam, at last the greedy decoder; and goes back once there is
    room. Each change is a line on stderr.
    """
    keep_little()
    wanted = chosen_format(json=json, srt=srt, vtt=vtt)
    choice = SourceChoice(source, device, pcm, real_time, wait)
    path = _store_path(remembered, store, remember=remember)
    hearing = listening(endpoint, gate=gate, explain=explain)
    own = own_words(grammar, grammar_threshold, hotwords, dictionary)
    from edgeasr.first_start import compile_first
    from edgeasr.recognizer import Recognizer, load_model

    compile_first(native=backend in (None, "native"), greedy=decoder == "greedy")
    manager = ServiceManager.from_environment()
    watchdog = Watchdog(manager)
    status = StatusLine(sys.stdout, enabled=wanted == "text")
    with (
        StopSignals(manager.stopping) as stop,
        open_source(choice, WatchedStop(stop, watchdog), status.show_level if level else None) as audio,
        acting(
            exec=exec,
            exec_timeout=exec_timeout,
            exec_jobs=exec_jobs,
            webhook=webhook,
            webhook_allow=webhook_allow,
            mqtt=mqtt,
        ) as acted_on,
        ExitStack() as opened,
    ):
        bridge = cast("BridgeSource", audio) if choice.is_bridge else None
        unmap_files()  # loading takes the most
        loaded = load_model(model, backend=backend, threads=threads, words=decoder != "greedy")
        memory = opened.enter_context(
            remembering(loaded, path, wanted=remember, max_mb=store_mb, max_days=store_days, recall=recall)
        )
        recognizer = Recognizer(loaded, decoder=decoder, **own, **hearing, **hooks(memory))
        within = budget_check(
            recognizer,
            rtf=budget_rtf,
            temperature=budget_temperature,
            battery=budget_battery,
            backlog_s=backlog_of(audio),
        )

        def check() -> None:
            within()
            watchdog.heard(recognizer.heard_s)

        settle()
        manager.ready(f"listening to {audio.name}")
        if status.enabled:
            print(f"Listening to {visible(audio.name)}, Ctrl-C to end", file=sys.stderr)
        opened.callback(report_losses, audio)
        with _breaking_off(stop):
            events = stored(memory, audio.name, _events(recognizer, audio, bridge, stop, check))
            _print_events(_settled(acted_on(events)), transcript_writer(wanted), status)


def _store_path(remembered: Path | None, store: Path | None, *, remember: bool) -> Path | None:
    """The one of both that was given."""
    if (remembered or store) and not remember:
        raise typer.BadParameter("the path of a store is for --remember")
    if remembered and store:
        raise typer.BadParameter("give the path of the store once")
    return remembered or store


@contextmanager
def _breaking_off(stop: StopSignals) -> Iterator[None]:
    """A stream that a signal breaks off may end in half a sample, or before the first."""
    try:
        yield
    except (AudioFormatError, DeviceError):
        if not stop.requested:
            raise


def _events(
    recognizer: Recognizer,
    audio: Source[AudioBlock | FeatureBlock],
    bridge: BridgeSource | None,
    stop: StopSignals,
    check: Callable[[], None],
) -> Iterator[Event]:
    """What is heard until the source ends or a signal comes; a device with a display gets it too.

    check: called after each block
    """
    if bridge is not None:
        return bridge.shown(recognizer.stream(bridge, lambda _: check()))

    def on_block(_: AudioBlock | FeatureBlock) -> None:
        check()
        if stop.requested:
            audio.close()

    return recognizer.stream(audio, on_block)


def _settled(events: Iterator[Event]) -> Iterator[Event]:
    """The same; with the first of them the source, the model and the decoder have done what they do only once."""
    for number, event in enumerate(events):
        yield event
        if number == 0:
            unmap_files()


def _print_events(events: Iterator[Event], writer: TranscriptWriter, status: StatusLine) -> None:
    write_out(writer.header)
    with status:
        for event in events:
            if written := writer.write(event):
                status.clear()
                write_out(written)
            else:
                status.show(event.text)
    write_out(writer.footer)
