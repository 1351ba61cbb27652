import os
import stat

import numpy as np
import pytest

from edgeasr.errors import BundleError
from edgeasr.language_model import LanguageModel
from edgeasr.language_model_file import packed
from edgeasr.lexicon_search import SearchConfig, WordGraph
from edgeasr.ngram_estimation import estimate
from edgeasr.word_tables import keep_tables, word_graph

TEXT = ["a b a c", "a b", "b a b c c", "c a b a", "d a b", "a c a b d", "b b a"]
SAID = {"a": (("AX",), ("EY",)), "b": (("B", "IY"),), "d": (("D", "IY"),)}
CONTENT = packed(estimate(TEXT, order=3, max_words=100, max_ngrams=1000), SAID)
SHA256 = "5ca1ab1e"


class Opened:
    """A language model's file, and how often it was read."""

    def __init__(self, content=CONTENT):
        self.content, self.times = content, 0

    def __call__(self):
        self.times += 1
        return self.content


def graph(folder, opened, search=None):
    return word_graph(opened, SHA256, "words.lm", search or SearchConfig(), folder)


def assert_same(found: WordGraph) -> None:
    made = WordGraph(LanguageModel.from_bytes(CONTENT), SearchConfig())
    assert list(found.model.words) == ["a", "b", "c", "d"]
    assert found.model.pronunciations.dictionary(found.model.words) == SAID
    num_states = len(made.model.ngrams.histories)
    states, words = np.arange(num_states).repeat(4), np.tile(np.arange(4), num_states)
    for one, other in zip(found.model.score(states, words), made.model.score(states, words), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found.gain, made.gain)
    np.testing.assert_array_equal(found.lexicon.phones_next, made.lexicon.phones_next)
    assert (found.start, found.num_places) == (made.start, made.num_places)


def test_tables_are_made_once_and_mapped_from_then_on(tmp_path):
    opened = Opened()
    for _ in range(3):
        found = graph(tmp_path / "new", opened)
        assert_same(found)
        assert not found.model.ngrams.entries.flags.writeable
    assert opened.times == 1
    (kept,) = (tmp_path / "new").iterdir()
    assert kept.name == f"words-{SHA256}.tables"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_tables_can_be_made_before_they_are_wanted(tmp_path):
    opened = Opened()
    for _ in range(2):
        keep_tables(opened, SHA256, "words.lm", tmp_path)
    (kept,) = tmp_path.iterdir()
    made = kept.read_bytes()
    assert_same(graph(tmp_path, opened))
    assert opened.times == 1
    kept.write_bytes(b"edgeasr words 0\n" + made[16:])
    keep_tables(opened, SHA256, "words.lm", tmp_path)
    assert opened.times == 2
    assert kept.read_bytes() == made


def test_tables_that_cannot_be_kept_are_not_made_before_they_are_wanted(tmp_path):
    in_the_way, opened = tmp_path / "file", Opened()
    in_the_way.touch()
    keep_tables(opened, SHA256, "words.lm", in_the_way / "cache")
    assert opened.times == 0


def test_they_lie_in_the_cache_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    graph(None, Opened())
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.tables")] == [
        f"edgeasr/words-{SHA256}.tables"
    ]


def test_weights_are_not_kept(tmp_path):
    opened = Opened()
    heavy = graph(tmp_path, opened, SearchConfig(lm_weight=2.0, word_score=-1.0))
    light = graph(tmp_path, opened, SearchConfig(lm_weight=1.0, word_score=0.5))
    assert opened.times == 1
    nodes = range(1, len(heavy.lexicon))
    light_ahead = np.array([light.ahead(node) for node in nodes])
    np.testing.assert_allclose([heavy.ahead(node) for node in nodes], 2.0 * (light_ahead - 0.5) - 1.0, rtol=1e-5)


def test_what_is_gained_on_the_way_to_a_node_is_what_lies_ahead_of_it(tmp_path):
    made = graph(tmp_path, Opened(), SearchConfig(lm_weight=2.0, word_score=-1.0))
    parents, gained = made.lexicon.parents, [made.gain[0]]
    for node in range(1, len(made.lexicon)):
        gained.append(gained[parents[node - 1]] + made.gain[node])
    assert gained == pytest.approx([made.ahead(node) for node in range(len(made.lexicon))], abs=1e-4)
    assert gained[-1] < -1.0


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"\0",
        lambda content: b"edgeasr words 0\n" + content[16:],
        lambda content: content[:-200] + bytes([content[-200] ^ 1]) + content[-199:],
        lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
    ],
    ids=["empty", "head", "one byte short", "half", "one byte more", "another layout", "an array", "the list"],
)
def test_a_damaged_file_is_noticed_and_made_again(tmp_path, damage):
    graph(tmp_path, Opened())
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    opened = Opened()
    assert_same(graph(tmp_path, opened))
    assert opened.times == 1
    assert kept.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [kept]


def test_where_nothing_can_be_written_they_are_made_in_memory(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    opened = Opened()
    for times in (1, 2):
        assert_same(graph(in_the_way / "cache", opened))
        assert opened.times == times


def test_nothing_is_kept_of_a_damaged_language_model(tmp_path):
    with pytest.raises(BundleError, match=r"language model words\.lm: .* build the language model again"):
        graph(tmp_path, Opened(CONTENT[:-200]))
    assert list(tmp_path.iterdir()) == []


def test_only_a_few_files_of_other_models_are_kept(tmp_path):
    for number in range(6):
        (tmp_path / f"words-{number}.tables").touch()
        os.utime(tmp_path / f"words-{number}.tables", (number, number))
    (tmp_path / "machine.json").touch()
    graph(tmp_path, Opened())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "machine.json",
        "words-3.tables",
        "words-4.tables",
        "words-5.tables",
        f"words-{SHA256}.tables",
    ]
