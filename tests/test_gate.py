import numpy as np
import pytest

from edgeasr.errors import ConfigError
from edgeasr.gate import Gate, GateConfig
from edgeasr.voice_activity import Activity

HOP_S = 0.01
CHUNK_S = 0.16
CONFIG = GateConfig(after_s=0.5, pre_roll_s=0.32)
QUIET = Activity(level_db=-60, floor_db=-60, excess_db=1.0)
LOUD = Activity(level_db=-40, floor_db=-60, excess_db=20.0)


def run(gate, sounds, idle=True):
    """What comes through: for every chunk that is offered, the numbers of those that are heard."""
    heard = []
    for number, activity in enumerate(sounds):
        gate.accept(np.full((16, 2), number, np.float32), activity, idle=idle)
        heard.append([])
        while gate.is_ready:
            heard[-1].append(int(gate.take()[0, 0]))
    return heard


def test_without_a_config_everything_comes_through():
    gate = Gate(None, HOP_S)
    assert run(gate, [QUIET] * 20) == [[i] for i in range(20)]
    assert (gate.closed, gate.held_s, gate.passed_s) == (False, 0.0, 0.0)


def test_silence_is_held_back_and_its_end_heard_before_a_voice():
    gate = Gate(CONFIG, HOP_S)
    heard = run(gate, [LOUD] + [QUIET] * 9 + [LOUD] * 2)
    # After 0.5 s of silence chunk 4 is held back; two chunks of pre-roll come with the first loud one.
    assert heard == [[0], [1], [2], [3], [], [], [], [], [], [], [8, 9, 10], [11]]
    assert gate.passed_s == pytest.approx(4 * CHUNK_S)
    assert gate.behind_s == gate.passed_s
    assert gate.take_passed() == 4 * 16
    assert gate.take_passed() == 0
    assert gate.behind_s == 0.0


def test_after_it_opened_a_silence_counts_anew():
    heard = run(Gate(CONFIG, HOP_S), [QUIET] * 8 + [LOUD] + [QUIET] * 4)
    assert heard[8:] == [[6, 7, 8], [9], [10], [11], []]


def test_a_short_silence_loses_nothing():
    heard = run(Gate(CONFIG, HOP_S), [QUIET] * 5 + [LOUD])
    assert [chunk for chunks in heard for chunk in chunks] == [0, 1, 2, 3, 4, 5]


def test_an_open_word_keeps_it_open():
    assert run(Gate(CONFIG, HOP_S), [QUIET] * 20, idle=False) == [[i] for i in range(20)]


def test_what_the_model_hears_keeps_it_open():
    assert run(Gate(CONFIG, HOP_S), [QUIET._replace(heard=0.5)] * 20) == [[i] for i in range(20)]


def test_nothing_below_the_floor_of_features_opens_it():
    faint = Activity(level_db=-90, floor_db=-100, excess_db=10.0)
    assert run(Gate(CONFIG, HOP_S), [faint] * 20)[-1] == []


def test_what_is_given_up_is_not_heard():
    gate = Gate(CONFIG, HOP_S)
    run(gate, [QUIET] * 8)
    gate.give_up()
    assert gate.held_s == 0.0
    assert gate.passed_s == pytest.approx(5 * CHUNK_S)
    gate.accept(np.full((16, 2), 8, np.float32), LOUD, idle=True)
    assert gate.take()[0, 0] == 8


@pytest.mark.parametrize("name", ["after_s", "pre_roll_s"])
def test_an_impossible_config_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is -1"):
        GateConfig(**{name: -1})
