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
from edgeasr.train.transducer_lattice import Aligned
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


class Utterance(NamedTuple):
    """The F frames of a row in which CTC is not sure of a blank, and the contexts before and behind its U pieces."""

    outputs: Tensor  # (F, W, C)
    absent: Tensor  # (F, W) bool
    context: Tensor  # (U + 1, K)
    own: Tensor  # (U + 1, K) as in `Frames`
    aligned: Aligned

    def with_short_context(self, known: int, begin: int) -> Utterance:
        """The same where no more than so many pieces are known, as at the beginning of a segment."""
        context, own = self.context.clone(), self.own.clone()
        context[:, :-known] = own[:, :-known] = begin
        return self._replace(context=context, own=own)


class FrameSet:
    """The frames of a file that are worth training on: all but sure blanks, and a share of these."""

    def __init__(self, file: FrameFile, config: HeadConfig, begin: int, blank_share: float, seed: int) -> None:
        """begin: the "piece" before the first. raises: BundleError for a file that is not whole"""
        self.name = file.path.stem
        self.own: Ints | None = None
        self._outputs, self._config = file.outputs(), config
        labels = file.labels.astype(np.int64)
        says = labels != _BLANK_ID
        unsure = says | (file.blanks < SURE_BLANK)
        kept = np.random.default_rng(seed).random(len(labels)) < blank_share
        self._frames = np.flatnonzero(unsure | kept)
        self._labels = labels[self._frames]
        row = np.repeat(np.arange(len(file.ends)), file.ends - file.starts)
        self._starts, self._ends = file.starts[row[self._frames]], file.ends[row[self._frames]]
        # Of the unsure frames, their numbers, and where those of each row begin, of rows that have some.
        self._unsure = np.flatnonzero(unsure[self._frames])
        _, self._utterances = np.unique(row[self._frames[self._unsure]], return_index=True)
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
        windows, contexts = self._windows(numbers), self._contexts(self._said[numbers])
        return Frames(*windows, *contexts, torch.from_numpy(self._labels[numbers]))

    @property
    def num_utterances(self) -> int:
        """Rows of which CTC is not sure that all is blank."""
        return len(self._utterances)

    def utterance(self, number: int) -> Utterance:
        """The one of this number, from 0 to `num_utterances`."""
        stops = np.append(self._utterances[1:], len(self._unsure))
        numbers = self._unsure[self._utterances[number] : stops[number]]
        labels = self._labels[numbers]
        starts = np.flatnonzero(labels != _BLANK_ID)
        places = self._said[numbers[0]] + np.arange(len(starts) + 1)
        aligned = Aligned(self._frames[numbers], starts, labels[starts])
        return Utterance(*self._windows(numbers), *self._contexts(places), aligned)

    def _windows(self, numbers: Ints) -> tuple[Tensor, Tensor]:
        """What is around frames, and what of it is absent."""
        window = self._frames[numbers, None] + np.arange(-self._config.behind, self._config.ahead + 1)
        absent = (window < self._starts[numbers, None]) | (window >= self._ends[numbers, None])
        outputs = self._outputs[window.clip(0, len(self._outputs) - 1)].astype(np.float32)
        return torch.from_numpy(outputs), torch.from_numpy(absent)

    def _contexts(self, places: Ints) -> tuple[Tensor, Tensor]:
        """The pieces before places, the true ones and its own."""
        before = places[:, None] + np.arange(-self._config.context, 0)
        return torch.from_numpy(self._pieces[before]), torch.from_numpy(self._own_pieces[before])

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


def with_holes(absent: Tensor, head: HeadConfig, config: DamageConfig) -> Tensor:
    """Windows (B, W), true where there is no frame, with more of these, drawn from torch's generator."""
    rows = len(absent)
    place = torch.arange(-head.behind, head.ahead + 1)
    seen = torch.full((rows, 1), head.ahead)
    if head.ahead:
        seen = torch.where(torch.rand(rows, 1) < config.ends, torch.randint(head.ahead, (rows, 1)), seen)
    lost = (torch.rand(rows, head.window) < config.lost_frames) & (place != 0)
    return absent | (place > seen) | lost


def with_errors(context: Tensor, own: Tensor, config: DamageConfig, piece_counts: NDArray[np.int64]) -> Tensor:
    """Contexts (B, K) with pieces that it says itself and with wrong ones, drawn from torch's generator.

    piece_counts: (V,) wrong pieces are drawn by them; the last piece that no context holds is V
    """
    rows, begin = len(context), len(piece_counts)
    told = torch.rand(context.shape) < 2 * config.own_errors * torch.rand(rows, 1)
    share = 2 * config.wrong_pieces * torch.rand(rows, 1)
    wrong = (torch.rand(context.shape) < share) & (context != begin)
    weights = torch.from_numpy(piece_counts).float()
    other = torch.multinomial(weights, context.numel(), replacement=True).view_as(context)
    return torch.where(wrong, other, torch.where(told, own, context))
