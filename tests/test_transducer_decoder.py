import dataclasses
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr.decoder import CtcGreedyDecoder
from edgeasr.errors import BundleError
from edgeasr.piece_model import PieceModel
from edgeasr.tokenizer import BLANK, Tokenizer
from edgeasr.transducer import Transducer
from edgeasr.transducer_decoder import TransducerDecoder

FRAME_S = 0.04
PIECES = Tokenizer((BLANK, " ", "a", "b", "c", " a", " b", "bc", " abc"))
V = len(PIECES)
BEHIND, AHEAD, CONTEXT = 1, 2, 3
KNOWN = 2  # of the context's pieces, by the predictor
FRAME, WIDTH, INNER, PIECE = 5, 6, 7, 4


def transducer(seed: int = 0, strength: float = 1.0) -> Transducer:
    """Random weights; `strength` 0 leaves the emissions as they are."""
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) / math.sqrt(shape[0])

    text = PieceModel(
        CONTEXT,
        embedding=2 * drawn(V + 1, PIECE),
        input=drawn(CONTEXT * PIECE, WIDTH),
        input_bias=drawn(WIDTH),
        expand=drawn(WIDTH, INNER),
        expand_bias=drawn(INNER),
        contract=2 * drawn(INNER, WIDTH),
        contract_bias=drawn(WIDTH),
        output=4 * drawn(WIDTH, V),
        output_bias=drawn(V),
    )
    return Transducer(
        BEHIND,
        AHEAD,
        projection=drawn(V, FRAME),
        projection_bias=drawn(FRAME),
        absent=drawn(FRAME),
        acoustic=drawn((BEHIND + 1 + AHEAD) * FRAME, WIDTH),
        embedding=2 * drawn(V + 1, PIECE),
        predictor=2 * drawn(KNOWN * PIECE, WIDTH),
        bias=drawn(WIDTH),
        expand=drawn(WIDTH, INNER),
        expand_bias=drawn(INNER),
        contract=2 * drawn(INNER, WIDTH),
        contract_bias=drawn(WIDTH),
        output=strength * 4 * drawn(WIDTH, V),
        output_bias=strength * drawn(V),
        gain=1.0,
        text=text,
        text_gain=0.3 * strength,
    )


def emissions(num_frames: int, seed: int = 1, sharpness: float = 2.0) -> np.ndarray:
    scores = sharpness * np.random.default_rng(seed).standard_normal((num_frames, V))
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def decidable(log_probs: np.ndarray) -> np.ndarray:
    """With so much silence behind them that all is decided."""
    return np.concatenate([log_probs, spoken(*[""] * AHEAD, posterior=0.999)])


def spoken(*tokens: str, posterior: float = 0.9) -> np.ndarray:
    """(T, V): the best token of every frame; "" is the blank."""
    probs = np.full((len(tokens), V), (1 - posterior) / (V - 1), np.float32)
    probs[np.arange(len(tokens)), [PIECES.tokens.index(token or BLANK) for token in tokens]] = posterior
    return np.log(probs)


def plain(t: Transducer, log_probs: np.ndarray) -> list[tuple[int, int]]:
    """The definition, frame by frame, in loops and in double precision: (frame, token) of every piece."""
    weights, text = (
        {f.name: np.asarray(getattr(part, f.name), np.float64) for f in dataclasses.fields(part) if f.name != "text"}
        for part in (t, t.text)
    )
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    normal = lambda x: (x - x.mean()) / np.sqrt(x.var() + 1e-5)  # noqa: E731
    frames = [one @ weights["projection"] + weights["projection_bias"] for one in log_probs.astype(np.float64)]
    context, found = [V] * CONTEXT, []
    for now, emitted in enumerate(log_probs.astype(np.float64)):
        if emitted[0] >= math.log(0.95):
            continue
        around = range(now - BEHIND, now + AHEAD + 1)
        window = [frames[i] if 0 <= i < len(frames) else weights["absent"] for i in around]
        pieces = np.concatenate([weights["embedding"][i] for i in context[-KNOWN:]])
        x = np.concatenate(window) @ weights["acoustic"] + pieces @ weights["predictor"] + weights["bias"]
        x = x * sigmoid(x)
        inner = normal(x) @ weights["expand"] + weights["expand_bias"]
        x = x + (inner * sigmoid(inner)) @ weights["contract"] + weights["contract_bias"]
        scores = normal(x) @ weights["output"] + weights["output_bias"] + t.gain * emitted
        x = np.concatenate([text["embedding"][i] for i in context]) @ text["input"] + text["input_bias"]
        x = x * sigmoid(x)
        inner = normal(x) @ text["expand"] + text["expand_bias"]
        x = x + (inner * sigmoid(inner)) @ text["contract"] + text["contract_bias"]
        written = normal(x) @ text["output"] + text["output_bias"]
        scores[1:] += t.text_gain * (written - np.log(np.exp(written).sum()))[1:]
        if best := int(scores.argmax()):
            found.append((now, best))
            context = [*context[1:], best]
    return found


