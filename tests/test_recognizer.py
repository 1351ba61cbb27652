import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr.audio import AudioBlock, AudioSource, FileSource, Resampler
from edgeasr.config import ModelConfig
from edgeasr.endpoint import EndpointConfig, EndpointRule
from edgeasr.errors import AudioFormatError, BundleError
from edgeasr.features import FeatureBlock, log_mel
from edgeasr.front_end import flush_s
from edgeasr.manifest import read_manifest
from edgeasr.memory import MemoryKeeper
from edgeasr.model import Emissions
from edgeasr.recognizer import MAX_GAP_S, Recognizer, load_model
from edgeasr.transcript import Final, Partial

REPOSITORY = Path(__file__).parents[1]
SCRIPTED = run_path(str(Path(__file__).with_name("scripted_model.py")))
ScriptedModel, tone, silence = (SCRIPTED[name] for name in ("ScriptedModel", "tone", "silence"))
RATE = 16_000
FLUSH_S = flush_s(ModelConfig())
CHUNK_S = 0.16
SPEECH = np.concatenate([tone("so it goes"), silence(1.6), tone("and then it ended"), silence(0.2)])
NO_RULES = EndpointConfig(rules=())


class ListSource(AudioSource):
    """Blocks from a list, then a failure if there is one."""

    name, duration_s = "list", None

    def __init__(self, blocks, sample_rate_hz=RATE, failure=None):
        self.sample_rate_hz = sample_rate_hz
        self._blocks = blocks
        self._failure = failure

    def blocks(self):
        yield from self._blocks
        if self._failure:
            raise self._failure

    def close(self):
        self._blocks = []


def steps(recognizer):
    events = []
    while recognizer.is_ready():
        events += recognizer.step()
    return events


def hear(recognizer, waveform, lengths=None, rate=RATE):
    """All events of a waveform that comes in blocks of the given lengths, again and again."""
    lengths = lengths or [len(waveform)]
    events, start, turn = [], 0, 0
    while start < len(waveform):
        length = lengths[turn % len(lengths)]
        recognizer.accept_waveform(waveform[start : start + length], rate)
        events += steps(recognizer)
        start, turn = start + length, turn + 1
    recognizer.input_finished()
    return events + steps(recognizer)


def finals(events):
    return [event for event in events if isinstance(event, Final)]


def texts(events):
    return [event.text for event in finals(events)]


def outline(events):
    """(text, start, end) of each word."""
    return [
        (word.word, pytest.approx(word.start), pytest.approx(word.end))
        for event in finals(events)
        for word in event.words
    ]


