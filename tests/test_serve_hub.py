import asyncio
import gc
import weakref
from functools import partial
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.audio import FileSource
from edgeasr.errors import AudioFormatError, ConfigError, ServeError
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.serve.hub import Hub, StreamRefusedError
from edgeasr.serve.limits import Limits
from edgeasr.serve.metrics import Metrics
from edgeasr.serve.stream import PIECE_S
from edgeasr.transcript import Final

SERVED = run_path(str(Path(__file__).with_name("served.py")))
make_hub, run, pcm, finals = (SERVED[name] for name in ("make_hub", "run", "pcm", "finals"))
ScriptedModel, GatedModel, tone, silence = (SERVED[name] for name in ("ScriptedModel", "GatedModel", "tone", "silence"))
RATE_HZ, heard_from_pcm = SERVED["RATE_HZ"], SERVED["heard_from_pcm"]

CHUNK_S = 0.16


async def all_events(stream):
    return [event async for event in stream.events()]


def test_events_are_those_of_a_recogniser_of_its_own():
    content = pcm(np.concatenate([tone("ab cab"), silence(1.2), tone("bad")]))

    async def serve():
        async with make_hub() as hub, hub.stream("test") as stream:
            heard = []
            for first in range(0, len(content), 777):  # half a sample, too
                assert await stream.accept_pcm(content[first : first + 777], RATE_HZ)
                heard += await stream.heard()
            stream.finish()
            return heard + await stream.heard()

    heard, wanted = run(serve()), heard_from_pcm(content)
    assert finals(wanted) == ["ab cab", "bad"]
    # The last partial makes room for its final.
    assert heard == [*wanted[:-2], wanted[-1]]


def test_what_a_message_caused_is_known_once_it_is_heard():
    async def serve():
        async with make_hub() as hub, hub.stream("test") as stream:
            await stream.accept_pcm(pcm(tone("abc")), RATE_HZ)
            first = await stream.heard()
            await stream.accept_pcm(pcm(silence(2)), RATE_HZ)
            return first, await stream.heard(), await stream.heard()

    first, second, third = run(serve())
    assert [event.text for event in first][-1].startswith("ab")
    assert finals(second) == ["abc"]
    assert third == []


def test_streams_take_turns():
    order = []
    models = {name: GatedModel(name, order) for name in "abc"}
    made = iter(models.values())

    def new_recognizer(*, on_admission):
        return Recognizer(next(made), on_admission=on_admission)

    async def serve():
        limits = Limits(queue_s=100)
        async with (
            Hub(new_recognizer, limits, Metrics("scripted")) as hub,
            hub.stream("x") as a,
            hub.stream("x") as b,
            hub.stream("x") as c,
        ):
            for stream, seconds in ((a, 8), (b, 2), (c, 2)):
                await stream.accept(silence(seconds), RATE_HZ)
                stream.finish()
            for model in models.values():
                model.gate.set()
            for stream in (a, b, c):
                await all_events(stream)

    run(serve())
    # The one that has much does not delay those that have little, apart from turns taken before they came.
    last = max(order.index(name, len(order) - order[::-1].index(name) - 1) for name in "bc")
    num_short = round(2 / CHUNK_S) + 4
    assert last <= 3 * num_short + 3
    assert set(order[last + 1 :]) == {"a"}


def test_audio_that_waits_is_bounded():
    model = GatedModel()

    async def serve():
        async with make_hub(model, queue_s=1.0) as hub, hub.stream("test") as stream:
            accepting = asyncio.create_task(stream.accept(tone("ab " * 40), RATE_HZ))
            done, _ = await asyncio.wait([accepting], timeout=0.3)
            assert not done
            try:
                assert 1.0 - 2 * CHUNK_S <= stream.waiting_s <= 1.0 + PIECE_S
                assert hub.waiting_s() == stream.waiting_s
            finally:
                model.gate.set()
            assert await accepting
            stream.finish()
            return finals(await all_events(stream))

    assert run(serve()) == [" ".join(["ab"] * 40)]


