import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr.decoder import Decoder
from edgeasr.errors import BundleError, ConfigError
from edgeasr.language_model import LanguageModel
from edgeasr.language_model_file import packed
from edgeasr.lexicon_decoder import LexiconDecoder
from edgeasr.lexicon_search import SearchConfig, WordGraph
from edgeasr.ngram_estimation import estimate
from edgeasr.phones import PHONE_IDS, PHONES

FRAME_S = 0.04
TEXT = [
    "the old house",
    "the old house was cold",
    "a cold old man",
    "the man was in the house",
    "he told the man",
    "all of it was gold",
    "it's all told",
    "how to see the sea",
    "two old men",
    "the sea was too cold",
    "he was seen in the house",
    "silent",
]
SAID = {
    "a": "AX|EY",
    "all": "AO L",
    "cold": "K OW L D",
    "gold": "G OW L D",
    "he": "HH IY",
    "house": "HH AW S",
    "how": "HH AW",
    "in": "IH N",
    "it": "IH T",
    "it's": "IH T S",
    "man": "M AE N",
    "men": "M EH N",
    "of": "AX V",
    "old": "OW L D",
    "sea": "S IY",
    "see": "S IY",
    "seen": "S IY N",
    "the": "DH AX|DH IY",
    "to": "T UW|T AX",
    "told": "T OW L D",
    "too": "T UW",
    "two": "T UW",
    "was": "W AX Z|W AA Z",
}


def dictionary(said):
    return {word: tuple(tuple(way.split()) for way in ways.split("|")) for word, ways in said.items()}


def language_model(text, said=SAID, order=3):
    return LanguageModel.from_bytes(
        packed(estimate(text, order=order, max_words=100, max_ngrams=1000), dictionary(said))
    )


MODEL = language_model(TEXT)
GRAPH = WordGraph(MODEL, SearchConfig())
OPEN = WordGraph(MODEL, SearchConfig(min_conf=0.0))  # takes everything for speech


ENDS = ["the men in the house"] * 6 + ["the man"] * 2
EITHER = {4: {"EH": 0.4, "AE": 0.4}}  # of "men" and "man"


def new_decoder(words=GRAPH) -> Decoder:
    return LexiconDecoder(words, FRAME_S)


def token(phone):
    return 0 if phone == "_" else PHONE_IDS[phone]


def emissions(path, posterior=0.9, also=None):
    """(T, P) log-probabilities whose best phones are those of path; "_" is the blank.

    also: frame -> {phone: probability}, taken from what the others have
    """
    phones = path.split()
    probs = np.full((len(phones), len(PHONES)), (1 - posterior) / (len(PHONES) - 1))
    for frame, phone in enumerate(phones):
        probs[frame, token(phone)] = posterior
        for other, probability in (also or {}).get(frame, {}).items():
            probs[frame, token(other)] = probability
    return np.log(probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)


def decode(path, chunk_frames=None, words=GRAPH, **options):
    decoder, log_probs = new_decoder(words), emissions(path, **options)
    size = chunk_frames or len(log_probs) or 1
    for start in range(0, len(log_probs), size):
        decoder.accept(log_probs[start : start + size])
    return decoder


