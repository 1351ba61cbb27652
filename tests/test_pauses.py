"""No word is lost where speech begins, pauses or ends: with the gate, without it, and at any place of a cut."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr.audio import FileSource
from edgeasr.endpoint import PRESETS, EndpointConfig
from edgeasr.endpoint_benchmark import voice_span
from edgeasr.gate import GateConfig
from edgeasr.ladder import Rung
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.transcript import Final

REPOSITORY = Path(__file__).parents[1]
SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
ScriptedModel, tone, silence = (SCRIPTED[name] for name in ("ScriptedModel", "tone", "silence"))
RATE = 16_000
FRAME_S = 0.04
GATES = pytest.mark.parametrize("gate", [None, GateConfig()], ids=["without", "gate"])


def hear(recognizer, waveform, block=None):
    recognizer.reset()
    events = []
    for start in range(0, len(waveform), block or len(waveform)):
        recognizer.accept_waveform(waveform[start : start + (block or len(waveform))], RATE)
        while recognizer.is_ready():
            events += recognizer.step()
    recognizer.input_finished()
    while recognizer.is_ready():
        events += recognizer.step()
    return [event for event in events if isinstance(event, Final)]


def words(finals):
    return [(word.word, word.start) for final in finals for word in final.words]


def hiss(length, level_dbfs=-65.0, seed=0):
    samples = np.random.default_rng(seed).standard_normal(length, np.float32)
    return samples * np.float32(10 ** (level_dbfs / 20))


class TestScriptedSpeech:
    @GATES
    @pytest.mark.parametrize("hissing", [False, True])
    @pytest.mark.parametrize("delay", [0, 5])
    def test_keeps_its_words_and_times_over_pauses_of_any_length(self, gate, hissing, delay):
        @settings(max_examples=12)
        @given(st.lists(st.integers(25, 300), min_size=3, max_size=3))
        def check(pauses):
            said, parts, expected, at = ["so it goes", "and", "then it ended"], [], [], 0
            for text, frames in zip(said, pauses, strict=True):
                parts += [silence(frames * FRAME_S), tone(text)]
                expected.append((text, (at + frames + delay) * FRAME_S))
                at += frames + len(parts[-1]) // 640
            waveform = np.concatenate(parts)
            if hissing:
                waveform = waveform + hiss(len(waveform))
            finals = hear(Recognizer(ScriptedModel(delay), gate=gate), waveform)
            assert [(final.text, pytest.approx(final.words[0].start)) for final in finals] == expected

        check()

    @pytest.mark.parametrize("preset", PRESETS)
    def test_costs_steps_only_where_there_is_some(self, preset):
        model, endpoints = ScriptedModel(), []
        recognizer = Recognizer(model, endpoint=preset, gate=GateConfig(), on_endpoint=endpoints.append)
        (final,) = hear(recognizer, np.concatenate([silence(60.0), tone("so it goes"), silence(60.0)]))
        assert (final.text, final.endpoint) == ("so it goes", "pause")
        assert final.words[0].start == pytest.approx(60.0)
        assert model.num_steps * 0.16 < 8.0
        assert recognizer.gated_s + model.num_steps * 0.16 == pytest.approx(recognizer.heard_s, abs=0.7)
        assert recognizer.heard_s == pytest.approx(120.8, abs=0.6)
        assert [(one.name, one.words) for one in endpoints] == [("pause", 3), ("end", 0)]

    @GATES
    def test_ends_when_the_input_does_after_silence_that_was_held_back(self, gate):
        ended = []
        recognizer = Recognizer(ScriptedModel(0), gate=gate, on_endpoint=ended.append)
        waveform = np.concatenate([tone("so it goes"), silence(30)])
        hear(recognizer, waveform)
        assert ended[-1].name == "end"
        assert ended[-1].time_s == pytest.approx(len(waveform) / RATE, abs=0.5)
        assert recognizer.heard_s == pytest.approx(ended[-1].time_s)

    def test_is_the_same_in_blocks_of_any_length(self):
        waveform = np.concatenate([silence(5.0), tone("so it goes"), silence(7.0), tone("on")])
        waveform = waveform + hiss(len(waveform))
        expected = hear(Recognizer(ScriptedModel(2), gate=GateConfig()), waveform)
        assert [final.text for final in expected] == ["so it goes", "on"]
        for block in (1000, 2561, 40_000):
            assert hear(Recognizer(ScriptedModel(2), gate=GateConfig()), waveform, block) == expected

    def test_goes_on_after_a_gap_that_begins_while_the_gate_is_closed(self):
        recognizer = Recognizer(ScriptedModel(), gate=GateConfig())
        recognizer.accept_waveform(np.concatenate([tone("so"), silence(10.0 - 0.16)]), RATE)
        recognizer.accept_gap(90 * RATE, RATE)
        recognizer.accept_waveform(np.concatenate([silence(1.0), tone("on")]), RATE)
        recognizer.input_finished()
        finals = []
        while recognizer.is_ready():
            finals += [event for event in recognizer.step() if isinstance(event, Final)]
        assert [(word, pytest.approx(at)) for word, at in words(finals)] == [("so", 0.0), ("on", 101.0)]

    def test_tells_the_memory_the_time_that_was_not_heard(self):
        class Spy(ScriptedModel):
            def step(self, features, state, keeper=None):
                moved.append(keeper._moved_s)
                return super().step(features, state)

        moved = []
        recognizer = Recognizer(Spy(), gate=GateConfig())
        hear(recognizer, np.concatenate([silence(20.0), tone("so")]))
        assert moved[0] == 0.0
        assert moved[-1] == pytest.approx(recognizer.gated_s)
        assert moved[-1] > 15

    def test_waits_with_a_change_of_effort_until_nothing_is_held_back(self):
        recognizer = Recognizer(ScriptedModel(), gate=GateConfig())
        recognizer.accept_waveform(silence(5.0), RATE)
        while recognizer.is_ready():
            recognizer.step()
        before = recognizer.model
        recognizer.model.chunk_lengths_ms = (160, 320)
        recognizer.use(Rung("greedy", 320))
        assert recognizer.model is before

    @pytest.mark.parametrize("delay", [8, 14, 22])
    def test_is_heard_to_its_end_however_late_the_model_is(self, delay):
        """A letter of two frames every four, so that the model is never silent for long."""
        (final,) = hear(Recognizer(ScriptedModel(delay)), tone("to the very end"))
        assert final.text == "to the very end"

    def test_is_not_waited_for_without_end(self):
        class Babbling(ScriptedModel):
            def _heard(self, frame):
                self.turn = not getattr(self, "turn", False)
                return 1 + self.turn

        model = Babbling()
        hear(Recognizer(model), tone("so"))
        assert model.num_steps * 0.16 < 0.16 + 0.36 + 1.2 + 0.32

    def test_is_not_waited_for_where_somebody_quieter_goes_on(self):
        loud, quiet = tone("so it goes"), tone("and on and on and on and on") * np.float32(0.02)
        waveform = np.concatenate([loud, quiet])
        first, *_ = hear(Recognizer(ScriptedModel()), waveform)
        assert first.endpoint == "pause"
        assert first.end == pytest.approx(0.8 + 0.8, abs=0.33)
        both = hear(
            Recognizer(ScriptedModel(), endpoint=EndpointConfig(background_db=100)), np.concatenate([loud, quiet])
        )
        assert [final.endpoint for final in both] == ["end"]


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def sentence():
    """The voice of the second sentence of the bundled clip: "there was a man in the house and he had ..." """
    with FileSource(REPOSITORY / "edgeasr" / "models" / "demo.flac") as source:
        clip = np.concatenate([block.samples for block in source.blocks()])
        assert source.sample_rate_hz == RATE
    second = clip[round(4.0 * RATE) :]
    start_s, end_s = voice_span(second, RATE)
    return second[round(start_s * RATE) : round(end_s * RATE)]


class TestRealSpeech:
    @GATES
    def test_keeps_its_first_words_wherever_a_chunk_begins(self, model, sentence, gate):
        """A stream that begins with the voice, and pauses of 0 to 150 ms more than some time."""
        recognizer = Recognizer(model, gate=gate)
        first = sentence[: round(1.6 * RATE)]
        for lead in [0.0] + [(3.0 if gate else 0.6) + ms / 1000 for ms in range(0, 160, 10)]:
            waveform = np.concatenate([silence(lead), first])
            heard = words(hear(recognizer, waveform + hiss(len(waveform), -75.0)))
            assert [word for word, _ in heard[:3]] == ["there", "was", "a"], lead

    def test_keeps_its_last_word_wherever_a_chunk_ends(self, model, sentence):
        recognizer = Recognizer(model)
        for ms in range(0, 160, 10):
            heard = words(hear(recognizer, sentence[-round(1.6 * RATE) - ms * 16 :]))
            assert heard[-1][0] == "money", ms
