"""Train a transducer on the output of an encoder that stays as it is, mostly on sentences that nobody said.

    python -m edgeasr.train.transducer RECIPE CHECKPOINT --text sentences.txt.xz --hours 300 --directory runs/transducer

A language model of pieces learns all of the text first. Then every frame has a label, the piece that begins in it on
the best CTC path, and is learned by cross entropy (Hu et al. 2020, arXiv 2005.00572): no sum over alignments, and
frames may be drawn one by one. What that has taught goes on with whole utterances and the sum over the alignments near
that path. Sentences come from text by `edgeasr.train.unit_selection`, a share of the frames from the training speech
itself, some from noise alone. Transducers that are there already, of this encoder, can be gone on from, and can teach.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edgeasr.bundle import Bundle
from edgeasr.bundle_transducer import add_transducer
from edgeasr.cli.signals import StopSignals
from edgeasr.config import FrozenConfig, require
from edgeasr.errors import BundleError, ConfigError, EdgeasrError
from edgeasr.phones import PHONES
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.checkpoint import Checkpoint
from edgeasr.train.corpus import Corpus
from edgeasr.train.loop import RESUME, computes_bf16
from edgeasr.train.optimizer import Optimizer
from edgeasr.train.own_pieces import own_pieces
from edgeasr.train.piece_text import PieceText
from edgeasr.train.processes import Observer, Outcome, Place, Progress, never, run_in_processes
from edgeasr.train.recipe import OptimizerConfig, Recipe
from edgeasr.train.resume import RunState, Standing, restore_run, save_run
from edgeasr.train.transducer_config import HeadConfig, TransducerConfig
from edgeasr.train.transducer_frames import FrameSet, Shards
from edgeasr.train.transducer_head import TransducerHead
from edgeasr.train.transducer_preparation import Preparation
from edgeasr.train.transducer_stages import FrameStage, LatticeStage, Sets, Stage, TextStage
from edgeasr.train.transducer_teachers import Teacher, Teachers, read_transducer
from edgeasr.train.transducer_validation import HeardDev
from edgeasr.train.unit_selection import Listener
from edgeasr.transducer import Transducer

TRANSDUCER = "transducer.npz"
DEFAULTS = TransducerConfig()


@dataclass(frozen=True)
class TransducerJob:
    """What is trained, on what; `load` makes one of files.

    recipe:     of the checkpoint's model and tokens; the run writes into its directory
    dictionary: how the words of the text are said
    hours:      of sentences
    start:      a transducer whose weights are the first, of the sizes that the config says; None for random ones
    """

    recipe: Recipe
    checkpoint: Path
    text: Path
    dictionary: Path
    hours: float
    config: TransducerConfig = DEFAULTS
    start: Path | None = None
    teachers: tuple[Teacher, ...] = ()

    def __post_init__(self) -> None:
        require(0 < self.hours < math.inf, f"hours is {self.hours}: it must be a positive number")
        require(
            bool(self.recipe.data.dictionary),
            "the recipe has no data.dictionary, wanted one that says all words of the training speech: add it",
        )
        require(
            not self.recipe.data.shards, "the recipe has data.shards, wanted data.train: units are cut from manifests"
        )
        phones = self.recipe.model.phone_vocabulary_size
        require(
            phones == len(PHONES),
            f"{self.checkpoint} has a model of {phones} phones, wanted {len(PHONES)}, by which training speech is cut: "
            "train with data.dictionary in the recipe",
        )
        for what, path in (("text", self.text), ("dictionary", self.dictionary)):
            require(path.is_file(), f"got the {what} {path}, where no file is: check the path")
        given = [path for path in (self.start, *(one.path for one in self.teachers)) if path is not None]
        require(
            all(path.resolve() != self.output.resolve() for path in given),
            f"got {self.output}, which this run writes, as what it begins with or is taught by: copy it",
        )
        require(
            not self.teachers or self.config.lattice.steps > 0,
            "got teachers and no steps on nearby alignments, in which they teach: wanted lattice.steps",
        )

    @classmethod
    def load(  # noqa: PLR0913 - each a choice of its own
        cls,
        recipe: Recipe,
        checkpoint: Path,
        text: Path,
        directory: Path,
        hours: float,
        *,
        dictionary: Path | None = None,
        config: TransducerConfig = DEFAULTS,
        start: Path | None = None,
        teachers: tuple[Teacher, ...] = (),
    ) -> TransducerJob:
        """raises: BundleError for a checkpoint that cannot be read, ConfigError for what does not fit together"""
        loaded = Checkpoint.load(checkpoint)
        run = replace(recipe.run, directory=str(directory.absolute()))
        # Only its speech and its augmentation count: the model is the checkpoint's.
        fitted = replace(recipe, model=loaded.config, tokenizer=Tokenizer(loaded.tokens), run=run)
        said = dictionary or recipe.root / recipe.data.dictionary
        return cls(fitted, checkpoint, text, said, hours, config, start, teachers)

    @property
    def output(self) -> Path:
        """The file that the run writes."""
        return self.recipe.directory / TRANSDUCER

    @property
    def settings(self) -> RunSettings:
        """What must stay as it is while a run goes on; when it says and saves something need not."""
        training = replace(self.config, log_every=1, save_every=1, evaluate_every=1)
        whole = sum(one.weight for one in self.teachers)
        taught = sorted(f"{_sha256(one.path)} {one.weight / whole:.4g}" for one in self.teachers)
        return RunSettings(training, _sha256(self.start) if self.start else "none", tuple(taught))


@dataclass(frozen=True)
class RunSettings(FrozenConfig):
    """teachers_sha256: each with its weight, all of which sum to one"""

    training: TransducerConfig
    start_sha256: str
    teachers_sha256: tuple[str, ...]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TransducerTrainer:
    """One run of one job. Call `run`; everything else is a part of it."""

    def __init__(self, job: TransducerJob, place: Place, observer: Observer) -> None:
        self.job, self.config, self.place, self.observer = job, job.config, place, observer
        self.device = place.device(job.recipe.run.device)
        self.bf16 = job.recipe.optimizer.bf16 and computes_bf16(self.device)
        encoder = Checkpoint.load(job.checkpoint).encoder().to(self.device)
        self.listener = Listener(encoder, self.bf16)
        torch.manual_seed(self.config.seed)
        assert isinstance(encoder.emission, nn.Linear)
        self.head = TransducerHead(encoder.emission, self.config.head).to(self.device)
        if job.start is not None:
            self.head.take(read_transducer(job.start))
        teachers = Teachers(job.teachers, encoder.emission, self.config.head, bf16=self.bf16) if job.teachers else None
        self.settings = job.settings
        optimizer = OptimizerConfig(weight_decay=self.config.weight_decay)
        self.state = RunState(self.head, self._parameters(), Optimizer(self.head, optimizer))
        self.stages = [
            TextStage(job.config, place.world),
            FrameStage(job.config, place.world),
            LatticeStage(job.config, place.world, teachers),
        ]
        self.steps = sum(stage.steps for stage in self.stages)
        self.step, self.best, self.stopping = 0, math.inf, False
        self.text: PieceText | None = None  # while it is learned alone

    def run(self) -> Outcome:
        """Prepare what is missing, and train to the last step or until the observer asks to stop."""
        self.begin()
        self.model: nn.Module = self.head
        if self.place.world > 1:
            # Text alone teaches the language model, and nothing else does.
            self.model = DistributedDataParallel(self.head, find_unused_parameters=True)
        parameters = sum(parameter.numel() for parameter in self.head.parameters())
        self.observer.report(f"{parameters:,} parameters, {self.place.world} processes, step {self.step}")
        if self.step < self.steps:
            self._train()
        return Outcome(self.step, self.step >= self.steps, self.best)

    def begin(self) -> None:
        """Prepare the frames; go on from the last save where there is one."""
        job, recipe = self.job, self.job.recipe
        corpus = Corpus.load(recipe, self.place, self.observer)
        begin, config = self.head.vocabulary_size, self.config
        preparation = Preparation(
            recipe, job.text, job.dictionary, job.hours, config.noise_hours, config.units, self.listener
        )
        made = preparation.made(corpus, self.place, self.observer)
        self.speech, noise = (
            [FrameSet(one, config.head, begin, config.blank_share, config.seed) for one in files]
            for files in (made.speech, made.noise)
        )
        # CTC may be sure of all of it.
        self.noise = [one for one in noise if len(one)]
        self.shards = Shards(made.sentences, config, begin)
        self.piece_counts = np.sum([one.piece_counts for one in [*self.speech, *self.shards.at(0)]], axis=0)
        self.dev = [HeardDev.of(one, self.listener, self.place) for one in corpus.dev]
        path = recipe.directory / RESUME
        if path.exists():
            standing = restore_run(path, self.state, self.settings, self.place.world)
            self.step, self.best = standing.step, standing.best
            for one in self._with_pieces():
                if one.name in self.state.more:
                    one.set_own(self.state.more[one.name].long().numpy())
        if self.step < self.config.text.steps:
            self.text = PieceText(job.text, recipe.tokenizer, config.head.context)

    def _train(self) -> None:
        losses: list[float] = []
        config = self.config
        while self.step < self.steps and not self.stopping:
            stage, number = self._stage(self.step)
            losses.append(self.train_step())
            self.step += 1
            self.observer.watch(Progress(stage.name, self.step, self.steps, f"loss {losses[-1]:.4f}"))
            last = number + 1 == stage.steps
            if self.step % config.log_every == 0 or last:
                self._log({"loss": float(np.mean(losses))})
                losses = []
            if not isinstance(stage, TextStage) and (self.step % config.evaluate_every == 0 or last):
                self._evaluate()
            self.stopping = self._asked_to_stop()
            if self.step % config.save_every == 0 or last or self.stopping:
                self._save()

    def _stage(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and which of its steps that is."""
        for stage in self.stages[:-1]:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        return self.stages[-1], step

    def train_step(self) -> float:
        """One step of the optimiser. returns: the loss of this process"""
        stage, number = self._stage(self.step)
        if number == 0:
            self._begin_stage()
        self._learn_own_errors()
        torch.manual_seed(hash((self.config.seed, self.step, self.place.rank)) % 2**63)
        rng = np.random.default_rng([self.config.seed, self.step, self.place.rank])
        self.model.train()
        sets = Sets(self.speech, self._sentences(), self.noise, self.piece_counts, self.text)
        loss = stage.loss(self._scores, sets, rng)
        self.head.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.head.parameters(), self.config.clip_norm)
        if bool(torch.isfinite(norm)):
            self.state.optimizer.step(stage.rate(number))
            decay = min(stage.ema_decay, (1 + number) / (10 + number))
            for name, parameter in self.head.named_parameters():
                self.state.average[name].lerp_(parameter.detach(), 1 - decay)
        return float(loss.detach())

    @torch.no_grad()
    def _begin_stage(self) -> None:
        """From the averaged weights, and without a memory of earlier gradients."""
        if self.step >= self.config.text.steps:
            self.text = None
        for name, parameter in self.head.named_parameters():
            parameter.copy_(self.state.average[name])
        self.state.optimizer.restore({})

    def _scores(self, outputs: Tensor | None, absent: Tensor | None, context: Tensor, pairs: Tensor | None) -> Tensor:
        given = [None if part is None else part.to(self.device) for part in (outputs, absent, context, pairs)]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            scores: Tensor = self.model(*given)
        return scores.float()

    def _sentences(self) -> list[FrameSet]:
        """The open shards; none while text is learned."""
        step = self.step - self.config.text.steps
        return self.shards.at(step) if step >= 0 else []

    def _with_pieces(self) -> list[FrameSet]:
        """What is drawn from in this step, but noise and text."""
        return [*self.speech, *self._sentences()]

    def _learn_own_errors(self) -> None:
        """Ask the head as it is now for the pieces of what was opened since; saved with its weights."""
        if self.config.damage.own_errors and self.step >= self.config.own_errors_step:
            for one in self._with_pieces():
                if one.own is None:
                    one.set_own(own_pieces(self.head, one, self.place, self.bf16))

    def _asked_to_stop(self) -> bool:
        """A stop that one process was asked for, all hear of in the same step."""
        asked = torch.tensor(float(self.observer.stop()))
        self.place.sum(asked)
        return bool(asked > 0)

    def _parameters(self) -> Mapping[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.head.named_parameters()}

    def averaged(self) -> TransducerHead:
        """The averaged weights, on the CPU."""
        tokens, channels = self.head.emission_weight.shape
        head = TransducerHead(nn.Linear(channels, tokens), self.config.head)
        head.load_state_dict({**self.head.state_dict(), **self.state.average})
        return head.eval()

    def _evaluate(self) -> None:
        """Word error rates on every dev manifest of what is written then: the averaged weights, packed."""
        head = self.averaged()
        content = head.to_transducer().packed()
        transducer, tokenizer = Transducer.unpacked(content, TRANSDUCER), self.job.recipe.tokenizer
        rates = {
            f"wer/{dev.name}": dev.word_error_rate(transducer, head.log_probs, tokenizer, self.place)
            for dev in self.dev
        }
        if rates:
            self._log(rates)
        self.best = min(self.best, next(iter(rates.values()), math.inf))
        if self.place.leads:
            partial_file = self.job.output.with_name(f"{TRANSDUCER}.partial")
            partial_file.write_bytes(content)
            partial_file.replace(self.job.output)

    def _save(self) -> None:
        if self.place.leads:
            path, standing = self.job.recipe.directory / RESUME, Standing(self.step, 0, 0, self.best)
            self.state.more.clear()
            own = {one.name: one.own for one in self._with_pieces() if one.own is not None}
            self.state.more.update((name, torch.from_numpy(pieces).short()) for name, pieces in own.items())
            save_run(path, self.state, standing, self.settings, self.place.world)
            self.observer.watch(Progress("saved", self.step, self.steps))

    def _log(self, values: Mapping[str, float]) -> None:
        line = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        stage, _ = self._stage(self.step - 1)
        self.observer.report(f"step {self.step} of {self.steps}, {stage.name}: {line}")


