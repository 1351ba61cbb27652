import numpy as np
import pytest

from edgeasr.errors import BundleError
from edgeasr.lexicon import ROOT, Lexicon
from edgeasr.phones import PHONE_IDS, PHONES

WORDS = ("to", "it's", "too", "a", "tea", "it", "two", "tease")
SAID = [
    ("to", "T UW"),
    ("to", "T AX"),
    ("it's", "IH T S"),
    ("too", "T UW"),
    ("a", "AX"),
    ("a", "EY"),
    ("tea", "T IY"),
    ("it", "IH T"),
    ("two", "T UW"),
    ("tease", "T IY Z"),
]


def table(said):
    """Numbers of the words and phones of their pronunciations."""
    phones = np.zeros((len(said), max(len(way.split()) for _, way in said)), np.uint8)
    for row, (_, way) in zip(phones, said, strict=True):
        row[: len(way.split())] = [PHONE_IDS[phone] for phone in way.split()]
    return np.array([WORDS.index(word) for word, _ in said]), phones


def lexicon_of(said=SAID, values=None):
    values = dict.fromkeys(WORDS, 0) if values is None else values
    return Lexicon.of(*table(said), len(PHONES), np.array([values[word] for word in WORDS], np.float32))


def node_of(lexicon, way):
    node = ROOT
    for phone in way.split():
        _, _, (node,) = lexicon.children(np.array([node]), np.array([PHONE_IDS[phone]]))
    return int(node)


def labels_of(lexicon):
    """The phone that leads to each node."""
    nodes, phones, children = lexicon.children(np.arange(len(lexicon)), np.arange(len(PHONES)))
    labels = np.zeros(len(lexicon), int)
    labels[children] = phones
    return labels, dict(zip(children.tolist(), nodes.tolist(), strict=True))


def words_at(lexicon, *ways):
    which, words = lexicon.words_of(np.array([node_of(lexicon, way) for way in ways], np.int64))
    return sorted((ways[i], WORDS[word]) for i, word in zip(which.tolist(), words.tolist(), strict=True))


@pytest.mark.parametrize(("word", "way"), SAID)
def test_every_word_ends_where_its_phones_lead(word, way):
    lexicon = lexicon_of()
    assert (way, word) in words_at(lexicon, way)
    node = node_of(lexicon, way)
    assert lexicon.depth[node] == len(way.split())
    assert PHONES[labels_of(lexicon)[0][node]] == way.split()[-1]


def test_words_that_sound_alike_end_at_one_node_and_a_word_at_several():
    lexicon = lexicon_of()
    assert words_at(lexicon, "T UW") == [("T UW", "to"), ("T UW", "too"), ("T UW", "two")]
    assert words_at(lexicon, "T AX", "AX", "EY") == [("AX", "a"), ("EY", "a"), ("T AX", "to")]


def test_words_of_many_nodes_are_told_apart_and_nodes_may_come_twice():
    lexicon = lexicon_of()
    nodes = np.array([node_of(lexicon, way) for way in ("IH", "IH T", "T UW", "T", "IH T")], np.int64)
    which, words = lexicon.words_of(nodes)
    assert which.tolist() == [1, 2, 2, 2, 4]
    assert [WORDS[word] for word in words.tolist()[::4]] == ["it", "it"]
    which, words = lexicon.words_of(np.zeros(0, np.int64))
    assert len(which) == len(words) == 0


def test_beginnings_are_shared_and_are_no_words():
    lexicon = lexicon_of()
    ways = [tuple(way.split()) for _, way in SAID]
    assert len(lexicon) == 1 + len({way[:n] for way in ways for n in range(1, len(way) + 1)})
    assert words_at(lexicon, "T", "IH", "") == []
    assert lexicon.depth[ROOT] == 0
    assert words_at(lexicon, "T IY", "T IY Z") == [("T IY", "tea"), ("T IY Z", "tease")]


def test_nothing_follows_the_last_phone_and_no_blank_is_in_the_tree():
    lexicon = lexicon_of()
    assert [len(found) for found in lexicon.children(np.array([node_of(lexicon, "T IY Z")]), np.arange(41))] == [0] * 3
    nodes, phones, children = lexicon.children(np.arange(len(lexicon)), np.arange(41))
    assert phones.min() > 0
    assert sorted(children.tolist()) == list(range(1, len(lexicon)))
    np.testing.assert_array_equal(lexicon.depth[children], lexicon.depth[nodes] + 1)


def test_children_are_those_of_the_phones_asked_for():
    lexicon = lexicon_of()
    nodes = np.array([node_of(lexicon, way) for way in ("T", "IH", "T")])
    phones = np.array([PHONE_IDS[phone] for phone in ("IY", "T", "UW")])
    which, phone, children = lexicon.children(nodes, phones)
    expected = [(0, 0, "T IY"), (0, 2, "T UW"), (1, 1, "IH T"), (2, 0, "T IY"), (2, 2, "T UW")]
    found = list(zip(which.tolist(), phone.tolist(), children.tolist(), strict=True))
    assert found == [(i, phones[p], node_of(lexicon, way)) for i, p, way in expected]


def test_best_below_is_the_highest_value_of_all_that_go_on_from_a_node_and_its_word():
    values = {"to": -3, "it's": -5, "too": -1, "a": -4, "tea": -2, "it": -6, "two": -7, "tease": -1.5}
    lexicon = lexicon_of(values=values)
    best, word = lexicon.best, lexicon.likeliest
    ways = ("T", "T UW", "T AX", "T IY", "T IY Z", "IH", "IH T", "IH T S", "AX", "EY")
    found = [(best[node_of(lexicon, way)], WORDS[word[node_of(lexicon, way)]]) for way in ways]
    assert found == [
        (-1, "too"),
        (-1, "too"),
        (-3, "to"),
        (-1.5, "tease"),
        (-1.5, "tease"),
        (-5, "it's"),
        (-5, "it's"),
        (-5, "it's"),
        (-4, "a"),
        (-4, "a"),
    ]
    assert (best[ROOT], WORDS[word[ROOT]]) == (-1, "too")


def test_of_words_that_are_as_likely_the_first_is_the_likeliest():
    lexicon = lexicon_of()
    assert [WORDS[lexicon.likeliest[node_of(lexicon, way)]] for way in ("T UW", "T IY", "IH")] == ["to", "tea", "it's"]


def test_the_order_of_the_pronunciations_makes_no_difference():
    shuffled = [SAID[i] for i in np.random.default_rng(1).permutation(len(SAID))]
    one, other = lexicon_of(), lexicon_of(shuffled)
    np.testing.assert_array_equal(one.phones_next, other.phones_next)
    np.testing.assert_array_equal(one.first_child, other.first_child)
    for _, way in SAID:
        assert words_at(one, way) == words_at(other, way)


def test_a_lexicon_of_one_word_of_one_phone():
    lexicon = lexicon_of([("a", "AX")])
    assert len(lexicon) == 2
    assert words_at(lexicon, "AX") == [("AX", "a")]


def test_what_is_no_pronunciation_is_refused():
    (words, phones), values = table(SAID), np.zeros(len(WORDS), np.float32)
    with pytest.raises(BundleError, match="got 0 pronunciations, wanted one or more"):
        Lexicon.of(words[:0], phones[:0], len(PHONES), values)
    with pytest.raises(BundleError, match="of phones below 39: build the language model again"):
        Lexicon.of(words, phones, PHONE_IDS["Z"], values)
    phones[3] = 0
    with pytest.raises(BundleError, match="got 10 pronunciations, wanted one or more, none empty"):
        Lexicon.of(words, phones, len(PHONES), values)
