import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from edgeasr import lexicon_native
from edgeasr.errors import BundleError, NativeCodeError
from edgeasr.grammar_decoder import GrammarDecoder
from edgeasr.grammar_parser import parse_grammar
from edgeasr.hotwords import Hotword, hotword_graph
from edgeasr.language_model import LanguageModel
from edgeasr.lexicon_decoder import LexiconDecoder
from edgeasr.lexicon_native import NativeSearch, fastest_search, search_library
from edgeasr.lexicon_search import PrefixSearch, SearchConfig, WordGraph, heard_frames
from edgeasr.own_words import OwnWords, grammar_graph
from edgeasr.phones import PHONES

needs_compiler = run_path(str(Path(__file__).with_name("test_profile_bandwidth.py")))["needs_compiler"]
toys = run_path(str(Path(__file__).with_name("test_lexicon_decoder.py")))

FEW_PHONES = ["AX", "B", "D", "IY", "K", "S", "T", "UW"]
# What tables and limits make of it is compared in both searches.
WIDE = SearchConfig(min_conf=0.0, max_prefixes=400, beam=14.0)
CONFIGS = [
    WIDE,
    SearchConfig(min_conf=0.0, max_prefixes=7),
    SearchConfig(min_conf=0.0, max_prefixes=1, beam=2.0),
    SearchConfig(min_conf=0.0, max_prefixes=60, beam=6.0, token_beam=3.0, sure_blank=0.5, word_score=-2.0),
    SearchConfig(min_conf=0.0, max_prefixes=60, lm_weight=0.0, blank_penalty=0.0),
    SearchConfig(min_conf=0.0, max_prefixes=90, lm_weight=1.3, word_score=100.0, blank_penalty=2.0),
]


def model(order=3, seed=0, num_words=60, num_sentences=300) -> LanguageModel:
    """Random words of few phones: many sound alike, or begin as others do; more n-grams than a few blocks hold."""
    rng = np.random.default_rng(seed)
    words = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(num_words)]
    said = {word: "|".join(" ".join(rng.choice(FEW_PHONES, rng.integers(1, 5))) for _ in range(2)) for word in words}
    text = [" ".join(words[i] for i in rng.zipf(1.2, rng.integers(1, 9)) % num_words) for _ in range(num_sentences)]
    return toys["language_model"](text, said, order)


def emissions(num_frames, seed=0, sharpness=2.0) -> np.ndarray:
    """(T, P) log-probabilities, mostly of the few phones and the blank."""
    rng = np.random.default_rng(seed)
    scores = sharpness * rng.standard_normal((num_frames, len(PHONES)))
    scores[:, [0, *map(toys["token"], FEW_PHONES)]] += 3.0
    scores[rng.random(num_frames) < 0.25, 0] += 8.0  # as between words
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def noisy(path) -> np.ndarray:
    """As of the toys, but no two phones are as likely: then rounding would decide."""
    log_probs = toys["emissions"](path, 0.7)
    return log_probs - np.random.default_rng(0).random(log_probs.shape, np.float32)


def hot(words: WordGraph) -> WordGraph:
    phrases = [Hotword("aa ba", 3.0), Hotword("ba", -1.0), Hotword("aa zebu ca", 2.0), Hotword("da aa ba ca", 5.0)]
    return hotword_graph(words, phrases, {"zebu": (("S", "IY", "B", "UW"),)})


def chunks(log_probs, size):
    for start in range(0, len(log_probs), size):
        yield start, log_probs[start : start + size]


def assert_same(native: PrefixSearch, plain: PrefixSearch) -> None:
    np.testing.assert_array_equal(native.whole, plain.whole)
    np.testing.assert_allclose(native.parts, plain.parts, rtol=1e-9, atol=1e-300)
    assert native.behind == pytest.approx(plain.behind, abs=1e-9)
    assert [record[:4] for record in native.records] == [record[:4] for record in plain.records]
    np.testing.assert_allclose(
        np.array([record[4:] for record in native.records]),
        np.array([record[4:] for record in plain.records]),
        atol=1e-9,
    )


def assert_both_search(graph: WordGraph, log_probs, size=4) -> PrefixSearch:
    native, plain = NativeSearch(graph), PrefixSearch(graph)
    for start, chunk in chunks(log_probs, size):
        for search in (native, plain):
            search.accept_frames(chunk, range(start, start + len(chunk)))
        assert_same(native, plain)
    return plain


