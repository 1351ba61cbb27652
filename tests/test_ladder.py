from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgeasr.errors import ConfigError
from edgeasr.ladder import Budget, Ladder, Pace, Reading, Rung, rungs_for
from edgeasr.recognizer import load_model

RUNGS = (
    Rung("lm", 160, beam=12.0, max_prefixes=150),
    Rung("lm", 320, beam=12.0, max_prefixes=150),
    Rung("lm", 320, beam=8.0, max_prefixes=50),
    Rung("greedy", 320),
)
PACE = Pace()
MINUTE = 60.0
HOUR = 3600.0


def climb(ladder, readings):
    """(time, down, up or stay, decoder's rung number) of each change."""
    changes = ((reading.at_s, ladder.read(reading)) for reading in readings)
    return [(at_s, change.to, RUNGS.index(change.rung)) for at_s, change in changes if change]


def every_second(until_s, since_s=0, **what):
    return [Reading(float(at_s), **what) for at_s in range(int(since_s), int(until_s))]


class TestRungs:
    def test_lose_words_last(self):
        model = load_model(threads=2)
        rungs = rungs_for(model, "lm")
        best = Rung("lm", 160, 2, beam=model.word_graph.config.beam, max_prefixes=model.word_graph.config.max_prefixes)
        assert rungs == (
            best,
            replace(best, threads=1),
            replace(best, threads=1, beam=best.beam * 4 / 7, max_prefixes=best.max_prefixes // 8),
            Rung("greedy", 160, 1),
        )

    def test_of_the_greedy_decoder_are_threads_and_longer_chunks(self):
        config = SimpleNamespace(chunk_ms=160)
        model = SimpleNamespace(config=config, threads=4, chunk_lengths_ms=(160, 80, 320, 640))
        assert rungs_for(model, "greedy") == (
            Rung("greedy", 160, 4),
            Rung("greedy", 160, 1),
            Rung("greedy", 320, 1),
            Rung("greedy", 640, 1),
        )

    def test_say_what_they_are(self):
        assert str(Rung("lm", 320, 2, 8.0, 50)) == "lm, beam 8 of 50 prefixes, chunks of 320 ms, 2 threads"
        assert str(Rung("greedy", 160)) == "greedy, chunks of 160 ms, 1 thread"


class TestBudget:
    @pytest.mark.parametrize("limits", [{}, {"max_rtf": 0.0}, {"max_temperature_c": float("nan")}])
    def test_without_a_limit_or_with_none_that_makes_sense_is_refused(self, limits):
        with pytest.raises(ConfigError, match="wanted"):
            Budget(**limits)


class TestSteps:
    def test_down_once_it_takes_too_long_for_some_seconds(self):
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5))
        assert climb(ladder, every_second(100, rtf=0.5)) == []
        short = [*every_second(104, 100, rtf=0.6), *every_second(105, 104, rtf=0.4)]
        assert climb(ladder, short) == []
        assert climb(ladder, every_second(112, 105, rtf=0.6)) == [(110.0, "down", 1)]

    def test_down_again_only_once_the_last_has_settled(self):
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5))
        changes = climb(ladder, every_second(60, rtf=0.6))
        assert changes == [(5.0, "down", 1), (15.0, "down", 2), (25.0, "down", 3), (35.0, "stay", 3)]

    def test_down_at_once_where_the_processor_is_throttled(self):
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5))
        change = ladder.read(Reading(0.0, rtf=0.1, throttled=("throttled", "clock capped")))
        assert str(change) == (
            "down to lm, beam 12 of 150 prefixes, chunks of 320 ms, 1 thread: throttled, clock capped"
        )

    def test_down_while_the_battery_is_low_and_up_when_it_is_charged(self):
        ladder = Ladder(RUNGS, Budget(min_battery_percent=20))
        assert climb(ladder, every_second(10, battery_percent=20.0)) == []
        low = climb(ladder, every_second(50, 10, battery_percent=19.0))
        assert [(to, rung) for _, to, rung in low] == [("down", 1), ("down", 2), ("down", 3), ("stay", 3)]
        assert climb(ladder, every_second(500, 50, battery_percent=22.0)) == []
        charging = climb(ladder, every_second(600, 500))
        assert charging == [(530.0, "up", 2), (561.0, "up", 1), (592.0, "up", 0)]

    def test_down_again_at_a_throttled_processor_give_it_time_to_cool_unless_it_cannot_keep_up(self):
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5))
        throttled = {"throttled": ("throttled",)}
        assert climb(ladder, every_second(61, rtf=0.4, **throttled)) == [(0.0, "down", 1), (60.0, "down", 2)]
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5))
        assert climb(ladder, every_second(11, rtf=0.6, **throttled)) == [(0.0, "down", 1), (10.0, "down", 2)]

    def test_down_for_heat_give_it_time_to_cool(self):
        ladder = Ladder(RUNGS, Budget(max_temperature_c=70))
        assert climb(ladder, every_second(100, temperature_c=71.0)) == [(5.0, "down", 1), (65.0, "down", 2)]

    def test_up_only_with_room_below_every_limit(self):
        ladder = Ladder(RUNGS, Budget(max_temperature_c=70))
        climb(ladder, every_second(6, temperature_c=71.0))
        assert climb(ladder, every_second(1000, 6, temperature_c=65.1)) == []
        warm_for_a_moment = [*every_second(1020, 1000, temperature_c=60.0), Reading(1020.0, temperature_c=66.0)]
        assert climb(ladder, warm_for_a_moment) == []
        assert climb(ladder, every_second(1060, 1021, temperature_c=65.0)) == [(1051.0, "up", 0)]

    def test_up_only_where_the_better_rung_is_expected_to_fit(self):
        """It took twice as long as the present one, and would again."""
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5))
        climb(ladder, every_second(6, rtf=0.6))
        assert climb(ladder, every_second(1000, 6, rtf=0.3)) == []
        assert climb(ladder, every_second(1040, 1000, rtf=0.2)) == [(1030.0, "up", 0)]

    def test_up_where_only_a_throttled_processor_was_slow(self):
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5))
        slow = [Reading(at_s, 0.9, throttled=("throttled",)) for at_s in (0.0, 1.0)]
        assert climb(ladder, slow) == [(0.0, "down", 1)]
        assert climb(ladder, every_second(40, 2, rtf=0.25)) == [(32.0, "up", 0)]

    def test_up_in_the_end_even_if_it_is_not_expected_to_fit(self):
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5))
        climb(ladder, every_second(6, rtf=0.6))
        (change,) = climb(ladder, every_second(HOUR + 60, 6, rtf=0.3))
        assert change == (6 + HOUR, "up", 0)

    def test_down_while_audio_waits_and_up_once_none_does(self):
        ladder = Ladder(RUNGS, Budget(max_backlog_s=2.0))
        late = every_second(8, backlog_s=3.0)
        assert climb(ladder, late) == [(3.0, "down", 1), (7.0, "down", 2)]
        assert climb(ladder, every_second(100, 8, backlog_s=1.0)) == []
        assert climb(ladder, every_second(140, 100, backlog_s=0.1)) == [(130.0, "up", 1)]

    def test_a_moment_of_waiting_audio_changes_nothing(self):
        ladder = Ladder(RUNGS, Budget(max_backlog_s=2.0))
        assert climb(ladder, [*every_second(3, backlog_s=5.0), *every_second(60, 3, backlog_s=0.1)]) == []

    def test_that_nothing_is_cheaper_is_said_once_each_time(self):
        ladder = Ladder(RUNGS[-1:], Budget(max_rtf=0.5))
        assert climb(ladder, every_second(100, rtf=0.6)) == [(5.0, "stay", 3)]
        assert climb(ladder, every_second(110, 100, rtf=0.4)) == []
        assert climb(ladder, every_second(200, 110, rtf=0.6)) == [(115.0, "stay", 3)]

    def test_readings_that_are_missing_change_nothing(self):
        ladder = Ladder(RUNGS, Budget(max_rtf=0.5, max_temperature_c=70, min_battery_percent=20))
        assert climb(ladder, every_second(1000)) == []