def frames(words):
    return [(word.word, round(word.start / FRAME_S), round(word.end / FRAME_S)) for word in words]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("DH AX _ OW L D _ HH AW S", "the old house"),
        ("DH DH AX AX OW L L D _ _", "the old"),
        ("DH IY OW L D M EH N W AA Z K OW L D", "the old men was cold"),
        ("AO L AX V IH T", "all of it"),
        ("IH T S AO L T OW L D", "it's all told"),
        ("_ _ DH AX", "the"),
        ("_ _ _ _", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize("chunk_frames", [None, 1, 3, 4])
def test_words_of_the_lexicon_are_heard(path, text, chunk_frames):
    assert decode(path, chunk_frames).text == text


def test_once_a_segment_has_ended_what_is_a_whole_sentence_counts():
    graph = WordGraph(language_model(ENDS), SearchConfig(min_conf=0.0))
    decoder = decode("DH AX _ M _ N _", words=graph, also=EITHER)
    assert decoder.text == "the men"
    decoder.finish()
    assert decoder.text == "the man"
    decoder.reset()
    decoder.accept(emissions("DH AX _ M _ N _", also=EITHER))
    assert decoder.text == "the men"


@pytest.mark.parametrize("way", ["W AX Z", "W AA Z"])
def test_a_word_is_heard_in_each_of_its_pronunciations(way):
    assert frames(decode(f"DH AX M AE N {way} IH N _").hypothesis())[2:] == [("was", 5, 8), ("in", 8, 10)]


def test_a_word_without_a_pronunciation_is_never_heard():
    assert "silent" in GRAPH.model.words
    assert decode("S IY _ L EH N T _").text != "silent"


@pytest.mark.parametrize(
    ("path", "also", "text"),
    [
        ("DH AX _ OW L D _ HH OW S _", {8: {"AW": 0.05}}, "the old house"),
        ("DH AX _ OW L T _ HH AW S _", {5: {"D": 0.05}}, "the old house"),
        ("HH IY _ D OW L D _ DH AX _ M AE N _", {3: {"T": 0.05}}, "he told the man"),
        ("IH T S AO L T OW AX D _", {7: {"L": 0.05}}, "it's all told"),
        ("DH AX _ OW L D _ HH AW _ _", {9: {"S": 0.3}}, "the old house"),  # the blank is louder
    ],
)
def test_phones_that_make_no_word_become_one_that_they_resemble(path, also, text):
    assert decode(path, also=also).text == text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("HH AW T UW S IY DH AX S IY _", "how to see the sea"),
        ("HH AW _ T AX _ S IY _ DH IY _ S IY _", "how to see the sea"),
        ("_ T UW OW L D M EH N", "two old men"),
        ("DH AX S IY W AX Z T UW K OW L D", "the sea was too cold"),
        ("HH IY W AA Z S IY N IH N DH AX HH AW S", "he was seen in the house"),
    ],
)
def test_of_words_that_sound_the_same_the_language_model_chooses(path, text):
    assert decode(path).text == text
    assert decode(path, 2, posterior=0.7).text == text


@pytest.mark.parametrize(("text", "word"), [(["too", "too", "to"], "too"), (["too", "to", "to"], "to")])
def test_without_a_history_the_more_frequent_word_is_heard(text, word):
    words = WordGraph(language_model(text, order=1), SearchConfig())
    assert decode("T UW _", words=words).text == word


def test_the_language_model_decides_between_words_that_sound_almost_alike():
    also = {8: {"G": 0.9}}  # cold and gold are equally loud
    assert decode("AX V IH T W AX Z _ K OW L D _", also=also).text == "of it was gold"
    also = {2: {"G": 0.9}}
    assert decode("_ AX K OW L D OW L D M AE N _", also=also).text == "a cold old man"


def test_without_the_language_model_the_louder_word_wins():
    path, also = "AO L AX V IH T W AX Z _ K OW L D _", {10: {"G": 0.85}}
    deaf = WordGraph(MODEL, SearchConfig(lm_weight=0.0))
    assert decode(path, also=also, words=deaf).text == "all of it was cold"
    assert decode(path, also=also).text == "all of it was gold"


def test_a_word_score_makes_more_words_of_the_same_sounds():
    said = {"in": "IH N", "to": "T UW", "into": "IH N T UW", "a": "AX"}
    model = language_model(["in to", "into", "a in"], said, order=1)
    heard = {}
    for word_score in (-6.0, 6.0):
        words = WordGraph(model, SearchConfig(word_score=word_score))
        heard[word_score] = decode("IH N T UW _", words=words).text
    assert heard == {-6.0: "into", 6.0: "in to"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("HH AW S _ S IY DH AX", "house see the"),
        ("HH AW S S IY DH AX", "how see the"),
        ("HH AW S _ _ S S IY DH AX", "house see the"),
        ("AX _ AX V IH T", "a of it"),
        ("AX AX V IH T", "of it"),
    ],
)
@pytest.mark.parametrize("chunk_frames", [None, 1])
def test_the_same_phone_at_the_end_of_a_word_and_the_beginning_of_the_next_needs_a_blank(path, text, chunk_frames):
    # The words of one sentence all follow each other as often.
    words = language_model(["house see the", "how see the", "a of it", "of it"], order=2)
    assert decode(path, chunk_frames, words=WordGraph(words, SearchConfig(lm_weight=0.1))).text == text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("HH AW _ _", [("how", 0, 2)]),
        ("HH AW S _", [("house", 0, 3)]),
        ("IH T _ _", [("it", 0, 2)]),
        ("IH T S _", [("it's", 0, 3)]),
        ("IH T S IY _", [("it", 0, 2), ("see", 2, 4)]),
        ("IH T S _ S IY _", [("it's", 0, 3), ("see", 4, 6)]),
        ("IH T S IY N _", [("it", 0, 2), ("seen", 2, 5)]),
        ("IH T S IY IH N _", [("it", 0, 2), ("see", 2, 4), ("in", 4, 6)]),
    ],
)
@pytest.mark.parametrize("chunk_frames", [None, 1, 2])
def test_words_that_begin_other_words_are_told_apart(path, words, chunk_frames):
    flat = language_model(["it it's see seen in how house"] * 2, order=1)
    assert frames(decode(path, chunk_frames, words=WordGraph(flat, SearchConfig())).hypothesis()) == words


