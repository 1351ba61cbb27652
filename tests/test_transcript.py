import json
import re
from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr.decoder import Word
from edgeasr.transcript import (
    MAX_CUE_LINES,
    MAX_CUE_S,
    MAX_LINE_CHARS,
    Final,
    JsonLinesWriter,
    Partial,
    SrtWriter,
    TextWriter,
    TranscriptBuilder,
    TranscriptWriter,
    VttWriter,
    cues,
)


def spoken(text, start=0.0, word_s=0.3, gap_s=0.1):
    """Words of equal length, one after another."""
    step_s = word_s + gap_s
    return tuple(
        Word(word, start + i * step_s, start + i * step_s + word_s, 0.9) for i, word in enumerate(text.split())
    )


def final_of(words, end=None):
    text = " ".join(word.word for word in words)
    start = words[0].start if words else 0.0
    last = words[-1].end if words else 0.0
    return Final(0, start, last if end is None else end, text, len(text), tuple(words))


def written(writer: TranscriptWriter, *events):
    return writer.header + "".join(writer.write(event) for event in events) + writer.footer


def test_an_event_becomes_a_plain_object_with_rounded_times():
    partial = Partial(2, 1.23456, 2.0004, "hi there", 2, (Word("hi", 1.23456, 1.5, 0.98765),))
    assert partial.to_dict() == {
        "type": "partial",
        "segment": 2,
        "start": 1.235,
        "end": 2.0,
        "text": "hi there",
        "stable": 2,
        "words": [{"word": "hi", "start": 1.235, "end": 1.5, "conf": 0.988}],
    }
    assert final_of(spoken("hi")).to_dict()["type"] == "final"


def test_an_event_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        final_of(spoken("hi")).text = "ho"


def test_segments_are_counted_and_stable_is_a_length_in_characters():
    builder = TranscriptBuilder()
    words = spoken("the cat sat")
    assert builder.partial(words, stable_words=2, start=0.0, end=2.0) == Partial(
        0, 0.0, 2.0, "the cat sat", len("the cat"), words
    )
    assert builder.final(words, start=0.0, end=2.0) == Final(0, 0.0, 2.0, "the cat sat", 11, words)
    later = spoken("on", start=2.0)
    assert builder.partial(later, stable_words=0, start=2.0, end=3.0) == Partial(1, 2.0, 3.0, "on", 0, later)


def test_a_partial_is_given_only_when_it_says_something_new():
    builder = TranscriptBuilder()
    words = spoken("the cat")
    assert builder.partial((), stable_words=0, start=0.0, end=0.2) is None
    assert builder.partial(words, stable_words=1, start=0.0, end=1.0) == Partial(0, 0.0, 1.0, "the cat", 3, words)
    assert builder.partial(words, stable_words=1, start=0.0, end=1.2) is None
    assert builder.partial(words, stable_words=2, start=0.0, end=1.4) == Partial(0, 0.0, 1.4, "the cat", 7, words)


def test_each_segment_has_its_own_first_partial():
    builder = TranscriptBuilder()
    builder.partial(spoken("yes"), stable_words=0, start=0.0, end=1.0)
    builder.final(spoken("yes"), start=0.0, end=1.0)
    again = builder.partial(spoken("yes", start=1.0), stable_words=0, start=1.0, end=2.0)
    assert again
    assert again.segment == 1


@pytest.mark.parametrize(
    ("text", "stable_words"),
    [("the dog sat", 2), ("the catalogue", 2), ("the", 1), ("the cat", 1)],
)
def test_a_changed_stable_prefix_is_our_bug(text, stable_words):
    builder = TranscriptBuilder()
    builder.partial(spoken("the cat"), stable_words=2, start=0.0, end=1.0)
    with pytest.raises(RuntimeError, match="stable"):
        builder.partial(spoken(text), stable_words=stable_words, start=0.0, end=2.0)


def test_a_final_keeps_the_stable_prefix_and_may_drop_the_rest():
    builder = TranscriptBuilder()
    builder.partial(spoken("the cat"), stable_words=1, start=0.0, end=1.0)
    with pytest.raises(RuntimeError, match="stable"):
        builder.final(spoken("a cat"), start=0.0, end=1.0)
    assert builder.final(spoken("the"), start=0.0, end=1.0).text == "the"


def test_more_stable_words_than_words_is_our_bug():
    with pytest.raises(RuntimeError, match="2 stable words of 1"):
        TranscriptBuilder().partial(spoken("the"), stable_words=2, start=0.0, end=1.0)


@pytest.mark.parametrize(
    ("words", "start", "end"),
    [
        (spoken("late"), 0.1, 1.0),
        (spoken("early"), 0.0, 0.2),
        ((Word("a", 0.0, 0.5, 1.0), Word("b", 0.4, 0.6, 1.0)), 0.0, 1.0),
        ((Word("a", 0.5, 0.4, 1.0),), 0.0, 1.0),
    ],
)
def test_times_that_run_backwards_are_our_bug(words, start, end):
    with pytest.raises(RuntimeError, match="times run backwards"):
        TranscriptBuilder().final(words, start=start, end=end)


