"""Sequence training of phones: CTC normalised over what phones may follow what (CTC-CRF, arXiv 1911.08747).

A path through the frames weighs what the emissions give it times what a phone model gives its phones. The loss is
-log of the share that the paths of the right phones have in the weight of all paths: the numerator is CTC, the
denominator a sum over the paths through a `PhoneGraph`. So the emissions are taught what the phone model does not say.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeasr.train.phone_graph import PhoneGraph

Doubles = NDArray[np.float64]
_BLANK_ID = 0


class Denominator:
    """The sum over all paths of frames through a graph, and how much of it goes through each phone in each frame.

    The CTC topology makes two places of a state: within the label by which it was reached, and in a blank after it.
    What is in each is scaled to sum to 1 in every frame (Rabiner 1989, section V.A), so that no length underflows.
    """

    def __init__(self, graph: PhoneGraph) -> None:
        self.graph = graph
        states, phones = graph.probs.shape
        source, target = np.arange(states).repeat(phones - 1), graph.next[:, 1:].ravel()
        # The same label again is a new phone only after a blank.
        again = graph.labels[source] == graph.labels[target]

        def arcs(which: NDArray[np.bool_]) -> Any:
            weights = graph.probs[:, 1:].ravel()[which]
            return scipy.sparse.csr_array((weights, (source[which], target[which])), (states, states))

        self._other, self._again = arcs(~again), arcs(again)
        self._other_reversed, self._again_reversed = self._other.T.tocsr(), self._again.T.tocsr()
        self._labels, self._final = graph.labels, graph.probs[:, :1]
        self._by_label = scipy.sparse.csr_array((np.ones(states), (graph.labels, np.arange(states))), (phones, states))

    def __call__(self, log_probs: Doubles, frames: NDArray[np.int64]) -> tuple[Doubles, Doubles]:
        """log_probs: (B, T, P); frames: (B,), 1 or more

        returns: log of the sum, (B,), and the share of it that goes through each phone in each frame, (B, T, P),
        0 behind the end of a row
        """
        heard = np.ascontiguousarray(log_probs.transpose(1, 2, 0), np.float64)  # (T, P, B)
        peaks = heard.max(axis=1)
        probs = np.exp(heard - peaks[:, None])
        places, scales = self._forward(probs)
        log_scales = (np.log(scales) + peaks).cumsum(axis=0)
        last, rows = frames - 1, np.arange(len(frames))
        ended = places[last, :, :, rows].sum(axis=1) @ self._final
        shares = self._backward(probs, places, scales, last)
        return log_scales[last, rows] + np.log(ended[:, 0]), shares.transpose(2, 0, 1)

    def _forward(self, probs: Doubles) -> tuple[Doubles, Doubles]:
        """What is in each place after each frame, (T, 2, S, B), labels before blanks, and by what it was divided."""
        frames, _, rows = probs.shape
        places, scales = np.empty((frames, 2, len(self._labels), rows)), np.empty((frames, rows))
        label, blank = np.zeros((2, len(self._labels), rows))
        blank[0] = 1.0
        for t, heard in enumerate(probs):
            either = label + blank
            label = (label + self._other_reversed @ either + self._again_reversed @ blank) * heard[self._labels]
            blank = either * heard[_BLANK_ID]
            scales[t] = (label + blank).sum(axis=0)
            label, blank = places[t] = np.stack([label, blank]) / scales[t]
        return places, scales

    def _backward(self, probs: Doubles, places: Doubles, scales: Doubles, last: NDArray[np.int64]) -> Doubles:
        """Shares of the phones, (T, P, B). last: (B,) the last frame of each row"""
        shares = np.zeros(probs.shape)
        from_label, from_blank = np.zeros(places.shape[1:])
        for t in range(int(last.max()), -1, -1):
            if t < last.max():
                label, blank = from_label * probs[t + 1, self._labels], from_blank * probs[t + 1, _BLANK_ID]
                either = blank + self._other @ label
                from_label, from_blank = (
                    (either + label) / scales[t + 1],
                    (either + self._again @ label) / scales[t + 1],
                )
            ends = last == t
            from_label[:, ends] = from_blank[:, ends] = self._final
            shares[t] = self._by_label @ (places[t, 0] * from_label)
            shares[t, _BLANK_ID] = (places[t, 1] * from_blank).sum(axis=0)
            heard = last >= t
            shares[t, :, heard] /= shares[t, :, heard].sum(axis=1, keepdims=True)
        return shares


class _LogSum(torch.autograd.Function):
    """The log of the sum, whose gradient is the shares."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, frames: Tensor, denominator: Denominator) -> Tensor:
        total, shares = denominator(log_probs.detach().cpu().numpy(), frames.cpu().numpy())
        ctx.save_for_backward(torch.from_numpy(shares).to(log_probs))
        return torch.from_numpy(total).to(log_probs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (shares,) = ctx.saved_tensors
        return gradients[0][:, None, None] * shares, None, None


def log_sum(log_probs: Tensor, frames: Tensor, denominator: Denominator) -> Tensor:
    """(B,) the log of the summed weight of all paths; the arguments are as in `Denominator`."""
    total: Tensor = _LogSum.apply(log_probs, frames, denominator)  # type: ignore[no-untyped-call]
    return total


def crf_loss(emitted: Tensor, frames: Tensor, phones: Tensor, lengths: Tensor, denominator: Denominator) -> Tensor:
    """-log of the share of the right phones in all paths, summed over the batch; rows without a path count 0.

    emitted: (B, T, P) log-probabilities; frames: (B,); phones: (B, U) ids; lengths: (B,)
    returns: ()
    """
    missed = F.ctc_loss(emitted.transpose(0, 1), phones, frames, lengths, reduction="none", zero_infinity=True)
    spoken = [ids[:length] for ids, length in zip(phones.tolist(), lengths.tolist(), strict=True)]
    expected = emitted.new_tensor([denominator.graph.log_prob(ids) for ids in spoken])
    # A phone that comes twice in a row needs a blank between.
    needed = torch.tensor([len(ids) + sum(a == b for a, b in pairwise(ids)) for ids in spoken]).to(frames)
    losses = log_sum(emitted, frames, denominator) + missed - expected
    return losses[frames >= needed].sum()
