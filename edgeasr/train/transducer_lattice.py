"""The sum over the alignments near a known one, by which a transducer is trained on (Graves 2012, arXiv 1211.3711).

One piece a frame at most, as it decodes (Tripathi et al. 2019, monotonic transducers), and every piece begins within
some frames of where it was aligned (Mahadeokar et al. 2020, arXiv 2011.03072): few of all pairs of a frame and what
was said before it are on such a path, and no others are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeasr.train.crf import Doubles
from edgeasr.train.ctc_alignment import Ints

_BLANK_ID = 0
_NOWHERE, _END = -1, -2


class Aligned(NamedTuple):
    """An utterance of F frames and U pieces, as aligned; F is 1 or more.

    times:  (F,) when each frame is, rising: those of sure blanks are left out
    starts: (U,) which of the frames each piece begins in, rising
    pieces: (U,) token ids
    """

    times: Ints
    starts: Ints
    pieces: Ints


class _Nodes(NamedTuple):
    """Nodes by their frames; where they lead is a number of a node, or one of the negative ones above."""

    frame: Ints
    said: Ints  # how many pieces
    piece: Ints
    blank_to: Ints
    piece_to: Ints


@dataclass(frozen=True)
class Lattice:
    """What paths through B utterances pass: N nodes, each a frame and the pieces before it, first frames first.

    From a node a path goes on to another of the next frame, with a blank or with the next piece; behind the last frame
    to N + b, the end of utterance b; where it may not, to N + B, which is nowhere.
    """

    frame: Ints  # (N,) counted through the frames of all utterances
    context: Ints  # (N,) counted through their contexts: one more each than pieces
    piece: Ints  # (N,) that may begin, or that could begin elsewhere; the blank where none is left
    utterance: Ints  # (N,)
    blank_to: Ints  # (N,)
    piece_to: Ints  # (N,)
    levels: Ints  # (L + 1,) where the nodes of first, second and later frames begin

    @classmethod
    def of(cls, utterances: Sequence[Aligned], before: int, after: int) -> Lattice:
        """Pieces begin up to so many frames before and after where they were aligned."""
        made = [_nodes(one, before, after) for one in utterances]
        nodes = _Nodes(*map(np.concatenate, zip(*made, strict=True)))
        counts = np.array([len(one.frame) for one in made])
        utterance = np.repeat(np.arange(len(made)), counts)
        order = np.argsort(nodes.frame, kind="stable")
        number = np.argsort(order)

        def counted(numbers: Ints, of_each: Ints) -> Ints:
            """Numbers within utterances to numbers through all of them."""
            through: Ints = numbers + (np.cumsum(of_each) - of_each)[utterance]
            return through

        def linked(to: Ints) -> Ints:
            behind = len(order) + np.where(to == _END, utterance, len(made))
            return np.where(to < 0, behind, number[counted(to.clip(0), counts)])[order]

        return cls(
            frame=counted(nodes.frame, np.array([len(one.times) for one in utterances]))[order],
            context=counted(nodes.said, np.array([len(one.pieces) + 1 for one in utterances]))[order],
            piece=nodes.piece[order],
            utterance=utterance[order],
            blank_to=linked(nodes.blank_to),
            piece_to=linked(nodes.piece_to),
            levels=np.searchsorted(nodes.frame[order], np.arange(nodes.frame.max() + 2)),
        )

    @property
    def num_utterances(self) -> int:
        """B."""
        return int(self.levels[1])  # before its first frame nothing was said

    def sums(self, blank: Doubles, piece: Doubles) -> tuple[Doubles, Doubles, Doubles]:
        """Log-probabilities of going on with a blank and with the piece, (N,) each, to those of all paths together.

        returns: (B,) their log, and the shares of them that go on with a blank and with the piece, (N,) each
        """
        came = self._came(blank, piece)
        left = self._left(blank, piece)
        nodes = len(self.frame)
        totals = left[: self.num_utterances]
        so_far = came[:nodes] - totals[self.utterance]
        return totals, np.exp(so_far + blank + left[self.blank_to]), np.exp(so_far + piece + left[self.piece_to])

    def _came(self, blank: Doubles, piece: Doubles) -> Doubles:
        """The log-weight of all paths to each node; the ends are left out."""
        nodes = len(self.frame)
        came = np.full(nodes + self.num_utterances + 1, -np.inf)
        came[: self.num_utterances] = 0.0
        for here in self._in_turn():
            with_blank, with_piece = self.blank_to[here], self.piece_to[here]
            # No two blanks go to one node, and no two pieces.
            came[with_blank] = np.logaddexp(came[with_blank], came[here] + blank[here])
            came[with_piece] = np.logaddexp(came[with_piece], came[here] + piece[here])
            came[-1] = -np.inf
        return came

    def _left(self, blank: Doubles, piece: Doubles) -> Doubles:
        """The log-weight of all paths from each node to the end of its utterance."""
        left = np.zeros(len(self.frame) + self.num_utterances + 1)
        left[-1] = -np.inf
        for here in reversed(list(self._in_turn())):
            left[here] = np.logaddexp(blank[here] + left[self.blank_to[here]], piece[here] + left[self.piece_to[here]])
        return left

    def _in_turn(self) -> Iterator[slice]:
        return (slice(start, stop) for start, stop in zip(self.levels[:-1], self.levels[1:], strict=True))


def _nodes(one: Aligned, before: int, after: int) -> _Nodes:
    """Those of one utterance, numbered from 0."""
    frames, pieces, aligned = len(one.times), len(one.pieces), one.times[one.starts]
    infinite = np.iinfo(np.int64)
    earliest = np.concatenate([[infinite.min], aligned - before + 1])  # behind the last piece, at its earliest
    latest = np.concatenate([aligned + after, [infinite.max]])
    there = (one.times[:, None] >= earliest) & (one.times[:, None] <= latest)
    # No more pieces than frames before, and no more left than frames.
    left = np.arange(frames)[:, None] - np.arange(pieces + 1)
    there &= (left >= 0) & (left <= frames - pieces)
    frame, said = np.nonzero(there)
    numbers = np.full((frames + 1, pieces + 2), _NOWHERE)
    numbers[frame, said] = np.arange(len(frame))
    numbers[frames, pieces] = _END
    begins = np.concatenate([aligned - before, [infinite.max]])[said] <= one.times[frame]
    return _Nodes(
        frame,
        said,
        np.concatenate([one.pieces, [_BLANK_ID]])[said],
        numbers[frame + 1, said],
        np.where(begins, numbers[frame + 1, said + 1], _NOWHERE),
    )


class _LogSums(torch.autograd.Function):
    """The logs of the sums, whose gradients are the shares."""

    @staticmethod
    def forward(ctx: Any, blank: Tensor, piece: Tensor, lattice: Lattice) -> Tensor:
        weights: list[NDArray[Any]] = [part.detach().cpu().double().numpy() for part in (blank, piece)]
        totals, *shares = (torch.from_numpy(array).to(blank) for array in lattice.sums(weights[0], weights[1]))
        ctx.save_for_backward(*shares, torch.from_numpy(lattice.utterance).to(blank.device))
        return totals

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        blank, piece, utterance = ctx.saved_tensors
        gradient = gradients[0][utterance]
        return gradient * blank, gradient * piece, None


def lattice_loss(scores: Tensor, lattice: Lattice) -> Tensor:
    """-log of the probability of all paths of each utterance, (B,).

    scores: (N, V), log-probabilities but for a constant; the blank is the first token
    """
    blank, said = _ways(scores.log_softmax(-1), lattice)
    totals: Tensor = _LogSums.apply(blank, said, lattice)  # type: ignore[no-untyped-call]
    return -totals


def taught_loss(scores: Tensor, taught: Tensor, lattice: Lattice) -> Tensor:
    """How far scores are from a teacher's at every node, as often as a path of the teacher's passes there, ().

    Distillation (Hinton et al. 2015, arXiv 1503.02531) along the paths of a text (Panchapagesan et al. 2021,
    arXiv 2011.06110, which keeps three of the tokens): the sum of the Kullback-Leibler divergences.

    scores: (N, V), as in `lattice_loss`
    taught: (N, V), log-probabilities of the teacher
    """
    blank, said = (part.detach().cpu().double().numpy() for part in _ways(taught, lattice))
    _, with_blank, with_piece = lattice.sums(blank, said)
    passes = torch.from_numpy(with_blank + with_piece).to(scores)
    divergence = (taught.exp() * (taught - scores.log_softmax(-1))).sum(-1)
    return (passes * divergence).sum()


def _ways(log_probs: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor]:
    """Of going on with a blank and with the piece, (N,) each."""
    piece = torch.from_numpy(lattice.piece).to(log_probs.device)
    return log_probs[:, _BLANK_ID], log_probs.gather(1, piece[:, None])[:, 0]
