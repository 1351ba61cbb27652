import gzip
import math
from itertools import product

import numpy as np
import pytest

from edgeasr.errors import ConfigError
from edgeasr.ngram_estimation import (
    END,
    SPECIAL_WORDS,
    START,
    UNKNOWN,
    WORD_BITS,
    Frequencies,
    estimate,
    log_prob,
    read_sentences,
)

TEXT = ["a b a c", "a b", "b a b c c", "c a b a", "d a b", "a c a b d", "b b a"]
EVERYTHING = {"order": 3, "max_words": 100, "max_ngrams": 10**6}


def probability(model, *words):
    """p(last word | the others), by name."""
    key, words = 0, words[-len(model.tables) :]
    for word in words:
        key = key << WORD_BITS | model.words.index(word)
    return math.exp(log_prob(model.tables[: len(words)], np.array([key], np.uint64))[0])


def test_the_vocabulary_is_the_most_frequent_words():
    assert estimate(TEXT, **EVERYTHING).words == (*SPECIAL_WORDS, "a", "b", "c", "d")
    assert estimate(TEXT, order=2, max_words=2, max_ngrams=99).words == (*SPECIAL_WORDS, "a", "b")


def test_text_is_normalised():
    assert estimate(["Café, it's «1»"], order=1, max_words=9, max_ngrams=99).words[3:] == ("cafe", "it's")


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("max_ngrams", [20, 30, 10**6])
def test_probabilities_of_what_may_follow_sum_to_one(order, max_ngrams):
    model = estimate(TEXT, order=order, max_words=3, max_ngrams=max_ngrams)
    followers = [word for word in model.words if word != "<s>"]
    histories = [("<s>", *rest) for rest in product("abc", repeat=order - 2)] if order > 1 else []
    histories += [rest for length in range(order) for rest in product("abc", repeat=length)]
    for history in histories:
        assert sum(probability(model, *history, word) for word in followers) == pytest.approx(1.0, abs=1e-6)


def test_kneser_ney_by_hand():
    """Bigrams of "a b": discounts fall back to 0.6, so p(b|a) = (1 - 0.6)/1 + 0.6 p(b)."""
    model = estimate(["a b"], order=2, max_words=9, max_ngrams=99)
    # Continuation counts: a, b and the end were each seen after one word; 4 words share what is discounted.
    unigram = (1 - 0.6) / 3 + 0.6 / 4
    assert probability(model, "b") == pytest.approx(unigram)
    assert probability(model, "a", "b") == pytest.approx(0.4 + 0.6 * unigram)
    assert probability(model, "b", "a") == pytest.approx(0.6 * unigram)


def test_pruning_keeps_to_the_number_and_drops_what_matters_least():
    text = ["in the house"] * 50 + ["in the garden", "by the sea", "the house"]
    whole = estimate(text, **EVERYTHING)
    pruned = estimate(text, order=3, max_words=100, max_ngrams=len(whole.words) + 4)
    assert len(whole.words) < pruned.num_ngrams <= len(whole.words) + 4
    assert probability(pruned, "<s>", "in", "the") == pytest.approx(probability(whole, "<s>", "in", "the"), rel=0.1)
    assert whole.num_ngrams > pruned.num_ngrams


def test_pruned_n_grams_keep_their_histories():
    model = estimate(TEXT, order=3, max_words=9, max_ngrams=14)
    for low, high in zip(model.tables, model.tables[1:], strict=False):
        assert set((high.keys >> np.uint64(WORD_BITS)).tolist()) <= set(low.keys.tolist())


