import asyncio
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.errors import AudioFormatError, ConfigError, ServeError
from edgeasr.recognizer import Recognizer
from edgeasr.serve.hub import Hub, StreamRefusedError
from edgeasr.serve.limits import Limits
from edgeasr.serve.metrics import Metrics
from edgeasr.transcript import Final

SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
ScriptedModel, tone, silence, RATE_HZ = (SCRIPTED[name] for name in ("ScriptedModel", "tone", "silence", "RATE_HZ"))
LIMITS = Limits(max_streams=2)


def hub(limits=LIMITS, model=None, **options):
    return Hub(partial(Recognizer, model or ScriptedModel()), limits, Metrics("scripted"), **options)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def pcm(waveform):
    return (waveform * 32767).astype("<i2").tobytes()


def finals(events):
    return [event.text for event in events if isinstance(event, Final)]


async def transcript(stream):
    return [event async for event in stream.events()]


def test_events_are_those_of_a_recogniser():
    waveform = np.concatenate([tone("ab cab"), silence(1.2), tone("bad")])
    recognizer = Recognizer(ScriptedModel())
    recognizer.accept_waveform(np.frombuffer(pcm(waveform), "<i2").astype(np.float32) * np.float32(2**-15), RATE_HZ)
    wanted = []
    while recognizer.is_ready():
        wanted += recognizer.step()
    recognizer.input_finished()
    while recognizer.is_ready():
        wanted += recognizer.step()

    async def serve():
        async with hub() as served, served.stream("test") as stream:
            heard = []
            for first in range(0, len(waveform), 777):
                assert await stream.accept_pcm(pcm(waveform[first : first + 777]), RATE_HZ)
                heard += await stream.heard()
            stream.finish()
            return heard + await stream.heard()

    heard = run(serve())
    # The last partial makes room for its final.
    assert heard == [*wanted[:-2], wanted[-1]]
    assert finals(wanted) == ["ab cab", "bad"]
