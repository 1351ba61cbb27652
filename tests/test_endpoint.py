import math

import pytest

from edgeasr.endpoint import (
    PRESETS,
    Endpoint,
    EndpointConfig,
    Endpointer,
    EndpointRule,
    Foreground,
    endpoint_config,
)
from edgeasr.errors import ConfigError
from edgeasr.voice_activity import Activity


def fired(has_speech, trailing_silence_s, segment_s):
    rule = Endpointer().fired(has_speech, trailing_silence_s, segment_s)
    return rule and rule.name


@pytest.mark.parametrize(
    ("has_speech", "trailing_silence_s", "segment_s", "name"),
    [
        (True, 0.0, 3.0, None),
        (True, 0.76, 3.0, None),
        (True, 0.8, 3.0, "pause"),
        (True, 0.8, 25.0, "pause"),
        (True, 0.4, 11.9, None),
        (True, 0.4, 12.0, "breath"),
        (True, 0.36, 19.9, None),
        (True, 0.0, 20.0, "length"),
        (False, 0.8, 0.8, None),
        (False, 4.96, 4.96, None),
        (False, 5.0, 5.0, "silence"),
    ],
)
def test_default_rules(has_speech, trailing_silence_s, segment_s, name):
    assert fired(has_speech, trailing_silence_s, segment_s) == name


def test_every_condition_of_a_rule_must_hold():
    rule = EndpointRule("rule", must_contain_speech=True, min_trailing_silence_s=1.0, min_segment_s=4.0)
    assert rule.holds(True, 1.0, 4.0)
    assert not rule.holds(False, 1.0, 4.0)
    assert not rule.holds(True, 0.9, 4.0)
    assert not rule.holds(True, 1.0, 3.9)


def test_the_first_rule_that_holds_is_given():
    first = EndpointRule("first", False, 1.0, 0.0)
    second = EndpointRule("second", False, 0.5, 0.0)
    endpointer = Endpointer(EndpointConfig((first, second)))
    assert endpointer.fired(True, 1.0, 2.0) is first
    assert endpointer.fired(True, 0.6, 2.0) is second


def test_without_rules_a_segment_never_ends():
    assert Endpointer(EndpointConfig(())).fired(True, 1e6, 1e6) is None


def test_only_a_rule_without_silence_interrupts_speech():
    assert [rule.name for rule in EndpointConfig().rules if rule.interrupts_speech] == ["length"]


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf])
def test_an_impossible_duration_is_refused(seconds):
    with pytest.raises(ConfigError, match=f"got min_trailing_silence_s {seconds} in endpoint rule 'pause'"):
        EndpointRule("pause", True, seconds, 0.0)
    with pytest.raises(ConfigError, match=f"got min_segment_s {seconds} in endpoint rule 'length'"):
        EndpointRule("length", True, 0.0, seconds)


def test_a_rule_that_would_always_fire_is_refused():
    with pytest.raises(ConfigError, match="got 0 for both durations of endpoint rule 'always'"):
        EndpointRule("always", False, 0.0, 0.0)


def test_two_rules_of_one_name_are_refused():
    rule = EndpointRule("pause", True, 0.8, 0.0)
    with pytest.raises(ConfigError, match="wanted each name once"):
        EndpointConfig((rule, rule))


def test_background_of_no_distance_is_refused():
    with pytest.raises(ConfigError, match="background_db is 0"):
        EndpointConfig(background_db=0)


class TestPresets:
    def test_are_found_by_name(self):
        assert endpoint_config(None) is PRESETS["normal"]
        assert endpoint_config("fast") is PRESETS["fast"]
        own = EndpointConfig(())
        assert endpoint_config(own) is own

    def test_wait_longer_from_fast_to_dictation(self):
        waits = [
            {rule.name: (rule.min_trailing_silence_s, rule.min_segment_s) for rule in PRESETS[name].rules}
            for name in ("fast", "normal", "dictation")
        ]
        for name in ("pause", "breath"):
            assert waits[0][name][0] < waits[1][name][0] < waits[2][name][0]
        assert waits[0]["length"] < waits[1]["length"] < waits[2]["length"]

    def test_unknown_ones_are_refused(self):
        with pytest.raises(ConfigError, match=r"got endpoint 'slow', wanted one of fast, normal, dictation"):
            endpoint_config("slow")


