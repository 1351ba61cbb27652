# ruff: noqa: E402 - torch is looked for before the modules that import it
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="the encoder needs the extra `train`")

from edgeasr.streaming import chunk_start, positions, replace_tensors, state_tensors, visible


class Cache(NamedTuple):
    key: torch.Tensor
    value: torch.Tensor


class Whole(NamedTuple):
    level1: tuple[Cache, ...]
    bank: tuple[Cache, ...]
    seen: torch.Tensor


def whole(seed=0):
    generator = torch.Generator().manual_seed(seed)
    caches = [Cache(torch.rand(2, 3, generator=generator), torch.rand(1, generator=generator)) for _ in range(2)]
    return Whole(tuple(caches), (), torch.tensor([seed]))


def test_a_chunk_starts_at_a_multiple_of_its_length():
    position = torch.tensor([[0, 1, 3, 4, 7, 8, 4 * 10**12 + 3]])
    assert chunk_start(position, 4).tolist() == [[0, 0, 0, 4, 4, 8, 4 * 10**12]]
    assert chunk_start(position, 1).tolist() == position.tolist()


def test_positions_before_the_stream_are_negative():
    seen = torch.tensor([0, 2, 10**15])
    assert positions(seen, 3, 2).tolist() == [
        [-3, -2, -1, 0, 1],
        [-1, 0, 1, 2, 3],
        [10**15 - 3, 10**15 - 2, 10**15 - 1, 10**15, 10**15 + 1],
    ]
    assert positions(seen, 0, 1).tolist() == [[0], [2], [10**15]]


@pytest.mark.parametrize("left_context", [1, 2, 5, 8])
@pytest.mark.parametrize("chunk_frames", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("first", [0, 6, 42 * 10**10])
def test_a_query_sees_its_left_context_and_its_chunk(left_context, chunk_frames, first):
    query, key = list(range(first, first + 17)), list(range(first - 9, first + 17))
    mask = visible(torch.tensor([query]), torch.tensor([key]), left_context, chunk_frames)
    expected = [
        [k >= 0 and (q - left_context <= k <= q or (k > q and k // chunk_frames == q // chunk_frames)) for k in key]
        for q in query
    ]
    assert mask.tolist() == [expected]


def test_every_row_of_a_batch_has_its_own_positions():
    seen = torch.tensor([0, 1, 7])
    position = positions(seen, 4, 3)
    together = visible(position[:, 4:], position, 3, 2)
    for row in range(3):
        alone = visible(position[row : row + 1, 4:], position[row : row + 1], 3, 2)
        assert torch.equal(together[row : row + 1], alone)


def test_every_query_sees_itself_and_no_empty_slot():
    position = positions(torch.tensor([2]), 5, 4)
    mask = visible(position[:, 5:], position, 100, 3)[0]
    assert mask[:, 5:].diagonal().all()
    assert not mask[:, :3].any()


def test_tensors_of_a_state_have_dotted_names_in_a_fixed_order():
    names = ["level1.0.key", "level1.0.value", "level1.1.key", "level1.1.value", "seen"]
    assert [name for name, _ in state_tensors(whole())] == names
    assert [name for name, _ in state_tensors(whole(), "state")] == [f"state.{name}" for name in names]


def test_a_state_is_rebuilt_from_its_tensors():
    source, target = whole(1), whole(2)
    rebuilt = replace_tensors(target, (tensor for _, tensor in state_tensors(source)))
    assert isinstance(rebuilt, Whole)
    assert isinstance(rebuilt.level1[1], Cache)
    assert rebuilt.bank == ()
    for (name, actual), (_, expected) in zip(state_tensors(rebuilt), state_tensors(source), strict=True):
        assert actual is expected, name
    assert target.seen.tolist() == [2]
