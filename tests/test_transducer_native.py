import io
import math
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from runpy import run_path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from edgeasr import transducer_native
from edgeasr.errors import BundleError
from edgeasr.native_code import NativeCodeError
from edgeasr.piece_model import PieceModel
from edgeasr.recognizer import Recognizer
from edgeasr.transducer import Found, Transducer
from edgeasr.transducer_decoder import TransducerDecoder
from edgeasr.transducer_native import NativeTransducer, fastest_transducer

needs_compiler = run_path(str(Path(__file__).with_name("test_profile_bandwidth.py")))["needs_compiler"]

CLIP = Path(transducer_native.__file__).parent / "models" / "demo.flac"


class Sizes(NamedTuple):
    behind: int
    ahead: int
    context: int
    known: int  # of the context's pieces, by the predictor
    tokens: int
    frame: int
    piece: int
    width: int
    inner: int
    text_piece: int
    text_width: int
    text_inner: int


# Below a vector, whole vectors, a little more than tiles of any width, as shipped.
SIZES = [
    Sizes(0, 0, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1),
    Sizes(1, 2, 3, 2, 9, 5, 4, 6, 7, 3, 5, 11),
    Sizes(2, 1, 4, 4, 64, 16, 8, 64, 128, 8, 128, 64),
    Sizes(1, 1, 5, 3, 129, 9, 7, 65, 33, 11, 97, 63),
    Sizes(3, 10, 12, 8, 500, 64, 48, 320, 448, 48, 448, 448),
]


def transducer(sizes: Sizes, seed: int = 0) -> Transducer:
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) / math.sqrt(shape[0])

    def read_out(width: int, inner: int) -> dict[str, np.ndarray]:
        return {
            "expand": drawn(width, inner),
            "expand_bias": drawn(inner),
            "contract": 2 * drawn(inner, width),
            "contract_bias": drawn(width),
            "output": 2 * drawn(width, sizes.tokens),
            "output_bias": drawn(sizes.tokens),
        }

    text = PieceModel(
        sizes.context,
        embedding=20 * drawn(sizes.tokens + 1, sizes.text_piece),
        input=drawn(sizes.context * sizes.text_piece, sizes.text_width),
        input_bias=drawn(sizes.text_width),
        **read_out(sizes.text_width, sizes.text_inner),
    )
    return Transducer(
        sizes.behind,
        sizes.ahead,
        projection=drawn(sizes.tokens, sizes.frame),
        projection_bias=drawn(sizes.frame),
        absent=drawn(sizes.frame),
        acoustic=drawn((sizes.behind + 1 + sizes.ahead) * sizes.frame, sizes.width),
        embedding=20 * drawn(sizes.tokens + 1, sizes.piece),
        predictor=drawn(sizes.known * sizes.piece, sizes.width),
        bias=drawn(sizes.width),
        gain=0.8,
        text=text,
        text_gain=0.4,
        **read_out(sizes.width, sizes.inner),
    )


def both(sizes: Sizes, seed: int = 0) -> tuple[NativeTransducer, Transducer]:
    """The same numbers, in C and in numpy."""
    file = transducer(sizes, seed).to_file()
    return NativeTransducer(file), Transducer.of(file)


def emissions(num_frames: int, sizes: Sizes, seed: int = 1) -> np.ndarray:
    scores = 2 * np.random.default_rng(seed).standard_normal((num_frames, sizes.tokens))
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def contexts(count: int, sizes: Sizes) -> list[tuple[int, ...]]:
    drawn = np.random.default_rng(2).integers(0, sizes.tokens + 1, (count, sizes.context))
    return [(sizes.tokens,) * sizes.context, *map(tuple, drawn.tolist())]


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """But for rounding, of which large sums have more."""
    assert got.dtype == want.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=5e-6 * max(1.0, float(np.abs(want).max())))


