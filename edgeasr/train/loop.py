"""The training loop: one process or several, resumable at any kill.

Every random choice is a function of (seed, epoch, step, rank), so a run needs no generator state to go on.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from edgeasr.encoder import Encoder, num_parameters
from edgeasr.errors import BundleError, ConfigError
from edgeasr.train.ahead import made_ahead
from edgeasr.train.augment import mask_spectrogram, warp_bands
from edgeasr.train.checkpoint import Checkpoint
from edgeasr.train.corpus import Corpus
from edgeasr.train.crf import Denominator
from edgeasr.train.data import Batch
from edgeasr.train.loss import SequenceCriterion, training_loss, twice, views_loss
from edgeasr.train.optimizer import Optimizer
from edgeasr.train.phone_graph import PhoneGraph
from edgeasr.train.processes import Observer, Outcome, Place, Progress, never, run_here, run_in_processes, unheard
from edgeasr.train.recipe import Recipe
from edgeasr.train.resume import RunState, Standing, restore_run, save_run
from edgeasr.train.shard_corpus import ShardCorpus
from edgeasr.train.validation import word_error_rate

ALONE, UNHEARD = Place(), Observer()
_CHOSEN_ANEW = ("dropout", "summary_strides", "memory_capacities", "merge_similarity", "write_gate", "chunk_frames")
BEST, LAST, RESUME = "best.safetensors", "last.safetensors", "resume.safetensors"


def learning_rate(step: int, peak: float, warmup: int, total: int) -> float:
    """Linear warm-up, then a cosine to zero at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (total - warmup))))