def where(words):
    """Without confidences, which products of other shapes round in another way."""
    return [(word.word, round(word.start / FRAME_S), round(word.end / FRAME_S)) for word in words]


def decoded(log_probs, chunk_frames=4, t=None):
    decoder = TransducerDecoder(t or transducer(), PIECES, FRAME_S)
    for start in range(0, len(log_probs), chunk_frames):
        decoder.accept(log_probs[start : start + chunk_frames])
    return decoder


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_those_of_the_definition(seed):
    log_probs = decidable(emissions(60, seed))
    found = plain(transducer(seed), log_probs)
    assert len(found) > 10
    text = PIECES.decode([token for _, token in found])
    assert decoded(log_probs, t=transducer(seed)).text == " ".join(text.split())


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 7), max_size=12), st.integers(0, 100))
def test_how_frames_arrive_changes_nothing(lengths, seed):
    log_probs = decidable(emissions(sum(lengths), seed))
    decoder = TransducerDecoder(transducer(), PIECES, FRAME_S)
    start = 0
    for length in [*lengths, AHEAD]:
        decoder.accept(log_probs[start : start + length])
        decoder.hypothesis()
        start += length
    assert where(decoder.hypothesis()) == where(decoded(log_probs, max(1, start)).hypothesis())
    assert decoder.num_frames == start == len(log_probs)


def test_what_is_not_decided_is_what_ctc_hears():
    t, log_probs = transducer(6), emissions(40, 3)
    decoder = TransducerDecoder(t, PIECES, FRAME_S)
    doubled = 0
    for num_frames in range(1, len(log_probs) + 1):
        decoder.accept(log_probs[num_frames - 1 : num_frames])
        decided = [one for one in plain(t, log_probs[:num_frames]) if one[0] < num_frames - AHEAD]
        best = log_probs[:num_frames].argmax(axis=1).tolist()
        heard = [(i, b) for i, (a, b) in enumerate(zip([0, *best[:-1]], best, strict=True)) if b not in (0, a)]
        heard = [one for one in heard if one[0] >= num_frames - AHEAD]
        # Not what was decided already, two frames away at most.
        new = [(i, b) for i, b in heard if not any(b == d and abs(i - at) <= 2 for at, d in decided)]
        doubled += len(heard) - len(new)
        assert decoder.text == " ".join(PIECES.decode([token for _, token in [*decided, *new]]).split())
    assert doubled


def test_a_transducer_without_a_say_leaves_what_ctc_heard():
    path = [" abc", "", "", " a", "bc", "", " b", "a", "", "", " a", "c"]
    decoder = decoded(spoken(*path), t=transducer(strength=0.0))
    ctc = CtcGreedyDecoder(PIECES, FRAME_S)
    ctc.accept(spoken(*path))
    assert decoder.text == "abc abc ba ac" == ctc.text
    assert [(w.start, w.end) for w in decoder.hypothesis()] == [(w.start, w.end) for w in ctc.hypothesis()]
    assert decoder.hypothesis()[1].conf == pytest.approx(0.9, rel=1e-5)