def assert_same(got: Found | None, want: Found | None) -> None:
    assert (got is None) == (want is None)
    if got is not None:
        assert (got.row, got.token_id) == (want.row, want.token_id)
        assert got.log_prob == pytest.approx(want.log_prob, abs=2e-5)


@needs_compiler
@pytest.mark.parametrize("sizes", SIZES)
def test_windows_are_heard_as_numpy_hears_them(sizes):
    native, plain = both(sizes)
    frames = plain.project(emissions(sizes.behind + sizes.ahead + 9, sizes))
    np.testing.assert_array_equal(native.project(emissions(4, sizes)), plain.project(emissions(4, sizes)))
    for starts in ([0], [1, 0], [0, 2, 8], [3, 4, 5, 6], [0, 1, 2, 3, 8], list(range(9))):
        assert_close(native.hear(frames, np.array(starts)), plain.hear(frames, np.array(starts)))


@needs_compiler
@pytest.mark.parametrize("sizes", SIZES)
def test_what_follows_a_context_is_what_numpy_says(sizes):
    native, plain = both(sizes)
    for context in contexts(5, sizes):
        got, want = native.predict(context), plain.predict(context)
        assert_close(got.part, want.part)
        assert_close(got.scores, want.scores)
        assert got.scores[0] == 0