def train(job: TransducerJob, report: Callable[[str], None] = print, stop: Callable[[], bool] = never) -> Outcome:
    """Train in as many processes as the recipe says, in this one where that is one.

    stop:   asked after every step; once it is true the run saves its state and returns, not finished
    raises: EdgeasrError for what does not fit together; KeyboardInterrupt for a stop before the first step
    """
    run, observer = partial(_run, job), Observer(report, stop=stop)
    if job.recipe.run.processes == 1:
        return run(Place(), observer)
    return run_in_processes(run, job.recipe.run.processes, observer, job.recipe.run.device)


def _run(job: TransducerJob, place: Place, observer: Observer) -> Outcome:
    return TransducerTrainer(job, place, observer).run()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text}, wanted a whole number, 0 or more")
    return int(text)


def _weight(text: str) -> float:
    """raises: ConfigError for what is no number"""
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"got the weight {text!r} of a teacher, wanted a number: write --teacher FILE 1") from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path, help="whose training speech, augmentation and dev manifests are used")
    parser.add_argument("checkpoint", type=Path, help="the encoder, with phones and pieces of words")
    parser.add_argument("--text", type=Path, required=True, help="one sentence a line, plain or packed")
    parser.add_argument("--dictionary", type=Path, help="how its words are said; otherwise the recipe's")
    parser.add_argument("--hours", type=float, default=300.0, help="of sentences to say; %(default)s")
    parser.add_argument(
        "--noise-hours",
        type=float,
        default=DEFAULTS.noise_hours,
        help="of noise to be silent in; %(default)s, 0: none",
    )
    parser.add_argument("--directory", type=Path, required=True, help="folder for everything that is written")
    for option, steps, what in (
        ("--text-steps", DEFAULTS.text.steps, "on text alone; %(default)s, 0: none"),
        ("--steps", DEFAULTS.steps, "on aligned frames, behind those; %(default)s, 0: none"),
        ("--lattice-steps", DEFAULTS.lattice.steps, "on nearby alignments, behind those; %(default)s, 0: none"),
    ):
        parser.add_argument(option, type=_count, default=steps, metavar="STEPS", help=what)
    parser.add_argument("--start", type=Path, help="a transducer of this encoder to go on from")
    parser.add_argument(
        "--teacher",
        nargs=2,
        action="append",
        default=[],
        metavar=("TRANSDUCER", "WEIGHT"),
        help="one of this encoder that teaches in the steps on nearby alignments; may be given again",
    )
    parser.add_argument("--processes", type=int, default=1, help="that share each step; %(default)s")
    parser.add_argument("--bundle", type=Path, help="exported from the checkpoint: the transducer is put into it")
    parser.add_argument("--source", help="what text it was, for the bundle's manifest")
    parser.add_argument("--licence", help="the licence of that text, for the bundle's manifest")
    return parser.parse_args()