def test_the_time_of_a_final_is_closed():
    builder = TranscriptBuilder()
    builder.final(spoken("one"), start=0.0, end=2.0)
    with pytest.raises(RuntimeError, match="times run backwards"):
        builder.partial(spoken("two", start=1.0), stable_words=0, start=1.0, end=3.0)


def test_text_is_one_line_a_final():
    partial = Partial(0, 0.0, 1.0, "the", 0, spoken("the"))
    assert written(TextWriter(), partial, final_of(spoken("the cat")), final_of(())) == "the cat\n"


def test_json_is_one_object_a_line_partials_and_extra_keys_included():
    partial = Partial(0, 0.0, 1.0, "the", 0, spoken("the"))
    final = final_of(spoken("the cat"))
    lines = written(JsonLinesWriter({"file": "a\nb.wav"}), partial, final).splitlines()
    assert [json.loads(line) for line in lines] == [
        {**partial.to_dict(), "file": "a\nb.wav"},
        {**final.to_dict(), "file": "a\nb.wav"},
    ]


def test_srt_beyond_one_hour():
    final = final_of(spoken("good morning", start=3 * 3600 + 59 * 60 + 59.5), end=14402.0)
    assert written(SrtWriter(), final) == "1\n03:59:59,500 --> 04:00:00,500\ngood morning\n\n"


def test_srt_numbers_run_through_all_finals():
    first, second = final_of(spoken("one"), end=2.0), final_of(spoken("two", start=2.0), end=4.0)
    assert written(SrtWriter(), first, Partial(1, 2.0, 2.5, "tw", 0, ()), final_of(()), second) == (
        "1\n00:00:00,000 --> 00:00:01,000\none\n\n2\n00:00:02,000 --> 00:00:03,000\ntwo\n\n"
    )


def test_a_time_is_rounded_as_a_whole():
    final = final_of((Word("late", 59.9996, 3599.9996, 1.0),))
    assert "00:01:00.000 --> 00:01:07.000" in written(VttWriter(), final)


def test_vtt_has_a_header_and_escapes():
    words = (Word("<b>", 0.0, 0.4, 1.0), Word("r&b", 0.5, 0.9, 1.0), Word("-->", 1.0, 1.4, 1.0))
    assert written(VttWriter(), final_of(words)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.400\n&lt;b&gt; r&amp;b --&gt;\n\n"
    )


def test_vtt_of_silence_is_a_header():
    assert written(VttWriter(), final_of(())) == "WEBVTT\n\n"


def test_a_long_final_is_split_into_cues_of_two_lines():
    words = spoken("he had written a number of books himself among them a history of dancing a history of costume")
    assert [cue.text for cue in cues(final_of(words))] == [
        "he had written a number of books himself\namong them a history of dancing a history",
        "of costume",
    ]


def test_a_slow_final_is_split_by_time():
    words = spoken("one two three four", word_s=1.0, gap_s=1.5)
    assert [(cue.start, cue.end, cue.text) for cue in cues(final_of(words, end=12.0))] == [
        (0.0, 6.0, "one two three"),
        (7.5, 8.5, "four"),
    ]


@pytest.mark.parametrize(("end", "cue_end"), [(0.5, 0.5), (3.0, 1.0)])
def test_a_short_cue_stays_for_a_second_where_the_segment_does(end, cue_end):
    (cue,) = cues(final_of((Word("yes", 0.0, 0.2, 1.0),), end))
    assert cue.end == cue_end


def test_a_word_longer_than_a_line_is_broken():
    parts = list(cues(final_of((Word("x" * 100, 0.0, 10.0, 1.0),))))
    assert [cue.text for cue in parts] == ["x" * 42, "x" * 42 + "\n" + "x" * 16]
    assert [round(cue.start, 3) for cue in parts] == [0.0, 4.2]


@settings(deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.floats(0.04, 12.0), st.floats(0.0, 9.0)),
        max_size=40,
    )
)
def test_cues_are_small_in_order_and_complete(shapes):
    words, now = [], 3590.0
    for length, word_s, gap_s in shapes:
        words.append(Word("w" * length, now, now + word_s, 0.5))
        now += word_s + gap_s
    final = final_of(words, end=now)
    subtitles = list(cues(final))
    for cue in subtitles:
        lines = cue.text.split("\n")
        assert len(lines) <= MAX_CUE_LINES
        assert all(0 < len(line) <= MAX_LINE_CHARS for line in lines)
        assert 0 < cue.end - cue.start <= MAX_CUE_S + 1e-6
    assert all(earlier.end <= later.start + 1e-6 for earlier, later in pairwise(subtitles))
    assert re.sub(r"\s", "", "".join(cue.text for cue in subtitles)) == final.text.replace(" ", "")