class TestEvents:
    def test_have_words_where_they_were_spoken(self):
        events = hear(Recognizer(ScriptedModel()), SPEECH)
        assert outline(events) == [
            ("so", 0.0, 0.16),
            ("it", 0.24, 0.4),
            ("goes", 0.48, 0.8),
            ("and", 2.4, 2.64),
            ("then", 2.72, 3.04),
            ("it", 3.12, 3.28),
            ("ended", 3.36, 3.76),
        ]

    def test_end_a_segment_after_a_pause_and_at_the_end(self):
        first, second = finals(hear(Recognizer(ScriptedModel()), SPEECH))
        # The pause of 0.8 s after 0.8 s is over with the chunk that ends at 1.6 s.
        assert (first.segment, first.start, first.end) == (0, 0.0, pytest.approx(1.6))
        assert (second.segment, second.start) == (1, pytest.approx(1.6))
        assert second.end == pytest.approx(len(SPEECH) / RATE)

    def test_are_partial_until_the_segment_ends(self):
        events = hear(Recognizer(ScriptedModel()), SPEECH)
        first = [event for event in events if event.segment == 0]
        assert [type(event) for event in first] == [*[Partial] * (len(first) - 1), Final]
        assert [(event.text, event.stable) for event in first] == [
            ("so", 0),
            ("so i", 2),
            ("so it", 5),
            ("so it go", 5),
            ("so it goes", 5),
            ("so it goes", 10),
        ]
        assert [event.end for event in first[:5]] == pytest.approx(np.arange(1, 6) * CHUNK_S)

    def test_come_with_the_chunk_that_ends_the_pause(self):
        recognizer = Recognizer(ScriptedModel())
        window_rest = 400 - 160
        recognizer.accept_waveform(SPEECH[: round(1.6 * RATE) + window_rest - 1], RATE)
        assert texts(steps(recognizer)) == []
        recognizer.accept_waveform(SPEECH[:1] * 0, RATE)
        assert texts(steps(recognizer)) == ["so it goes"]

    @pytest.mark.parametrize("lengths", [[1], [7], [160], [2560], [2561, 99], [1, 50_000]])
    def test_do_not_depend_on_the_length_of_blocks(self, lengths):
        expected = hear(Recognizer(ScriptedModel()), SPEECH)
        assert hear(Recognizer(ScriptedModel()), SPEECH, lengths) == expected

    @pytest.mark.parametrize("rate", [44_100, 48_000, 22_050])
    def test_do_not_depend_on_the_length_of_blocks_when_resampled(self, rate):
        waveform = np.concatenate([tone("so it goes", rate_hz=rate), silence(1.5, rate), tone("on", rate_hz=rate)])
        lengths = np.random.default_rng(0).integers(1, 3000, 50).tolist()
        expected = hear(Recognizer(ScriptedModel()), waveform, rate=rate)
        assert texts(expected) == ["so it goes", "on"]
        assert hear(Recognizer(ScriptedModel()), waveform, lengths, rate) == expected
        assert hear(Recognizer(ScriptedModel()), waveform, [rate // 25], rate) == expected

    def test_take_their_time_from_the_audio_at_any_rate(self):
        for rate in (RATE, 48_000, 44_100):
            waveform = np.concatenate([tone("so", rate_hz=rate), silence(1.6, rate), tone("on", rate_hz=rate)])
            events = hear(Recognizer(ScriptedModel()), waveform, rate=rate)
            assert [word for word, *_ in outline(events)] == ["so", "on"]
            assert [final.words[0].start for final in finals(events)] == pytest.approx([0, 1.76], abs=0.041)

    def test_are_none_in_silence(self):
        recognizer = Recognizer(ScriptedModel())
        assert hear(recognizer, silence(30.0)) == []

    def test_begin_a_segment_at_the_last_pause(self):
        """Silence moves the start on by the rule `silence`, every 5 s."""
        (final,) = finals(hear(Recognizer(ScriptedModel()), np.concatenate([silence(12.0), tone("so")])))
        assert (final.segment, final.start) == (0, pytest.approx(2 * 5.12))
        assert final.words[0].start == pytest.approx(12.0)

    def test_do_not_break_a_word_when_a_segment_becomes_too_long(self):
        length = EndpointRule("length", must_contain_speech=True, min_trailing_silence_s=0, min_segment_s=1.1)
        recognizer = Recognizer(ScriptedModel(), endpoint=EndpointConfig((length,)))
        events = finals(hear(recognizer, tone("one two for six")))
        assert [event.text for event in events] == ["one two for", "six"]
        assert events[0].end == events[1].start == events[1].words[0].start

    def test_can_be_one_segment_without_rules(self):
        waveform = np.concatenate([tone("so it "), silence(7.0), tone("goes")])
        assert texts(hear(Recognizer(ScriptedModel()), waveform)) == ["so it", "goes"]
        assert texts(hear(Recognizer(ScriptedModel(), endpoint=NO_RULES), waveform)) == ["so it goes"]


class TestEndOfInput:
    @pytest.mark.parametrize("rate", [RATE, 44_100])
    @pytest.mark.parametrize("delay", [0, 1, 5, 11])
    def test_brings_out_what_the_chain_delays(self, delay, rate):
        waveform = tone("to the very end", rate_hz=rate)
        events = hear(Recognizer(ScriptedModel(delay)), waveform, [rate // 10], rate)
        assert texts(events) == ["to the very end"]
        late_s = delay * 0.04
        assert finals(events)[0].words[-1].end == pytest.approx(len(waveform) / rate + late_s, abs=0.041)

    @pytest.mark.parametrize("extra", [0, 1, 239, 240, 241, 2559])
    def test_runs_the_tail_at_least(self, extra):
        model = ScriptedModel()
        recognizer = Recognizer(model)
        num_samples = 2560 + 240 + extra
        hear(recognizer, silence(num_samples / RATE))
        run_s = model.num_steps * CHUNK_S
        assert FLUSH_S <= run_s - (num_samples - 240) / RATE < FLUSH_S + CHUNK_S + 240 / RATE

    def test_does_not_lengthen_the_transcript(self):
        waveform = np.concatenate([tone("so"), silence(0.1)])
        (final,) = finals(hear(Recognizer(ScriptedModel()), waveform))
        assert final.end == pytest.approx(len(waveform) / RATE)

    def test_keeps_words_that_come_in_the_tail_within_the_segment(self):
        (final,) = finals(hear(Recognizer(ScriptedModel(delay=5)), tone("so")))
        assert final.end == final.words[-1].end == pytest.approx(0.16 + 0.2)

    def test_without_input_brings_nothing(self):
        recognizer = Recognizer(ScriptedModel())
        recognizer.input_finished()
        assert not recognizer.is_ready()

    def test_after_one_sample_brings_nothing_but_is_run(self):
        model = ScriptedModel()
        assert hear(Recognizer(model), silence(1 / RATE)) == []
        assert model.num_steps == 3

    def test_can_be_said_twice(self):
        recognizer = Recognizer(ScriptedModel())
        recognizer.accept_waveform(tone("so"), RATE)
        recognizer.input_finished()
        recognizer.input_finished()
        assert texts(steps(recognizer)) == ["so"]
        recognizer.input_finished()
        assert not recognizer.is_ready()

    def test_is_the_end(self):
        recognizer = Recognizer(ScriptedModel())
        recognizer.input_finished()
        with pytest.raises(AudioFormatError, match=r"call reset\(\)"):
            recognizer.accept_waveform(tone("so"), RATE)


class TestReset:
    def test_begins_a_new_stream(self):
        recognizer = Recognizer(ScriptedModel(delay=3))
        expected = hear(recognizer, SPEECH)
        recognizer.reset()
        assert hear(recognizer, SPEECH) == expected

    @pytest.mark.parametrize("rate", [RATE, 48_000])
    def test_forgets_what_was_begun(self, rate):
        recognizer = Recognizer(ScriptedModel(delay=3))
        recognizer.accept_waveform(tone("an unfinished sentence", rate_hz=rate), rate)
        recognizer.accept_gap(100 * rate, rate)
        recognizer.step()
        recognizer.reset()
        assert not recognizer.is_ready()
        assert hear(recognizer, SPEECH) == hear(Recognizer(ScriptedModel(delay=3)), SPEECH)


class TestGap:
    def heard_around(self, gap_samples, rate=RATE, **options):
        model = ScriptedModel()
        recognizer = Recognizer(model, **options)
        recognizer.accept_waveform(tone("so", rate_hz=rate), rate)
        recognizer.accept_gap(gap_samples, rate)
        recognizer.accept_waveform(tone("on", rate_hz=rate), rate)
        recognizer.input_finished()
        return steps(recognizer), model.num_steps

    @pytest.mark.parametrize("gap_frames", [1, 10, 49, 100])
    def test_is_silence_of_its_length(self, gap_frames):
        events, _ = self.heard_around(gap_frames * 640)
        expected = hear(Recognizer(ScriptedModel()), np.concatenate([tone("so" + "." * gap_frames + "on")]))
        assert events == expected

    @pytest.mark.parametrize("rate", [RATE, 44_100, 48_000])
    @pytest.mark.parametrize("gap_s", [4, 5, 6, 60, 36_000])
    def test_keeps_the_time_true_however_long(self, gap_s, rate):
        events, num_steps = self.heard_around(gap_s * rate, rate)
        assert texts(events) == ["so", "on"]
        last = finals(events)[-1]
        assert last.words[0].start == pytest.approx(0.16 + gap_s, abs=0.041)
        assert last.end == pytest.approx(0.32 + gap_s, abs=0.041)
        assert num_steps * CHUNK_S < 0.32 + MAX_GAP_S + 1 + FLUSH_S + 2 * CHUNK_S

    def test_of_seconds_ends_a_segment_even_without_rules(self):
        assert texts(self.heard_around(5 * RATE, endpoint=NO_RULES)[0]) == ["so", "on"]
        assert texts(self.heard_around(3 * RATE, endpoint=NO_RULES)[0]) == ["soon"]

    def test_can_be_the_last_thing(self):
        recognizer = Recognizer(ScriptedModel())
        recognizer.accept_waveform(tone("so"), RATE)
        recognizer.accept_gap(100 * RATE, RATE)
        recognizer.input_finished()
        assert texts(steps(recognizer)) == ["so"]

    def test_wants_a_rate(self):
        with pytest.raises(AudioFormatError, match="sample rate of 0 Hz"):
            Recognizer(ScriptedModel()).accept_gap(100, 0)


class TestWaveform:
    @pytest.mark.parametrize(
        ("waveform", "rate", "message"),
        [
            (np.zeros(0, np.float32), RATE, "0 samples"),
            (np.array([0, np.nan], np.float32), RATE, "NaN"),
            (np.zeros(100, np.int16), RATE, "int16"),
            (np.zeros((100, 2), np.float32), RATE, r"\(100, 2\)"),
            (np.zeros(100, np.float32), 0, "0 Hz"),
            (np.zeros(100, np.float32), -8000, "-8000 Hz"),
        ],
    )
    def test_that_is_none_is_refused_and_nothing_is_lost(self, waveform, rate, message):
        recognizer = Recognizer(ScriptedModel())
        recognizer.accept_waveform(tone("so"), RATE)
        with pytest.raises(AudioFormatError, match=message):
            recognizer.accept_waveform(waveform, rate)
        recognizer.accept_waveform(tone("it"), RATE)
        recognizer.input_finished()
        assert texts(steps(recognizer)) == ["soit"]

    def test_may_be_overwritten_by_the_caller(self):
        recognizer = Recognizer(ScriptedModel())
        buffer = tone("so")
        recognizer.accept_waveform(buffer, RATE)
        buffer[:] = 0
        recognizer.input_finished()
        assert texts(steps(recognizer)) == ["so"]

    def test_may_change_its_rate(self):
        recognizer = Recognizer(ScriptedModel())
        recognizer.accept_waveform(tone("so.", rate_hz=48_000), 48_000)
        recognizer.accept_waveform(tone("it."), RATE)
        recognizer.accept_waveform(tone("goes", rate_hz=44_100), 44_100)
        recognizer.input_finished()
        (final,) = finals(steps(recognizer))
        assert final.text == "soitgoes"
        assert final.words[0].end == pytest.approx(0.72, abs=0.041)

    def test_of_less_than_a_chunk_waits(self):
        recognizer = Recognizer(ScriptedModel())
        recognizer.accept_waveform(silence(0.1), RATE)
        assert not recognizer.is_ready()
        with pytest.raises(RuntimeError, match=r"is_ready\(\)"):
            recognizer.step()


class TestStream:
    def blocks(self, waveform, length=1600):
        return [AudioBlock(waveform[i : i + length], i) for i in range(0, len(waveform), length)]

    def test_gives_the_events_of_a_source(self):
        events = list(Recognizer(ScriptedModel()).stream(ListSource(self.blocks(SPEECH))))
        assert events == hear(Recognizer(ScriptedModel()), SPEECH)

    def test_is_a_new_one_each_time(self):
        recognizer = Recognizer(ScriptedModel())
        expected = list(recognizer.stream(ListSource(self.blocks(SPEECH))))
        assert list(recognizer.stream(ListSource(self.blocks(SPEECH)))) == expected

    def test_hears_gaps(self):
        waveform = tone("song")
        blocks = [AudioBlock(waveform[:2560], 0), AudioBlock(waveform[2560:], 2560 + 32_000, 32_000)]
        events = finals(Recognizer(ScriptedModel()).stream(ListSource(blocks)))
        assert [event.text for event in events] == ["so", "ng"]
        assert events[1].words[0].start == pytest.approx((2560 + 32_000) / RATE)

    def test_tells_of_each_block_after_its_events(self):
        log = []
        source = ListSource(self.blocks(SPEECH, 4000))
        stream = Recognizer(ScriptedModel()).stream(source, lambda block: log.append(block.start_sample))
        for event in stream:
            log += [event.text]
        assert log[:5] == ["so", 0, "so i", "so it", 4000]

    def test_gives_what_was_heard_before_it_raises(self):
        failure = AudioFormatError("cut off")
        stream = Recognizer(ScriptedModel()).stream(ListSource(self.blocks(SPEECH), failure=failure))
        heard = []
        with pytest.raises(AudioFormatError) as error:
            heard.extend(event for event in stream if isinstance(event, Final))
        assert error.value is failure
        assert [event.text for event in heard] == ["so it goes", "and then it ended"]

    def test_raises_what_the_model_causes_at_once(self):
        class DamagedModel(ScriptedModel):
            def step(self, features, state, policy=None):
                emissions, state = super().step(features, state)
                return Emissions(emissions.tokens * np.nan), state

        with pytest.raises(BundleError, match="the model is damaged"):
            list(Recognizer(DamagedModel()).stream(ListSource(self.blocks(SPEECH))))


def hear_features(recognizer, features, lengths=None):
    """All events of features that come in blocks of the given lengths, again and again."""
    events, start, turn = [], 0, 0
    while start < len(features):
        length = (lengths or [len(features)])[turn % len(lengths or [0])]
        recognizer.accept_features(features[start : start + length])
        events += steps(recognizer)
        start, turn = start + length, turn + 1
    recognizer.input_finished()
    return events + steps(recognizer)


def features_of(waveform):
    return log_mel(waveform, ModelConfig().features)


class TestFeatures:
    @pytest.mark.parametrize("lengths", [None, [1], [2], [16], [17, 1], [1, 500]])
    def test_give_the_events_of_their_waveform(self, lengths):
        expected = hear(Recognizer(ScriptedModel()), SPEECH)
        events = hear_features(Recognizer(ScriptedModel()), features_of(SPEECH), lengths)
        assert outline(events) == [(word, start.expected, end.expected) for word, start, end in outline(expected)]
        # The end of samples that fill no window is not known to features.
        ends = [final.end for final in finals(expected)]
        assert [event.end for event in finals(events)] == pytest.approx(ends, abs=0.01)
        assert len(events) == len(expected)

    @pytest.mark.parametrize("delay", [0, 1, 5, 11])
    def test_end_with_what_the_chain_delays(self, delay):
        events = hear_features(Recognizer(ScriptedModel(delay)), features_of(tone("to the very end")), [7])
        assert texts(events) == ["to the very end"]

    @pytest.mark.parametrize("gap_frames", [1, 10, 49, 100, 900_000])
    def test_keep_the_time_over_gaps(self, gap_frames):
        recognizer = Recognizer(ScriptedModel())
        recognizer.accept_features(features_of(np.concatenate([tone("so"), silence(0.2)])))
        recognizer.accept_gap(gap_frames * 640, RATE)
        recognizer.accept_features(features_of(tone("on")))
        recognizer.input_finished()
        words = outline(steps(recognizer))
        assert words[0][:2] == (words[0][0], 0.0)
        assert words[0][0].startswith("so")
        assert words[-1][0].endswith("on")
        gap_s = (len(features_of(silence(0.36))) - 16) / 100 + gap_frames * 0.04
        assert words[-1][2].expected == pytest.approx(0.16 + gap_s + 0.16, abs=0.041)

    def test_add_up_gaps_that_are_no_whole_frames(self):
        recognizer = Recognizer(ScriptedModel())
        recognizer.accept_features(features_of(silence(0.1))[:0])
        for _ in range(48_000):
            recognizer.accept_gap(1, 48_000)
        recognizer.accept_features(features_of(tone("so")))
        recognizer.input_finished()
        ((_, start, _),) = outline(steps(recognizer))
        assert start.expected == pytest.approx(1.0, abs=0.041)

    def test_and_samples_do_not_mix(self):
        recognizer = Recognizer(ScriptedModel())
        recognizer.accept_features(features_of(tone("so")))
        with pytest.raises(AudioFormatError, match="samples and features in one stream"):
            recognizer.accept_waveform(tone("it"), RATE)
        recognizer.reset()
        recognizer.accept_waveform(tone("it"), RATE)
        with pytest.raises(AudioFormatError, match="samples and features in one stream"):
            recognizer.accept_features(features_of(tone("so")))
        recognizer.input_finished()
        assert texts(steps(recognizer)) == ["it"]

    @pytest.mark.parametrize(
        ("features", "message"),
        [
            (np.zeros((3, 40), np.float32), r"\(3, 40\)"),
            (np.zeros(80, np.float32), r"\(80,\)"),
            (np.zeros((3, 80)), "float64"),
            (np.full((3, 80), np.nan, np.float32), "NaN"),
        ],
    )
    def test_that_are_none_are_refused(self, features, message):
        with pytest.raises(AudioFormatError, match=message):
            Recognizer(ScriptedModel()).accept_features(features)

    def test_come_from_a_source_too(self):
        features = features_of(tone("so...."))
        later = features_of(tone("on...."))
        start = len(features) * 160 + 32_000
        source = ListSource([FeatureBlock(features, 0), FeatureBlock(later, start, 32_000)])
        first, second = finals(Recognizer(ScriptedModel()).stream(source))
        assert (first.text, second.text) == ("so", "on")
        assert second.words[0].start == pytest.approx(start / RATE, abs=0.041)

    def test_of_another_rate_are_refused(self):
        source = ListSource([FeatureBlock(features_of(tone("so")), 0)], sample_rate_hz=8_000)
        with pytest.raises(AudioFormatError, match="8000 Hz, the model wants 16000 Hz"):
            list(Recognizer(ScriptedModel()).stream(source))


class TestModel:
    def test_is_shared_by_recognizers(self):
        model = ScriptedModel(delay=4)
        expected = hear(Recognizer(model), SPEECH)
        one, other = Recognizer(model), Recognizer(model)
        events = []
        for start in range(0, len(SPEECH), 5000):
            one.accept_waveform(SPEECH[start : start + 5000], RATE)
            other.accept_waveform(SPEECH[::-1][start : start + 5000].copy(), RATE)
            events += steps(one)
            steps(other)
        one.input_finished()
        assert events + steps(one) == expected

    def test_is_given_what_decides_on_its_memory(self):
        class Spy(ScriptedModel):
            def step(self, features, state, keeper=None):
                keepers.append(keeper)
                said.append(keeper.text)
                return super().step(features, state)

        keepers, said = [], []
        recognizer = Recognizer(Spy(), memory_policy=lambda *_: None)
        for _ in range(2):
            recognizer.reset()
            hear(recognizer, SPEECH)
        assert len(set(keepers)) == 2  # one for each stream
        assert all(isinstance(keeper, MemoryKeeper) for keeper in keepers)
        assert "" in said
        assert len(set(said)) > 2  # the words so far

    def test_that_is_missing_is_an_error(self, tmp_path):
        with pytest.raises(BundleError, match="check the path"):
            Recognizer(tmp_path / "none")


@pytest.fixture(scope="module")
def shipped_model():
    return load_model()


class TestShippedModel:
    def test_gives_the_same_events_for_blocks_of_any_length(self, shipped_model, speech):
        utterance = read_manifest(speech / "dev.jsonl")[1]
        with FileSource(utterance.path) as source:
            waveform = np.concatenate([block.samples for block in source.blocks()])
        expected = hear(Recognizer(shipped_model), waveform)
        assert len(" ".join(texts(expected))) > len(utterance.text) / 2
        lengths = np.random.default_rng(0).integers(1, 5000, 20).tolist()
        assert hear(Recognizer(shipped_model), waveform, lengths) == expected
        with FileSource(utterance.path, block_ms=33) as source:
            assert list(Recognizer(shipped_model).stream(source)) == expected

    def test_reads_from_features_what_it_hears(self, shipped_model, speech):
        utterance = read_manifest(speech / "dev.jsonl")[1]
        with FileSource(utterance.path) as source:
            waveform = np.concatenate([block.samples for block in source.blocks()])
        resampler = Resampler(source.sample_rate_hz, RATE)
        waveform = np.concatenate([resampler.process(waveform), resampler.flush()])
        expected = texts(hear(Recognizer(shipped_model), waveform))
        assert texts(hear_features(Recognizer(shipped_model), features_of(waveform), [2])) == expected

    @pytest.mark.parametrize(("decoder", "made"), [(None, ["words", "model"]), ("greedy", ["model"])])
    def test_makes_words_ready_before_the_model_takes_memory(self, monkeypatch, decoder, made):
        calls = []

        def model(*_, **__):
            calls.append("model")
            return ScriptedModel()

        monkeypatch.setattr("edgeasr.recognizer.keep_words", lambda _: calls.append("words"))
        monkeypatch.setattr("edgeasr.recognizer.AcousticModel", model)
        Recognizer(decoder=decoder)
        assert calls == made

    def test_hears_nothing_in_silence(self, shipped_model):
        assert texts(hear(Recognizer(shipped_model), silence(10.0))) == []


def test_memory_does_not_grow_with_the_stream():
    recognizer = Recognizer(ScriptedModel())
    waveform = np.concatenate([tone("so it goes on and on"), silence(1.6)])

    def listen(seconds):
        for _ in range(round(seconds * RATE / len(waveform))):
            recognizer.accept_waveform(waveform, RATE)
            steps(recognizer)

    listen(60)
    tracemalloc.start()
    sizes = []
    for seconds in (60, 240):
        listen(seconds)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 50_000


def test_importing_it_loads_no_runtime():
    heavy = ["torch", "librosa", "onnxruntime", "sounddevice", "typer"]
    code = f"import sys, edgeasr.recognizer; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_chunk_is_what_these_tests_assume():
    assert ModelConfig().chunk_s == pytest.approx(CHUNK_S)
