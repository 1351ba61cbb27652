import numpy as np
import pytest

from edgeasr.errors import ConfigError
from edgeasr.memory import Decision, SummaryContext
from edgeasr.memory_policies import budget, everything, first_of, keyword, similarity, speech_only, voiced

VECTOR = np.zeros(4, np.float32)
STORE, MERGE, SKIP, PIN = Decision.STORE, Decision.MERGE, Decision.SKIP, Decision.PIN


def at(number, span_s=4.0, **known):
    return SummaryContext(2, number, number * span_s, (number + 1) * span_s, **known)


def test_everything_is_stored():
    assert everything(VECTOR, at(0, similarity=1.0)) is STORE


@pytest.mark.parametrize(("cosine", "decision"), [(-1.0, STORE), (0.8, STORE), (0.81, MERGE), (1.0, MERGE)])
def test_similarity_merges_above_its_threshold(cosine, decision):
    assert similarity(0.8)(VECTOR, at(3, similarity=cosine)) is decision


@pytest.mark.parametrize(("speech", "decision"), [(0.0, SKIP), (0.09, SKIP), (0.1, None), (1.0, None)])
def test_silence_is_skipped_and_speech_is_left_to_the_model(speech, decision):
    assert speech_only(0.1)(VECTOR, at(0, speech=speech)) is decision


@pytest.mark.parametrize(("voice", "decision"), [(0.0, SKIP), (0.29, SKIP), (0.3, None), (1.0, None)])
def test_what_is_no_voice_is_skipped(voice, decision):
    assert voiced(0.3)(VECTOR, at(0, speech=1.0, voice=voice)) is decision


def test_what_is_around_a_keyword_is_kept():
    policy = keyword(["doctor"], around_s=6.0)
    heard = ["", "the", "the doctor", "the doctor said", "the doctor said a", "", "no", "the doctor", ""]
    decisions = [policy(VECTOR, at(n, text=text)) for n, text in enumerate(heard)]
    # Heard from 8 to 12 s: what begins until 18 s is kept. A word is counted once for as long as its segment lasts.
    assert decisions == [SKIP, SKIP, PIN, STORE, STORE, SKIP, SKIP, PIN, STORE]


def test_a_budget_bounds_what_any_hour_stores():
    policy = budget(3)
    decisions = [policy(VECTOR, at(n, span_s=900.0)) for n in range(10)]
    assert decisions == [STORE, STORE, STORE, MERGE, STORE, STORE, STORE, MERGE, STORE, STORE]


def test_the_first_policy_that_decides_does():
    policy = first_of(speech_only(0.5), similarity(0.5))
    assert policy(VECTOR, at(0, speech=0.1, similarity=0.9)) is SKIP
    assert policy(VECTOR, at(0, speech=0.9, similarity=0.9)) is MERGE
    assert first_of(speech_only(0.5))(VECTOR, at(0, speech=0.9)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: similarity(1.1),
        lambda: speech_only(-0.1),
        lambda: voiced(1.1),
        lambda: keyword([]),
        lambda: keyword("money"),
        lambda: keyword(["a"], around_s=-1),
        lambda: budget(0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError):
        make()
