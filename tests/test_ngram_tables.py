import io

import numpy as np
import pytest

from edgeasr import ngram_tables
from edgeasr.errors import BundleError
from edgeasr.language_model import EMPTY, LanguageModel
from edgeasr.language_model_file import packed
from edgeasr.ngram_estimation import estimate
from edgeasr.ngram_tables import SPECIAL_WORDS, START


def text(num_words, num_sentences, seed=1):
    rng = np.random.default_rng(seed)
    names = np.array([f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(num_words)])
    return [" ".join(names[rng.zipf(1.3, rng.integers(1, 9)) % num_words]) for _ in range(num_sentences)]


def made(order, max_ngrams, num_words=300):
    ngrams = estimate(text(num_words, 3000), order=order, max_words=1000, max_ngrams=max_ngrams)
    return packed(ngrams, dict.fromkeys(ngrams.words, (("W",),)))


def listed(content):
    """Every n-gram of a file, as words: its log-probability and back-off weight. Read one by one."""
    with np.load(io.BytesIO(content)) as arrays:
        files = dict(arrays)
    order = int(files["format"][1])
    size = len(SPECIAL_WORDS) + len(bytes(files["words"]).split(b"\n"))
    table, previous = {}, [()]
    for number in range(1, order + 1):
        words = range(size) if number == 1 else files[f"words{number}"].T.copy().view(np.uint16).ravel().tolist()
        followers = [size] if number == 1 else files[f"followers{number}"].tolist()
        weights = iter(files.get(f"backoff{number}", []))
        following = files.get(f"followers{number + 1}", np.zeros(len(words)))
        values, spelt = files[f"prob_values{number}"], iter(words)
        counted = zip(previous, followers, strict=True)
        here = [(*history, next(spelt)) for history, count in counted for _ in range(count)]
        for ngram, code, count in zip(here, files[f"prob{number}"], following, strict=True):
            backoff = files[f"backoff_values{number}"][next(weights)] if count else None
            table[ngram] = (values[code], backoff)
        previous = here
    return table


def backed_off(table, history, word):
    """Katz's recursion."""
    if (*history, word) in table:
        return table[(*history, word)][0]
    weight = table[history][1] if history in table else None
    return (weight or 0.0) + backed_off(table, history[1:], word)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("max_ngrams", [400, 1501, 10**6])
def test_scores_are_those_of_the_listed_ngrams(order, max_ngrams):
    content = made(order, max_ngrams)
    table, model = listed(content), LanguageModel.from_bytes(content)
    assert model.num_ngrams == len(table)
    rng = np.random.default_rng(2)
    states, histories = np.array([model.start, EMPTY] * 50), [(START,), ()] * 50
    for _ in range(12):
        words = rng.zipf(1.3, 100) % len(model.words)
        found, states = model.score(states, words)
        ids = (words + len(SPECIAL_WORDS)).tolist()
        wanted = [backed_off(table, history, word) for history, word in zip(histories, ids, strict=True)]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        grown = [(*history, word) for history, word in zip(histories, ids, strict=True)]
        histories = [words[max(0, len(words) + 1 - order) :] for words in grown]


def test_a_state_is_the_longest_history_that_something_follows():
    content = made(4, 1501)
    table, model = listed(content), LanguageModel.from_bytes(content)
    followed = {(): EMPTY}
    for ngram, (_, backoff) in table.items():
        if backoff is not None:
            state = EMPTY
            for word in ngram:
                state = int(model.ngrams.score(np.array([state]), np.array([word]))[1][0])
            followed[ngram] = state
    assert sorted(followed.values()) == list(range(len(model.ngrams.histories)))
    for ngram in table:
        (state,) = model.ngrams.score(np.array([followed[ngram[:-1]]]), np.array([ngram[-1]]))[1]
        longest = next(ngram[start:] for start in range(len(ngram) + 1) if ngram[start:] in followed)
        assert state == followed[longest]


def test_of_no_words_there_are_no_scores():
    model = LanguageModel.from_bytes(made(3, 1000))
    log_probs, states = model.score(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert (log_probs.shape, states.shape) == ((0,), (0,))


def test_more_histories_than_can_be_numbered_are_refused(monkeypatch):
    content = made(3, 1000)
    monkeypatch.setattr(ngram_tables, "MAX_HISTORIES", 100)
    with pytest.raises(BundleError, match=r"histories, wanted 100 at most.*build the language model again"):
        LanguageModel.from_bytes(content)
