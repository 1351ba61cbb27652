"""Grammars and hotwords on speech of several synthetic voices, made here, and on real speech that is none of theirs."""

import json
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr import pronouncing
from edgeasr.audio import FileSource
from edgeasr.errors import ConfigError, GrammarError
from edgeasr.grammar_benchmark import (
    OTHER_SENTENCES,
    Voice,
    compile_s,
    hear_recorded,
    hear_spoken,
    home_grammar,
    hotwords_s,
    many_rules_grammar,
    orders_grammar,
)
from edgeasr.ladder import rungs_for
from edgeasr.letter_to_sound import is_installed
from edgeasr.manifest import read_manifest
from edgeasr.pronouncing import dictionary_pronunciations
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.recording import read_recording
from edgeasr.transcript import Final, Partial, Rejected

edgeasr = run_path(str(Path(__file__).with_name("scripted_model.py")))["edgeasr"]

pytestmark = pytest.mark.skipif(not is_installed(), reason="flite is not installed")

RATE_HZ = 16_000
VOICES = (Voice("flite", "kal"), Voice("flite", "kal16"), Voice("flite", "slt"), Voice("espeak-ng", "en-us"))
COMMANDS = ("turn on the light", "set the heater to twenty percent", "what is the weather tomorrow")
ORDERS = (
    "i would like to order a dozen large cheese pizza please",
    "could you bring me green tea two small as soon as possible",
)


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("spoken")


@pytest.fixture(scope="module")
def at_home(model):
    return Recognizer(model, grammar=home_grammar())


@pytest.fixture
def recording(folder):
    path = folder / "turn off the fan.wav"
    if not path.exists():
        Voice("flite", "slt").speak("turn off the fan", path)
    return path


@pytest.fixture
def nearly(folder):
    """A sentence that the small grammar does not have."""
    path = folder / "turn on the kitchen light.wav"
    if not path.exists():
        Voice("flite", "slt").speak(path.stem, path)
    return path


def heard_in(recognizer, waveform):
    recognizer.reset()
    recognizer.accept_waveform(waveform, RATE_HZ)
    recognizer.input_finished()
    events = []
    while recognizer.is_ready():
        events += recognizer.step()
    return events


@pytest.fixture
def small_grammar(tmp_path):
    path = tmp_path / "small.jsgf"
    path.write_text(
        "#JSGF V1.0;\ngrammar small;\npublic <switch> = turn (on {on} | off {off}) the (fan {fan} | light {light});\n"
    )
    return path


def test_commands_are_heard_right(at_home, folder):
    tally = hear_spoken(at_home, [(v, text) for v in VOICES for text in COMMANDS], folder, rejected=False)
    assert tally.wrong == []


def test_orders_of_a_hundred_long_alternatives_are_heard_in_less_than_real_time(model, folder):
    ordering = Recognizer(model, grammar=orders_grammar())
    tally = hear_spoken(ordering, [(v, text) for v in VOICES[1:3] for text in ORDERS], folder, rejected=False)
    assert tally.wrong == []
    assert tally.cpu_s < tally.audio_s / 2


def test_other_sentences_are_rejected(at_home, folder):
    spoken = [(VOICES[i % 4], text) for i, text in enumerate(OTHER_SENTENCES[:4] + OTHER_SENTENCES[20:24])]
    tally = hear_spoken(at_home, spoken, folder, rejected=True)
    assert len(tally.wrong) <= 1


def test_real_speech_is_rejected(at_home, speech):
    utterances = sorted(read_manifest(speech / "dev.jsonl"), key=lambda utterance: utterance.duration_s)[:10]
    assert hear_recorded(at_home, utterances).wrong == []


@pytest.mark.parametrize("name", ["doing_the_dishes.opus", "exercise_bike.opus"])
def test_noise_is_no_sentence(at_home, speech, name):
    noise = read_recording(speech / "noise" / name, RATE_HZ)[: 20 * RATE_HZ]
    assert [event for event in heard_in(at_home, noise) if isinstance(event, Final)] == []


def test_silence_leaves_no_event(at_home):
    assert heard_in(at_home, np.zeros(10 * RATE_HZ, np.float32)) == []


