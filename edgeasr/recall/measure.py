"""What is measured of a trained network: how often it recalls, and how much of a gradient reaches what it recalls."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgeasr.recall.models import Recaller
from edgeasr.recall.task import RecallTask
from edgeasr.recall.training import answers

# Streams run together, and vectors in a step: long streams go through the state, as on a device.
_BATCH = 32
_PIECE = 1000


@torch.no_grad()
def accuracy(
    model: Recaller, task: RecallTask, distance: int, questions: int, watch: Callable[[int], None]
) -> tuple[float, int]:
    """Share of questions answered right on new streams, and their number: `questions` or some more.

    watch: told the number of questions asked so far
    """
    generator = torch.Generator().manual_seed(1000 + distance)
    model.eval()
    right = asked = 0
    while asked < questions:
        streams = task.at_distance(distance, _BATCH, generator)
        given = answers(_in_pieces(model, streams.inputs), streams.asked_at).argmax(dim=-1)
        right += int((given == streams.answer).sum())
        asked += given.numel()
        watch(asked)
    return right / asked, asked


def gradient_norm(model: Recaller, task: RecallTask, distance: int, streams: int = 4) -> float:
    """Norm of the gradient of an answer's log-odds with respect to the vector of its pair; median of so many streams.

    Log-odds, not the loss: the gradient of a loss vanishes also where an answer is sure.
    """
    generator = torch.Generator().manual_seed(2000 + distance)
    drawn = task.at_distance(distance, streams, generator)
    inputs = drawn.inputs.requires_grad_()
    model.eval()
    given = answers(model(inputs), drawn.asked_at[:, :1])[:, 0].log_softmax(dim=-1)
    odds = given.gather(1, drawn.answer[:, :1])[:, 0]
    wrong = torch.ones_like(given, dtype=torch.bool).scatter(1, drawn.answer[:, :1], False)
    others = given.masked_fill(~wrong, float("-inf")).logsumexp(dim=-1)
    (gradient,) = torch.autograd.grad((odds - others).sum(), inputs)
    at_pair = gradient.gather(1, drawn.pair_at[:, :1, None].expand(-1, -1, gradient.shape[2]))[:, 0]
    return float(at_pair.norm(dim=-1).median())


def _in_pieces(model: Recaller, x: Tensor) -> Tensor:
    """`forward` in steps of many vectors, so that memory does not grow with the stream."""
    state, parts = model.init_state(x.shape[0]), []
    for piece in torch.split(x, _PIECE, dim=1):
        y, state = model.step(piece, state)  # type: ignore[arg-type]  # each network has a state of its own
        parts.append(y)
    return torch.cat(parts, dim=1)
