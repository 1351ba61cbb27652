import json
import math
import sys

import numpy as np
import pytest

from edgeasr.errors import ConfigError
from edgeasr.ngram_estimation import estimate, log_prob
from edgeasr.phones import PHONE_IDS, PHONES
from edgeasr.train.phone_graph import PhoneGraph, build, main, texts_of

SAID = {"a": (("AX",), ("EY",)), "cat": (("K", "AE", "T"),), "sat": (("S", "AE", "T"),), "act": (("AE", "K", "T"),)}
TEXTS = ["a cat sat", "a cat", "act", "a cat sat", "sat a cat", "an unknown word", "cat act"]


def ids(phones: str) -> list[int]:
    return [PHONE_IDS[phone] for phone in phones.split()]


@pytest.fixture(scope="module")
def graph() -> PhoneGraph:
    return build(TEXTS, SAID, max_ngrams=2000)


def test_a_graph_has_the_probabilities_of_the_model(graph):
    spoken = ["ax k ae t s ae t", "ax k ae t", "ae k t", "s ae t ax k ae t", "k ae t ae k t"]
    model = estimate([*(p.lower() for p in PHONES[1:]), *spoken], order=3, max_words=40, max_ngrams=2000)
    number = {word: i for i, word in enumerate(model.words)}
    after = np.array([number[word] for word in ["</s>", *(p.lower() for p in PHONES[1:])]], np.uint64)
    history, state = [number["<s>"]], 0
    for phone in ids("AX K AE T S AE T S"):
        key = sum(word << 16 * place for place, word in enumerate(reversed(history), 1))
        want = np.exp(log_prob(model.tables[: len(history) + 1], after | np.uint64(key)))
        np.testing.assert_allclose(graph.probs[state], want / want.sum(), rtol=1e-9)
        history = [*history, number[PHONES[phone].lower()]][-2:]
        state = int(graph.next[state, phone])
        assert graph.labels[state] == phone


def test_what_was_said_is_likelier_than_what_was_not(graph):
    assert graph.log_prob(ids("AX K AE T")) > graph.log_prob(ids("AX T AE K")) + 2
    assert math.isfinite(graph.log_prob(ids("ZH ZH")))
    assert graph.log_prob(ids("AE K T")) == pytest.approx(
        math.log(graph.probs[0, PHONE_IDS["AE"]])
        + math.log(graph.probs[graph.next[0, PHONE_IDS["AE"]], PHONE_IDS["K"]])
        + math.log(graph.probs[graph.next[graph.next[0, PHONE_IDS["AE"]], PHONE_IDS["K"]], PHONE_IDS["T"]])
        + math.log(graph.probs[after(graph, "AE K T"), 0])
    )


def after(graph: PhoneGraph, phones: str) -> int:
    state = 0
    for phone in ids(phones):
        state = int(graph.next[state, phone])
    return state


def test_fewer_ngrams_make_fewer_states(graph):
    small = build(TEXTS, SAID, max_ngrams=60)
    assert 41 <= len(small.labels) < len(graph.labels)
    np.testing.assert_allclose(small.probs.sum(axis=1), 1.0)


def test_a_text_counts_once(graph):
    again = build([*TEXTS, "cat act", "cat act"], SAID, max_ngrams=2000)
    np.testing.assert_array_equal(again.probs, graph.probs)


def test_a_graph_is_the_same_after_a_file(graph, tmp_path):
    graph.save(tmp_path / "new" / "phones.npz")
    read = PhoneGraph.load(tmp_path / "new" / "phones.npz")
    np.testing.assert_array_equal(read.labels, graph.labels)
    np.testing.assert_array_equal(read.probs, graph.probs)
    np.testing.assert_array_equal(read.next, graph.next)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["phones.npz"]


def test_a_file_that_is_no_graph_is_refused(graph, tmp_path):
    path = tmp_path / "phones.npz"
    with pytest.raises(ConfigError, match=r"cannot read the graph of phones .*phones.npz: .*: make one with"):
        PhoneGraph.load(path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ConfigError, match="cannot read the graph of phones"):
        PhoneGraph.load(path)
    np.savez(path, labels=graph.labels, probs=graph.probs * 0.9, next=graph.next)
    with pytest.raises(ConfigError, match=f"{len(graph.labels)} states that does not hold together: build it again"):
        PhoneGraph.load(path)


def test_texts_come_from_manifests_and_every_so_manieth_sentence(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "duration": 1.0, "text": "A cat"}))
    (tmp_path / "text.txt").write_text("one\ntwo\nthree\n\nfive\n")
    assert list(texts_of([tmp_path / "train.jsonl"], [tmp_path / "text.txt"], 2)) == ["a cat", "one", "three", "five"]


def test_the_command_writes_a_graph(tmp_path, monkeypatch, capsys):
    (tmp_path / "train.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "duration": 1.0, "text": "cat act"}))
    (tmp_path / "words.dict").write_text("cat K AE1 T\nact AE1 K T\n")
    output = tmp_path / "phones.npz"
    arguments = [str(tmp_path / "words.dict"), str(tmp_path / "train.jsonl"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["phone_graph", *arguments])
    main()
    graph = PhoneGraph.load(output)
    assert capsys.readouterr().out == f"{len(graph.labels)} states in {output}\n"
    assert graph.log_prob(ids("K AE T AE K T")) > graph.log_prob(ids("T AE K T K AE"))
