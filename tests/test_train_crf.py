# ruff: noqa: E402 - torch is looked for before the modules that import it
import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="sequence training needs the extra `train`")

from edgeasr.train.crf import Denominator, crf_loss, log_sum
from edgeasr.train.phone_graph import PhoneGraph

P = 3


@pytest.fixture(scope="module")
def graph() -> PhoneGraph:
    """Two phones; the start and histories 1, 2 and 1 2."""
    labels = np.array([0, 1, 2, 2], np.int32)
    following = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 2], [0, 1, 2]], np.int32)
    probs = np.array([[0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4]])
    return PhoneGraph(labels, probs, following)


@pytest.fixture(scope="module")
def denominator(graph) -> Denominator:
    return Denominator(graph)


def emissions(rows: int, frames: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(rows, frames, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.log_softmax(-1)


def paths(graph: PhoneGraph, row: torch.Tensor, frames: int):
    """Every path through the frames: its phones, what it emits, its weight."""
    for path in itertools.product(range(P), repeat=frames):
        phones = [token for token, _ in itertools.groupby(path) if token]
        yield phones, path, math.exp(float(row[range(frames), path].sum()) + graph.log_prob(phones))


def test_log_sum_is_over_all_paths_of_each_row(graph, denominator):
    emitted, frames = emissions(3, 6), torch.tensor([6, 1, 4])
    want = [
        math.log(sum(weight for *_, weight in paths(graph, row, n)))
        for row, n in zip(emitted, frames.tolist(), strict=True)
    ]
    assert log_sum(emitted, frames, denominator).tolist() == pytest.approx(want, rel=1e-12)


def test_shares_are_those_of_the_paths(graph, denominator):
    emitted, frames = emissions(2, 5), np.array([5, 3])
    want = np.zeros((2, 5, P))
    for row, n in enumerate(frames):
        for _, path, weight in paths(graph, emitted[row], n):
            want[row, range(n), path] += weight
        want[row, :n] /= want[row, :n].sum(axis=1, keepdims=True)
    _, shares = denominator(emitted.numpy(), frames)
    np.testing.assert_allclose(shares, want, rtol=1e-10)


@pytest.mark.parametrize("spoken", [[1, 2], [1, 1], [2, 1, 2, 1], [2]])
def test_the_loss_is_the_share_of_the_right_phones(graph, denominator, spoken):
    emitted = emissions(1, 5, seed=1)
    right, everything = 0.0, 0.0
    for phones, _, weight in paths(graph, emitted[0], 5):
        everything += weight
        right += weight * (phones == spoken)
    loss = crf_loss(emitted, torch.tensor([5]), torch.tensor([spoken]), torch.tensor([len(spoken)]), denominator)
    assert loss.item() == pytest.approx(-math.log(right / everything), rel=1e-10)


def test_the_loss_of_a_ragged_batch_is_the_sum_of_its_rows_and_ignores_what_lies_behind_them(denominator):
    emitted, frames = emissions(3, 6), torch.tensor([6, 2, 4])
    phones, lengths = torch.tensor([[1, 2, 1], [2, 0, 0], [1, 1, 0]]), torch.tensor([3, 1, 2])
    rows = [
        crf_loss(emitted[[i], : frames[i]], frames[[i]], phones[[i], : lengths[i]], lengths[[i]], denominator).item()
        for i in range(3)
    ]
    emitted = emitted.clone()
    emitted[1, 2:] = -1e4
    emitted.requires_grad_()
    loss = crf_loss(emitted, frames, phones, lengths, denominator)
    assert loss.item() == pytest.approx(sum(rows), rel=1e-12)
    loss.backward()
    assert not emitted.grad[1, 2:].any()
    assert torch.isfinite(emitted.grad).all()


def test_the_gradient_is_that_of_the_loss(denominator):
    logits = torch.randn(2, 5, P, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    given = torch.tensor([5, 3]), torch.tensor([[1, 2], [2, 0]]), torch.tensor([2, 1])
    assert torch.autograd.gradcheck(lambda x: crf_loss(x.log_softmax(-1), *given, denominator), logits)


def test_phones_that_do_not_fit_into_the_frames_count_nothing(denominator):
    emitted = emissions(2, 4).requires_grad_()
    phones, lengths = torch.tensor([[1, 1, 1], [1, 2, 0]]), torch.tensor([3, 2])
    loss = crf_loss(emitted, torch.tensor([4, 4]), phones, lengths, denominator)
    alone = crf_loss(emitted[1:].detach(), torch.tensor([4]), phones[1:, :2], lengths[1:], denominator)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-12)
    loss.backward()
    assert not emitted.grad[0].any()
    assert emitted.grad[1].any()


def test_no_length_underflows(denominator):
    frames = 2_000
    emitted = (emissions(1, 1).expand(1, frames, P) - 50.0).contiguous()
    total = log_sum(emitted, torch.tensor([frames]), denominator)
    _, shares = denominator(emitted.numpy(), np.array([frames]))
    # Far from the ends every frame adds the same.
    half = log_sum(emitted[:, : frames // 2], torch.tensor([frames // 2]), denominator)
    quarter = log_sum(emitted[:, : frames // 4], torch.tensor([frames // 4]), denominator)
    assert (total - half).item() == pytest.approx(2 * (half - quarter).item(), rel=1e-9)
    np.testing.assert_allclose(shares.sum(axis=2), 1.0, rtol=1e-9)
    np.testing.assert_allclose(shares[0, 900], shares[0, 1100], rtol=1e-9)
