import pytest

from edgeasr.alignment import AlignedWord, EditCounts, align_words, aligned_lines
from edgeasr.metrics import word_errors

pytest.importorskip("jiwer", reason="the extra `evaluate` is not installed")

CAT = ("The cat sat on the mat!", "so the cat sit on mat")
PAIRS = (
    AlignedWord(None, "so"),
    AlignedWord("the", "the"),
    AlignedWord("cat", "cat"),
    AlignedWord("sat", "sit"),
    AlignedWord("on", "on"),
    AlignedWord("the", None),
    AlignedWord("mat", "mat"),
)


def test_words_are_paired():
    assert align_words(*CAT) == PAIRS


@pytest.mark.parametrize(
    ("reference", "hypothesis", "pairs"),
    [
        ("", "", ()),
        ("a b", "", (AlignedWord("a", None), AlignedWord("b", None))),
        ("", "a b", (AlignedWord(None, "a"), AlignedWord(None, "b"))),
    ],
)
def test_a_side_may_be_empty(reference, hypothesis, pairs):
    assert align_words(reference, hypothesis) == pairs


@pytest.mark.parametrize("texts", [CAT, ("a b c d e", "b x x d e f"), ("one two", "two one two two")])
def test_pairs_and_counts_agree(texts):
    pairs, counts = align_words(*texts), word_errors(*texts)
    assert sum(pair.is_hit for pair in pairs) == counts.hits
    assert sum(pair.reference is None for pair in pairs) == counts.insertions
    assert sum(pair.hypothesis is None for pair in pairs) == counts.deletions
    assert len(pairs) == counts.hits + counts.errors


def test_lines_stand_below_each_other():
    assert list(aligned_lines(PAIRS, 100)) == [("** the cat SAT on THE mat", "SO the cat SIT on *** mat")]


def test_lines_are_broken_between_words():
    lines = list(aligned_lines(PAIRS, 10))
    assert lines == [("** the cat", "SO the cat"), ("SAT on THE", "SIT on ***"), ("mat", "mat")]
    assert list(aligned_lines([AlignedWord("a" * 30, "b")], 10)) == [("A" * 30, "B")]
    assert list(aligned_lines([], 10)) == []


def test_edits_are_counted():
    edits = EditCounts()
    for texts in (CAT, CAT, ("the cat", "cat")):
        edits.add(align_words(*texts))
    assert edits.substitutions == {AlignedWord("sat", "sit"): 2}
    assert edits.deletions == {"the": 3}
    assert edits.insertions == {"so": 2}
