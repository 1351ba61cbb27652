import threading
import time

import pytest

from edgeasr.actions.outbox import Complaints, Outbox, OutboxLimits
from edgeasr.errors import ActionError

QUICK = OutboxLimits(first_pause_s=0.01, longest_pause_s=0.02)
PATIENCE_S = 20


def final(segment):
    return {"type": "final", "segment": segment, "text": f"words {segment}"}


class Recorded:
    """An action that takes what the test lets it."""

    name = "recorded"

    def __init__(self, outcomes=()):
        self.outcomes, self.taken, self.tries, self.closed = list(outcomes), [], 0, False
        self.gate, self.began = threading.Event(), threading.Event()
        self.gate.set()

    def deliver(self, event):
        self.tries += 1
        self.began.set()
        assert self.gate.wait(PATIENCE_S)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        self.taken.append(event["segment"])

    def close(self):
        self.closed = True


@pytest.fixture
def made():
    """Makes an outbox for an action; the lines that it says; closed at the end."""
    boxes = []

    def make(action, limits=QUICK):
        said = []
        boxes.append((Outbox(action, said.append, limits), action))
        return boxes[-1][0], said

    yield make
    for box, action in boxes:
        action.gate.set()
        close(box, 0)


def close(box, after_s=PATIENCE_S):
    box.begin_to_close(time.monotonic() + after_s)
    box.close()


def test_finals_arrive_in_their_order(made):
    action = Recorded()
    box, said = made(action)
    for segment in range(50):
        box.put(final(segment))
    close(box)
    assert (action.taken, said, action.closed) == (list(range(50)), [], True)


def test_what_fails_for_now_is_tried_again_before_what_came_later(made):
    again = [ActionError("is away", again=True)] * 3
    action = Recorded(again)
    box, said = made(action)
    box.put(final(0))
    box.put(final(1))
    deadline = time.monotonic() + PATIENCE_S
    while action.taken != [0, 1]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert action.tries == 5
    assert said == ["recorded: is away; it is tried again", "recorded: works again"]


def test_what_is_refused_is_given_up(made):
    action = Recorded([ActionError("answered 404")])
    box, said = made(action)
    box.put(final(0))
    box.put(final(1))
    close(box)
    assert (action.taken, action.tries) == ([1], 2)
    assert said == ["recorded: answered 404 (segment 0)", "recorded: 1 finals in all were not delivered"]


def test_recognition_never_waits_and_the_oldest_goes_when_too_many_wait(made):
    action = Recorded()
    action.gate.clear()
    box, said = made(action, OutboxLimits(waiting=3))
    box.put(final(0))
    assert action.began.wait(PATIENCE_S)
    for segment in range(1, 7):
        box.put(final(segment))
    assert said == ["recorded: 3 wait already: segment 1 is given up"]
    action.gate.set()
    close(box)
    assert action.taken == [0, 4, 5, 6]
    assert said[1:] == ["recorded: 3 finals in all were not delivered"]


def test_jobs_run_beside_each_other(made):
    meeting = threading.Barrier(3)

    class Together(Recorded):
        def deliver(self, event):
            meeting.wait(PATIENCE_S)
            self.taken.append(event["segment"])

    action = Together()
    box, said = made(action, OutboxLimits(jobs=3))
    for segment in range(6):
        box.put(final(segment))
    close(box)
    assert (sorted(action.taken), said) == (list(range(6)), [])


@pytest.mark.parametrize("away", [True, False])
def test_the_end_waits_no_longer_than_it_should_and_says_what_is_left(made, away):
    """The action fails, or hangs."""
    action = Recorded([ActionError("is away", again=True)] * 1_000)
    if not away:
        action.gate.clear()
    box, said = made(action)
    for segment in range(20):
        box.put(final(segment))
    assert action.began.wait(PATIENCE_S)
    began_s = time.monotonic()
    close(box, 0.1)
    assert time.monotonic() - began_s < PATIENCE_S
    assert said[-1] == "recorded: not delivered before the end: segment 0, 1, 2, 3, 4, 5, 6, 7 and 12 more"
    assert action.taken == []


def test_what_goes_wrong_is_told_once_a_minute():
    said, now = [], [0.0]
    complaints = Complaints("hook", said.append, 60, lambda: now[0])
    for second in range(130):
        now[0] = second
        complaints.failed("is away")
    assert said == [
        "hook: is away; it is tried again",
        "hook: is away; it is tried again (59 more since the last report)",
        "hook: is away; it is tried again (59 more since the last report)",
    ]
    complaints.worked()
    complaints.worked()
    complaints.failed("is away")
    assert said[3:] == ["hook: works again", "hook: is away; it is tried again"]
