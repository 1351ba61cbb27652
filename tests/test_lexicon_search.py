import math
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr.errors import ConfigError
from edgeasr.lexicon_decoder import LexiconDecoder
from edgeasr.lexicon_search import BLANK, RECORD, TOKEN, PrefixSearch, SearchConfig, WordGraph, heard_frames
from edgeasr.phones import PHONES

toys = run_path(str(Path(__file__).with_name("test_lexicon_decoder.py")))
GRAPH, emissions, paths = toys["GRAPH"], toys["emissions"], toys["paths"]


class Unhurried(PrefixSearch):
    """Looks for longer prefixes in every frame."""

    def _wait(self, heard, frame):
        candidates = self._candidates(heard)
        self._advance(candidates, *self._selected(candidates), heard.log_probs, frame)


def accepted(kind, log_probs, graph=GRAPH):
    search = kind(graph)
    for frame, heard in enumerate(heard_frames(log_probs, graph.config)):
        search.accept(heard, frame)
    return search


@settings(max_examples=60)
@given(paths, st.floats(0.9, 0.99999))
def test_frames_in_which_nothing_gets_longer_are_as_others(path, posterior):
    log_probs = emissions(path + " _ _ _", posterior)
    quick, slow = accepted(PrefixSearch, log_probs), accepted(Unhurried, log_probs)
    np.testing.assert_array_equal(quick.whole, slow.whole)
    np.testing.assert_allclose(quick.parts, slow.parts, rtol=1e-9, atol=1e-300)
    assert quick.records == slow.records


def test_such_frames_of_speech_give_the_same_words(speech, monkeypatch):
    from edgeasr.lm_tuning import emissions as emissions_of
    from edgeasr.manifest import read_manifest
    from edgeasr.recognizer import load_model

    model = load_model()
    heard = {PrefixSearch: [], Unhurried: []}
    waited = 0
    for utterance in read_manifest(speech / "dev.jsonl")[:60:20]:
        log_probs = emissions_of(model, utterance.path)
        waited += sum(len(frame.phones) == 0 for frame in heard_frames(log_probs, model.word_graph.config))
        for kind, words in heard.items():
            monkeypatch.setattr("edgeasr.lexicon_decoder.fastest_search", kind)
            decoder = LexiconDecoder(model.word_graph, model.config.frame_s)
            for start in range(0, len(log_probs), 4):
                decoder.accept(log_probs[start : start + 4])
                words.append((decoder.hypothesis(), decoder.stable_words))
    assert heard[PrefixSearch] == heard[Unhurried]
    assert waited > 20
    assert len(heard[PrefixSearch][-1][0]) > 3


def test_frames_made_ready():
    config = SearchConfig(blank_penalty=0.5, token_beam=2.0)
    log_probs = np.full((2, len(PHONES)), -50.0, np.float32)
    log_probs[0, [0, 7, 9]] = [-0.1, -2.0, -2.7]
    log_probs[1, 0] = 0.0
    first, second = heard_frames(log_probs, config)
    assert (first.phones.tolist(), second.phones.tolist()) == ([7], [])
    assert first.log_probs[[0, 7, 1]].tolist() == pytest.approx([-0.1, -2.0, -30.0])
    assert first.probs[[0, 7]].tolist() == pytest.approx([math.exp(-0.6), math.exp(-2.0)])
    assert (first.blank, first.best) == pytest.approx((math.exp(-0.6), -0.6))


def test_no_phone_is_tried_beside_a_blank_that_is_sure():
    blank = [0.95, 0.89, 0.3]
    log_probs = np.full((3, len(PHONES)), -50.0, np.float32)
    log_probs[:, 0], log_probs[:, 7] = np.log(blank), np.log1p(-np.array(blank))

    def tried(sure_blank):
        config = SearchConfig(blank_penalty=0.0, token_beam=6.0, sure_blank=sure_blank)
        return [heard.phones.tolist() for heard in heard_frames(log_probs, config)]

    assert tried(1.0) == [[7], [7], [7]]
    assert tried(0.9) == [[], [7], [7]]
    assert tried(0.2) == [[], [], []]
    with pytest.raises(ConfigError, match=r"got sure_blank 0 .* wanted a higher number"):
        SearchConfig(sure_blank=0.0)


@settings(max_examples=40)
@given(paths, st.floats(0.3, 0.99))
def test_the_likeliest_prefix_has_probability_1_and_none_is_far_behind(path, posterior):
    search = accepted(PrefixSearch, emissions(path + " _", posterior))
    assert search.scores.max() == pytest.approx(1.0)
    assert search.scores.min() > math.exp(-GRAPH.config.beam)
    np.testing.assert_allclose(search.scores, search.parts[BLANK] + search.parts[TOKEN])


def test_no_more_prefixes_are_kept_than_wanted_and_these_are_the_likeliest():
    log_probs = emissions("DH AX OW L D HH AW S W AX Z", 0.3)
    many = accepted(PrefixSearch, log_probs)
    few = accepted(PrefixSearch, log_probs, WordGraph(GRAPH.model, SearchConfig(max_prefixes=5), GRAPH.lexicon))
    assert many.whole.shape[1] > 5
    assert few.whole.shape[1] == 5
    best = many.whole[:, many.scores.argmax()], few.whole[:, few.scores.argmax()]
    np.testing.assert_array_equal(np.delete(best[0], RECORD), np.delete(best[1], RECORD))


@pytest.mark.parametrize(
    ("ends", "common"),
    [([6, 6], 6), ([6, 5], 2), ([6, 4], 1), ([5, 3], -1), ([2, 6, 5], 2), ([6, 1], 1), ([-1, 6], -1)],
)
def test_the_record_through_which_all_go(ends, common):
    search = PrefixSearch(GRAPH)
    search.begin(0)
    record = accepted(PrefixSearch, emissions("AX _")).records[0]
    # 0 -> 3; 1 -> 2 -> 5 and 6, 1 -> 4
    search.records = [record._replace(previous=previous) for previous in (-1, -1, 1, 0, 1, 2, 2)]
    search.whole = np.repeat(search.whole, len(ends), axis=1)
    search.whole[RECORD] = ends
    assert search.common_record(-1) == common


@pytest.mark.parametrize("value", [100.5, -101.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["word_score", "blank_penalty"])
def test_scores_that_would_overflow_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"got {name} {value} .* up to 100 or its negative"):
        SearchConfig(**{name: value})


@pytest.mark.parametrize("word_score", [-100.0, 100.0])
def test_extreme_scores_are_no_trouble(word_score):
    words = WordGraph(GRAPH.model, SearchConfig(word_score=word_score, blank_penalty=-word_score), GRAPH.lexicon)
    search = accepted(PrefixSearch, emissions("DH AX OW L D _ HH AW S", 0.5), words)
    assert np.isfinite(search.parts).all()
    assert search.scores.max() == pytest.approx(1.0)