@needs_compiler
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8])
def test_the_first_piece_is_the_one_that_numpy_finds(rows, sizes):
    native, plain = both(sizes)
    rng = np.random.default_rng(rows)
    heard = 2 * rng.standard_normal((rows, sizes.width)).astype(np.float32)
    predicted = plain.predict(contexts(1, sizes)[1])
    blank = emissions(rows, sizes)
    blank[:, 0] += 60
    assert native.first_piece(heard, predicted, blank) is None
    assert plain.first_piece(heard, predicted, blank) is None
    # Tokens one after another are made a little likelier than the rest, which count in their probabilities.
    for token_id in range(1, sizes.tokens, max(1, sizes.tokens // 40)):
        row = int(rng.integers(rows))
        log_probs = blank.copy()
        log_probs[row:] = emissions(rows - row, sizes, token_id)
        scores = plain.join(heard, predicted, log_probs)[row]
        log_probs[row, token_id] += (scores.max() - scores[token_id] + 1) / plain.gain
        got, want = (one.first_piece(heard, predicted, log_probs) for one in (native, plain))
        assert (got.row, got.token_id) == (row, token_id)
        assert_same(got, want)


@needs_compiler
def test_products_are_as_close_to_the_truth_as_those_of_numpy():
    native, plain = both(SIZES[-1])
    frames = plain.project(emissions(17, SIZES[-1]))
    starts = np.arange(4)
    windows = np.stack([frames[start : start + 14].reshape(-1) for start in starts]).astype(np.float64)
    truth = windows @ plain.acoustic.astype(np.float64)
    numpys = np.abs(plain.hear(frames, starts) - truth).max()
    assert np.abs(native.hear(frames, starts) - truth).max() < 4 * numpys < 1e-4


@needs_compiler
def test_a_row_is_the_same_to_the_bit_whatever_is_beside_it():
    native, _ = both(SIZES[-1])
    frames = native.project(emissions(25, SIZES[-1]))
    together = native.hear(frames, np.arange(9))
    for first, last in ((0, 1), (1, 3), (3, 6), (2, 6), (4, 9)):
        np.testing.assert_array_equal(native.hear(frames, np.arange(first, last)), together[first:last])


@needs_compiler
@pytest.mark.parametrize("loud", [1e-6, 1.0, 90.0, 1e5])
def test_what_is_very_loud_or_quiet_overflows_nowhere(loud):
    native, plain = both(SIZES[3])
    heard = loud * np.random.default_rng(0).standard_normal((3, SIZES[3].width)).astype(np.float32)
    predicted, log_probs = plain.predict(contexts(1, SIZES[3])[1]), emissions(3, SIZES[3])
    log_probs[1, 5:90] = -math.inf
    got, want = (one.first_piece(heard, predicted, log_probs) for one in (native, plain))
    assert got is not None
    assert_same(got, want)


@needs_compiler
def test_weights_of_the_whole_range_of_their_integers_are_summed_exactly():
    file = transducer(SIZES[3]).to_file()
    rng = np.random.default_rng(0)
    values = rng.choice([-127, -126, -1, 0, 1, 127], file.arrays["acoustic"].values.shape).astype(np.int8)
    file.arrays["acoustic"] = file.arrays["acoustic"]._replace(
        values=values, scale=np.ones(values.shape[1], np.float32)
    )
    frames = rng.integers(-9, 10, (3, SIZES[3].frame)).astype(np.float32)
    want = frames.reshape(1, -1) @ values.astype(np.float32)
    np.testing.assert_allclose(NativeTransducer(file).hear(frames, np.array([0])), want, rtol=1e-6, atol=1e-4)


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="only there can the width of vectors be chosen")
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx2"])
def test_processors_with_narrower_vectors_compute_the_same(without, monkeypatch):
    monkeypatch.setattr(transducer_native, "_FLAGS", (*transducer_native._FLAGS, without))
    transducer_native.transducer_library.cache_clear()
    try:
        for sizes in SIZES[:-1]:
            native, plain = both(sizes)
            frames = plain.project(emissions(sizes.behind + sizes.ahead + 4, sizes))
            assert_close(native.hear(frames, np.arange(3)), plain.hear(frames, np.arange(3)))
            for context in contexts(2, sizes):
                assert_close(native.predict(context).scores, plain.predict(context).scores)
    finally:
        transducer_native.transducer_library.cache_clear()


PIECES = run_path(str(Path(__file__).with_name("test_transducer_decoder.py")))["PIECES"]
OF_PIECES = Sizes(1, 2, 3, 2, len(PIECES), 5, 4, 33, 17, 3, 34, 11)


def decoded(one, log_probs, chunk_frames: int) -> list[tuple[str, float, float]]:
    decoder = TransducerDecoder(one, PIECES, 0.04)
    for start in range(0, len(log_probs), chunk_frames):
        decoder.accept(log_probs[start : start + chunk_frames])
    decoder.finish()
    return [(word.word, word.start, word.end) for word in decoder.hypothesis()]


@needs_compiler
@pytest.mark.parametrize("chunk_frames", [1, 3, 7])
def test_streams_are_decoded_as_with_numpy(chunk_frames):
    for seed in range(4):
        native, plain = both(OF_PIECES, seed)
        log_probs = emissions(50, OF_PIECES, seed)
        words = decoded(native, log_probs, chunk_frames)
        assert len(words) > 3
        assert words == decoded(plain, log_probs, chunk_frames)


@needs_compiler
def test_streams_of_two_threads_do_not_disturb_each_other():
    native, _ = both(OF_PIECES)
    streams = [emissions(60, OF_PIECES, seed) for seed in range(24)]
    want = [decoded(native, stream, 4) for stream in streams]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda stream: decoded(native, stream, 4), streams)) == want


@needs_compiler
def test_what_does_not_fit_is_refused():
    native, _ = both(SIZES[1])
    frames = native.project(emissions(6, SIZES[1]))
    for start in (-1, 3, 6, 7):
        with pytest.raises(IndexError, match="got windows from"):
            native.hear(frames, np.array([0, start]))
    assert native.hear(frames, np.array([2])).shape == (1, 6)
    for piece in (-1, SIZES[1].tokens + 1):
        with pytest.raises(IndexError, match="wanted numbers up to 9"):
            native.predict((1, piece, 2))
    predicted = native.predict(native.begin)
    with pytest.raises(ValueError, match=r"got emissions of shape \(3, 9\), wanted \(2, 9\)"):
        native.first_piece(native.hear(frames, np.array([0, 1])), predicted, emissions(3, SIZES[1]))


