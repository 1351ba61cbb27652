"""`edgeasr serve`: recognition for other programs, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import warnings
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edgeasr.allocator import keep_little, settle
from edgeasr.cli.endpoint_options import EndpointRules, GateSwitch, listening
from edgeasr.cli.front_options import FrontOptions
from edgeasr.cli.options import Backend, DecoderName, Model, Threads
from edgeasr.cli.signals import StopSignals
from edgeasr.cli.sources import SourceChoice, open_source
from edgeasr.cli.start_checks import check_source
from edgeasr.cli.terminal import print_note
from edgeasr.wording import counted

if TYPE_CHECKING:
    from edgeasr.audio import AudioBlock, Source
    from edgeasr.serve.hub import Hub
    from edgeasr.serve.limits import Limits
    from edgeasr.serve.server import ServerConfig
    from edgeasr.serve.stream import NewRecognizer
    from edgeasr.serve.wyoming_server import WyomingAddress


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="To listen at; one that others can reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of HTTP and web sockets; 0 for any free one.")] = 8000,
    vosk_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="A second port, for programs that know vosk-server's 2700."
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Clients must send the token in this file, 16 characters or more."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="The same, for the environment (EDGEASR_SERVE_TOKEN): everybody can read a command line."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name by which clients call this machine.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Pages of others that may use the server, such as http://localhost:3000."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="HTTPS with this certificate; browsers want it for a microphone.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key, where it is not in the same file.")] = None,
    wyoming: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Home Assistant's protocol too, at tcp://127.0.0.1:10300 or unix:///PATH."),
    ] = None,
    wyoming_allow_remote: Annotated[
        bool, typer.Option("--wyoming-allow-remote", help="At an address that others can reach: it knows no tokens.")
    ] = False,
    source: Annotated[
        str, typer.Option(metavar="mic|FILE|URL", help="What the page hears as the device's microphone.")
    ] = "mic",
    device: Annotated[
        str | None, typer.Option(metavar="N|NAME", help="The device's microphone, by number or a part of its name.")
    ] = None,
    max_streams: Annotated[
        int | None,
        typer.Option(min=1, help="Heard at once; without it what this machine can do is measured at the start."),
    ] = None,
    max_request_mb: Annotated[int, typer.Option(min=1, metavar="MB", help="Largest file to be transcribed.")] = 25,
    idle: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="A client that sends nothing for so long is closed.")
    ] = 60.0,
    workers: Annotated[int, typer.Option(min=1, help="Streams whose steps run at the same time.")] = 1,
    model: Model = None,
    backend: Backend = None,
    decoder: DecoderName = None,
    threads: Threads = 1,
    endpoint: EndpointRules = "normal",
    gate: GateSwitch = True,
) -> None:
    """Hear other programs' speech: streams in vosk-server's and Wyoming's protocols, files in OpenAI's; and a page.

    Ctrl-C or SIGTERM ends it, after the last words of every stream.
    """
    keep_little()
    check_source(SourceChoice(source, device))
    front = FrontOptions(
        host=host,
        port=port,
        vosk_port=vosk_port,
        token_file=token_file,
        token=token,
        allow_host=allow_host,
        allow_origin=allow_origin,
        certificate=certificate,
        key=key,
        wyoming=wyoming,
        wyoming_allow_remote=wyoming_allow_remote,
    )
    config, address = front.config(), front.wyoming_address()
    from edgeasr.serve.limits import Limits

    limits = Limits(max_request_bytes=max_request_mb << 20, idle_s=idle)
    from edgeasr.recognizer import Recognizer, load_model
    from edgeasr.serve.capacity import measured_rtf, streams_for

    logging.basicConfig(format="edgeasr: %(message)s")
    warnings.filterwarnings("ignore", module=r"aiohttp\.multipart")  # of requests that are answered as malformed
    loaded = load_model(model, backend=backend, threads=threads, words=decoder != "greedy")
    hearing = listening(endpoint, gate=gate, explain=False)
    new_recognizer = partial(Recognizer, loaded, decoder=decoder, **hearing)
    streams = max_streams or streams_for(measured_rtf(new_recognizer()), workers)
    limits = replace(limits, max_streams=streams, max_connections=max(limits.max_connections, 2 * streams))
    fronts = _Fronts(config, address, source, device, loaded.name)
    settle()
    asyncio.run(_run(new_recognizer, limits, workers, fronts))


@dataclass(frozen=True)
class _Fronts:
    """What is put before the hub. wyoming: None for none; source, device: the microphone of the live page"""

    config: ServerConfig
    wyoming: WyomingAddress | None
    source: str
    device: str | None
    model_name: str

    async def open(self, hub: Hub, stop: StopSignals, opened: AsyncExitStack) -> list[str]:
        """returns: where it is listened"""
        from edgeasr.serve.server import Server
        from edgeasr.serve.wyoming_conversation import WyomingModel
        from edgeasr.serve.wyoming_server import WyomingServer

        urls = []
        if self.wyoming is not None:
            model = WyomingModel(self.model_name)
            urls.append((await opened.enter_async_context(WyomingServer(hub, self.wyoming, model))).bound)
        server = Server(hub, self.config, self.model_name, partial(self._microphone, stop))
        return (await opened.enter_async_context(server)).urls + urls

    def _microphone(self, stop: StopSignals) -> Source[AudioBlock]:
        choice = SourceChoice(self.source, self.device, real_time=Path(self.source).exists())
        return cast("Source[AudioBlock]", open_source(choice, stop))


async def _run(new_recognizer: NewRecognizer, limits: Limits, workers: int, fronts: _Fronts) -> None:
    from edgeasr.serve.hub import Hub
    from edgeasr.serve.metrics import Metrics
    from edgeasr.serve.server import wait
    from edgeasr.service.notify import ServiceManager

    loop, stop, manager = asyncio.get_running_loop(), asyncio.Event(), ServiceManager.from_environment()

    def request_stop() -> None:
        loop.call_soon_threadsafe(stop.set)

    with StopSignals(request_stop) as signals:
        async with (
            Hub(new_recognizer, limits, Metrics(fronts.model_name), threads=workers) as hub,
            AsyncExitStack() as opened,
        ):
            urls = await fronts.open(hub, signals, opened)
            status = f"listening at {', '.join(urls)}, {counted(limits.max_streams, 'stream')} at once"
            print_note(f"{status}; Ctrl-C to end")
            manager.ready(status)
            await wait(stop, hub, manager)
            manager.stopping()
            if hub.num_streams:
                print_note(f"ending {counted(hub.num_streams, 'stream')}, Ctrl-C to end at once")
