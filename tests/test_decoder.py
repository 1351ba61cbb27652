import math
from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr.decoder import CtcGreedyDecoder, Decoder, Word
from edgeasr.errors import BundleError, ConfigError
from edgeasr.tokenizer import CHARACTERS, Tokenizer
from edgeasr.transcript import TranscriptBuilder

FRAME_S = 0.04
BLANK = "_"


def new_decoder() -> Decoder:
    return CtcGreedyDecoder(Tokenizer(), FRAME_S)


def emissions(path, posteriors=0.9):
    """Log-probabilities, (T, V), whose best tokens are the characters of path; "_" is the blank."""
    best = np.broadcast_to(np.asarray(posteriors, np.float32), (len(path),))
    probs = np.repeat((1 - best)[:, None] / (len(CHARACTERS) - 1), len(CHARACTERS), axis=1)
    ids = [0 if char == BLANK else CHARACTERS.index(char) for char in path]
    probs[np.arange(len(path)), ids] = best
    return np.log(probs).astype(np.float32)


def decode(path, chunk_frames=None):
    decoder = new_decoder()
    for start in range(0, len(path), chunk_frames or len(path) or 1):
        decoder.accept(emissions(path[start : start + (chunk_frames or len(path))]))
    return decoder


def collapse(path):
    """The definition: best tokens, runs made one, blanks removed, words at spaces."""
    return "".join(char for char, _ in groupby(path) if char != BLANK).split()