@needs_compiler
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("config", CONFIGS)
def test_prefixes_are_those_of_numpy_after_every_chunk(order, config):
    for seed in range(3):
        graph = WordGraph(model(order, seed), config)
        found = assert_both_search(graph, emissions(40, seed), size=1 + 2 * seed)
        assert len(found.records) > 10 or config.max_prefixes == 1
        assert 1 <= found.whole.shape[1] <= config.max_prefixes


@needs_compiler
@pytest.mark.parametrize("order", [1, 3, 4])
@pytest.mark.parametrize("config", CONFIGS[:3])
def test_so_are_those_with_hotwords_some_of_them_new(order, config):
    for seed in range(3):
        graph = hot(WordGraph(model(order, seed), config))
        assert isinstance(fastest_search(graph), NativeSearch)
        heard = np.concatenate([emissions(30, seed), noisy("S IY B UW _")])
        said = assert_both_search(graph, heard).records
        assert config is not WIDE or "zebu" in {graph.model.words[record.word] for record in said}


@needs_compiler
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 50])
def test_chunks_of_any_size_end_in_the_same_prefixes(size):
    graph = WordGraph(model(), WIDE)
    whole = assert_both_search(graph, emissions(50), size)
    frame_by_frame = PrefixSearch(graph)
    frame_by_frame.accept_frames(emissions(50), range(50))
    assert_same(whole, frame_by_frame)


@needs_compiler
@pytest.mark.parametrize("max_prefixes", [3, 10, 31])
def test_of_equals_the_first_are_kept(max_prefixes):
    # Neither model nor frames tell words of one phone each apart, and 1 is e^0 for every library.
    words = [f"{chr(97 + i)}" for i in range(24)]
    said = {word: ["B", "D", "K", "S"][i % 4] for i, word in enumerate(words)}
    config = SearchConfig(lm_weight=0.0, min_conf=0.0, max_prefixes=max_prefixes, blank_penalty=0.0)
    graph = WordGraph(toys["language_model"](words, said, 2), config)
    log_probs = np.full((12, len(PHONES)), -30.0, np.float32)
    log_probs[:, [0, *map(toys["token"], ["B", "D", "K", "S"])]] = 0.0
    search = assert_both_search(graph, log_probs, 3)
    assert len(np.unique(search.scores)) < search.whole.shape[1] == max_prefixes


@needs_compiler
def test_likelihoods_may_be_0_and_of_any_precision():
    graph = WordGraph(model(), WIDE)
    log_probs = emissions(30)
    log_probs[np.random.default_rng(0).random(log_probs.shape) < 0.6] = -np.inf
    log_probs[:, 0] = math.log(0.3)
    for kind in (np.float16, np.float32, np.float64):
        assert_both_search(graph, log_probs.astype(kind))


@needs_compiler
def test_the_beam_may_change_between_frames():
    graph = WordGraph(model(), WIDE)
    native, plain = NativeSearch(graph), PrefixSearch(graph)
    sizes = []
    for (start, chunk), (beam, most) in zip(
        chunks(emissions(60), 4), [(14.0, 400), (14.0, 400), (4.0, 12), (9.0, 40), (14.0, 400)] * 3, strict=True
    ):
        for search in (native, plain):
            search.use(graph.with_beam(beam, most))
            search.accept_frames(chunk, range(start, start + len(chunk)))
        assert_same(native, plain)
        sizes.append(native.whole.shape[1])
    assert max(sizes) > 100
    assert min(sizes) <= 12


@needs_compiler
def test_frames_in_which_nothing_gets_longer_keep_more_than_the_beam_that_is_new():
    graph = WordGraph(model(), WIDE)
    searches = NativeSearch(graph), PrefixSearch(graph)
    blank = np.full((2, len(PHONES)), -20.0, np.float32)
    blank[:, 0] = -1e-6
    for search in searches:
        search.accept_frames(emissions(9), range(9))
        search.use(graph.with_beam(14.0, 5))
        search.accept_frames(blank, [9, 10])
    assert_same(*searches)
    assert searches[0].whole.shape[1] > 5