def computes_bf16(device: torch.device) -> bool:
    """Whether it has instructions for products in bf16, which take up to thirty times as long as in fp32 without."""
    if device.type != "cpu":
        return True
    return torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Trainer:
    """One run of one recipe. Call `run`; everything else is a part of it."""

    def __init__(
        self, recipe: Recipe, place: Place = ALONE, observer: Observer = UNHEARD, init: Path | None = None
    ) -> None:
        self.recipe, self.place, self.observer, self.init = recipe, place, observer, init
        self.tokenizer = recipe.tokenizer
        torch.manual_seed(recipe.run.seed)
        self.device = place.device(recipe.run.device)
        self.bf16 = recipe.optimizer.bf16 and computes_bf16(self.device)
        self.encoder = Encoder(recipe.model).to(self.device)
        self.encoder.frontend.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = Optimizer(self.encoder, recipe.optimizer)
        self.average = {name: p.detach().clone() for name, p in self.encoder.named_parameters()}
        self.step = 0
        self.epoch = 0
        self.position = 0  # batches of this epoch already done
        self.best = math.inf
        self.stopping = False

    def run(self) -> Outcome:
        """Train to the recipe's last step, or until the observer asks to stop."""
        self.begin()
        self.model: nn.Module = self.encoder
        if self.place.world > 1:
            self.model = DistributedDataParallel(self.encoder, forward_sync_buffers=False)
        self.observer.report(
            f"{num_parameters(self.encoder):,} parameters, {self.place.world} processes, step {self.step}"
        )
        if self.recipe.optimizer.bf16 and not self.bf16:
            self.observer.report("this processor has no instructions for bf16: training in fp32 (optimizer.bf16)")
        self.writer = None
        if self.place.leads:
            self.writer = SummaryWriter(str(self.recipe.directory / "logs"), purge_step=self.step)
        try:
            if self.step < self.recipe.optimizer.steps:
                self._train()
        finally:
            if self.writer:
                self.writer.close()
        return Outcome(self.step, self.step >= self.recipe.optimizer.steps, self.best)

    def _train(self) -> None:
        losses: list[float] = []
        started, audio_s = time.monotonic(), 0.0
        run, steps = self.recipe.run, self.recipe.optimizer.steps
        for batch in self._batches():
            loss, norm = self.train_step(batch)
            losses.append(loss)
            audio_s += batch.features.shape[0] * batch.features.shape[1] * self.recipe.model.features.hop_s
            self.step += 1
            self.observer.watch(Progress("training", self.step, steps, f"loss {loss:.3f}"))
            last = self.step >= steps
            if self.step % run.log_every == 0:
                speed = audio_s * self.place.world / (time.monotonic() - started)
                self._log({"loss": float(np.mean(losses)), "gradient_norm": norm, "speed": speed})
                losses, started, audio_s = [], time.monotonic(), 0.0
            if self.step % run.evaluate_every == 0 or last:
                self._evaluate()
            if self.step % run.save_every == 0 or last or self.stopping:
                self._save()
            if last or self.stopping:
                break

    def _batches(self) -> Iterator[Batch]:
        """Batches from where the run stands, for this process."""
        run = self.recipe.run
        while True:
            short_first = self.epoch < run.short_first_epochs
            makings = self.corpus.batches(self.epoch, short_first, self.place, self.position, run.seed)
            for batch in made_ahead(makings, run.loaders):
                yield batch
                self.position += 1
            self.epoch, self.position = self.epoch + 1, 0

    def train_step(self, batch: Batch) -> tuple[float, float]:
        """One step of the optimiser. returns: the loss of this process and the norm of the gradient"""
        config, place = self.recipe.optimizer, self.place
        torch.manual_seed(hash((self.recipe.run.seed, self.step, place.rank)) % 2**63)
        views = 2 if config.consistency_weight else 1
        tokens = self._over_all(batch) * views
        if views == 2:
            batch = twice(batch)
        batch = batch._replace(features=self._distorted(batch)).to(self.device)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            emissions = self.model(batch.features, self._chunk_frames())
        # The mean over all tokens of all processes: gradients are averaged, so undo the division by world.
        loss = training_loss(emissions, batch, config.lower_ctc_weight, config.phone_weight, self.sequence)
        if views == 2:
            loss = loss + config.consistency_weight * views_loss(emissions, batch.frames, config.phone_weight)
        if config.write_price and emissions.writes is not None:
            loss = loss + config.write_price * emissions.writes.sum()
        loss = loss * (place.world / tokens.to(self.device))
        self.encoder.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), config.clip_norm)
        if bool(torch.isfinite(norm)):
            self.optimizer.step(learning_rate(self.step, config.peak_rate, config.warmup_steps, config.steps))
            self._update_average()
        return float(loss.detach()), float(norm)

    def _distorted(self, batch: Batch) -> Tensor:
        """The features with warped bands and masks, drawn anew for each row."""
        augment, model = self.recipe.augment, self.recipe.model
        features, (shortest, longest) = batch.features, augment.vocal_tract
        if shortest < longest:
            factors = torch.empty(len(features)).uniform_(shortest, longest)
            features = warp_bands(features, factors, model.features)
        if self.step >= augment.clean_steps:
            lengths = batch.frames * model.encoder.subsampling
            features = mask_spectrogram(features, lengths, augment, self.encoder.feature_mean.cpu())
        return features

    def _over_all(self, batch: Batch) -> Tensor:
        """Tokens of this step over all processes; a stop that one was asked for, all hear of in the same step."""
        totals = torch.stack([batch.target_lengths.sum().float(), torch.tensor(float(self.observer.stop()))])
        self.place.sum(totals)
        self.stopping = bool(totals[1] > 0)
        return totals[0]

    def _chunk_frames(self) -> int | None:
        """The chunk of this step, equal in all processes."""
        choices = self.recipe.run.chunk_frames
        if not choices:
            return None
        return choices[int(np.random.default_rng([self.recipe.run.seed, self.step]).integers(len(choices)))]

    def _update_average(self) -> None:
        decay = min(self.recipe.optimizer.ema_decay, (1 + self.step) / (10 + self.step))
        for name, parameter in self.encoder.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    def _evaluate(self) -> None:
        """Word error rates of the averaged weights on every dev manifest; these weights and the best are kept."""
        encoder = Encoder(self.recipe.model).to(self.device)
        encoder.load_state_dict({**self.encoder.state_dict(), **self.average})
        encoder.eval()
        rates = {
            dev.name: word_error_rate(encoder, dev, self.tokenizer, self.place, self.bf16) for dev in self.corpus.dev
        }
        if rates:
            self._log({f"wer/{name}": rate for name, rate in rates.items()})
        first = next(iter(rates.values()), math.inf)
        if self.place.leads:
            self._checkpoint(rates).save(self.recipe.directory / LAST)
            if first < self.best:
                self._checkpoint(rates).save(self.recipe.directory / BEST)
        self.best = min(self.best, first)

    def _checkpoint(self, rates: dict[str, float]) -> Checkpoint:
        training = {
            "step": self.step,
            "epoch": self.epoch,
            "wer": rates,
            "sources": list(self.recipe.data.sources),
            "utterances": self.corpus.num_utterances,
            "hours": round(self.corpus.hours, 2),
        }
        weights = {**self.encoder.state_dict(), **self.average}
        return Checkpoint(self.recipe.model, self.tokenizer.tokens, weights, training)

    def _state(self) -> RunState:
        return RunState(self.encoder, self.average, self.optimizer)

    def _save(self) -> None:
        if not self.place.leads:
            return
        standing = Standing(self.step, self.epoch, self.position + 1, self.best)
        save_run(self.recipe.directory / RESUME, self._state(), standing, self.recipe.model, self.place.world)
        self.observer.watch(Progress("saved", self.step, self.recipe.optimizer.steps))

    def begin(self) -> None:
        """Load the data; go on from the last save, or start with the statistics of the training features."""
        self.sequence = _sequence_criterion(self.recipe)
        load = ShardCorpus.load if self.recipe.data.shards else Corpus.load
        self.corpus: Corpus | ShardCorpus = load(self.recipe, self.place, self.observer)
        path = self.recipe.directory / RESUME
        if path.exists():
            standing = restore_run(path, self._state(), self.recipe.model, self.place.world)
            self.step, self.epoch = standing.step, standing.epoch
            self.position, self.best = standing.position, standing.best
            return
        if self.init is not None:
            self._take_weights(self.init)
        else:
            self._measure_features()
        self.average = {name: p.detach().clone() for name, p in self.encoder.named_parameters()}

    def _take_weights(self, path: Path) -> None:
        checkpoint, model = Checkpoint.load(path), self.recipe.model
        # A new run may choose what has no weights, and begin parts anew: outputs, levels of memory, a write gate.
        chosen = {name: getattr(model.encoder, name) for name in _CHOSEN_ANEW}
        encoder, phones = replace(checkpoint.config.encoder, **chosen), model.phone_vocabulary_size
        if replace(checkpoint.config, encoder=encoder, phone_vocabulary_size=phones) != model:
            raise ConfigError(f"{path} has another model configuration than the recipe: make them equal")
        try:
            weights = checkpoint.encoder().state_dict()
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error
        if checkpoint.config != model:
            fresh = self.encoder.state_dict()
            weights = {
                name: weights[name] if name in weights and weights[name].shape == tensor.shape else tensor
                for name, tensor in fresh.items()
            }
        self.encoder.load_state_dict(weights)

    def _measure_features(self) -> None:
        """Mean and deviation of each mel band over a sample of the training set, augmented as in training."""
        frames = []
        for features, lengths, *_ in self.corpus.sample(256, self.recipe.run.seed):
            frames.append(features[0, : int(lengths[0]) * self.recipe.model.encoder.subsampling])
        joined = torch.cat(frames)
        self.encoder.feature_mean.copy_(joined.mean(dim=0))
        self.encoder.feature_std.copy_(joined.std(dim=0).clamp_min(0.1))

    def _log(self, values: dict[str, float]) -> None:
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, self.step)
        total = self.recipe.optimizer.steps
        line = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.observer.report(f"step {self.step} of {total}, epoch {self.epoch}: {line}")