def _job(given: argparse.Namespace) -> TransducerJob:
    """raises: EdgeasrError for files that cannot be used, or a bundle that would not take the transducer"""
    recipe = Recipe.load(given.recipe).with_options(processes=given.processes)
    config = replace(
        DEFAULTS.with_steps(given.text_steps, given.steps, given.lattice_steps), noise_hours=given.noise_hours
    )
    if given.start is not None:
        config = replace(config, head=HeadConfig.of(read_transducer(given.start)))
    job = TransducerJob.load(
        recipe,
        given.checkpoint,
        given.text,
        given.directory,
        given.hours,
        dictionary=given.dictionary,
        config=config,
        start=given.start,
        teachers=tuple(Teacher(Path(path), _weight(weight)) for path, weight in given.teacher),
    )
    if given.bundle is not None:
        if not (given.source and given.licence):
            raise ConfigError("got a bundle without --source and --licence, wanted both of the text: add them")
        if Bundle.load(given.bundle).tokens != job.recipe.tokenizer.tokens:
            raise BundleError(
                f"bundle {given.bundle} has other tokens than {given.checkpoint}: name one exported from it"
            )
    return job


def main() -> None:
    """The command line."""
    given = _arguments()
    try:
        job = _job(given)
        with StopSignals(lambda: print("Stopping after this step", file=sys.stderr)) as stop:  # noqa: T201
            outcome = train(job, lambda line: print(line, flush=True), lambda: stop.requested)  # noqa: T201
        if not outcome.finished:
            print(f"Stopped at step {outcome.step}: the same command goes on from there")  # noqa: T201
            sys.exit(128 + (stop.number or signal.SIGINT))
        print(f"Wrote {job.output}")  # noqa: T201
        if given.bundle is not None:
            sources = [*job.recipe.data.sources, {"name": given.source, "licence": given.licence}]
            print(f"Wrote {add_transducer(given.bundle, job.output, sources, given.bundle).path}")  # noqa: T201
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except EdgeasrError as error:
        print(f"edgeasr: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