@needs_compiler
def test_a_stream_may_go_on_in_numpy_and_back_in_c():
    graph = WordGraph(model(4), WIDE)
    mixed, plain = NativeSearch(graph), PrefixSearch(graph)
    for start, chunk in chunks(emissions(40), 4):
        numbers = range(start, start + len(chunk))
        plain.accept_frames(chunk, numbers)
        if start % 8:
            mixed.accept_frames(chunk, numbers)
        else:
            for heard, frame in zip(heard_frames(chunk, graph.config), numbers, strict=True):
                mixed.accept(heard, frame)
        assert_same(mixed, plain)


@needs_compiler
@pytest.mark.parametrize("room", [1, 2, 64])
def test_room_is_made_where_there_is_too_little(room, monkeypatch):
    monkeypatch.setattr(lexicon_native, "_FIRST_ROOM", room)
    found = assert_both_search(WordGraph(model(), WIDE), emissions(40), 8)
    assert found.whole.shape[1] > 64


def decoders(graph, monkeypatch) -> tuple[LexiconDecoder, LexiconDecoder]:
    native = LexiconDecoder(graph, 0.04)
    assert isinstance(native._search, NativeSearch)
    with monkeypatch.context() as patched:
        patched.setattr("edgeasr.lexicon_decoder.fastest_search", PrefixSearch)
        return native, LexiconDecoder(graph, 0.04)


def shown(words) -> list[tuple]:
    return [(word.word, word.start, word.end, pytest.approx(word.conf, abs=1e-9)) for word in words]


@needs_compiler
@pytest.mark.parametrize("make", [lambda graph: graph, hot])
@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_decoders_show_the_same_words_through_cuts_ends_and_jumps(make, size, monkeypatch):
    graph = make(WordGraph(model(), WIDE))
    native, plain = both = decoders(graph, monkeypatch)
    num_words = 0
    for turn, (_, chunk) in enumerate(chunks(emissions(240), size)):
        for decoder in both:
            decoder.accept(chunk)
            decoder.accept(chunk[:0])
        assert shown(plain.hypothesis()) == shown(native.hypothesis())
        assert plain.stable_words == native.stable_words
        num_words = max(num_words, len(native.hypothesis()))
        if turn % 19 == 7:
            assert shown(plain.cut()) == shown(native.cut())
        if turn % 31 == 30:
            for decoder in both:
                decoder.finish()
            assert shown(plain.hypothesis()) == shown(native.hypothesis())
            for decoder in both:
                decoder.reset(None if turn % 2 else round(decoder.end_s / 0.04) + 5)
        assert (plain.start_s, plain.end_s) == (native.start_s, native.end_s)
        assert plain.trailing_silence_s == native.trailing_silence_s
    assert num_words > 4


@needs_compiler
def test_what_is_no_number_is_refused_and_no_frame_is_taken(monkeypatch):
    log_probs = emissions(8)
    log_probs[5, 3] = math.nan
    for decoder in decoders(WordGraph(model(), WIDE), monkeypatch):
        with pytest.raises(BundleError, match=r"got nan as highest log-probability at 0\.20 s"):
            decoder.accept(log_probs)
        assert decoder.end_s == 0


@needs_compiler
def test_streams_of_two_threads_do_not_disturb_each_other():
    graph = hot(WordGraph(model(4), WIDE))

    def decoded(seed) -> tuple:
        decoder = LexiconDecoder(graph, 0.04)
        for _, chunk in chunks(emissions(80, seed), 4):
            decoder.accept(chunk)
        return decoder.hypothesis()

    want = [decoded(seed) for seed in range(24)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(decoded, range(24))) == want


def damaged(graph: WordGraph, table: str, values) -> WordGraph:
    """The graph with another table in the lexicon or the n-grams. values: of the old one"""
    known = graph.model
    ngrams, lexicon = known.ngrams, graph.lexicon
    if table in {field.name for field in fields(lexicon)}:
        lexicon = replace(lexicon, **{table: values(getattr(lexicon, table))})
    else:
        ngrams = replace(ngrams, **{table: values(getattr(ngrams, table))})
    other = WordGraph(known, graph.config, graph.lexicon)
    other.lexicon, other.model = lexicon, replace(known, ngrams=ngrams)
    return other