class TestRulesOfAFile:
    RULE = '[[rules]]\nname = "pause"\nmust_contain_speech = true\nmin_trailing_silence_s = 0.6\nmin_segment_s = 0\n'

    def write(self, tmp_path, text):
        path = tmp_path / "own.toml"
        path.write_text(text)
        return str(path)

    def test_are_read(self, tmp_path):
        config = endpoint_config(self.write(tmp_path, "background_db = 12\n" + self.RULE))
        assert config == EndpointConfig((EndpointRule("pause", True, 0.6, 0),), 12)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("rules = 1", r"got no \[\[rules\]\] in"),
            ("", r"got no \[\[rules\]\] in"),
            ("pause = 1\n" + RULE, "unknown key pause in"),
            ('background_db = "far"\n' + RULE, "background_db in .*: wanted a number"),
            (RULE + "pauses_s = 1\n", "unknown key 'pauses_s' in EndpointRule"),
            (RULE.replace("true", '"yes"'), "must_contain_speech in EndpointRule is 'yes'"),
            (RULE.replace("min_segment_s = 0\n", ""), r".toml: rule pause has no min_segment_s: a rule needs"),
            ("[[rules]]\nmin_segment_s = 1.0\n", "rule 1 has no name, must_contain_speech, min_trailing_silence_s: a"),
            (RULE + RULE, "wanted each name once"),
            ("rules", "cannot read the endpoint rules of"),
        ],
    )
    def test_that_are_none_are_refused(self, tmp_path, text, message):
        with pytest.raises(ConfigError, match=message):
            endpoint_config(self.write(tmp_path, text))

    def test_that_are_missing_are_refused(self, tmp_path):
        with pytest.raises(
            ConfigError, match=r"cannot read the endpoint rules of .*none\.toml \(No such file or directory\)"
        ):
            endpoint_config(str(tmp_path / "none.toml"))


class TestForeground:
    """Chunks of 0.16 s as (level in dBFS, how long the model has heard a pause)."""

    def silent(self, chunks, below_db=20.0):
        foreground = Foreground(below_db)
        return [round(foreground.accept(level, pause, 0.16), 2) for level, pause in chunks]

    def test_is_silent_while_the_model_hears_a_pause(self):
        assert self.silent([(-20, 0.0), (-20, 0.04), (-60, 0.2), (-60, 0.36)]) == [0.0, 0.04, 0.2, 0.36]

    def test_is_silent_while_a_quieter_voice_goes_on(self):
        chunks = [(-20, 0.0), (-20, 0.0), (-45, 0.0), (-45, 0.0), (-45, 0.0)]
        # A sound is emitted late, so the first quiet chunk may still carry one of the voice.
        assert self.silent(chunks) == [0.0, 0.0, 0.0, 0.16, 0.32]
        assert self.silent(chunks, below_db=30.0) == [0.0] * 5

    def test_goes_on_when_it_comes_back(self):
        chunks = [(-20, 0.0), (-45, 0.0), (-45, 0.0), (-22, 0.0)]
        assert self.silent(chunks) == [0.0, 0.0, 0.16, 0.0]

    def test_noise_without_a_voice_does_not_hold_it(self):
        assert self.silent([(-20, 0.0), (-15, 0.2), (-15, 0.36)]) == [0.0, 0.2, 0.36]

    def test_of_the_next_segment_may_be_quieter(self):
        foreground = Foreground(20.0)
        for level in (-20, -50, -50, -50):
            foreground.accept(level, 0.0, 0.16)
        foreground.begin()
        assert foreground.accept(-50, 0.0, 0.16) == 0.0


def test_an_endpoint_says_why():
    rule = EndpointRule("breath", True, 0.4, 12.0)
    activity = Activity(20.0, -62.4, -63.0, 1.0, 0.1, 0.031)
    ended = Endpoint("breath", 20.0, 12.64, 31, 0.44, 0.44, activity, rule)
    assert str(ended) == (
        "20.00 s, breath: 31 words in 12.64 s; 0.44 s silent, wanted 0.4; longer than 12 s; "
        "level -62 dBFS over -63, speech 0.03"
    )
    behind = Endpoint("pause", 3.2, 3.2, 1, 0.8, 0.0, activity, EndpointRule("pause", True, 0.8, 0.0))
    assert str(behind).startswith(
        "3.20 s, pause: 1 word in 3.20 s; 0.80 s silent, wanted 0.8; somebody quieter goes on;"
    )
    assert str(Endpoint("end", 1.0, 1.0, 0, 0, 0, activity)).startswith("1.00 s, end: 0 words in 1.00 s; level")
