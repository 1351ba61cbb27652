import math

import pytest

from edgeasr.endpoint import EndpointConfig, Endpointer, EndpointRule
from edgeasr.errors import ConfigError


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