class Board:
    """A processor that heats up with what it does, is throttled at 80 degrees until it is below 75, and has no fan.

    watts: on each rung; ambient_c: what it cools down to
    """

    TAU_S, C_PER_W, THROTTLED_C, FREE_C, SLOWER = 120.0, 12.0, 80.0, 75.0, 2.5

    def __init__(self, rtf, watts, ambient_c):
        self.rtf, self.watts, self.ambient_c = rtf, watts, ambient_c
        self.temperature_c, self.throttled = ambient_c, False

    def second(self, rung, at_s):
        """A second on a rung. returns: what is read then"""
        watts = self.watts[rung] / (self.SLOWER if self.throttled else 1)
        self.temperature_c += (self.ambient_c + self.C_PER_W * watts - self.temperature_c) / self.TAU_S
        self.throttled = self.temperature_c > (self.FREE_C if self.throttled else self.THROTTLED_C)
        rtf = self.rtf[rung] * (self.SLOWER if self.throttled else 1)
        return Reading(at_s, rtf, round(self.temperature_c, 1), ("throttled",) if self.throttled else ())


def run(ladder, board, seconds, since_s=0):
    """Readings and changes of a board under a ladder."""
    readings, changes = [], []
    for at_s in range(since_s, since_s + seconds):
        readings.append(board.second(RUNGS.index(ladder.rung), float(at_s)))
        if change := ladder.read(readings[-1]):
            changes.append((at_s, change.to, RUNGS.index(change.rung)))
    return readings, changes