def _sequence_criterion(recipe: Recipe) -> SequenceCriterion | None:
    """As the recipe wants it. raises: ConfigError for a graph that cannot be read, or is of other phones"""
    if not recipe.optimizer.crf_weight:
        return None
    path = recipe.root / recipe.data.phone_graph
    graph, phones = PhoneGraph.load(path), recipe.model.phone_vocabulary_size
    if graph.num_phones != phones:
        raise ConfigError(f"{path} is of {graph.num_phones} phones, the model has {phones}: build it again")
    return SequenceCriterion(Denominator(graph), recipe.optimizer.crf_weight)


def train(
    recipe: Recipe,
    report: Callable[[str], None] = print,
    init: Path | None = None,
    watch: Callable[[Progress], None] = unheard,
    stop: Callable[[], bool] = never,
) -> Outcome:
    """Train in as many processes as the recipe says, or as one of those that torchrun started.

    init: checkpoint whose weights a new run starts from; a run that goes on does not look at it
    stop: asked after every step; once it is true the run saves its state and returns, not finished
    """
    run, observer = partial(_run, recipe, init), Observer(report, watch, stop)
    if "RANK" in os.environ:
        return run_here(run, observer, recipe.run.device)
    if recipe.run.processes == 1:
        return run(Place(), observer)
    return run_in_processes(run, recipe.run.processes, observer, recipe.run.device)


def _run(recipe: Recipe, init: Path | None, place: Place, observer: Observer) -> Outcome:
    return Trainer(recipe, place, observer, init).run()
