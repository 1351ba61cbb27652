import itertools
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.train.ctc_alignment import align

V = 3


def emissions(frames: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).standard_normal((frames, V))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def best_of_all(log_probs: np.ndarray, targets: list[int]) -> float:
    """The weight of the best among all paths that spell the targets."""
    frames = len(log_probs)
    spelling = (
        sum(log_probs[t, token] for t, token in enumerate(path))
        for path in itertools.product(range(V), repeat=frames)
        if [token for token, _ in itertools.groupby(path) if token] == targets
    )
    return max(spelling, default=-math.inf)


@pytest.mark.parametrize("targets", [[], [1], [2, 1], [1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 1, 2]])
@pytest.mark.parametrize("frames", [1, 2, 4, 6])
def test_the_path_is_the_best_of_all_that_spell_the_targets(targets, frames):
    for seed in range(5):
        log_probs = emissions(frames, seed)
        want = best_of_all(log_probs, targets)
        found = align(log_probs, np.array(targets, np.int64))
        if want == -math.inf:
            assert found is None
            continue
        path = [0 if u < 0 else targets[u] for u in found.heard]
        # The number of the target tells repeats apart, so the path spells the targets, whatever they are.
        assert [u for u, _ in itertools.groupby(found.heard.tolist()) if u >= 0] == list(range(len(targets)))
        assert [token for token, _ in itertools.groupby(path) if token] == targets
        assert found.log_prob == pytest.approx(want, rel=1e-12)
        assert sum(log_probs[t, token] for t, token in enumerate(path)) == pytest.approx(want, rel=1e-12)


def test_starts_and_ends_are_those_of_the_targets():
    # Frames of blank, 1 1, blank, 1, 2 2 2, as clear as can be.
    path = [0, 1, 1, 0, 1, 2, 2, 2]
    log_probs = np.log(np.where(np.eye(V)[path] == 1, 0.98, 0.01))
    found = align(log_probs, np.array([1, 1, 2]))
    assert found.heard.tolist() == [-1, 0, 0, -1, 1, 2, 2, 2]
    assert found.starts().tolist() == [1, 4, 5]
    assert found.ends().tolist() == [3, 5, 8]
    silent = align(log_probs, np.array([], np.int64))
    assert silent.starts().tolist() == silent.ends().tolist() == []


def test_half_precision_and_long_recordings_align():
    path = np.tile([0, 1, 2, 0, 2], 2_000)
    log_probs = np.log(np.where(np.eye(V)[path] == 1, 0.9, 0.05)).astype(np.float16)
    found = align(log_probs, path[path > 0].astype(np.int16))
    assert np.where(found.heard < 0, 0, path).tolist() == path.tolist()
    assert found.starts().tolist() == np.flatnonzero(path).tolist()