def test_a_slow_reader_misses_partials_and_no_finals_and_does_not_stall_others():
    texts = ["ab", "bc", "cd", "de", "ef", "fa"]
    waveform = np.concatenate([part for text in texts for part in (tone(text), silence(1.2))])

    async def serve():
        async with (
            make_hub(max_finals=2, queue_s=100.0) as hub,
            hub.stream("slow") as slow,
            hub.stream("quick") as quick,
        ):
            for stream in (slow, quick):
                await stream.accept(waveform, RATE_HZ)
                stream.finish()
            of_quick = await all_events(quick)
            while hub.stalled_s:  # the slow one's turns end once two finals wait
                await asyncio.sleep(0.01)
            assert slow.waiting_s > 1.0
            return of_quick, await all_events(slow), hub.metrics

    of_quick, of_slow, metrics = run(serve())
    assert finals(of_quick) == finals(of_slow) == texts
    assert sum(not isinstance(event, Final) for event in of_slow) <= len(texts)
    assert metrics.registry.get_sample_value("edgeasr_partials_dropped_total") > 0


def test_one_stream_more_than_the_limit_is_refused_until_a_place_is_free():
    async def serve():
        async with make_hub(max_streams=2) as hub:
            async with hub.stream("a"):
                async with hub.stream("b"):
                    with pytest.raises(StreamRefusedError, match="hears 2 streams, as many as it takes"):
                        async with hub.stream("c"):
                            pass
                async with hub.stream("c"):
                    assert hub.num_streams == 2
            assert hub.num_streams == 0
            return hub.metrics.registry.get_sample_value("edgeasr_refused_total", {"reason": "streams"})

    assert run(serve()) == 1


def test_a_hub_that_stops_gives_every_stream_its_last_words():
    async def client(hub, text, heard):
        async with hub.stream("test") as stream:
            await stream.accept(tone(text), RATE_HZ)
            with pytest.raises(TimeoutError):
                async with hub.patience(1000):
                    await asyncio.Event().wait()
            assert hub.stopping
            assert not await stream.accept(tone("d"), RATE_HZ)
            heard += await all_events(stream)

    async def serve():
        heard = []
        async with make_hub() as hub:
            clients = [asyncio.create_task(client(hub, text, heard)) for text in ("abc", "cab")]
            await asyncio.sleep(0.05)
            await hub.stop()
            await asyncio.gather(*clients)
            with pytest.raises(StreamRefusedError, match="stopping"):
                async with hub.stream("late"):
                    pass
        return finals(heard)

    assert sorted(run(serve())) == ["abc", "cab"]


def test_a_stop_waits_no_longer_than_its_limit_for_a_client_that_takes_nothing():
    async def serve():
        async with make_hub(stop_s=0.1) as hub, hub.stream("stuck") as stream:
            await hub.stop()
            assert await all_events(stream) == []

    run(serve())


class Broken(ScriptedModel):
    def step(self, features, state, keeper=None):
        raise ZeroDivisionError("broken on purpose")


def test_a_fault_ends_its_own_stream_only(caplog):
    models = iter([Broken(), ScriptedModel()])

    def new_recognizer(*, on_admission):
        return Recognizer(next(models), on_admission=on_admission)

    async def serve():
        async with (
            Hub(new_recognizer, Limits(), Metrics("scripted")) as hub,
            hub.stream("bad") as bad,
            hub.stream("good") as good,
        ):
            await bad.accept(tone("abc"), RATE_HZ)
            with pytest.raises(ServeError, match="fault of the server"):
                await bad.heard()
            assert not await bad.accept(tone("abc"), RATE_HZ)
            await good.accept(tone("abc"), RATE_HZ)
            good.finish()
            return finals(await all_events(good))

    assert run(serve()) == ["abc"]
    assert "broken on purpose" in caplog.text


def test_audio_that_cannot_be_ends_the_stream_after_its_words():
    async def serve():
        async with make_hub() as hub, hub.stream("test") as stream:
            with pytest.raises(AudioFormatError, match="sample rate of 1 Hz"):
                await stream.accept(silence(1), 1)
            await stream.accept(np.concatenate([tone("abc"), silence(1)]), RATE_HZ)
            await stream.accept(np.full(1600, np.nan, np.float32), RATE_HZ)
            heard = []

            async def hear():
                async for event in stream.events():
                    heard.extend(finals([event]))

            with pytest.raises(AudioFormatError, match="NaN"):
                await hear()
            return heard

    assert run(serve()) == ["abc"]