def test_events_carry_rule_and_tags(model, small_grammar, recording):
    with FileSource(recording) as source:
        events = list(Recognizer(model, grammar=small_grammar).stream(source))
    final = events[-1]
    assert isinstance(final, Final)
    assert (final.text, final.sentence.rule, final.sentence.tags) == ("turn off the fan", "switch", ("off", "fan"))
    assert final.stable == len(final.text)
    assert all(isinstance(event, Partial) and event.stable == 0 for event in events[:-1])


def test_a_threshold_decides_what_is_rejected(model, small_grammar, nearly):
    for threshold, kind in ((0.0, Final), (0.9, Rejected)):
        with FileSource(nearly) as source:
            events = list(Recognizer(model, grammar=small_grammar, grammar_threshold=threshold).stream(source))
        assert [type(event) for event in events if not isinstance(event, Partial)] == [kind]
    assert events[-1].sentence.rule is None
    assert 0 < events[-1].sentence.fit < 0.9


def test_the_next_segment_is_heard_after_a_rejected_one(model, small_grammar, folder, recording):
    other = folder / "other.wav"
    Voice("flite", "slt").speak("the weather was rather cold in november", other)
    recognizer = Recognizer(model, grammar=small_grammar)
    kinds = []
    for path in (other, recording):
        with FileSource(path) as source:
            for block in source.blocks():
                recognizer.accept_waveform(block.samples, source.sample_rate_hz)
        recognizer.accept_gap(source.sample_rate_hz * 2, source.sample_rate_hz)
        while recognizer.is_ready():
            kinds += [(type(event), event.segment) for event in recognizer.step() if not isinstance(event, Partial)]
    assert kinds == [(Rejected, 0), (Final, 1)]


class TestPronunciations:
    @pytest.fixture
    def network_words(self, monkeypatch, tmp_path):
        """A grammar with words that no dictionary has, on a machine without flite."""
        monkeypatch.setattr(pronouncing, "is_installed", lambda: False)
        path = tmp_path / "network.jsgf"
        path.write_text(
            "#JSGF V1.0;\ngrammar network;\npublic <a> = restart the\n zigbee (router | zwave | gateway);\n"
        )
        return path

    def test_of_words_that_nobody_knows_are_asked_for(self, model, network_words):
        with pytest.raises(
            GrammarError, match=r"line 4, column 2: the phones of 'zigbee' are not known, and of 1 other"
        ):
            Recognizer(model, grammar=network_words)

    def test_may_come_from_a_dictionary(self, model, network_words, tmp_path):
        (tmp_path / "own.dict").write_text("zigbee Z IH1 G B IY0\nzwave Z IY1 W EY1 V\n")
        Recognizer(model, grammar=network_words, dictionary=tmp_path / "own.dict")

    def test_of_many_words_are_in_the_package(self):
        assert dictionary_pronunciations(["television", "zigbee", "router"]) == {
            "television": (("T", "EH", "L", "AX", "V", "IH", "ZH", "AX", "N"),),
            "router": (("R", "UW", "T", "ER"), ("R", "AW", "T", "ER")),
        }


def test_compiling_hundreds_of_rules_takes_no_minutes(model):
    # `edgeasr bench grammar` says how long; here a bound that only work beyond all proportion breaks.
    assert len(many_rules_grammar(300).rules) == 600
    assert compile_s(model, lambda: many_rules_grammar(300)) < 30


def test_a_grammar_stays_as_it_is_where_effort_is_spared(model, small_grammar):
    recognizer = Recognizer(model, grammar=small_grammar)
    rungs = rungs_for(recognizer.model, recognizer.decoder)
    assert {rung.decoder for rung in rungs} == {"grammar"}
    with pytest.raises(ConfigError, match="got decoder 'greedy' for a recogniser without it"):
        recognizer.use(replace(rungs[0], decoder="greedy"))


