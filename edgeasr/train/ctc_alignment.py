"""When each token of a known text is heard: the best CTC path through the emissions (Viterbi)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeasr.train.crf import Doubles

Ints = NDArray[np.int64]

_BLANK_ID = 0
_STAYS, _MOVES, _SKIPS = 0, 1, 2


class Alignment(NamedTuple):
    """The likeliest of the paths that spell the targets.

    heard:    (T,) which of the targets is in each frame, counted from 0; -1 in a frame of blank. Every target is in
        one frame or more that lie together, and targets come in their order
    log_prob: of the path
    """

    heard: Ints
    log_prob: float

    def starts(self) -> Ints:
        """The first frame of each target, (U,)."""
        _, first = np.unique(self.heard, return_index=True)
        return first[self.heard[first] >= 0]

    def ends(self) -> Ints:
        """One behind the last frame of each target, (U,)."""
        _, last = np.unique(self.heard[::-1], return_index=True)
        last = len(self.heard) - last
        return last[self.heard[last - 1] >= 0]


def align(log_probs: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> Alignment | None:
    """The best path of tokens through frames.

    log_probs: (T, V), the blank first, T of 1 or more; targets: (U,) token ids, none of them the blank
    returns:   None where the targets need more frames: one each, and one between two that are equal
    """
    labels = np.full(2 * len(targets) + 1, _BLANK_ID)
    labels[1::2] = targets
    heard = log_probs[:, labels].astype(np.float64)  # (T, S)
    best, came = _forward(heard, _skip_costs(labels))
    place = len(labels) - 1
    if place and best[place - 1] >= best[place]:
        place -= 1
    if not np.isfinite(best[place]):
        return None
    places = np.empty(len(heard), np.int64)
    for t in range(len(heard) - 1, -1, -1):
        places[t] = place
        place -= int(came[t, place])
    return Alignment(np.where(places % 2 == 1, places // 2, -1), float(best[places[-1]]))


def _skip_costs(labels: Ints) -> Doubles:
    """0 for a place that may be reached past the blank before it: that of a token other than the last one."""
    costs = np.full(len(labels), -np.inf)
    costs[3::2][labels[3::2] != labels[1:-2:2]] = 0.0
    return costs


def _forward(heard: Doubles, skip_costs: Doubles) -> tuple[Doubles, NDArray[np.int8]]:
    """What the best path to each place weighs after the last frame, (S,), and how far it came from in each, (T, S)."""
    frames, places = heard.shape
    came = np.zeros((frames, places), np.int8)
    weights = np.full(places + 2, -np.inf)  # two before the first place, from where no path comes
    weights[2:4] = heard[0, :2]
    for t in range(1, frames):
        stays, moves, skips = weights[2:], weights[1:-1], weights[:-2] + skip_costs
        came[t] = np.where(moves > stays, _MOVES, _STAYS)
        best = np.maximum(stays, moves)
        came[t][skips > best] = _SKIPS
        weights[2:] = np.maximum(best, skips) + heard[t]
    return weights[2:], came
