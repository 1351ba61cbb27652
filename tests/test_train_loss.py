# ruff: noqa: E402 - torch is looked for before the modules that import it
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the loss needs the extra `train`")

from edgeasr.encoder import Emissions
from edgeasr.train.crf import Denominator, crf_loss
from edgeasr.train.data import Batch
from edgeasr.train.loss import SequenceCriterion, consistency_loss, ctc_loss, training_loss, twice, views_loss
from edgeasr.train.phone_graph import PhoneGraph

T, V = 5, 3


def log_probs(rows: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(rows, T, V, generator=torch.Generator().manual_seed(seed))
    return logits.log_softmax(-1)


def batch(targets: list[list[int]], frames: list[int]) -> Batch:
    longest = max(map(len, targets))
    padded = torch.tensor([[*t, *[0] * (longest - len(t))] for t in targets])
    lengths = torch.tensor([len(t) for t in targets])
    none = torch.zeros(len(targets), 0, dtype=torch.int64), torch.zeros(len(targets), dtype=torch.int64)
    return Batch(torch.zeros(len(targets), 4 * T, 1), torch.tensor(frames), padded, lengths, *none)


def loss_of(emitted: torch.Tensor, given: Batch) -> torch.Tensor:
    return ctc_loss(emitted, given.frames, given.targets, given.target_lengths)


def by_brute_force(row: torch.Tensor, target: list[int], frames: int) -> float:
    """-log of the summed probability of every path that collapses to the target."""
    total = 0.0
    for path in itertools.product(range(V), repeat=frames):
        collapsed = [token for token, _ in itertools.groupby(path) if token != 0]
        if collapsed == target:
            total += float(row[range(frames), path].double().sum().exp())
    return -float(torch.tensor(total).double().log())


@pytest.mark.parametrize(
    ("target", "frames"),
    [([1], 5), ([1, 2], 5), ([1, 1], 5), ([2, 1, 2], 4), ([1, 2, 1, 2, 1], 5), ([2], 1)],
)
def test_the_loss_sums_over_all_paths(target, frames):
    emitted = log_probs(1)
    loss = loss_of(emitted, batch([target], [frames]))
    assert loss.item() == pytest.approx(by_brute_force(emitted[0], target, frames), rel=1e-5)


def test_the_loss_of_a_batch_is_the_sum_of_its_rows():
    targets, frames = [[1, 2], [1], [2, 1, 2]], [5, 3, 4]
    emitted = log_probs(3)
    rows = [by_brute_force(row, t, n) for row, t, n in zip(emitted, targets, frames, strict=True)]
    assert loss_of(emitted, batch(targets, frames)).item() == pytest.approx(sum(rows), rel=1e-5)


def test_frames_behind_the_end_of_a_row_do_not_count():
    emitted = log_probs(1)
    changed = torch.cat([emitted[:, :3], log_probs(1, seed=1)[:, 3:]], dim=1).requires_grad_()
    loss = loss_of(changed, batch([[1, 2]], [3]))
    assert loss.item() == loss_of(emitted, batch([[1, 2]], [3])).item()
    loss.backward()
    assert not changed.grad[:, 3:].any()
    assert changed.grad[:, :3].any()


def test_a_text_too_long_for_its_frames_counts_nothing():
    emitted = log_probs(2).requires_grad_()
    given = batch([[1, 1, 1, 1], [1, 2]], [5, 5])  # repeats need blanks between them: seven frames
    loss = loss_of(emitted, given)
    assert loss.item() == pytest.approx(by_brute_force(emitted.detach()[1], [1, 2], 5), rel=1e-5)
    loss.backward()
    assert not emitted.grad[0].any()
    assert torch.isfinite(emitted.grad).all()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_final_and_lower_emissions_are_weighed(weight):
    final, lower, given = log_probs(1), log_probs(1, seed=1), batch([[1, 2]], [5])
    want = (1 - weight) * loss_of(final, given) + weight * loss_of(lower, given)
    assert training_loss(Emissions(final, lower), given, weight, phone_weight=0.4).item() == pytest.approx(
        want.item(), rel=1e-6
    )


def test_phones_are_learnt_below_and_beside_the_characters():
    final, lower, phones = log_probs(1), log_probs(1, seed=1), log_probs(1, seed=2)
    given = batch([[1, 2]], [5])._replace(phones=torch.tensor([[2, 1, 2]]), phone_lengths=torch.tensor([3]))
    spoken = batch([[2, 1, 2]], [5])
    top = 0.75 * loss_of(final, given) + 0.25 * loss_of(phones, spoken)
    want = 0.7 * top + 0.3 * loss_of(lower, spoken)
    assert training_loss(Emissions(final, lower, phones), given, 0.3, 0.25).item() == pytest.approx(
        want.item(), rel=1e-6
    )


def test_a_sequence_criterion_takes_its_share_of_the_final_phones():
    final, lower, phones = log_probs(1), log_probs(1, seed=1), log_probs(1, seed=2)
    given = batch([[1, 2]], [5])._replace(phones=torch.tensor([[2, 1, 2]]), phone_lengths=torch.tensor([3]))
    emissions = Emissions(final, lower, phones)
    either = np.full((3, V), 1 / 3)
    sequence = Denominator(PhoneGraph(np.arange(3, dtype=np.int32), either, np.tile(np.int32([0, 1, 2]), (3, 1))))
    crf = crf_loss(phones, given.frames, given.phones, given.phone_lengths, sequence)
    spoken = loss_of(phones, batch([[2, 1, 2]], [5]))
    plain = training_loss(emissions, given, 0.3, 0.25)
    mixed = training_loss(emissions, given, 0.3, 0.25, SequenceCriterion(sequence, 0.9))
    assert mixed.item() == pytest.approx((plain + 0.7 * 0.25 * 0.9 * (crf - spoken)).item(), rel=1e-6)


def test_views_disagree_in_characters_and_phones():
    final, lower, phones, frames = log_probs(2), log_probs(2, seed=1), log_probs(2, seed=2), torch.tensor([T, T])
    characters, spoken = consistency_loss(final, frames), consistency_loss(phones, frames)
    assert views_loss(Emissions(final, lower), frames, 0.25).item() == characters.item()
    want = 0.75 * characters + 0.25 * spoken
    assert views_loss(Emissions(final, lower, phones), frames, 0.25).item() == pytest.approx(want.item(), rel=1e-6)


def test_the_gradient_is_that_of_the_loss():
    emitted = log_probs(1).double().requires_grad_()
    given = batch([[1, 2]], [5])
    assert torch.autograd.gradcheck(lambda x: loss_of(x.log_softmax(-1), given), emitted)


def test_a_batch_twice_has_the_views_one_after_the_other():
    doubled = twice(batch([[1, 2], [1]], [5, 3]))
    assert doubled.features.shape == (4, 4 * T, 1)
    assert doubled.frames.tolist() == [5, 3, 5, 3]
    assert doubled.targets.tolist() == [[1, 2], [1, 0], [1, 2], [1, 0]]
    assert doubled.target_lengths.tolist() == [2, 1, 2, 1]


def test_views_that_agree_cost_nothing_and_others_their_divergence_both_ways():
    one, other = log_probs(2), log_probs(2, seed=1)
    frames = torch.tensor([T, 3, T, 3])
    assert consistency_loss(torch.cat([one, one]), frames).item() == pytest.approx(0, abs=1e-6)
    p, q = one.exp(), other.exp()
    both = (p * (one - other)).sum(-1) + (q * (other - one)).sum(-1)
    want = both[0].sum() + both[1, :3].sum()
    assert consistency_loss(torch.cat([one, other]), frames).item() == pytest.approx(want.item(), rel=1e-5)


def test_a_view_is_drawn_to_the_other_which_is_held_fixed():
    logits = torch.randn(2, T, V, generator=torch.Generator().manual_seed(2)).requires_grad_()
    emitted = logits.log_softmax(-1)
    consistency_loss(emitted, torch.tensor([T, T])).backward()
    probabilities = emitted.detach().exp()
    torch.testing.assert_close(logits.grad, probabilities - probabilities.flip(0))
