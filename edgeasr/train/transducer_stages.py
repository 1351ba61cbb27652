"""The stages of a transducer's training: text alone, then single frames as aligned, then whole utterances near it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeasr.train.loop import learning_rate
from edgeasr.train.piece_text import PieceText
from edgeasr.train.transducer_config import LatticeConfig, ScheduleConfig, TextConfig, TransducerConfig
from edgeasr.train.transducer_frames import Frames, FrameSet, Utterance, with_errors, with_holes
from edgeasr.train.transducer_lattice import Lattice, lattice_loss, taught_loss
from edgeasr.train.transducer_teachers import Teachers

# Of outputs, absent and context, and of pairs of them, as `TransducerHead.forward`; in float32.
Score = Callable[[Tensor | None, Tensor | None, Tensor, Tensor | None], Tensor]

# Pieces of a short context, at most.
_SHORT = 3


class Sets(NamedTuple):
    """What is drawn from in a step.

    speech:       passes over training speech
    piece_counts: (V,) by which wrong pieces are drawn
    text:         while it is learned alone
    """

    speech: Sequence[FrameSet]
    sentences: Sequence[FrameSet]
    noise: Sequence[FrameSet]
    piece_counts: NDArray[np.int64]
    text: PieceText | None


@dataclass(frozen=True)
class Stage(ABC):
    """Some steps of a training. world: processes that share each of them"""

    config: TransducerConfig
    world: int

    name: ClassVar[str]

    @property
    @abstractmethod
    def settings(self) -> ScheduleConfig:
        """Its own."""

    @property
    def steps(self) -> int:
        """How many; the other methods are for those from 0 to before it."""
        return self.settings.steps

    @property
    def ema_decay(self) -> float:
        """Of the averaged weights, once steps are many."""
        return self.settings.ema_decay

    def rate(self, step: int) -> float:
        """How far the optimiser goes."""
        return learning_rate(step, self.settings.peak_rate, self.settings.warmup_steps, self.steps)

    @abstractmethod
    def loss(self, score: Score, sets: Sets, rng: np.random.Generator) -> Tensor:
        """Of what this process draws in one step, from `rng` and torch's generator, ()."""


class TextStage(Stage):
    """Cross entropy of the pieces of text, given those before, of which some are wrong: the language model alone."""

    name = "text"

    @property
    def settings(self) -> TextConfig:
        return self.config.text

    def loss(self, score: Score, sets: Sets, rng: np.random.Generator) -> Tensor:
        assert sets.text is not None
        context, pieces = sets.text.draw(max(1, self.settings.pieces // self.world), rng)
        context = with_errors(context, context, self.config.damage, sets.piece_counts)
        scores = score(None, None, context, None)
        return F.cross_entropy(scores, pieces.to(scores.device))


class FrameStage(Stage):
    """Cross entropy of frames: what begins in each (Hu et al. 2020, arXiv 2005.00572)."""

    name = "aligned frames"

    @property
    def settings(self) -> TransducerConfig:
        return self.config

    def loss(self, score: Score, sets: Sets, rng: np.random.Generator) -> Tensor:
        head, damage = self.config.head, self.config.damage
        frames = self._drawn(sets, rng)
        absent = with_holes(frames.absent, head, damage)
        context = with_errors(frames.context, frames.own, damage, sets.piece_counts)
        scores = score(frames.outputs, absent, context, None)
        return F.cross_entropy(scores, frames.labels.to(scores.device))

    def _drawn(self, sets: Sets, rng: np.random.Generator) -> Frames:
        """Frames of one pass over training speech, of noise, of every open shard."""
        config = self.config
        count = max(1, config.batch_frames // self.world)
        shares = [(sets.speech[int(rng.integers(len(sets.speech)))], round(count * config.speech_share))]
        shares += [(one, round(count * config.noise_share)) for one in sets.noise]
        left = max(0, count - sum(share for _, share in shares))
        shares += [(one, (left + i) // len(sets.sentences)) for i, one in enumerate(sets.sentences)]
        return Frames.joined([one.draw(share, rng) for one, share in shares if share])


@dataclass(frozen=True)
class LatticeStage(Stage):
    """The sum over the alignments near the aligned one, of utterances, and what teachers say on the way."""

    teachers: Teachers | None = None

    name = "nearby alignments"

    @property
    def settings(self) -> LatticeConfig:
        return self.config.lattice

    def loss(self, score: Score, sets: Sets, rng: np.random.Generator) -> Tensor:
        """For each piece of the texts; all the noise counts."""
        head, damage = self.config.head, self.config.damage
        drawn = self._drawn(sets, rng)
        lattice = Lattice.of([one.aligned for one in drawn], self.settings.before, self.settings.after)
        outputs, absent = torch.cat([one.outputs for one in drawn]), torch.cat([one.absent for one in drawn])
        context, own = torch.cat([one.context for one in drawn]), torch.cat([one.own for one in drawn])
        damaged = with_holes(absent, head, damage), with_errors(context, own, damage, sets.piece_counts)
        pairs = torch.from_numpy(np.stack([lattice.frame, lattice.context]))
        scores = score(outputs, *damaged, pairs)
        loss = lattice_loss(scores, lattice).sum()
        if self.teachers is not None:
            taught = taught_loss(scores, self.teachers.log_probs(outputs, absent, context, pairs), lattice)
            loss = (1 - self.settings.taught) * loss + self.settings.taught * taught
        return loss / max(1, sum(len(one.aligned.pieces) for one in drawn))

    def _drawn(self, sets: Sets, rng: np.random.Generator) -> list[Utterance]:
        """Each from training speech, noise or an open shard, by the shares of these; any row is as likely."""
        speech, noise_too = self.settings.speech_share, self.settings.speech_share + self.config.noise_share
        # CTC may be sure of all of it.
        noise = [one for one in sets.noise if one.num_utterances]
        drawn = []
        for share in rng.random(max(1, self.settings.utterances // self.world)):
            kind = sets.sentences
            if share < speech:
                kind = sets.speech
            elif noise and share < noise_too:
                kind = noise
            one = kind[int(rng.integers(len(kind)))]
            utterance = one.utterance(int(rng.integers(one.num_utterances)))
            if kind is sets.speech and rng.random() < self.settings.short_contexts:
                utterance = utterance.with_short_context(int(rng.integers(1, _SHORT + 1)), len(sets.piece_counts))
            drawn.append(utterance)
        return drawn
