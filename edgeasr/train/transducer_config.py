"""The settings of a transducer and of its training, checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from edgeasr.config import FrozenConfig, require
from edgeasr.train.unit_selection import UnitConfig
from edgeasr.transducer import Transducer


@dataclass(frozen=True)
class HeadConfig(FrozenConfig):
    """The sizes of a transducer; names as in `Transducer`."""

    behind: int = 3
    ahead: int = 10
    context: int = 12  # pieces that the language model of pieces knows
    predictor_context: int = 8  # the last of them, that the predictor knows
    frame_width: int = 64  # of a frame in the window
    width: int = 320
    inner_width: int = 448  # of the feed-forward layer
    piece_width: int = 48  # of an embedding
    text_width: int = 448  # of the language model
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("behind", "ahead"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")
        for name in (
            "context",
            "predictor_context",
            "frame_width",
            "width",
            "inner_width",
            "piece_width",
            "text_width",
        ):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be positive")
        require(
            self.predictor_context <= self.context,
            f"predictor_context is {self.predictor_context}, context {self.context}: wanted no more than that",
        )
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}: it must be in [0, 1)")

    @classmethod
    def of(cls, transducer: Transducer) -> HeadConfig:
        """The sizes of a transducer."""
        frame_width, piece_width = transducer.projection.shape[1], transducer.embedding.shape[1]
        return cls(
            behind=transducer.behind,
            ahead=transducer.ahead,
            context=transducer.context,
            predictor_context=len(transducer.predictor) // piece_width,
            frame_width=frame_width,
            width=len(transducer.bias),
            inner_width=len(transducer.expand_bias),
            piece_width=piece_width,
            text_width=len(transducer.text.input_bias),
        )

    @property
    def window(self) -> int:
        """Frames that are heard together."""
        return self.behind + 1 + self.ahead


@dataclass(frozen=True)
class DamageConfig(FrozenConfig):
    """Chances of what a transducer must live with, and does not meet in texts that are right."""

    wrong_pieces: float = 0.05  # the mean share of the context that is another piece; drawn for each frame from 0 on
    own_errors: float = 0.25  # that is what it would have said itself, mostly the right piece; drawn likewise
    ends: float = 0.06  # nothing comes from some frame ahead on: the end of a segment
    lost_frames: float = 0.05  # of each frame of the window but the present one

    def __post_init__(self) -> None:
        for name in ("wrong_pieces", "own_errors"):
            require(0 <= getattr(self, name) <= 0.5, f"{name} is {getattr(self, name)}: it must be in [0, 0.5]")
        for name in ("ends", "lost_frames"):
            require(0 <= getattr(self, name) < 1, f"{name} is {getattr(self, name)}: it must be in [0, 1)")


@dataclass(frozen=True)
class ScheduleConfig(FrozenConfig):
    """How far the optimiser goes in a stage of a training: a warm-up and a cosine to zero."""

    steps: int
    warmup_steps: int
    peak_rate: float
    ema_decay: float

    def __post_init__(self) -> None:
        for name in ("steps", "warmup_steps"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")
        require(
            not self.steps or self.warmup_steps < self.steps,
            f"warmup_steps is {self.warmup_steps}, steps {self.steps}: wanted warmup_steps < steps",
        )
        require(self.peak_rate > 0, f"peak_rate is {self.peak_rate}: it must be positive")
        require(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}: it must be in [0, 1)")

    def of_steps(self, steps: int) -> Self:
        """The same with so many steps; at most half of them are warm-up. raises: ConfigError"""
        return replace(self, steps=steps, warmup_steps=min(self.warmup_steps, steps // 2))


@dataclass(frozen=True)
class TextConfig(ScheduleConfig):
    """Training of the language model of pieces on text alone, before anything is heard."""

    steps: int = 2600  # 0: none
    warmup_steps: int = 100
    peak_rate: float = 2e-3
    ema_decay: float = 0.995
    pieces: int = 6144  # in one step, over all processes

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pieces > 0, f"pieces is {self.pieces}: it must be positive")


@dataclass(frozen=True)
class LatticeConfig(ScheduleConfig):
    """Training on with the sum over the alignments near the aligned one, behind the steps on aligned frames."""

    steps: int = 6000  # 0: none
    warmup_steps: int = 50
    peak_rate: float = 6e-4
    ema_decay: float = 0.998
    utterances: int = 40  # in one step, over all processes
    speech_share: float = 0.2  # of them from training speech
    short_contexts: float = 0.8  # of those, whose texts are soon known by heart, so many with three pieces or fewer
    before: int = 3  # frames that a piece may begin before the one where it was aligned
    after: int = 3
    taught: float = 0.6  # of the loss is what teachers say on the way, where there are some

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.utterances > 0, f"utterances is {self.utterances}: it must be positive")
        for name in ("before", "after"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")
        for name in ("speech_share", "short_contexts", "taught"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}: it must be in [0, 1]")


@dataclass(frozen=True)
class TransducerConfig(ScheduleConfig):
    """Everything that a training of a transducer depends on beside its recipe, its encoder and its text."""

    head: HeadConfig = field(default_factory=HeadConfig)
    units: UnitConfig = field(default_factory=UnitConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    text: TextConfig = field(default_factory=TextConfig)
    lattice: LatticeConfig = field(default_factory=LatticeConfig)
    steps: int = 20_000  # on aligned frames; 0: none
    warmup_steps: int = 300
    peak_rate: float = 1.5e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    batch_frames: int = 2048  # in one step, over all processes
    speech_share: float = 0.25  # of them from training speech
    noise_share: float = 0.04  # of them from noise without speech; the others from sentences
    noise_hours: float = 1.6  # of it, heard once; 0: none
    own_errors_from: float = 0.5  # of the steps, after which contexts have its own errors
    blank_share: float = 0.08  # of the frames that CTC is sure are blank
    shards_open: int = 20  # that frames are drawn from, until the next takes the place of the first
    shard_steps: int = 50  # after which it does
    seed: int = 1
    log_every: int = 500
    save_every: int = 500
    evaluate_every: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.steps + self.lattice.steps > 0, "steps and lattice.steps are 0: wanted some in which it learns to hear"
        )
        counts = ("batch_frames", "shards_open", "shard_steps", "log_every", "save_every", "evaluate_every")
        for name in ("clip_norm", *counts):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be positive")
        for name in ("weight_decay", "seed", "noise_hours"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")
        for name in ("speech_share", "noise_share", "blank_share", "own_errors_from"):
            require(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}: it must be in [0, 1]")
        for share in (self.speech_share, self.lattice.speech_share):
            require(
                share + self.noise_share <= 1,
                f"speech_share is {share}, noise_share {self.noise_share}: wanted at most 1 together",
            )

    @property
    def own_errors_step(self) -> int:
        """The first step whose contexts have errors of its own."""
        return self.text.steps + round(self.own_errors_from * self.steps)

    def with_steps(self, text_steps: int, steps: int, lattice_steps: int) -> Self:
        """The same with other numbers of steps; the warm-ups are at most half of them. raises: ConfigError"""
        text, lattice = self.text.of_steps(text_steps), self.lattice.of_steps(lattice_steps)
        return replace(self.of_steps(steps), text=text, lattice=lattice)
