"""Frames to train a transducer on: what was heard around each, what was said before it, what begins in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeasr.train.ctc_alignment import Ints
from edgeasr.train.frame_files import FrameFile
from edgeasr.train.transducer_config import DamageConfig, HeadConfig, TransducerConfig
from edgeasr.transducer_decoder import SURE_BLANK

_BLANK_ID = 0


class Frames(NamedTuple):
    """Frames with what a transducer is given and what it is to say."""

    outputs: Tensor  # (B, W, C)
    absent: Tensor  # (B, W) bool
    context: Tensor  # (B, K)
    own: Tensor  # (B, K) the context as it would have been said itself; the same while that is not known
    labels: Tensor  # (B,)

    @classmethod
    def joined(cls, parts: list[Frames]) -> Frames:
        """One behind the other."""
        return cls(*(torch.cat(some) for some in zip(*parts, strict=True)))


class FrameSet:
    """The frames of a file that are worth training on: all but sure blanks, and a share of these."""

    def __init__(self, file: FrameFile, config: HeadConfig, begin: int, blank_share: float, seed: int) -> None:
        """begin: the "piece" before the first. raises: BundleError for a file that is not whole"""
        self.name = file.path.stem
        self.own: Ints | None = None
        self._outputs, self._config = file.outputs(), config
        labels = file.labels.astype(np.int64)
        says = labels != _BLANK_ID
        kept = np.random.default_rng(seed).random(len(labels)) < blank_share
        self._frames = np.flatnonzero(says | (file.blanks < SURE_BLANK) | kept)
        self._labels = labels[self._frames]
        row = np.repeat(np.arange(len(file.ends)), file.ends - file.starts)
        self._starts, self._ends = file.starts[row[self._frames]], file.ends[row[self._frames]]
        # Pieces of all rows, one after another, each row's behind a context in which nothing was said.
        place = np.cumsum(says) - says + config.context * (row + 1)
        self._pieces = np.full(int(says.sum()) + config.context * len(file.ends), begin)
        self._pieces[place[says]] = labels[says]
        self._own_pieces = self._pieces
        self._said = place[self._frames]
        self.piece_counts = np.bincount(labels[says], minlength=begin)

    def __len__(self) -> int:
        return len(self._frames)

    def draw(self, count: int, rng: np.random.Generator) -> Frames:
        """So many frames, at random and with replacement."""
        return self.frames(rng.integers(0, len(self), count))

    def frames(self, numbers: Ints) -> Frames:
        """Those of these numbers, from 0 to the length."""
        config = self._config
        window = self._frames[numbers, None] + np.arange(-config.behind, config.ahead + 1)
        absent = (window < self._starts[numbers, None]) | (window >= self._ends[numbers, None])
        outputs = self._outputs[window.clip(0, len(self._outputs) - 1)].astype(np.float32)
        before = self._said[numbers, None] + np.arange(-config.context, 0)
        context, own = self._pieces[before], self._own_pieces[before]
        return Frames(*map(torch.from_numpy, (outputs, absent, context, own, self._labels[numbers])))

    @property
    def begun(self) -> Ints:
        """Numbers of the frames in which a piece begins, in their order."""
        return np.flatnonzero(self._labels != _BLANK_ID)

    def set_own(self, own: Ints) -> None:
        """What a head says itself where a piece begins: contexts are told with these, too."""
        self.own, self._own_pieces = own, self._pieces.copy()
        self._own_pieces[self._said[self.begun]] = own


class Shards:
    """Sets of frames, few of them open at a time: a function of the step, so that a run goes on where it was."""

    def __init__(self, files: Sequence[FrameFile], config: TransducerConfig, begin: int) -> None:
        self._files, self._config, self._begin = files, config, begin
        self._open: dict[int, FrameSet] = {}

    def at(self, step: int) -> list[FrameSet]:
        """Those to draw from in a step."""
        turn, wanted = step // self._config.shard_steps, min(self._config.shards_open, len(self._files))
        numbers = sorted({self._number(turn + i) for i in range(wanted)})
        self._open = {number: self._open.get(number) or self._opened(number) for number in numbers}
        return list(self._open.values())

    def _number(self, turn: int) -> int:
        again, at = divmod(turn, len(self._files))
        return int(np.random.default_rng([self._config.seed, again]).permutation(len(self._files))[at])

    def _opened(self, number: int) -> FrameSet:
        config = self._config
        return FrameSet(self._files[number], config.head, self._begin, config.blank_share, config.seed + number)


def damaged(frames: Frames, head: HeadConfig, config: DamageConfig, piece_counts: NDArray[np.int64]) -> Frames:
    """Frames with errors in their contexts and holes in their windows, drawn from torch's generator.

    piece_counts: (V,) wrong pieces are drawn by them; the last piece that no context holds is V
    """
    rows, begin = len(frames.labels), len(piece_counts)
    place = torch.arange(-head.behind, head.ahead + 1)
    seen = torch.full((rows, 1), head.ahead)
    if head.ahead:
        seen = torch.where(torch.rand(rows, 1) < config.ends, torch.randint(head.ahead, (rows, 1)), seen)
    lost = (torch.rand(rows, head.window) < config.lost_frames) & (place != 0)
    own = torch.rand(frames.context.shape) < 2 * config.own_errors * torch.rand(rows, 1)
    share = 2 * config.wrong_pieces * torch.rand(rows, 1)
    wrong = (torch.rand(frames.context.shape) < share) & (frames.context != begin)
    weights = torch.from_numpy(piece_counts).float()
    other = torch.multinomial(weights, frames.context.numel(), replacement=True).view_as(frames.context)
    context = torch.where(wrong, other, torch.where(own, frames.own, frames.context))
    return frames._replace(absent=frames.absent | (place > seen) | lost, context=context)