@pytest.mark.parametrize("chunk_frames", [None, 1, 2, 4])
def test_a_word_lasts_from_its_first_phone_until_it_is_complete(chunk_frames):
    words = decode("_ _ OW OW L L D _ _ _ M M AE AE N N N _", chunk_frames).hypothesis()
    assert frames(words) == [("old", 2, 7), ("man", 10, 15)]


@pytest.mark.parametrize("chunk_frames", [None, 1, 3])
def test_an_unfinished_word_is_the_likeliest_that_begins_so(chunk_frames):
    decoder = decode("DH AX K OW L L", chunk_frames)
    assert frames(decoder.hypothesis()) == [("the", 0, 2), ("cold", 2, 6)]
    assert decoder.stable_words <= 1
    likely = {}
    for text in (["man", "men", "men"], ["men", "man", "man"]):
        likely[text[1]] = decode("M M", words=WordGraph(language_model(text, order=1), SearchConfig())).text
    assert likely == {"men": "men", "man": "man"}


def test_an_unfinished_word_changes_as_more_is_heard():
    decoder, texts = new_decoder(), []
    for row in emissions("_ DH AX K OW L D _"):
        decoder.accept(row[None])
        texts.append(decoder.text)
    assert texts[0] == ""
    assert texts[2] == "the"
    assert texts[5] == texts[6] == texts[7] == "the cold"


def test_confidence_is_the_geometric_mean_of_the_highest_posteriors():
    log_probs = np.concatenate([emissions("IH", 0.5), emissions("IH", 0.8), emissions("T", 0.4), emissions("_", 0.99)])
    decoder = new_decoder()
    decoder.accept(log_probs)
    assert decoder.text == "it"
    assert decoder.hypothesis()[0].conf == pytest.approx(math.sqrt(0.8 * 0.4), rel=1e-4)


def test_an_unfinished_word_has_the_confidence_of_what_was_heard():
    log_probs = np.concatenate([emissions("K", 0.9), emissions("OW", 0.5), emissions("OW", 0.6), emissions("L", 0.8)])
    decoder = new_decoder()
    decoder.accept(log_probs)
    assert decoder.text == "cold"
    assert decoder.hypothesis()[0].conf == pytest.approx((0.9 * 0.6 * 0.8) ** (1 / 3), rel=1e-4)


def test_a_word_that_only_the_language_model_wanted_has_a_low_confidence():
    heard = decode("DH AX _ OW L D _ HH AW S _")
    wanted = decode("DH AX _ OW L D _ HH OW S _", also={8: {"AW": 0.02}})
    assert heard.text == wanted.text == "the old house"
    assert wanted.hypothesis()[2].conf < 0.6 * heard.hypothesis()[2].conf


def test_a_segment_is_noise_until_its_words_are_confident():
    path, log_probs = "DH AX _ OW L D _ M AE N _", emissions("DH AX _ OW L D _ M AE N _", 0.2)
    decoder, open_to_all = new_decoder(), new_decoder(OPEN)
    for one in (decoder, open_to_all):
        one.accept(log_probs)
    assert open_to_all.text == "the old man"
    assert [word.conf for word in open_to_all.hypothesis()] == pytest.approx([0.2] * 3, rel=1e-3)
    assert (decoder.hypothesis(), decoder.has_speech, decoder.stable_words) == ((), False, 0)
    assert decoder.cut() == ()
    decoder.accept(emissions(path, 0.3))
    assert decoder.text == "the old man"
    assert decoder.hypothesis()[0].start == pytest.approx(11 * FRAME_S)


