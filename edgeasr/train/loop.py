"""The training loop: one process or several, resumable at any kill.

Every random choice is a function of (seed, epoch, step, rank), so a run needs no generator state to go on.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter

from edgeasr.encoder import Encoder, num_parameters
from edgeasr.errors import ConfigError
from edgeasr.manifest import Utterance, read_manifest
from edgeasr.metrics import ErrorCounts, word_errors
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.augment import WaveformAugmenter, load_noise, mask_spectrogram
from edgeasr.train.checkpoint import (
    Checkpoint,
    load_tensors,
    optimizer_tensors,
    restore_optimizer,
    save_tensors,
)
from edgeasr.train.data import Batch, BatchPlan, Collator, Progress, WaveformCache, batch_features
from edgeasr.train.loss import training_loss
from edgeasr.train.recipe import Recipe

Report = Callable[[str], None]

# Read by glibc when a process starts.
MALLOC_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}


@dataclass(frozen=True)
class Place:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and logs."""
        return self.rank == 0


def learning_rate(step: int, peak: float, warmup: int, total: int) -> float:
    """Linear warm-up, then a cosine to zero at `total`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (total - warmup))))


class Trainer:
    """One run of one recipe. Call `run`; everything else is a part of it."""

    def __init__(
        self, recipe: Recipe, place: Place = Place(), report: Report = print, init: Path | None = None
    ) -> None:
        self.recipe, self.place, self.report = recipe, place, report
        self.directory = recipe.root / recipe.run.directory
        self.tokenizer = Tokenizer()
        torch.manual_seed(recipe.run.seed)
        self.encoder = Encoder(recipe.model)
        self.encoder.frontend.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            _decay_groups(self.encoder, recipe.optimizer.weight_decay), lr=0.0, betas=(0.9, 0.98)
        )
        self.step = 0
        self.epoch = 0
        self.position = 0  # batches of this epoch already done
        self.best = math.inf
        self.init = init

    def run(self) -> float:
        """Train to the recipe's last step. returns: the best word error rate on dev"""
        self._load_data()
        self._resume()
        self.model: nn.Module = self.encoder
        if self.place.world > 1:
            self.model = DistributedDataParallel(self.encoder, forward_sync_buffers=False)
        self.writer = SummaryWriter(str(self.directory / "logs")) if self.place.leads else None
        self.report(f"{num_parameters(self.encoder):,} parameters, {self.place.world} processes, step {self.step}")
        losses: list[float] = []
        started, audio_s = time.monotonic(), 0.0
        run, optimizer = self.recipe.run, self.recipe.optimizer
        for batch in self._batches():
            loss, norm = self._train_step(batch)
            losses.append(loss)
            audio_s += batch.features.shape[0] * batch.features.shape[1] * 0.01 * self.place.world
            self.step += 1
            if self.step % run.log_every == 0:
                elapsed = time.monotonic() - started
                self._log({"loss": float(np.mean(losses)), "gradient_norm": norm, "speed": audio_s / elapsed})
                losses, started, audio_s = [], time.monotonic(), 0.0
            if self.step % run.evaluate_every == 0 or self.step == optimizer.steps:
                self._evaluate()
            if self.step % run.save_every == 0 or self.step == optimizer.steps:
                self._save()
            if self.step == optimizer.steps:
                break
        return self.best

    def _load_data(self) -> None:
        recipe = self.recipe
        rate = recipe.model.features.sample_rate_hz
        self.train = [
            u
            for path in recipe.resolve(recipe.data.train)
            for u in read_manifest(path)
            if u.duration_s <= recipe.data.max_duration_s
        ]
        self.dev = {p.stem: read_manifest(p) for p in recipe.resolve(recipe.data.dev)}
        caches = [WaveformCache(self.directory / "cache", u, rate) for u in [self.train, *self.dev.values()]]
        for cache in caches:
            if self.place.leads:
                cache.build(self._progress("decoding"))
        self._wait()
        for cache in caches:
            cache.open()
        noise = load_noise(recipe.resolve(recipe.data.noise), rate)
        augment = WaveformAugmenter(recipe.augment, noise, rate)
        self.collate = Collator(caches[0], recipe.model, self.tokenizer, augment)
        self.dev_caches = dict(zip(self.dev, caches[1:], strict=True))
        shares = [_share(u, recipe.data.weights) for u in self.train]
        self.plan = BatchPlan(
            [u.duration_s for u in self.train],
            shares,
            recipe.data.batch_s / self.place.world,
            recipe.run.seed,
        )

    def _progress(self, what: str) -> Progress:
        def progress(done: int, total: int) -> None:
            if done % 1000 == 0 or done == total:
                self.report(f"{what}: {done} of {total}")

        return progress

    def _batches(self) -> Iterator[Batch]:
        """Batches from where the run stands, for this process."""
        world, rank, run = self.place.world, self.place.rank, self.recipe.run
        while True:
            batches = self.plan.epoch(self.epoch, self.epoch < run.short_first_epochs)
            while (self.position + 1) * world <= len(batches):
                mine = batches[self.position * world + rank]
                yield self.collate(mine, (run.seed, self.epoch, self.position, rank))
                self.position += 1
            self.epoch, self.position = self.epoch + 1, 0

    def _train_step(self, batch: Batch) -> tuple[float, float]:
        config, place = self.recipe.optimizer, self.place
        torch.manual_seed(hash((self.recipe.run.seed, self.step, place.rank)) % 2**63)
        features = batch.features
        if self.step >= self.recipe.augment.clean_steps:
            lengths = batch.frames * self.recipe.model.encoder.subsampling
            features = mask_spectrogram(features, lengths, self.recipe.augment, self.encoder.feature_mean)
        tokens = batch.target_lengths.sum().float()
        self._sum(tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, config.peak_rate, config.warmup_steps, config.steps)
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            emissions = self.model(features, self._chunk_frames())
        # The mean over all tokens of all processes: gradients are averaged, so undo the division by world.
        loss = training_loss(emissions, batch, config.lower_ctc_weight) * (place.world / tokens)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), config.clip_norm)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
            self._update_average()
        return float(loss.detach()), float(norm)

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
        """Word error rates of the averaged weights on every dev manifest; the best so far is kept."""
        encoder = Encoder(self.recipe.model)
        encoder.load_state_dict({**self.encoder.state_dict(), **self.average})
        encoder.eval()
        rates = {name: self._word_error_rate(encoder, name) for name in self.dev}
        self._log({f"wer/{name}": rate for name, rate in rates.items()})
        first = next(iter(rates.values()), math.inf)
        if self.place.leads and first < self.best:
            self._checkpoint(rates).save(self.directory / "best.safetensors")
        self.best = min(self.best, first)

    @torch.no_grad()
    def _word_error_rate(self, encoder: Encoder, name: str) -> float:
        """Greedy, over a share of the manifest in each process."""
        counts = ErrorCounts()
        rows = range(self.place.rank, len(self.dev[name]), self.place.world)
        order = sorted(rows, key=lambda i: self.dev[name][i].duration_s)
        for group in (order[i : i + 8] for i in range(0, len(order), 8)):
            features, frames = batch_features([self.dev_caches[name][i] for i in group], self.recipe.model)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.optimizer.bf16):
                emissions = encoder(features).final
            for i, row, length in zip(group, emissions, frames.tolist(), strict=True):
                best = torch.unique_consecutive(row[:length].argmax(-1))
                hypothesis = " ".join(self.tokenizer.decode(best.tolist()).split())
                counts += word_errors(self.dev[name][i].text, hypothesis)
        total = torch.tensor([counts.errors, counts.reference_length], dtype=torch.float64)
        self._sum(total)
        return float(total[0] / total[1])

    def _checkpoint(self, rates: dict[str, float]) -> Checkpoint:
        data = self.recipe.data
        training = {
            "step": self.step,
            "epoch": self.epoch,
            "wer": rates,
            "sources": list(data.sources),
            "utterances": len(self.train),
            "hours": round(sum(u.duration_s for u in self.train) / 3600, 2),
        }
        weights = {**self.encoder.state_dict(), **self.average}
        return Checkpoint(self.recipe.model, self.tokenizer.tokens, weights, training)

    def _save(self) -> None:
        if not self.place.leads:
            return
        tensors = {
            **{f"model.{k}": v for k, v in self.encoder.state_dict().items()},
            **{f"average.{k}": v for k, v in self.average.items()},
            **{f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()},
        }
        progress = {"step": self.step, "epoch": self.epoch, "position": self.position + 1, "best": self.best}
        save_tensors(self.directory / "resume.safetensors", tensors, {"progress": json.dumps(progress)})

    def _resume(self) -> None:
        """Go on from the last save, or start with the statistics of the training features."""
        path = self.directory / "resume.safetensors"
        if path.exists():
            tensors, metadata = load_tensors(path)
            self.encoder.load_state_dict(_under("model.", tensors))
            self.average = _under("average.", tensors)
            restore_optimizer(self.optimizer, _under("optimizer.", tensors))
            progress = json.loads(metadata["progress"])
            self.step, self.epoch = progress["step"], progress["epoch"]
            self.position, self.best = progress["position"], progress["best"]
            return
        if self.init is not None:
            checkpoint = Checkpoint.load(self.init)
            if checkpoint.config.to_dict() != self.recipe.model.to_dict():
                raise ConfigError(f"{self.init} has another model configuration than the recipe: make them equal")
            self.encoder.load_state_dict({k: v.float() for k, v in checkpoint.weights.items()})
        else:
            self._measure_features()
        self.average = {name: p.detach().clone() for name, p in self.encoder.named_parameters()}

    def _measure_features(self) -> None:
        """Mean and deviation of each mel band over a sample of the training set, augmented as in training."""
        rng = np.random.default_rng(self.recipe.run.seed)
        sample = rng.permutation(len(self.train))[:256].tolist()
        frames = []
        for i in sample:
            features, lengths, _, _ = self.collate([i], (self.recipe.run.seed, i))
            frames.append(features[0, : int(lengths[0]) * self.recipe.model.encoder.subsampling])
        joined = torch.cat(frames)
        self.encoder.feature_mean.copy_(joined.mean(dim=0))
        self.encoder.feature_std.copy_(joined.std(dim=0).clamp_min(0.1))

    def _log(self, values: dict[str, float]) -> None:
        if not self.place.leads:
            return
        for name, value in values.items():
            if self.writer:
                self.writer.add_scalar(name, value, self.step)
        total = self.recipe.optimizer.steps
        line = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.report(f"step {self.step} of {total}, epoch {self.epoch}: {line}")

    def _sum(self, tensor: Tensor) -> None:
        if self.place.world > 1:
            dist.all_reduce(tensor)

    def _wait(self) -> None:
        if self.place.world > 1:
            dist.barrier()


