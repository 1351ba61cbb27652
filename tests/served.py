"""A server in this process, on a free port of loopback, with the model that hears tones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from runpy import run_path
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from edgeasr.recognizer import Recognizer
from edgeasr.serve.hub import Hub
from edgeasr.serve.limits import Limits
from edgeasr.serve.metrics import Metrics
from edgeasr.serve.security import Access
from edgeasr.serve.server import Server, ServerConfig
from edgeasr.transcript import Final

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
ScriptedModel, tone, silence, RATE_HZ = (SCRIPTED[name] for name in ("ScriptedModel", "tone", "silence", "RATE_HZ"))

PATIENCE_S = 60  # never reached, unless something hangs


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result."""

    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await coroutine

    return asyncio.run(bounded())


def pcm(waveform: np.ndarray) -> bytes:
    """16-bit little-endian samples."""
    return (waveform * 32767).astype("<i2").tobytes()


def heard_from_pcm(content: bytes, rate_hz: int = RATE_HZ) -> list[Any]:
    """The events of a recogniser of its own."""
    recognizer = Recognizer(ScriptedModel())
    recognizer.accept_waveform(np.frombuffer(content, "<i2").astype(np.float32) * np.float32(2**-15), rate_hz)
    recognizer.input_finished()
    events = []
    while recognizer.is_ready():
        events += recognizer.step()
    return events


def finals(events: list[Any]) -> list[str]:
    """Their texts."""
    return [event.text for event in events if isinstance(event, Final)]


def make_hub(model: Any = None, *, threads: int = 1, **limits: Any) -> Hub:
    """With the limits that are named."""
    new_recognizer = partial(Recognizer, model or ScriptedModel())
    return Hub(new_recognizer, Limits(**limits), Metrics("scripted"), threads=threads)


class Served(NamedTuple):
    """url: without a slash at the end; client: of aiohttp, for any use"""

    hub: Hub
    server: Server
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.server.urls[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def metric(self, name: str, **labels: str) -> float:
        """Its value, 0 where it was not counted yet."""
        return self.hub.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def served(
    model: Any = None,
    access: Access | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    **limits: Any,
) -> AsyncIterator[Served]:
    """A server and a client of it."""
    config = ServerConfig(access or Access(), port=0, certificate=certificate, key=key)
    async with (
        make_hub(model, **limits) as hub,
        Server(hub, config, "scripted") as server,
        aiohttp.ClientSession() as client,
    ):
        yield Served(hub, server, client)


class GatedModel(ScriptedModel):
    """Its steps wait until `gate` is set; `order` lists whose they were."""

    def __init__(self, name: str = "", order: list[str] | None = None) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.stream, self.order = name, order if order is not None else []

    def step(self, features: Any, state: Any, keeper: Any = None) -> Any:
        assert self.gate.wait(PATIENCE_S)
        self.order.append(self.stream)
        return super().step(features, state, keeper)