def test_speech_after_a_long_noise_is_heard():
    decoder = new_decoder()
    noise = emissions("DH AX _ OW L D _ M AE N _ W AX Z _ T OW L D _", 0.15)
    for _ in range(60):
        decoder.accept(noise)
        assert decoder.hypothesis() == ()
        assert len(decoder._stable) <= 10
    for _ in range(8):
        decoder.accept(emissions("DH AX _ OW L D _ HH AW S _ W AX Z _ K OW L D _", 0.9))
    assert decoder.text.endswith(" ".join(["the old house was cold"] * 7))


@pytest.mark.parametrize("asked", [True, False])
def test_what_was_once_taken_for_speech_stays(asked):
    decoder = decode("DH AX _ OW L D _")
    assert not asked or decoder.text == "the old"
    decoder.accept(np.concatenate([emissions("M AE N W AX Z T OW L D _", 0.1)] * 3))
    assert decoder.text.startswith("the old man")
    assert np.mean([word.conf for word in decoder.hypothesis()]) < GRAPH.config.min_conf


def test_words_are_stable_once_what_follows_no_longer_depends_on_them():
    decoder, log_probs = new_decoder(), emissions("DH AX _ OW L D _ HH AW S _ W AX Z _ K OW L D _ _", 0.99)
    stable = []
    for _ in range(3):
        decoder.accept(log_probs)
        stable.append(decoder.stable_words)
    assert decoder.text == " ".join(["the old house was cold"] * 3)
    assert stable[0] >= 2
    assert stable[2] >= 10


PATH_PHONES = ("_",) * 6 + tuple(sorted({phone for ways in SAID.values() for phone in ways.replace("|", " ").split()}))
paths = st.lists(st.sampled_from(PATH_PHONES), max_size=40).map(" ".join)


