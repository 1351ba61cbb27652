# ruff: noqa: E402 - torch is looked for before the modules that import it
from itertools import combinations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

import torch.nn.functional as F

from edgeasr.train.transducer_lattice import Aligned, Lattice, lattice_loss, taught_loss

V = 7


def aligned(times: list[int], starts: list[int], pieces: list[int]) -> Aligned:
    return Aligned(*(np.array(part, np.int64) for part in (times, starts, pieces)))


UTTERANCES = [
    aligned([0, 1, 2, 3, 4, 5, 6], [1, 2, 5], [3, 5, 3]),
    aligned([3, 4, 9, 10, 11, 30], [2, 4, 5], [1, 1, 6]),  # frames of sure blanks between
    aligned([0, 1, 2], [0, 1, 2], [2, 4, 6]),  # a piece in every frame
    aligned([5], [0], [4]),
    aligned([0, 7, 8], [], []),  # noise
    aligned([0, 2], [1], [1]),
]
WINDOWS = [(0, 0), (1, 0), (0, 2), (2, 1), (3, 3), (100, 100)]


def paths(one: Aligned, before: int, after: int) -> list[tuple[int, ...]]:
    """All rising choices of frames for the pieces, each near its own."""
    found = []
    for frames in combinations(range(len(one.times)), len(one.pieces)):
        late = one.times[list(frames)] - one.times[one.starts]
        if ((late >= -before) & (late <= after)).all():
            found.append(frames)
    return found


def scores_of_all(seed: int = 0) -> list[torch.Tensor]:
    """For every utterance (F, U + 1, V), scores of each frame behind each number of pieces."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(len(one.times), len(one.pieces) + 1, V) for one in UTTERANCES]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).mul(2).requires_grad_() for shape in shapes]


def on_nodes(scores: list[torch.Tensor], lattice: Lattice) -> torch.Tensor:
    """Those that the lattice asks for, (N, V)."""
    frames = np.cumsum([0] + [len(one.times) for one in UTTERANCES])
    contexts = np.cumsum([0] + [len(one.pieces) + 1 for one in UTTERANCES])
    return torch.stack(
        [
            scores[b][frame - frames[b], context - contexts[b]]
            for b, frame, context in zip(lattice.utterance, lattice.frame, lattice.context, strict=True)
        ]
    )


def by_force(scores: torch.Tensor, one: Aligned, before: int, after: int) -> torch.Tensor:
    """-log of the summed probability of all paths, each by itself."""
    log_probs, weights = scores.log_softmax(-1), []
    for path in paths(one, before, after):
        said, weight = 0, scores.new_zeros(())
        for t in range(len(one.times)):
            begins = said < len(path) and path[said] == t
            weight = weight + log_probs[t, said, one.pieces[said] if begins else 0]
            said += begins
        weights.append(weight)
    return -torch.stack(weights).logsumexp(0)


@pytest.mark.parametrize(("before", "after"), WINDOWS)
def test_loss_and_gradient_are_those_of_all_alignments_near(before, after):
    ours, theirs = scores_of_all(), scores_of_all()
    lattice = Lattice.of(UTTERANCES, before, after)
    got = lattice_loss(on_nodes(ours, lattice), lattice)
    want = torch.stack([by_force(score, one, before, after) for score, one in zip(theirs, UTTERANCES, strict=True)])
    torch.testing.assert_close(got, want)
    weights = torch.arange(1.0, len(UTTERANCES) + 1)
    (got * weights).sum().backward()
    (want * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_the_number_of_alignments_is_counted():
    """Where everything is certain, the sum is their number."""
    for before, after in WINDOWS:
        lattice = Lattice.of(UTTERANCES, before, after)
        sure = np.zeros(len(lattice.frame))
        counts = [len(paths(one, before, after)) for one in UTTERANCES]
        np.testing.assert_allclose(np.exp(lattice.sums(sure, sure)[0]), counts)
    assert counts == [35, 20, 1, 1, 1, 2]


@pytest.mark.parametrize(("before", "after"), WINDOWS)
def test_what_teachers_say_counts_as_often_as_their_paths_pass(before, after):
    lattice, taught = Lattice.of(UTTERANCES, before, after), [score.detach() for score in scores_of_all(seed=1)]
    ours, want = scores_of_all(), torch.zeros((), dtype=torch.float64)
    for score, teacher, one in zip(ours, taught, UTTERANCES, strict=True):
        log_probs, whole = teacher.log_softmax(-1), -by_force(teacher, one, before, after)
        for path in paths(one, before, after):
            said, weight, apart = 0, -whole, torch.zeros((), dtype=torch.float64)
            for t in range(len(one.times)):
                begins = said < len(path) and path[said] == t
                weight = weight + log_probs[t, said, one.pieces[said] if begins else 0]
                apart = apart + F.kl_div(
                    score[t, said].log_softmax(-1), log_probs[t, said], reduction="sum", log_target=True
                )
                said += begins
            want = want + weight.exp() * apart
    got = taught_loss(on_nodes(ours, lattice), on_nodes(taught, lattice).log_softmax(-1), lattice)
    torch.testing.assert_close(got, want)
    assert got > 1.0
    same = taught_loss(on_nodes(taught, lattice), on_nodes(taught, lattice).log_softmax(-1), lattice)
    assert same.item() == pytest.approx(0.0, abs=1e-9)


def test_without_a_window_it_is_the_cross_entropy_of_the_aligned_path():
    scores, total = scores_of_all(), torch.zeros((), dtype=torch.float64)
    lattice = Lattice.of(UTTERANCES, 0, 0)
    for score, one in zip(scores, UTTERANCES, strict=True):
        labels = torch.zeros(len(one.times), dtype=torch.int64)
        labels[one.starts] = torch.from_numpy(one.pieces)
        said = (labels != 0).cumsum(0) - (labels != 0).long()
        total = total + F.cross_entropy(score[torch.arange(len(labels)), said], labels, reduction="sum")
    assert len(lattice.frame) == sum(len(one.times) for one in UTTERANCES)  # a node for each frame
    torch.testing.assert_close(lattice_loss(on_nodes(scores, lattice), lattice).sum(), total)


def test_shares_of_every_frame_sum_to_one():
    lattice = Lattice.of(UTTERANCES, 3, 3)
    rng = np.random.default_rng(0)
    _, blank, piece = lattice.sums(*np.log(rng.uniform(0.01, 1.0, (2, len(lattice.frame)))))
    np.testing.assert_allclose(np.bincount(lattice.frame, blank + piece), 1.0)
    counts = np.bincount(lattice.utterance, piece, minlength=len(UTTERANCES))
    np.testing.assert_allclose(counts, [len(one.pieces) for one in UTTERANCES])


def test_long_utterances_do_not_underflow():
    starts = np.arange(5, 2000, 4)
    one = Aligned(np.arange(2000), starts, np.full(len(starts), 1))
    lattice = Lattice.of([one], 3, 3)
    scores = torch.zeros(len(lattice.frame), 500)
    scores[:, 0] = -30.0
    loss = lattice_loss(scores.requires_grad_(), lattice)
    loss.sum().backward()
    assert 30_000 < loss.item() < 60_000
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[:, 1].sum().item() == pytest.approx(-len(starts), rel=0.05)
