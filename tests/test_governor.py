import math
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import pytest

from edgeasr.audio import FileSource
from edgeasr.endpoint import EndpointConfig, EndpointRule
from edgeasr.errors import ConfigError
from edgeasr.governor import Governor
from edgeasr.ladder import Budget, Rung, rungs_for
from edgeasr.profile.battery import battery_percent, has_battery
from edgeasr.recognizer import Recognizer, load_model
from edgeasr.transcript import Final

RATE = 16_000
BLOCK = RATE // 25


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def clip(repository):
    """Two sentences with a pause between them, in 7.8 s."""
    with FileSource(repository / "edgeasr" / "models" / "demo.flac") as source:
        return np.concatenate([block.samples for block in source.blocks()])


@pytest.fixture(scope="module")
def paused(clip):
    """The clip five times with pauses: ten sentences, each a segment."""
    return np.tile(np.concatenate([clip, np.zeros(2 * RATE, np.float32)]), 5)


def write(root, **files):
    """Files below root, by path."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def hear(recognizer, waveform, before_step=lambda: None):
    """The finals of a waveform; `before_step` is called before each chunk."""
    recognizer.reset()
    events = []
    for start in range(0, len(waveform), BLOCK):
        recognizer.accept_waveform(waveform[start : start + BLOCK], RATE)
        while recognizer.is_ready():
            before_step()
            events += recognizer.step()
    recognizer.input_finished()
    while recognizer.is_ready():
        before_step()
        events += recognizer.step()
    return [event for event in events if isinstance(event, Final)]


def at_times(recognizer, rungs):
    """What uses each rung once so many seconds were heard."""
    waiting = sorted(rungs.items())

    def use():
        while waiting and recognizer.heard_s >= waiting[0][0]:
            recognizer.use(waiting.pop(0)[1])

    return use


def words(finals):
    return [(word.word, round(word.start, 2)) for final in finals for word in final.words]


class TestRecognizer:
    def test_changes_the_decoder_between_two_segments_and_nothing_else(self, model, paused):
        recognizer = Recognizer(model)
        lm, greedy = Rung("lm", 160), Rung("greedy", 160)
        best = hear(recognizer, paused)
        assert len(best) == 10
        recognizer.use(greedy)
        quick = hear(recognizer, paused)
        assert recognizer.decoder == "greedy"
        recognizer.use(lm)
        # Within the third sentence, and within the sixth.
        third, sixth = (best[number].words[1].end for number in (2, 5))
        mixed = hear(recognizer, paused, at_times(recognizer, {third: greedy, sixth: lm}))
        assert [final.text for final in mixed] == [final.text for final in (*best[:3], *quick[3:6], *best[6:])]
        assert words(mixed) == words([*best[:3], *quick[3:6], *best[6:]])

    def test_that_changes_the_decoder_in_running_speech_loses_and_doubles_no_word(self, model, clip):
        """Segments end in the middle of speech: the word that was cut off is heard again by the other decoder."""
        rules = (EndpointRule("length", must_contain_speech=True, min_trailing_silence_s=0.0, min_segment_s=2.0),)
        speech = np.tile(clip[: 2 * RATE], 4)
        recognizer = Recognizer(model, endpoint=EndpointConfig(rules))
        best = hear(recognizer, speech)
        recognizer.use(Rung("greedy", 160))
        quick = hear(recognizer, speech)
        for change_s in np.arange(0.5, 7.0, 0.5):
            recognizer.use(Rung("lm", 160))
            mixed = hear(recognizer, speech, at_times(recognizer, {change_s: Rung("greedy", 160)}))
            changed = next((final for final in mixed if final.end > change_s), mixed[-1])
            before = [final for final in mixed if final.end <= changed.end]
            assert [final.text for final in before] == [final.text for final in best[: len(before)]]
            found = words(mixed[len(before) :])
            wanted = [word for word in words(quick) if word[1] >= changed.end - 0.001]
            assert all(earlier[1] < later[1] for earlier, later in pairwise(found))
            # The first word is heard without what was said before, by which another may be likelier, or none; and so
            # may what a later word is, but not that there is one.
            firsts = {start for _, start in [*found[:1], *wanted[:1]] if start < changed.end + 0.5}
            assert {start for _, start in found} ^ {start for _, start in wanted} <= firsts
            assert len({start for _, start in {*found} ^ {*wanted}} - firsts) <= 1

    def test_at_random_rungs_keeps_every_promise_of_a_transcript(self, model, paused):
        rng = np.random.default_rng(1)
        recognizer = Recognizer(model)
        best = hear(recognizer, paused)
        rungs = [*rungs_for(model, "lm"), Rung("lm", 160, 2, 4.0, 10), Rung("greedy", 160, 2)]

        def change():
            if rng.random() < 0.1:
                recognizer.use(rungs[rng.integers(len(rungs))])

        finals = hear(recognizer, paused, change)
        assert [final.segment for final in finals] == list(range(len(finals)))
        assert all(earlier.end <= later.start + 1e-6 for earlier, later in pairwise(finals))
        # Whoever decodes, they end in the same pauses of 2 s.
        assert [final.end for final in finals] == pytest.approx([final.end for final in best], abs=1.0)

    def test_that_changes_only_its_threads_hears_the_same(self, clip):
        model = load_model(backend="onnxruntime")  # else two threads are another backend, which rounds otherwise
        recognizer = Recognizer(model)
        best = hear(recognizer, clip)
        recognizer.use(Rung("lm", 160))
        found = hear(recognizer, clip, at_times(recognizer, {1.0: Rung("lm", 160, 2), 4.0: Rung("lm", 160)}))
        assert recognizer.model is model
        assert words(found) == words(best)

    def test_keeps_its_rung_over_a_reset(self, model):
        recognizer = Recognizer(model)
        for rung in (Rung("greedy", 160, 2), Rung("lm", 160), Rung("greedy", 160, 2)):
            recognizer.use(rung)
            assert recognizer.decoder == rung.decoder
        recognizer.reset()
        assert (recognizer.decoder, recognizer.model.threads) == ("greedy", 2)

    @pytest.mark.parametrize(
        ("rung", "message"),
        [
            (Rung("lm", 170), "chunks of 170 ms, the model has 160 ms"),
            (Rung("best", 160), "decoder 'best'"),
            (Rung("lm", 160, exit_depth=4), "exit_depth 4: no model leaves its encoder early yet"),
        ],
    )
    def test_refuses_what_the_model_does_not_have(self, model, rung, message):
        with pytest.raises(ConfigError, match=message):
            Recognizer(model).use(rung)

    def test_made_for_greedy_has_no_other_decoder(self, model):
        with pytest.raises(ConfigError, match="decoder 'lm' for a recogniser without it"):
            Recognizer(model, decoder="greedy").use(Rung("lm", 160))


class Machine:
    """A board below `root` that heats up with what the recogniser does, and clocks by what it has heard."""

    TAU_S, THROTTLED_C, FREE_C = 5.0, 80.0, 76.0
    RTF = MappingProxyType({"lm": 0.5, "greedy": 0.2})

    def __init__(self, root, recognizer, ambient_c=40.0, fan_s=math.inf):
        self.root, self.recognizer, self.ambient_c, self.fan_s = root, recognizer, ambient_c, fan_s
        self.cpu_s, self.now_s, self.temperature_c, self.throttled = 0.0, 0.0, ambient_c, False
        self.show()

    def show(self):
        zone, bits = "sys/class/thermal/thermal_zone0", "sys/devices/platform/soc/soc:firmware/get_throttled"
        write(self.root, **{f"{zone}/type": "cpu-thermal", f"{zone}/temp": round(self.temperature_c * 1000)})
        write(self.root, **{bits: "40004" if self.throttled else "40000"})

    def run(self, seconds):
        rtf = self.RTF[self.recognizer.decoder] * (2 if self.throttled else 1)
        self.cpu_s, self.now_s = self.cpu_s + rtf * seconds, self.now_s + seconds
        ambient_c = self.ambient_c - 20 * (self.now_s > self.fan_s)
        aim = ambient_c + 100 * self.RTF[self.recognizer.decoder]
        self.temperature_c += (aim - self.temperature_c) * seconds / self.TAU_S
        self.throttled = self.temperature_c > (self.FREE_C if self.throttled else self.THROTTLED_C)
        self.show()


def governed(machine, recognizer, waveform, budget):
    """What is said about changes, with its time, and the finals."""
    said = []
    governor = Governor(
        recognizer,
        budget,
        lambda line: said.append((machine.now_s, line)),
        root=machine.root,
        clock=lambda: machine.now_s,
        cpu_clock=lambda: machine.cpu_s,
    )

    def step():
        machine.run(recognizer.heard_s - machine.now_s)
        governor.check()

    return said, hear(recognizer, waveform, step)


class TestGovernor:
    def test_steps_down_at_a_throttled_processor_and_up_once_it_is_cool(self, model, paused, tmp_path):
        recognizer = Recognizer(model)
        best = hear(recognizer, paused)
        machine = Machine(tmp_path, recognizer, fan_s=30)
        said, finals = governed(machine, recognizer, np.concatenate([paused, paused]), Budget(max_rtf=0.7))
        throttled_s, first = said[0]
        assert first == "down to lm, beam 8 of 50 prefixes, chunks of 160 ms, 1 thread: throttled"
        # 63 % of the way from 40 to 90 degrees after 5 s, 80 degrees after 8 s.
        assert 7 < throttled_s < 10
        assert said[1][1].startswith("down to greedy, chunks of 160 ms, 1 thread: RTF 1.0")
        assert [line for _, line in said[2:]] == [
            "up to lm, beam 8 of 50 prefixes, chunks of 160 ms, 1 thread: room for 30 s",
            "up to lm, beam 14 of 400 prefixes, chunks of 160 ms, 1 thread: room for 30 s",
        ]
        assert recognizer.decoder == "lm"
        assert [final.text for final in (finals[0], finals[-1])] == [best[0].text, best[-1].text]
        assert len(finals) == 20

    def test_leaves_alone_what_is_within_the_budget(self, model, clip, tmp_path):
        recognizer = Recognizer(model)
        machine = Machine(tmp_path, recognizer, ambient_c=0.0)
        said, _ = governed(machine, recognizer, clip, Budget(max_rtf=0.51, max_temperature_c=60))
        assert said == []

    def test_measures_over_the_last_seconds(self, model, paused, tmp_path):
        recognizer = Recognizer(model)
        machine = Machine(tmp_path, recognizer, ambient_c=0.0)
        said, _ = governed(machine, recognizer, paused, Budget(max_rtf=0.4))
        # 5 s until there is a figure, 5 s over the budget; the same again for the second step.
        assert [line.rpartition(": ")[2] for _, line in said] == ["RTF 0.500, above 0.4"] * 2
        assert [time_s for time_s, _ in said] == pytest.approx([10.5, 21], abs=1.5)

    def test_says_which_limit_means_nothing_here(self, model, tmp_path):
        said = []
        Governor(Recognizer(model), Budget(0.5, 70, 20), said.append, root=tmp_path)
        assert said == [
            "nothing here says the temperature: its limit changes nothing",
            "there is no battery here: its limit changes nothing",
        ]


class TestBattery:
    def supply(self, root, name, **files):
        write(root, **{f"sys/class/power_supply/{name}/{key}": text for key, text in files.items()})

    def test_is_the_machines_while_it_is_discharged(self, tmp_path):
        assert not has_battery(tmp_path)
        self.supply(tmp_path, "AC", type="Mains", online=0)
        self.supply(tmp_path, "mouse", type="Battery", scope="Device", capacity=3, status="Discharging")
        assert (has_battery(tmp_path), battery_percent(tmp_path)) == (False, None)
        self.supply(tmp_path, "BAT0", type="Battery", capacity=41, status="Discharging")
        self.supply(tmp_path, "BAT1", type="Battery", capacity=17, status="Discharging")
        assert (has_battery(tmp_path), battery_percent(tmp_path)) == (True, 41)
        for name in ("BAT0", "BAT1"):
            self.supply(tmp_path, name, status="Charging")
        assert (has_battery(tmp_path), battery_percent(tmp_path)) == (True, None)