def test_words_outside_the_vocabulary_are_unknown_and_a_start_is_never_predicted():
    model = estimate(TEXT, order=2, max_words=2, max_ngrams=99)
    assert probability(model, "a", SPECIAL_WORDS[UNKNOWN]) > 0.05
    assert probability(model, SPECIAL_WORDS[START]) < 1e-9
    assert probability(model, "b", SPECIAL_WORDS[END]) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 5}, "order 5, wanted 1 to 4"),
        ({"order": 0}, "order 0"),
        ({"max_words": 0}, "number of words"),
        ({"max_words": 70_000}, "number of words"),
        ({"max_ngrams": 3}, "got 3 n-grams at most, wanted 7"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        estimate(TEXT, **(EVERYTHING | options))


@pytest.mark.parametrize("text", [[], ["", "  "], ["1 2 3"]])
def test_a_text_without_words_is_refused(text):
    with pytest.raises(ConfigError, match="without words"):
        estimate(text, **EVERYTHING)


def test_texts_are_read_one_after_the_other_packed_or_not(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with gzip.open(tmp_path / "b.gz", "wt") as packed:
        packed.write("three\n")
    assert [line.strip() for line in read_sentences([tmp_path / "a.txt", tmp_path / "b.gz"])] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("name", "content"), [("no.txt", None), ("bad.txt", b"\xff\xfe"), ("bad.xz", b"no"), ("a.gz", b"x")]
)
def test_a_text_that_cannot_be_read_is_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        list(read_sentences([tmp_path / name]))


SAID_ELSEWHERE = {"a": 0.5, "e": 0.3, "b": 0.15, "f": 0.05}


def test_words_that_the_text_lacks_come_by_their_frequencies():
    frequencies = Frequencies(SAID_ELSEWHERE)
    assert estimate(TEXT, order=2, max_words=4, max_ngrams=99, frequencies=frequencies).words[3:] == (
        "a",
        "b",
        "e",
        "c",
    )
    model = estimate(TEXT, **EVERYTHING, frequencies=frequencies)
    assert probability(model, "e") == pytest.approx(6 * probability(model, "f"))
    assert probability(model, "a", "b") > probability(model, "a", "e") > probability(model, "a", "f") > 0


@pytest.mark.parametrize("weight", [0.0, 0.4])
def test_with_frequencies_too_probabilities_sum_to_one(weight):
    model = estimate(TEXT, **EVERYTHING, frequencies=Frequencies(SAID_ELSEWHERE, weight))
    followers = [word for word in model.words if word != "<s>"]
    for history in [(), ("a",), ("f",), ("<s>",), ("a", "b"), ("b", "e")]:
        assert sum(probability(model, *history, word) for word in followers) == pytest.approx(1.0, abs=1e-6)


def test_a_higher_weight_brings_words_nearer_to_their_frequencies():
    low, high = (estimate(TEXT, **EVERYTHING, frequencies=Frequencies(SAID_ELSEWHERE, w)) for w in (0.0, 0.5))
    assert probability(low, "e") < probability(high, "e") < 0.3
    assert probability(low, "c") > probability(high, "c")


def test_frequencies_are_shares_of_all_that_is_listed(tmp_path):
    path = tmp_path / "frequencies.txt"
    path.write_text("the\t60\nit's 20\n1998 15\nnew-york 5\n")
    assert Frequencies.read(path, 0.1) == Frequencies({"the": 0.6, "it's": 0.2}, 0.1)


def test_abbreviations_count_for_what_they_stand_for(tmp_path):
    path = tmp_path / "frequencies.txt"
    path.write_text("mister 10\nmr 20\netc 5\nthe 65\n")
    assert Frequencies.read(path).shares == pytest.approx({"mister": 0.3, "et": 0.05, "cetera": 0.05, "the": 0.65})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 3\nof\n", "line 2: got 'of', wanted a word and a number"),
        ("the 3\nof course 2\n", "line 2: got 'of course 2'"),
        ("the many\n", "line 1"),
        ("the -1\n", "line 1"),
        ("the nan\n", "line 1"),
        ("1998 3\n", "no word of a to z"),
        ("", "no word of a to z"),
    ],
)
def test_what_is_no_list_of_frequencies_is_refused(tmp_path, content, message):
    (tmp_path / "frequencies.txt").write_text(content)
    with pytest.raises(ConfigError, match=message):
        Frequencies.read(tmp_path / "frequencies.txt")