def without_compiler(monkeypatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.delenv("CC", raising=False)
    transducer_native.transducer_library.cache_clear()


@needs_compiler
def test_without_a_compiler_numpy_decodes_the_same(monkeypatch, tmp_path):
    content, log_probs = transducer(OF_PIECES).packed(), emissions(60, OF_PIECES)
    native = fastest_transducer(content, "it")
    assert isinstance(native, NativeTransducer)
    without_compiler(monkeypatch, tmp_path)
    plain = fastest_transducer(content, "it")
    assert isinstance(plain, Transducer)
    assert (plain.begin, plain.behind, plain.ahead) == (native.begin, native.behind, native.ahead)
    np.testing.assert_array_equal(plain.absent, native.absent)
    assert decoded(native, log_probs, 4) == decoded(plain, log_probs, 4)
    with pytest.raises(NativeCodeError, match="found no C compiler"):
        both(OF_PIECES)


def stored(**arrays: np.ndarray) -> bytes:
    """A file with other arrays than it should have."""
    with np.load(io.BytesIO(transducer(SIZES[1]).packed())) as packed:
        kept = {**packed, **arrays}
    stream = io.BytesIO()
    np.savez(stream, **kept)
    return stream.getvalue()


@pytest.mark.parametrize("values", [np.full((9, 6), 0.5, np.float16), np.full((6, 7), -128, np.int8)])
def test_matrices_that_are_no_such_integers_are_for_numpy(values):
    name = "expand" if values.dtype == np.int8 else "contract"
    if name == "contract":
        values = values[:7]
    found = fastest_transducer(stored(**{name: values}), "it")
    assert isinstance(found, Transducer)
    assert getattr(found, name).shape == values.shape


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n", "not a file that training wrote"),
        (transducer(SIZES[1]).packed()[:-40], "not a file that training wrote"),
        (stored(gain=np.array(np.nan, np.float32)), "gain has values that are no numbers"),
        (stored(**{"expand.scale": np.full(7, np.inf, np.float32)}), "expand has values that are no numbers"),
        (stored(**{"text.output": np.zeros((5, 8), np.int8)}), r"the scale of text.output has the shape \(9,\)"),
        (
            stored(
                projection=np.zeros((9, 0), np.float16),
                projection_bias=np.zeros(0, np.float16),
                absent=np.zeros(0, np.float16),
                acoustic=np.zeros((0, 6), np.int8),
            ),
            r"projection has the shape \(9, 0\), wanted \(9, 0\), none of it 0",
        ),
    ],
)
def test_a_damaged_file_is_refused_in_a_line(content, reason):
    with pytest.raises(BundleError, match=reason) as error:
        fastest_transducer(content, "t.npz of somewhere")
    assert "t.npz of somewhere" in str(error.value)


@needs_compiler
def test_the_shipped_model_hears_the_same_words_with_and_without(monkeypatch, tmp_path):
    waveform, rate = soundfile.read(CLIP, dtype="float32")
    heard = []
    for kind in (NativeTransducer, Transducer):
        recognizer = Recognizer(decoder="greedy")
        assert isinstance(recognizer.model.transducer, kind)
        events = []
        recognizer.accept_waveform(waveform, rate)
        recognizer.input_finished()
        while recognizer.is_ready():
            events += recognizer.step()
        heard.append([[(word.word, word.start, word.end) for word in event.words] for event in events])
        without_compiler(monkeypatch, tmp_path)
    assert sum(map(len, heard[0])) > 10
    assert heard[0] == heard[1]


def test_who_decodes_with_a_language_model_does_not_compile_the_transducer():
    code = (
        "import sys; from edgeasr.recognizer import Recognizer; Recognizer(decoder='lm'); "
        "sys.exit('edgeasr.transducer_native' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