def frames(words):
    return [(word.word, round(word.start / FRAME_S), round(word.end / FRAME_S)) for word in words]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("hheello", "helo"),
        ("hel_lo", "hello"),
        ("he_ee_l", "heel"),
        (" hi", "hi"),
        ("_ _hi_", "hi"),
        ("a  b", "a b"),
        ("a _ b", "a b"),
        ("a_ _b_ ", "a b"),
        ("it's", "it's"),
        ("____", ""),
        ("  _ ", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("chunk_frames", [None, 1, 2, 3])
def test_text_is_the_collapsed_best_path(path, text, chunk_frames):
    assert decode(path, chunk_frames).text == text


@pytest.mark.parametrize("chunk_frames", [None, 1, 2, 4])
def test_a_word_lasts_from_its_first_letter_to_the_end_of_its_last(chunk_frames):
    words = decode("__hh_i__ _tt__oo_", chunk_frames).hypothesis()
    assert frames(words) == [("hi", 2, 6), ("to", 10, 16)]
    assert words[0].start == pytest.approx(0.08)


def test_a_letter_held_over_a_chunk_edge_is_one_letter():
    decoder = new_decoder()
    decoder.accept(emissions("_al"))
    decoder.accept(emissions("l_l"))
    decoder.accept(emissions("l_ "))
    assert frames(decoder.hypothesis()) == [("all", 1, 7)]


def test_an_empty_accept_changes_nothing():
    decoder = decode("_ab")
    before = decoder.hypothesis()
    decoder.accept(emissions(""))
    decoder.accept(emissions("b"))
    assert [word.word for word in before] == ["ab"]
    assert decoder.text == "ab"
    assert decoder.num_frames == 4


def test_confidence_is_the_geometric_mean_of_the_highest_posteriors():
    decoder = new_decoder()
    decoder.accept(emissions("aaa_b ", [0.5, 0.8, 0.6, 0.99, 0.4, 0.7]))
    assert decoder.hypothesis()[0].conf == pytest.approx(math.sqrt(0.8 * 0.4), rel=1e-5)


def test_confidence_stays_within_one_despite_rounding():
    decoder = new_decoder()
    log_probs = emissions("a")
    log_probs[0, 3] = 1e-3
    decoder.accept(log_probs)
    assert decoder.hypothesis()[0].conf == 1.0


def test_a_word_is_stable_once_a_space_ends_it():
    stable = []
    decoder = new_decoder()
    for char in "_a_ _bc_ ":
        decoder.accept(emissions(char))
        stable.append((decoder.stable_words, len(decoder.hypothesis())))
    assert stable == [(0, 0), (0, 1), (0, 1), (1, 1), (1, 1), (1, 2), (1, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("path", "silent_frames", "has_speech"),
    [
        ("", 0, False),
        ("___", 3, False),
        (" _ ", 3, False),
        ("_aa", 0, True),
        ("a__", 2, True),
        ("a_ _", 3, True),
    ],
)
def test_silence_is_the_time_since_the_last_letter(path, silent_frames, has_speech):
    decoder = decode(path)
    assert decoder.trailing_silence_s == pytest.approx(silent_frames * FRAME_S)
    assert decoder.has_speech == has_speech


def test_a_new_segment_counts_frames_on():
    decoder = decode("_ab_ ")
    decoder.reset()
    assert (decoder.hypothesis(), decoder.num_frames, decoder.has_speech) == ((), 0, False)
    assert decoder.trailing_silence_s == 0
    assert decoder.start_s == decoder.end_s == pytest.approx(5 * FRAME_S)
    decoder.accept(emissions("_cd"))
    assert frames(decoder.hypothesis()) == [("cd", 6, 8)]
    assert decoder.num_frames == 3
    assert decoder.end_s == pytest.approx(8 * FRAME_S)


@pytest.mark.parametrize("start_frame", [None, 2])
def test_a_letter_held_over_the_end_of_a_segment_stays_in_the_old_one(start_frame):
    decoder = decode("_a")
    decoder.reset(start_frame)
    decoder.accept(emissions("aa_"))
    assert decoder.text == ""
    assert decoder.trailing_silence_s == pytest.approx(FRAME_S)
    decoder.accept(emissions("a"))
    assert frames(decoder.hypothesis()) == [("a", 5, 6)]


@pytest.mark.parametrize("start_frame", [0, 1, 100])
def test_after_a_jump_the_same_letter_counts_anew(start_frame):
    decoder = decode("_a")
    decoder.reset(start_frame)
    assert decoder.trailing_silence_s == 0
    decoder.accept(emissions("a"))
    assert frames(decoder.hypothesis()) == [("a", start_frame, start_frame + 1)]


def test_a_cut_carries_the_unfinished_word_over():
    decoder = decode("_ab_ _cd")
    assert frames(decoder.cut()) == [("ab", 1, 3)]
    assert decoder.start_s == pytest.approx(6 * FRAME_S)
    assert (decoder.num_frames, decoder.has_speech, decoder.stable_words) == (2, True, 0)
    decoder.accept(emissions("d_e"))
    assert frames(decoder.hypothesis()) == [("cde", 6, 11)]


@pytest.mark.parametrize(("path", "text"), [("_abc", "abc"), ("a b ", "a b"), ("___", "")])
def test_a_cut_gives_up_all_words_where_none_is_to_be_carried(path, text):
    decoder = decode(path)
    assert " ".join(word.word for word in decoder.cut()) == text
    assert (decoder.hypothesis(), decoder.num_frames) == ((), 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3.5])
def test_numbers_that_are_no_log_probabilities_are_refused_and_located(bad):
    decoder = decode("_ab_")
    log_probs = emissions("c_c")
    log_probs[1, 7] = bad
    with pytest.raises(BundleError, match=f"got {bad} as highest log-probability at 0.20 s"):
        decoder.accept(log_probs)
    assert (decoder.text, decoder.num_frames) == ("ab", 4)


def test_a_frame_without_any_probability_is_refused():
    with pytest.raises(BundleError, match="got -inf"):
        new_decoder().accept(np.full((1, 29), -np.inf, np.float32))


def test_impossible_tokens_may_have_no_probability():
    log_probs = np.full((1, 29), -np.inf, np.float32)
    log_probs[0, 3] = 0.0
    decoder = new_decoder()
    decoder.accept(log_probs)
    assert decoder.hypothesis() == (Word("a", 0.0, FRAME_S, 1.0),)


@pytest.mark.parametrize("shape", [(2, 30), (29,), (1, 2, 29), (0, 0)])
def test_emissions_of_another_shape_are_refused(shape):
    with pytest.raises(BundleError, match=r"wanted \(T, 29\)"):
        new_decoder().accept(np.full(shape, -1.0, np.float32))


@pytest.mark.parametrize("frame_s", [0.0, -0.04, math.nan, math.inf])
def test_a_frame_without_duration_is_refused(frame_s):
    with pytest.raises(ConfigError, match=f"got frame_s {frame_s}"):
        CtcGreedyDecoder(Tokenizer(), frame_s)


# Few letters, so that repeats, blanks and spaces meet often.
paths = st.text(alphabet="_ ab'", max_size=60)
chunk_sizes = st.lists(st.integers(0, 7), max_size=60)
seeds = st.integers(0, 2**32 - 1)


def random_emissions(path, seed):
    return emissions(path, np.random.default_rng(seed).uniform(0.3, 1.0 - 1e-6, len(path)))


def split(log_probs, sizes):
    edges = np.clip(np.cumsum(sizes, dtype=int), 0, len(log_probs))
    return np.split(log_probs, edges)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(paths, chunk_sizes, seeds)
def test_chunks_do_not_matter(path, sizes, seed):
    log_probs = random_emissions(path, seed)
    whole, chunked = new_decoder(), new_decoder()
    whole.accept(log_probs)
    for chunk in split(log_probs, sizes):
        chunked.accept(chunk)
    assert chunked.hypothesis() == whole.hypothesis()
    assert chunked.text == " ".join(collapse(path))
    assert chunked.trailing_silence_s == whole.trailing_silence_s
    assert chunked.stable_words == whole.stable_words


@settings(deadline=None, derandomize=True, max_examples=300)
@given(paths, chunk_sizes, seeds)
def test_words_are_in_order_within_their_segment_and_confident_between_0_and_1(path, sizes, seed):
    decoder = new_decoder()
    for chunk in split(random_emissions(path, seed), sizes):
        decoder.accept(chunk)
        words = decoder.hypothesis()
        times = [decoder.start_s, *(t for word in words for t in (word.start, word.end)), decoder.end_s]
        assert all(earlier <= later for earlier, later in pairwise(times))
        assert all(word.start < word.end and 0 < word.conf <= 1 for word in words)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(paths, chunk_sizes, seeds)
def test_stable_words_never_change_and_the_final_is_the_collapsed_path(path, sizes, seed):
    decoder, builder, promised = new_decoder(), TranscriptBuilder(), ""
    stable: tuple[Word, ...] = ()
    for chunk in split(random_emissions(path, seed), sizes):
        decoder.accept(chunk)
        words = decoder.hypothesis()
        assert words[: len(stable)] == stable
        stable = words[: decoder.stable_words]
        event = builder.partial(words, stable_words=decoder.stable_words, start=decoder.start_s, end=decoder.end_s)
        if event:
            assert event.text.startswith(promised)
            promised = event.text[: event.stable]
    final = builder.final(decoder.hypothesis(), start=decoder.start_s, end=decoder.end_s)
    assert final.text == " ".join(collapse(path))
    assert final.text.startswith(promised)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(st.tuples(paths.filter(lambda path: len(path) < 12), st.booleans()), max_size=8))