def test_what_is_heard_depends_on_what_was_said_in_the_same_segment():
    t, last = transducer(4), emissions(1, 11, sharpness=0.1)
    after = {}
    for before in (" a", " abc", "c"):
        decoder = TransducerDecoder(t, PIECES, FRAME_S)
        decoder.accept(spoken(before, *[""] * 8, posterior=0.999))
        decoder.accept(last)
        after[before] = decoder.text.removeprefix(PIECES.decode([PIECES.tokens.index(before)])) or "nothing"
    assert len(set(after.values())) > 1
    texts = set()
    for before in (" a", " abc", "c"):
        decoder = TransducerDecoder(t, PIECES, FRAME_S)
        decoder.accept(spoken(before, *[""] * 8, posterior=0.999))
        decoder.reset()
        decoder.accept(last)
        texts.add(decoder.text)
    assert len(texts) == 1


def test_decided_words_never_change_and_a_frame_waits_for_those_ahead():
    t, log_probs = transducer(strength=0.0), spoken(" a", "b", " b", "c", " abc", "", "", "")
    decoder = TransducerDecoder(t, PIECES, FRAME_S)
    stable = []
    for frame in log_probs:
        decoder.accept(frame[None])
        stable.append((decoder.stable_words, len(decoder.hypothesis())))
    # A word is stable once the beginning of the next one was decided, AHEAD frames after it was heard.
    assert stable == [(0, 1), (0, 1), (0, 2), (0, 2), (1, 3), (1, 3), (2, 3), (2, 3)]


def test_a_blank_that_ctc_is_sure_of_is_never_asked_about():
    loud = dataclasses.replace(transducer(strength=0.0), output_bias=np.eye(V, dtype=np.float32)[2] * 100)
    assert decoded(decidable(spoken("", "", "", posterior=0.99)), t=loud).text == ""
    assert decoded(decidable(spoken("", "", "", posterior=0.9)), t=loud).text == "aaa"


def test_silence_is_what_ctc_says_without_waiting():
    decoder = TransducerDecoder(transducer(strength=0.0), PIECES, FRAME_S)
    decoder.accept(spoken(" a", "b", "", "", ""))
    assert decoder.trailing_silence_s == pytest.approx(3 * FRAME_S)
    assert decoder.has_speech
    assert decoder.end_s == pytest.approx(5 * FRAME_S)


def test_a_segment_ends_with_all_that_was_heard():
    t = transducer(strength=0.0)
    decoder = TransducerDecoder(t, PIECES, FRAME_S)
    decoder.accept(spoken(" a", "b", "", " b"))
    assert decoder.text == "ab b"
    decoder.reset()
    assert (decoder.hypothesis(), decoder.num_frames, decoder.has_speech) == ((), 0, False)
    decoder.accept(spoken(" abc", "", "", ""))
    assert decoder.text == "abc"
    assert decoder.hypothesis()[0].start == pytest.approx(4 * FRAME_S)


def test_where_a_segment_ends_all_is_decided_as_though_nothing_followed():
    for seed in range(5):
        t, log_probs = transducer(seed), emissions(30, seed)
        decoder = decoded(log_probs, t=t)
        decoder.finish()
        assert decoder.text == " ".join(PIECES.decode([token for _, token in plain(t, log_probs)]).split())
        assert decoder.hypothesis() == decoder.hypothesis()


def test_a_cut_in_running_speech_loses_nothing():
    log_probs = decidable(emissions(60, 4))
    whole = decoded(log_probs)
    decoder = TransducerDecoder(transducer(), PIECES, FRAME_S)
    words = []
    for start in range(0, len(log_probs), 5):
        decoder.accept(log_probs[start : start + 5])
        words += decoder.cut() if decoder.stable_words else ()
    words += decoder.hypothesis()
    assert where(words) == where(whole.hypothesis())


def test_a_cut_without_a_finished_word_gives_all_there_is():
    decoder = TransducerDecoder(transducer(strength=0.0), PIECES, FRAME_S)
    decoder.accept(spoken(" a", "b"))
    assert [word.word for word in decoder.cut()] == ["ab"]
    assert (decoder.text, decoder.num_frames) == ("", 0)