def test_gaps_move_time_on():
    async def serve():
        async with make_hub() as hub, hub.stream("test") as stream:
            await stream.accept(tone("ab"), RATE_HZ)
            await stream.accept(tone("cd"), RATE_HZ, gap_samples=30 * RATE_HZ)
            stream.finish()
            return await all_events(stream), stream

    events, stream = run(serve())
    starts = {event.text: event.words[0].start for event in events if isinstance(event, Final)}
    assert starts["cd"] == pytest.approx(30 + starts["ab"] + 4 * 0.04, abs=0.09)
    assert stream.accepted_s == pytest.approx(30 + 8 * 0.04)


def test_who_leaves_is_forgotten():
    model = GatedModel()
    left = []

    async def serve():
        async with make_hub(model) as hub:
            async with hub.stream("test") as stream:
                left.append(weakref.ref(stream))
                await stream.accept(tone("abc"), RATE_HZ)
            del stream
            model.gate.set()
            async with hub.stream("next") as after:  # its turn comes after that of the one who left
                await after.accept(tone("abc"), RATE_HZ)
                assert await after.heard()
            del after
            gc.collect()
            assert left[0]() is None

    run(serve())


def test_what_streams_cost_and_how_long_they_wait_is_measured():
    async def serve():
        async with make_hub() as hub, hub.stream("test") as stream:
            await stream.accept(np.concatenate([tone("abc"), silence(2)]), RATE_HZ)
            await stream.heard()
            value = partial(hub.metrics.registry.get_sample_value)
            of_protocol = {"protocol": "test"}
            assert value("edgeasr_streams", of_protocol) == 1
            assert value("edgeasr_audio_seconds_total", of_protocol) == pytest.approx(stream.meter.audio_s)
            assert value("edgeasr_step_seconds_count") == round(stream.meter.audio_s / CHUNK_S)
            assert value("edgeasr_first_token_latency_seconds_count", of_protocol) == 1
            assert value("edgeasr_final_latency_seconds_count", of_protocol) == 1
            assert value("edgeasr_words_total") == 1
            assert value("edgeasr_queue_seconds") == 0
            assert 0 < stream.meter.chunk_latency_s < 10
            assert b'edgeasr_streams{protocol="test"} 1.0' in hub.metrics.text()

    run(serve())


@pytest.mark.parametrize("field", ["max_streams", "queue_s", "idle_s"])
def test_limits_are_positive(field):
    with pytest.raises(ConfigError, match=f"{field} 0, wanted a number above 0"):
        Limits(**{field: 0})


def test_streams_on_several_threads_hear_what_one_alone_hears(repository):
    """One model, its output buffers and its language model's tables: recognisers share them between threads."""
    model = load_model()
    with FileSource(repository / "edgeasr" / "models" / "demo.flac") as source:
        waveform = np.concatenate([block.samples for block in source.blocks()])
    parts = [waveform[first : first + 3 * RATE_HZ] for first in range(0, 5 * RATE_HZ, RATE_HZ)]

    def alone(part):
        recognizer = Recognizer(model)
        recognizer.accept_waveform(part, RATE_HZ)
        recognizer.input_finished()
        events = []
        while recognizer.is_ready():
            events += recognizer.step()
        return [event for event in events if isinstance(event, Final)]

    wanted = [alone(part) for part in parts]
    assert sum(len(finals) for finals in wanted) >= len(parts)

    async def one(hub, part):
        admissions = []
        async with hub.stream("test", admissions.append) as stream:
            await stream.accept(part, RATE_HZ)
            stream.finish()
            events = await all_events(stream)
        return [event for event in events if isinstance(event, Final)]

    async def serve():
        async with Hub(partial(Recognizer, model), Limits(), Metrics("tiny-en"), threads=4) as hub:
            return await asyncio.gather(*[one(hub, part) for part in parts])

    assert run(serve()) == wanted


def test_admissions_are_counted_and_told(repository):
    async def serve():
        admissions = []
        async with Hub(partial(Recognizer, load_model(), decoder="greedy"), Limits(), Metrics("tiny-en")) as hub:
            async with hub.stream("test", admissions.append) as stream:
                await stream.accept(np.zeros(9 * RATE_HZ, np.float32), RATE_HZ)
                stream.finish()
                await all_events(stream)
            decisions = [admission.decision.value for admission in admissions]
            for decision in ("store", "merge", "skip"):
                counted = hub.metrics.registry.get_sample_value("edgeasr_memory_vectors_total", {"decision": decision})
                assert counted == decisions.count(decision)
            return decisions

    assert len(run(serve())) == 2