def test_segments_lose_and_repeat_nothing(segments):
    decoder, builder, finals = new_decoder(), TranscriptBuilder(), []
    for path, cut in segments:
        decoder.accept(emissions(path))
        start = decoder.start_s
        words = decoder.cut() if cut else decoder.hypothesis()
        if not cut:
            decoder.reset()
        finals.append(builder.final(words, start=start, end=decoder.start_s))
    finals.append(builder.final(decoder.hypothesis(), start=decoder.start_s, end=decoder.end_s))
    heard = "".join(word.word for final in finals for word in final.words)
    assert heard == "".join(collapse("".join(path for path, _ in segments)))


PIECES = Tokenizer(("<blank>", " the", " ", "th", "en", " c", "at", "a", "t", "h", "e", "n", "c"))


def decode_pieces(path):
    """The decoder after a best path of pieces; None is the blank."""
    ids = [0 if piece is None else PIECES.tokens.index(piece) for piece in path]
    probs = np.full((len(path), len(PIECES)), 0.1 / (len(PIECES) - 1), np.float32)
    probs[np.arange(len(path)), ids] = 0.9
    decoder = CtcGreedyDecoder(PIECES, FRAME_S)
    decoder.accept(np.log(probs))
    return decoder


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ([" the", " the", None, " c", "at"], [("the", 0, 2), ("cat", 3, 5)]),
        ([" the", None, " the"], [("the", 0, 1), ("the", 2, 3)]),
        (["th", "th", "en", None, "en"], [("thenen", 0, 5)]),
        ([None, " c", "at", " ", "at", "at"], [("cat", 1, 3), ("at", 4, 6)]),
        ([" ", None, " "], []),
    ],
)
def test_a_piece_with_a_space_begins_a_word(path, words):
    assert frames(decode_pieces(path).hypothesis()) == words


def test_a_word_of_pieces_is_stable_once_the_next_begins():
    assert decode_pieces([" the", None]).stable_words == 0
    assert decode_pieces([" the", None, " c"]).stable_words == 1
    assert decode_pieces([" the", " "]).stable_words == 1
