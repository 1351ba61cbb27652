from pathlib import Path

import pytest

from edgeasr.dedup_benchmark import hour_with_pauses
from edgeasr.manifest import Utterance


@pytest.mark.parametrize(
    ("utterances", "each_s", "length_s"),
    [
        (200, 10.0, 3600.0),
        (361, 5.0, 3600.0),
        (6, 7.0, 84.0),  # not an hour of next to nothing
        (100, 40.0, 4000.0 + 99 * 0.5),
        (11, 0.3, 11 * 0.3 + 10 * 0.5),
        (1, 9.0, 9.0),
    ],
)
def test_what_is_heard_with_pauses_is_half_speech_and_an_hour_at_most_unless_more_is_said(utterances, each_s, length_s):
    spoken = [Utterance(Path(f"{n}.wav"), each_s, "so it goes") for n in range(utterances)]
    (session,) = hour_with_pauses(spoken)
    assert session.duration_s == pytest.approx(length_s)
    assert len(session.utterances) == utterances
