import io
import math

import numpy as np
import pytest

from edgeasr.errors import BundleError, ConfigError
from edgeasr.language_model import EMPTY, LanguageModel
from edgeasr.language_model_file import packed
from edgeasr.ngram_estimation import estimate, log_prob
from edgeasr.ngram_tables import WORD_BITS
from edgeasr.phones import PHONE_IDS

TEXT = ["a b a c", "a b", "b a b c c", "c a b a", "d a b", "a c a b d", "b b a"]
SAID = {"a": (("AX",), ("EY",)), "b": (("B", "IY"),), "d": (("D", "IY"), ("D", "AH", "B", "AX", "L")), "z": (("Z",),)}


def ngrams(order=3, max_ngrams=10**6):
    return estimate(TEXT, order=order, max_words=100, max_ngrams=max_ngrams)


def scored(model, sentence, state):
    """log-probabilities of words, one after the other."""
    result, states = [], np.array([state])
    for word in sentence.split():
        log_probs, states = model.score(states, np.array([model.words.index(word)]))
        result.append(float(log_probs[0]))
    return result


def wanted(made, sentence, start):
    """The same from the tables that were estimated."""
    ids = ([1] if start else []) + [made.words.index(word) for word in sentence.split()]
    result = []
    for end in range(1 if start else 0, len(ids)):
        history = ids[max(0, end + 1 - len(made.tables)) : end + 1]
        key = 0
        for word in history:
            key = key << WORD_BITS | word
        result.append(float(log_prob(made.tables[: len(history)], np.array([key], np.uint64))[0]))
    return result


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("max_ngrams", [12, 20, 10**6])
@pytest.mark.parametrize("sentence", ["a b a c", "d d d", "c b a b a b c", "b"])
def test_scores_are_those_that_were_estimated(order, max_ngrams, sentence):
    made = ngrams(order, max_ngrams)
    model = LanguageModel.from_bytes(packed(made, SAID))
    assert scored(model, sentence, model.start) == pytest.approx(wanted(made, sentence, start=True), abs=0.02)
    assert scored(model, sentence, EMPTY) == pytest.approx(wanted(made, sentence, start=False), abs=0.02)


def test_many_states_are_scored_at_once():
    model = LanguageModel.from_bytes(packed(ngrams(), SAID))
    a, b = model.words.index("a"), model.words.index("b")
    log_probs, states = model.score(np.array([EMPTY, model.start, EMPTY]), np.array([a, a, b]))
    assert log_probs.tolist() == pytest.approx(
        [scored(model, "a", EMPTY)[0], scored(model, "a", model.start)[0], scored(model, "b", EMPTY)[0]]
    )
    assert states[0] != states[2]


def test_histories_that_nothing_follows_are_forgotten():
    model = LanguageModel.from_bytes(packed(ngrams(order=2, max_ngrams=7), SAID))
    _, states = model.score(np.array([model.start]), np.array([model.words.index("d")]))
    assert states.tolist() == [EMPTY]


def test_a_sentence_has_an_end():
    made = ngrams()
    model = LanguageModel.from_bytes(packed(made, SAID))
    total = sum(math.exp(scored(model, word, EMPTY)[0]) for word in model.words)
    unknown = math.exp(made.tables[0].log_probs[0])
    assert total + unknown + math.exp(model.score_end(np.array([EMPTY]))[0]) == pytest.approx(1.0, abs=0.01)


def test_words_and_unigrams():
    model = LanguageModel.from_bytes(packed(ngrams(), SAID))
    assert list(model.words) == ["a", "b", "c", "d"]
    assert (model.words[-1], model.words[1:3]) == ("d", ["b", "c"])
    with pytest.raises(IndexError, match="word 4 of 4"):
        model.words[4]
    assert model.unigrams.tolist() == pytest.approx([scored(model, word, EMPTY)[0] for word in "abcd"])
    assert model.order == 3


def test_many_different_values_are_kept_to_within_some_hundredths():
    rng = np.random.default_rng(1)
    text = [" ".join(f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in rng.zipf(1.3, 8) % 600) for _ in range(2000)]
    made = estimate(text, order=2, max_words=1000, max_ngrams=10**6)
    model = LanguageModel.from_bytes(packed(made, dict.fromkeys(made.words, (("W",),))))
    found, exact = scored(model, text[0], model.start), wanted(made, text[0], start=True)
    assert len(np.unique(made.tables[1].log_probs)) > 256
    assert found == pytest.approx(exact, abs=0.15)
    assert np.mean(np.abs(np.subtract(found, exact))) < 0.05