class TestBoard:
    RTF, WATTS = (0.40, 0.25, 0.20, 0.10), (5.0, 4.0, 3.5, 2.0)

    def test_that_would_get_too_hot_stays_below_its_limit(self):
        """At 30 degrees it would go to 90, 78, 72 and 54 degrees."""
        ladder, board = Ladder(RUNGS, Budget(max_temperature_c=74)), Board(self.RTF, self.WATTS, 30.0)
        readings, changes = run(ladder, board, int(8 * HOUR))
        assert changes[0][1:] == ("down", 1)
        assert max(reading.temperature_c for reading in readings) < 74 + 4
        assert not any(reading.throttled for reading in readings)
        over = [reading for reading in readings if reading.temperature_c > 74]
        assert len(over) < 0.05 * len(readings)

    def test_changes_less_and_less_often(self):
        ladder, board = Ladder(RUNGS, Budget(max_temperature_c=74)), Board(self.RTF, self.WATTS, 30.0)
        _, early = run(ladder, board, int(2 * HOUR))
        _, late = run(ladder, board, int(8 * HOUR), int(8 * HOUR))
        assert len(early) <= 24
        # Then each try an hour after the last was taken back; one goes to the rung above and one may go two up.
        assert len(late) <= 4 * 8

    def test_that_is_throttled_is_relieved(self):
        """Nothing limits its temperature, so that it is throttled first."""
        ladder, board = Ladder(RUNGS, Budget(max_rtf=0.6)), Board(self.RTF, self.WATTS, 30.0)
        readings, changes = run(ladder, board, int(4 * HOUR))
        first = next(reading for reading in readings if reading.throttled)
        assert changes[0] == (first.at_s, "down", 1)
        assert sum(bool(reading.throttled) for reading in readings) < 0.05 * len(readings)
        _, late = run(ladder, board, int(4 * HOUR), int(4 * HOUR))
        # Throttled it cannot keep up: two steps down. Each hour it tries again.
        assert len(changes) <= 40
        assert len(late) <= 4 * 4

    def test_goes_back_to_the_best_when_it_is_cool_again(self):
        ladder, board = Ladder(RUNGS, Budget(max_temperature_c=74)), Board(self.RTF, self.WATTS, 30.0)
        run(ladder, board, int(10 * MINUTE))
        assert ladder.rung != RUNGS[0]
        board.ambient_c = 5.0
        _, changes = run(ladder, board, int(HOUR), int(10 * MINUTE))
        assert ladder.rung == RUNGS[0]
        assert {to for _, to, _ in changes} == {"up"}

    def test_within_its_budget_is_left_alone(self):
        ladder, board = Ladder(RUNGS, Budget(max_rtf=0.5, max_temperature_c=74)), Board(self.RTF, self.WATTS, 5.0)
        _, changes = run(ladder, board, int(HOUR))
        assert changes == []

    def test_with_a_load_between_two_rungs_does_not_swing(self):
        """The best rung takes just too long, the next is well within."""
        ladder, board = Ladder(RUNGS, Budget(max_rtf=0.38)), Board(self.RTF, self.WATTS, 5.0)
        _, changes = run(ladder, board, int(4 * HOUR))
        assert changes[0] == (5, "down", 1)
        assert len(changes) <= 1 + 2 * 4