WILD = [
    ("first_child", 10**8),
    ("first_child", -5),
    ("phones_next", 2**64 - 1),
    ("first_word", -7),
    ("first_word", 2**30),
    ("words", 65535),
    ("entries", 2**32 - 1),
    ("first_number", -1),
    ("first_number", 2**31 - 1),
    ("followed", 65535),
    ("histories", 2**32 - 1),
    ("best", np.nan),
    ("prob_levels", np.inf),
]
HARMLESS = ("best", "followed")  # they make words likelier or histories others, and lead nowhere


@needs_compiler
@pytest.mark.parametrize(("table", "value"), WILD)
def test_damaged_tables_are_an_error_and_lead_nowhere(table, value):
    graph = WordGraph(model(4), WIDE)
    rng = np.random.default_rng(0)

    def overwritten(old, part):
        new = old.copy()
        new[rng.random(old.shape) < part] = value
        return new

    said = set()
    for part in (0.02, 0.3, 1.0):
        search = NativeSearch(damaged(graph, table, lambda old, part=part: overwritten(old, part)))
        for start, chunk in chunks(emissions(40), 4):
            before = search.whole, search.parts, len(search.records)
            try:
                search.accept_frames(chunk, range(start, start + 4))
            except BundleError as error:
                said.add(str(error))
                assert (search.whole, search.parts, len(search.records)) == before
                break
    if table not in HARMLESS:
        (reason,) = said
        assert reason.startswith("the tables of the language model are damaged: delete the .tables")


@needs_compiler
@pytest.mark.parametrize("table", ["first_child", "depth", "first_word", "entries", "first_keys", "followed"])
def test_tables_that_are_too_short_are_refused_at_once(table):
    short = damaged(WordGraph(model(), WIDE), table, lambda old: old[:-1].copy())
    with pytest.raises(BundleError, match=r"got \w+ of shape .* wanted .*: delete the \.tables"):
        fastest_search(short)


@needs_compiler
@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("words", lambda old: old.astype(np.uint32)),
        ("first_keys", lambda old: old.astype(">i8")),
        ("best", lambda old: np.repeat(old, 2)[::2]),
    ],
)
def test_tables_that_would_have_to_be_copied_are_for_numpy(table, values):
    graph = damaged(WordGraph(model(), WIDE), table, values)
    with pytest.raises(NativeCodeError, match=f"got {table} as .* in a row"):
        NativeSearch(graph)
    assert type(fastest_search(graph)) is PrefixSearch


@needs_compiler
def test_without_a_compiler_numpy_searches(monkeypatch, tmp_path):
    graph = WordGraph(model(), WIDE)
    assert isinstance(fastest_search(graph), NativeSearch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    search_library.cache_clear()
    try:
        found = fastest_search(graph)
        assert type(found) is PrefixSearch
        with pytest.raises(NativeCodeError, match="found no C compiler"):
            NativeSearch(graph)
    finally:
        search_library.cache_clear()


def test_a_grammar_is_searched_in_numpy():
    from edgeasr.recognizer import load_model

    graph = grammar_graph(
        load_model(), OwnWords(grammar=parse_grammar("#JSGF V1.0; grammar g; public <a> = on | off;"))
    )
    assert type(fastest_search(graph)) is PrefixSearch
    assert type(GrammarDecoder(graph, 0.04)._search) is PrefixSearch


@needs_compiler
@pytest.mark.parametrize("manifest", ["dev.jsonl", "dev_other.jsonl"])
def test_real_speech_has_the_same_prefixes_and_words(speech, manifest, monkeypatch):
    from edgeasr.lm_tuning import emissions as emissions_of
    from edgeasr.manifest import read_manifest
    from edgeasr.recognizer import load_model

    acoustic = load_model()
    num_words = 0
    for utterance in read_manifest(speech / manifest)[:60:20]:
        native, plain = both = decoders(acoustic.word_graph, monkeypatch)
        for _, chunk in chunks(emissions_of(acoustic, utterance.path), 4):
            for decoder in both:
                decoder.accept(chunk)
            assert_same(native._search, plain._search)
            assert shown(plain.hypothesis()) == shown(native.hypothesis())
        for decoder in both:
            decoder.finish()
        assert shown(plain.hypothesis()) == shown(native.hypothesis())
        num_words += len(native.hypothesis())
    assert num_words > 15