@settings(max_examples=60)
@given(paths, st.floats(0.3, 0.99), st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_stable_words_never_change_and_times_never_run_backwards(path, posterior, sizes):
    decoder, log_probs = new_decoder(), emissions(path, posterior)
    stable, start = [], 0
    while start < len(log_probs):
        size = sizes[start % len(sizes)]
        decoder.accept(log_probs[start : start + size])
        start += size
        words = decoder.hypothesis()
        assert len(stable) <= decoder.stable_words <= len(words)
        assert words[: len(stable)] == tuple(stable)
        stable = list(words[: decoder.stable_words])
        assert all(word.start < word.end and 0 <= word.conf <= 1 for word in words)
        assert all(one.end <= next_one.start for one, next_one in pairwise(words))
        assert not words or (decoder.start_s <= words[0].start and words[-1].end <= decoder.end_s)
        assert {word.word for word in words} <= SAID.keys()


@settings(max_examples=40)
@given(paths, st.floats(0.3, 0.99), st.integers(1, 7))
def test_chunks_make_no_difference(path, posterior, chunk_frames):
    whole = decode(path, words=OPEN, posterior=posterior)
    parts = decode(path, chunk_frames, words=OPEN, posterior=posterior)
    assert frames(parts.hypothesis()) == frames(whole.hypothesis())
    assert parts.stable_words == whole.stable_words


@settings(max_examples=40)
@given(paths, paths, st.floats(0.4, 0.99))
def test_a_cut_keeps_the_stable_words_and_what_follows_begins_after_them(path, more, posterior):
    decoder = decode(path, 4, posterior=posterior)
    before, stable = decoder.hypothesis(), decoder.stable_words
    words = decoder.cut()
    assert words[:stable] == before[:stable]
    assert words in (before, before[:-1])
    assert not words or words[-1].end <= decoder.start_s + 1e-9
    decoder.accept(emissions(more, posterior))
    assert not decoder.hypothesis() or decoder.start_s <= decoder.hypothesis()[0].start + 1e-9


def test_a_cut_carries_the_unfinished_word_over():
    decoder = decode("DH AX _ OW L D _ K OW L")
    assert frames(decoder.cut()) == [("the", 0, 2), ("old", 3, 6)]
    assert decoder.start_s == pytest.approx(7 * FRAME_S)
    assert (decoder.num_frames, decoder.has_speech, decoder.stable_words) == (3, True, 0)
    assert frames(decoder.hypothesis()) == [("cold", 7, 10)]
    decoder.accept(emissions("D _"))
    assert frames(decoder.hypothesis()) == [("cold", 7, 11)]


@pytest.mark.parametrize(("path", "text"), [("K OW L", "cold"), ("DH AX OW L D _", "the old"), ("_ _ _", "")])
def test_a_cut_gives_up_all_words_where_none_is_to_be_carried(path, text):
    decoder = decode(path)
    assert " ".join(word.word for word in decoder.cut()) == text
    assert decoder.hypothesis() == ()


def test_a_cut_between_words_remembers_the_history():
    decoder = decode("AO L AX V IH T W AX Z _")
    assert [word.word for word in decoder.cut()] == ["all", "of", "it", "was"]
    decoder.accept(emissions("_ K OW L D _", also={1: {"G": 0.9}}))
    assert decoder.text == "gold"


def test_a_new_segment_counts_frames_on():
    decoder = decode("_ OW L D _")
    decoder.reset()
    assert (decoder.hypothesis(), decoder.num_frames, decoder.has_speech) == ((), 0, False)
    assert decoder.start_s == decoder.end_s == pytest.approx(5 * FRAME_S)
    decoder.accept(emissions("_ M AE N"))
    assert frames(decoder.hypothesis()) == [("man", 6, 9)]


@pytest.mark.parametrize(("start_frame", "text"), [(None, ""), (3, ""), (100, "a")])
def test_a_phone_held_over_the_end_of_a_segment_stays_in_the_old_one(start_frame, text):
    decoder = decode("_ _ EY")
    decoder.reset(start_frame)
    decoder.accept(emissions("EY _"))
    assert decoder.text == text


@pytest.mark.parametrize(
    ("path", "silent_frames", "has_speech"), [("", 0, False), ("_ _ _", 3, False), ("IH T _ _ _", 3, True)]
)
def test_silence_is_the_time_since_the_last_phone(path, silent_frames, has_speech):
    decoder = decode(path)
    assert decoder.trailing_silence_s == pytest.approx(silent_frames * FRAME_S)
    assert decoder.has_speech == has_speech


STREAM = "DH AX _ OW L D _ M AE N _ W AX Z _ T OW L D _ "


def test_memory_is_bounded_in_a_stream_that_never_pauses():
    decoder = new_decoder()
    chunk = emissions(STREAM, 0.6)
    sizes = []
    for _ in range(100):
        decoder.accept(chunk)
        decoder.cut()
        search = decoder._search
        sizes.append((len(search.records), search.whole.shape[1]))
    assert max(sizes)[0] <= 5000
    assert max(size for _, size in sizes) <= GRAPH.config.max_prefixes


def test_a_segment_that_is_never_ended_forgets_what_is_settled():
    decoder = new_decoder()
    chunk = emissions(STREAM, 0.7)
    for _ in range(200):
        decoder.accept(chunk)
        assert len(decoder._search.records) <= 5000
    words = [word.word for word in decoder.hypothesis()]
    assert words == ["the", "old", "man", "was", "told"] * 200
    assert decoder.stable_words > 900


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3.5])
def test_numbers_that_are_no_log_probabilities_are_refused(bad):
    decoder = decode("_ IH T _ _")
    log_probs = emissions("AX _ AX")
    log_probs[1, 7] = bad
    with pytest.raises(BundleError, match=f"got {bad} as highest log-probability at 0.24 s"):
        decoder.accept(log_probs)
    assert (decoder.text, decoder.num_frames) == ("it", 5)


def test_log_probabilities_of_characters_are_refused():
    with pytest.raises(BundleError, match=r"shape \(2, 29\), wanted \(T, 41\)"):
        new_decoder().accept(np.zeros((2, 29), np.float32))


def test_impossible_phones_may_have_no_probability():
    log_probs = np.full((2, len(PHONES)), -np.inf, np.float32)
    log_probs[[0, 1], [token("IH"), token("T")]] = 0.0
    decoder = new_decoder()
    decoder.accept(log_probs)
    assert decoder.text == "it"


@pytest.mark.parametrize("frame_s", [0.0, -0.04, math.inf, math.nan])
def test_an_impossible_frame_is_refused(frame_s):
    with pytest.raises(ConfigError, match="frame_s"):
        LexiconDecoder(GRAPH, frame_s)


@pytest.mark.parametrize(
    "config",
    [
        {"lm_weight": -1.0},
        {"beam": math.inf},
        {"beam": 0.0},
        {"max_prefixes": 0},
        {"word_score": math.nan},
        {"min_conf": -0.1},
    ],
)
def test_impossible_search_settings_are_refused(config):
    with pytest.raises(ConfigError, match=next(iter(config))):
        SearchConfig(**config)