class TestHotwords:
    def test_are_heard_where_they_would_not_be(self, model, folder, tmp_path):
        path = folder / "zigbee.wav"
        Voice("flite", "slt").speak("the zigbee gateway is in the kitchen", path)
        (tmp_path / "hot.txt").write_text("zigbee gateway 4\n")
        (tmp_path / "own.dict").write_text("zigbee Z IH1 G B IY0\n")
        texts = []
        for options in ({}, {"hotwords": tmp_path / "hot.txt", "dictionary": tmp_path / "own.dict"}):
            with FileSource(path) as source:
                heard = Recognizer(model, **options).stream(source)
                texts.append(" ".join(event.text for event in heard if isinstance(event, Final)))
        assert "zigbee" not in texts[0]
        assert "zigbee gateway is in the kitchen" in texts[1]

    def test_hundreds_of_them_are_ready_in_no_minutes(self, model):
        """How long it takes here is printed by `edgeasr bench grammar`."""
        assert 0 < hotwords_s(model, 1000) < 30

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"decoder": "greedy"}, "hotwords and decoder 'greedy'"),
            ({"grammar": "a.jsgf"}, "a grammar and hotwords, wanted one of both"),
        ],
    )
    def test_are_refused_where_they_do_not_fit(self, model, tmp_path, options, said):
        (tmp_path / "hot.txt").write_text("good\n")
        with pytest.raises(ConfigError, match=said):
            Recognizer(model, hotwords=tmp_path / "hot.txt", **options)


class TestCommands:
    def test_print_the_words_or_nothing(self, model, small_grammar, recording, nearly):
        assert edgeasr("transcribe", recording, "--grammar", small_grammar, model=model).out == "turn off the fan\n"
        strict = edgeasr("transcribe", nearly, "--grammar", small_grammar, "--grammar-threshold", "0.9", model=model)
        assert strict == (0, "", "")

    def test_print_rule_and_tags_as_json(self, model, small_grammar, recording):
        code, out, _ = edgeasr("transcribe", recording, "--json", "--grammar", small_grammar, model=model)
        event = json.loads(out)
        assert code == 0
        assert (event["type"], event["rule"], event["tags"]) == ("final", "switch", ["off", "fan"])
        assert 0.15 <= event["fit"] <= 1

    def test_say_as_json_what_was_rejected(self, model, small_grammar, nearly):
        options = ("--json", "--grammar", small_grammar, "--grammar-threshold", "0.9")
        event = json.loads(edgeasr("transcribe", nearly, *options, model=model).out)
        assert (event["type"], event["text"], event["words"], event["rule"]) == ("rejected", "", [], None)

    def test_listen_does_the_same(self, model, small_grammar, recording):
        done = edgeasr("listen", "--source", recording, "--grammar", small_grammar, model=model)
        assert done.out == "turn off the fan\n"

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--grammar", "none.jsgf"), "cannot read the grammar none.jsgf: No such file or directory"),
            (("--grammar", "none.jsgf", "--decoder", "lm"), "a grammar and decoder 'lm', wanted one of both"),
            (("--grammar-threshold", "0.5"), "grammar_threshold without a grammar"),
            (("--dictionary", "own.dict"), "a dictionary without words of your own"),
            (("--hotwords", "none.txt"), "cannot read the hotwords none.txt"),
        ],
    )
    def test_explain_what_does_not_go(self, model, recording, options, said):
        code, out, err = edgeasr("transcribe", recording, *options, model=model)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1

    def test_refuse_a_model_that_hears_no_phones(self, small_grammar, recording):
        code, _, err = edgeasr("transcribe", recording, "--grammar", small_grammar)
        assert code == 2
        assert "whose model does not hear phones" in err


class TestBenchmark:
    @pytest.fixture
    def one_voice(self, monkeypatch):
        monkeypatch.setattr("edgeasr.grammar_benchmark.installed_voices", lambda: VOICES[2:3])
        monkeypatch.setattr("edgeasr.cli.bench_grammar._MANY", 20)

    def test_says_what_was_right_as_json(self, model, one_voice, folder):
        code, out, _ = edgeasr("bench", "grammar", "--per-voice", "1", "--folder", folder, "--json", model=model)
        report = json.loads(out)
        assert code == 0
        assert list(report["compile_s"]) == [
            *("200 commands", "100 long alternatives", "20 public rules", "1,000 hotwords"),
        ]
        assert {name: (one["right"], one["utterances"]) for name, one in report["heard"].items()} == {
            "commands": (1, 1),
            "orders": (1, 1),
            "other speech, commands": (1, 1),
            "other speech, orders": (1, 1),
        }
        assert all(0 < one["rtf"] < 1 for one in report["heard"].values())

    def test_is_a_table_too(self, model, one_voice, folder):
        _, out, _ = edgeasr("bench", "grammar", "--per-voice", "1", "--folder", folder, model=model)
        lines = out.splitlines()
        assert "commands" in lines[3]
        assert any(line.startswith("flite slt") and line.count("100.0%") == 4 for line in lines)