def test_after_a_jump_nothing_was_heard_before():
    t, log_probs = transducer(2), emissions(30, 5)
    decoder = decoded(emissions(9, 6), t=t)
    decoder.reset(100)
    decoder.accept(log_probs)
    assert decoder.text == decoded(log_probs, len(log_probs), t).text
    assert decoder.start_s == pytest.approx(100 * FRAME_S)
    assert decoder.hypothesis()[0].start >= 100 * FRAME_S


@pytest.mark.parametrize("value", [math.nan, 3.0])
def test_emissions_that_are_none_are_refused_and_nothing_is_taken(value):
    decoder = TransducerDecoder(transducer(), PIECES, FRAME_S)
    wrong = emissions(4)
    wrong[2] = value
    with pytest.raises(BundleError, match=r"at 0\.08 s"):
        decoder.accept(wrong)
    assert decoder.num_frames == 0
    with pytest.raises(BundleError, match=r"wanted \(T, 9\)"):
        decoder.accept(emissions(4)[:, 1:])


def test_a_transducer_of_other_tokens_is_refused():
    with pytest.raises(BundleError, match="9 tokens, wanted 29"):
        TransducerDecoder(transducer(), Tokenizer(), FRAME_S)


def test_a_file_gives_back_what_was_packed():
    t = transducer(8)
    found = Transducer.unpacked(t.packed(), "x")
    assert (found.behind, found.ahead, found.context, found.gain) == (BEHIND, AHEAD, CONTEXT, 1.0)
    for got, packed in ((found, t), (found.text, t.text)):
        for field in dataclasses.fields(packed):
            if field.name != "text":
                array = np.asarray(getattr(packed, field.name))
                # Half a step of 63 for matrices, half precision for the rest.
                assert getattr(got, field.name) == pytest.approx(array, abs=float(np.abs(array).max()) / 125)
    assert decoded(emissions(60), t=found).text


def changed(**arrays):
    with np.load(io.BytesIO(transducer().packed())) as packed:
        kept = {**packed, **arrays}
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in kept.items() if array is not None})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a file that training wrote"),
        (b"\x89PNG\r\n", "not a file that training wrote"),
        (transducer().packed()[:-40], "not a file that training wrote"),
        (b"x" * 900 + transducer().packed()[900:], "no readable model"),
        (changed(gain=None), "gain"),
        (changed(format=np.array([1, 1, 2, 3])), "format version 1, wanted 2"),
        (changed(format=np.array([2, -1, 2, 3])), "a window from --1 to 2"),
        (changed(format=np.array([2, 1, 3, 3])), r"acoustic has the shape \(20, 6\), wanted \(25, 6\)"),
        (changed(bias=np.full(6, np.nan, np.float16)), "bias has values that are no numbers"),
        (changed(gain=np.array(np.nan, np.float32)), "gain has values that are no numbers"),
        (changed(text_gain=np.array(np.inf, np.float32)), "text_gain has values that are no numbers"),
        (changed(embedding=np.zeros((10, 0), np.int8), **{"embedding.scale": np.zeros(0, np.float32)}), "by zero"),
        (changed(format=np.array([np.inf, 1, 2, 3])), "cannot convert float infinity"),
        (changed(**{"expand.scale": np.zeros((6, 7), np.float32)}), r"the scale of expand has the shape \(6, 7\)"),
        (changed(**{"text.output": np.zeros((6, 8), np.int8), "text.output.scale": np.zeros(8, np.float32)}), r"9\)"),
        (changed(output_bias=np.zeros(4, np.float16)), r"output_bias has the shape \(4,\), wanted \(9,\)"),
    ],
)
def test_a_damaged_file_is_refused_in_a_line(content, reason):
    with pytest.raises(BundleError, match=reason) as error:
        Transducer.unpacked(content, "t.npz of somewhere")
    assert "t.npz of somewhere" in str(error.value)
    assert "\n" not in str(error.value)
