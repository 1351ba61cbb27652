# ruff: noqa: E402 - torch is looked for before the modules that import it
import pytest

torch = pytest.importorskip("torch", reason="the recall benchmark needs the extra `train`")

from edgeasr.errors import ConfigError
from edgeasr.recall.task import RecallTask

TASK = RecallTask(num_keys=6, num_values=5, pairs=3, spread=10, asked=2)
STREAMS = 200


def drawn(kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TASK.at_distance(37, STREAMS, generator) if kind == "test" else TASK.anywhere(10, 50, STREAMS, generator)


def parts(streams):
    """Of each vector: whether it is a pair, whether it is a question, its key and its value."""
    flags, rest = streams.inputs[..., :2].bool(), streams.inputs[..., 2:]
    return flags[..., 0], flags[..., 1], rest[..., :6], rest[..., 6:]


@pytest.mark.parametrize("kind", ["test", "training"])
def test_a_question_shows_the_key_of_its_pair_and_asks_for_its_value(kind):
    streams = drawn(kind)
    is_pair, is_question, key, value = parts(streams)
    rows = torch.arange(STREAMS)[:, None]
    assert is_pair[rows, streams.pair_at].all()
    assert is_question[rows, streams.asked_at].all()
    assert (streams.asked_at > streams.pair_at).all()
    assert torch.equal(key[rows, streams.asked_at], key[rows, streams.pair_at])
    assert torch.equal(value[rows, streams.pair_at].argmax(-1), streams.answer)
    assert not value[rows, streams.asked_at].any()


@pytest.mark.parametrize("kind", ["test", "training"])
def test_all_else_are_distractors_with_keys_and_values_like_those_of_pairs(kind):
    is_pair, is_question, key, value = parts(drawn(kind))
    assert (is_pair.sum(1) == 3).all()
    assert not (is_pair & is_question).any()
    assert (key.sum(-1) == 1).all()
    assert torch.equal(value.sum(-1) == 1, ~is_question)
    distractors = ~is_pair & ~is_question
    for of_pairs, of_distractors in ((key[is_pair], key[distractors]), (value[is_pair], value[distractors])):
        assert (of_pairs.mean(0) - of_distractors.mean(0)).abs().max() < 0.06


def test_the_keys_of_a_stream_differ():
    is_pair, _, key, _ = parts(drawn("test"))
    assert key[is_pair].reshape(STREAMS, 3, 6).sum(1).max() == 1


def test_a_test_asks_over_exactly_the_distance():
    streams = drawn("test")
    assert (streams.asked_at - streams.pair_at == 37).all()
    assert streams.inputs.shape == (STREAMS, 57, TASK.input_size)
    assert streams.asked_at.shape == (STREAMS, 2)


def test_neither_place_nor_order_gives_a_pair_away():
    streams = drawn("test")
    is_pair, *_ = parts(streams)
    assert set(streams.pair_at.flatten().tolist()) == set(range(19)), "a lead of up to 9, and 10 places"
    rank = (is_pair.cumsum(1).gather(1, streams.pair_at) - 1).flatten()
    assert torch.bincount(rank).div(rank.numel()).sub(1 / 3).abs().max() < 0.06


def test_training_asks_for_any_pair_anywhere_behind_them():
    streams = drawn("training")
    assert streams.asked_at.shape == (STREAMS, 15)
    assert streams.asked_at.min() == 20
    assert streams.asked_at.max() == 49


def test_streams_are_those_of_their_seed():
    assert torch.equal(drawn("test").inputs, drawn("test").inputs)
    assert not torch.equal(drawn("test").inputs, drawn("test", seed=1).inputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RecallTask(num_keys=2, pairs=3), "got 3 pairs of which 2 are asked, 2 keys and 100 places"),
        (lambda: RecallTask(pairs=1), "got 1 pairs of which 2 are asked"),
        (lambda: TASK.at_distance(9, 1, torch.Generator()), "got a distance of 9, where pairs are spread over 10"),
        (lambda: TASK.anywhere(10, 21, 1, torch.Generator()), "got streams of 21 vectors for pairs over 10: wanted 22"),
    ],
)
def test_impossible_streams_are_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