def test_the_same_model_is_the_same_file():
    assert packed(ngrams(), SAID) == packed(ngrams(), SAID)


def test_pronunciations_are_those_of_the_dictionary():
    model = LanguageModel.from_bytes(packed(ngrams(), SAID))
    said = model.pronunciations
    assert said.words.tolist() == [0, 0, 1, 3, 3]
    assert said.phones.tolist() == [
        [PHONE_IDS[phone] for phone in way] + [0] * (5 - len(way)) for word in "abd" for way in SAID[word]
    ]
    assert said.dictionary(model.words) == {word: SAID[word] for word in "abd"}


def test_words_without_a_pronunciation_are_counted_all_the_same():
    made = ngrams()
    spoken, silent = (LanguageModel.from_bytes(packed(made, said)) for said in (SAID, {"a": (("EY",),)}))
    assert list(silent.words) == list(spoken.words)
    assert scored(silent, "a b a c", silent.start) == scored(spoken, "a b a c", spoken.start)
    assert silent.pronunciations.dictionary(silent.words) == {"a": (("EY",),)}


@pytest.mark.parametrize("said", [{}, {"z": (("Z",),)}, {"a": ()}])
def test_a_dictionary_of_other_words_is_refused(said):
    with pytest.raises(ConfigError, match="the dictionary has none of the 4 words"):
        packed(ngrams(), said)


def test_a_model_is_loaded_from_a_file(tmp_path):
    (tmp_path / "words.lm").write_bytes(packed(ngrams(), SAID))
    assert LanguageModel.load(tmp_path / "words.lm").num_ngrams == ngrams().num_ngrams


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"no\.lm: No such file"):
        LanguageModel.load(tmp_path / "no.lm")


def changed(**arrays):
    with np.load(io.BytesIO(packed(ngrams(), SAID))) as given:
        values = {**given, **arrays}
    stream = io.BytesIO()
    np.savez_compressed(stream, **{name: value for name, value in values.items() if value is not None})
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK nonsense",
        packed(ngrams(), SAID)[:-200],
        changed(format=np.array([2, 3])),
        changed(format=np.array([1, 4])),
        changed(words=None),
        changed(prob2=np.zeros(3, np.uint8)),
        changed(prob_values3=np.zeros(1, np.float32)),
        changed(prob_values3=np.full(256, np.nan, np.float32)),
        changed(words2=np.full((2, 3), 255, np.uint8)),
        changed(followers3=np.zeros(3, np.uint16)),
        changed(words=np.array([object()])),
        changed(prob2=np.zeros((2, 9), np.uint8)),
        changed(prob2=np.zeros(9, np.int64)),
        changed(prob_values2=np.zeros(257, np.float32)),
        changed(backoff1=np.zeros(2, np.uint8)),
        changed(said_words=None),
        changed(said_phones=None),
        changed(said_words=np.array([0, 0, 1, 3, 4], np.uint16)),
        changed(said_words=np.array([0, 0, 1, 3, -1], np.int16)),
        changed(said_words=np.array([0, 0, 1, 3], np.uint16)),
        changed(said_words=np.zeros(0, np.uint16), said_phones=np.zeros((5, 0), np.uint8)),
        changed(said_phones=np.zeros((0, 5), np.uint8)),
        changed(said_phones=np.full((1, 5), 41, np.uint8)),
        changed(said_phones=np.full((1, 5), 40, np.int64)),
        changed(said_phones=np.array([[1, 1, 0, 1, 1]], np.uint8)),
        changed(said_phones=np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 1, 1, 1, 1]], np.uint8)),
        changed(said_phones=np.ones(5, np.uint8)),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(content):
    with pytest.raises(BundleError, match="build the language model again") as caught:
        LanguageModel.from_bytes(content, "words.lm")
    assert "\n" not in str(caught.value)


def test_a_bit_that_has_turned_is_refused_or_harmless():
    content, refused = packed(ngrams(), SAID), 0
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        try:
            LanguageModel.from_bytes(bytes(damaged), "words.lm")
        except BundleError:
            refused += 1
    assert refused > len(content) // 10