def _decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices are decayed; biases, norms and other vectors are not."""
    matrices = [p for p in module.parameters() if p.dim() > 1]
    vectors = [p for p in module.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _share(utterance: Utterance, weights: dict[str, float]) -> float:
    """The smallest of the weights whose key is a part of the utterance's path."""
    return min((w for part, w in weights.items() if part in utterance.path.as_posix()), default=1.0)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def train(recipe: Recipe, report: Report = print, init: Path | None = None) -> None:
    """Train in as many processes as the recipe says, or as one of those that torchrun started."""
    if "RANK" in os.environ:
        place = Place(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        dist.init_process_group("gloo")
        _run(place.rank, recipe, place.world, report, init)
    elif recipe.run.processes == 1:
        Trainer(recipe, Place(), report, init).run()
    else:
        world = recipe.run.processes
        # Keep freed memory: giving it back to the kernel after each step costs a third of the speed.
        for name, size in MALLOC_SETTINGS.items():
            os.environ.setdefault(name, size)
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29511")
        spawn(_spawned, (recipe, world, report, init), nprocs=world)  # type: ignore[no-untyped-call]


def _spawned(rank: int, recipe: Recipe, world: int, report: Report, init: Path | None) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world))
    dist.init_process_group("gloo", rank=rank, world_size=world)
    _run(rank, recipe, world, report, init)


def _run(rank: int, recipe: Recipe, world: int, report: Report, init: Path | None) -> None:
    try:
        Trainer(recipe, Place(rank, world), report if rank == 0 else _silent, init).run()
    finally:
        dist.destroy_process_group()


def _silent(_: str) -> None:
    """The reports of all but the first process."""
