"""A training recipe: one TOML file says everything that a run depends on."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from edgeasr.config import EncoderConfig, FeatureConfig, FrozenConfig, ModelConfig, preset, require
from edgeasr.errors import ConfigError
from edgeasr.phones import PHONES
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.pieces import read_tokens

ConfigT = TypeVar("ConfigT")
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class DataConfig(FrozenConfig):
    """Manifests and how utterances become batches."""

    train: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()  # instead of train: tar files to read as streams, see edgeasr.corpora.shards
    buffer_s: float = 3600.0  # of shards: audio that waits in each process to be drawn from
    dev: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()  # folders of noise recordings
    tokens: str = ""  # pieces of words, one a line, as edgeasr.train.pieces writes them; empty: characters
    dictionary: str = ""  # pronunciations of all words: the model learns phones beside characters
    phone_graph: str = ""  # what phones may follow what, as edgeasr.train.phone_graph writes it; for crf_weight
    max_duration_s: float = 33.0
    batch_s: float = 80.0  # audio in one optimiser step, over all processes
    session_s: float = 0.0  # above 0: neighbours of one speaker are joined, in training and on dev, up to so long
    weights: dict[str, Any] = field(default_factory=dict)  # part of a path -> share drawn in each epoch
    sources: tuple[dict[str, Any], ...] = ()  # name, licence, hours, ...: copied into the bundle's manifest

    def __post_init__(self) -> None:
        require(bool(self.train or self.shards), "train is empty: name at least one manifest, or shards")
        require(not (self.train and self.shards), "both train and shards are given: make shards of the manifests too")
        require(not (self.shards and self.session_s), "session_s is given with shards, whose neighbours are strangers")
        require(
            not self.shards or self.buffer_s >= self.batch_s,
            f"buffer_s is {self.buffer_s}: it must be at least batch_s ({self.batch_s})",
        )
        require(self.max_duration_s > 0, f"max_duration_s is {self.max_duration_s}: it must be positive")
        require(
            self.batch_s >= self.max_duration_s,
            f"batch_s is {self.batch_s}: it must be at least max_duration_s ({self.max_duration_s})",
        )
        require(self.session_s >= 0, f"session_s is {self.session_s}: it must not be negative")
        for part, weight in self.weights.items():
            number = isinstance(weight, int | float) and 0 <= weight <= 1
            require(number, f"weights.{part!r} is {weight!r}: it must be a number in [0, 1]")
        for source in self.sources:
            named = all(isinstance(source.get(key), str) and source[key] for key in ("name", "licence"))
            require(named, f"the source {source!r} must have a name and a licence")
        names = [Path(path).stem for path in self.dev]
        require(len(set(names)) == len(names), f"dev manifests are told apart by name, got {', '.join(names)}: rename")


@dataclass(frozen=True)
class AugmentConfig(FrozenConfig):
    """Probabilities of what is done to an utterance, and ranges drawn from uniformly."""

    speed: tuple[float, float] = (0.88, 1.12)
    gain_db: tuple[float, float] = (-18.0, 6.0)
    noise: float = 0.4
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    reverb: float = 0.25
    reverb_s: tuple[float, float] = (0.1, 0.6)
    equalizer: float = 0.3
    band_limit: float = 0.25
    band_limit_hz: tuple[float, float] = (3400.0, 7500.0)
    codec: float = 0.03
    vocal_tract: tuple[float, float] = (1.0, 1.0)  # factors that stretch the mel axis
    time_masks: int = 8  # the most in one utterance
    time_mask_every_frames: int = 150
    time_mask_frames: int = 25
    frequency_masks: int = 2
    frequency_mask_bands: int = 22
    clean_steps: int = 1500  # no spectrogram masks before this step: early masks keep CTC on blanks

    def __post_init__(self) -> None:
        for name in ("noise", "reverb", "equalizer", "band_limit", "codec"):
            chance = getattr(self, name)
            require(0 <= chance <= 1, f"{name} is {chance}: it must be a probability, in [0, 1]")
        for name in ("speed", "gain_db", "noise_snr_db", "reverb_s", "band_limit_hz", "vocal_tract"):
            low, high = getattr(self, name)
            require(low <= high, f"{name} is from {low} to {high}: give the lower number first")
        for name, least in (("speed", 0.1), ("reverb_s", 0.01), ("band_limit_hz", 100), ("vocal_tract", 0.5)):
            low = getattr(self, name)[0]
            require(low >= least, f"{name} begins at {low}: it must be {least} or more")
        require(
            self.time_mask_every_frames > 0,
            f"time_mask_every_frames is {self.time_mask_every_frames}: it must be positive",
        )
        for name in ("time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_bands", "clean_steps"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")


@dataclass(frozen=True)
class OptimizerConfig(FrozenConfig):
    """Linear warm-up and a cosine to zero, for AdamW, or for Muon where it applies and AdamW elsewhere."""

    steps: int = 20000
    warmup_steps: int = 800
    peak_rate: float = 1.2e-3
    weight_decay: float = 0.02
    clip_norm: float = 2.0
    ema_decay: float = 0.999
    lower_ctc_weight: float = 0.3
    phone_weight: float = 0.4  # of phones beside characters, in a model that has them
    crf_weight: float = 0.0  # of the sequence criterion in the loss of the final output's phones; the rest is CTC
    consistency_weight: float = 0.0  # above 0, every utterance is seen twice in a step, with masks of its own each time
    bf16: bool = True  # products of matrices, where the processor has instructions for it
    write_price: float = 0.0  # in nats, of a summary that the write gate lets through
    muon: bool = False  # for matrices inside the encoder: learns more a step, and costs a quarter of it on a CPU

    def __post_init__(self) -> None:
        require(
            0 < self.warmup_steps < self.steps,
            f"warmup_steps is {self.warmup_steps}, steps {self.steps}: wanted 0 < warmup_steps < steps",
        )
        for name in ("peak_rate", "clip_norm"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be positive")
        require(self.write_price >= 0, f"write_price is {self.write_price}: it must not be negative")
        for name in ("ema_decay", "lower_ctc_weight", "phone_weight"):
            require(0 <= getattr(self, name) < 1, f"{name} is {getattr(self, name)}: it must be in [0, 1)")
        require(0 <= self.crf_weight <= 1, f"crf_weight is {self.crf_weight}: it must be in [0, 1]")
        for name in ("weight_decay", "consistency_weight"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")


@dataclass(frozen=True)
class RunConfig(FrozenConfig):
    """Where a run writes, how often, and its seed."""

    directory: str = "runs/tiny"
    seed: int = 1
    processes: int = 1
    device: str = "cpu"  # or "cuda": a GPU for each process
    evaluate_every: int = 1000
    save_every: int = 500
    log_every: int = 50
    short_first_epochs: int = 1
    loaders: int = 0  # threads of each process that make batches ahead; 0: each is made when it is wanted
    chunk_frames: tuple[int, ...] = ()  # drawn for each batch (dynamic chunk training); empty: the model's own

    def __post_init__(self) -> None:
        require(self.device in DEVICES, f"device is {self.device!r}: it must be one of {', '.join(DEVICES)}")
        require(bool(self.directory), "directory is empty: name a folder for what the run writes")
        for name in ("processes", "evaluate_every", "save_every", "log_every"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be positive")
        for name in ("seed", "short_first_epochs", "loaders"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it must not be negative")
        require(all(n > 0 for n in self.chunk_frames), f"chunk_frames is {self.chunk_frames}: each must be positive")


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; `root` is the folder that relative paths start from."""

    root: Path
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()
    tokenizer: Tokenizer = field(default_factory=Tokenizer)

    def __post_init__(self) -> None:
        require(
            not self.optimizer.crf_weight or bool(self.data.phone_graph and self.data.dictionary),
            f"optimizer.crf_weight is {self.optimizer.crf_weight}: it needs data.dictionary and data.phone_graph",
        )
        stride = (*self.model.encoder.summary_strides, None)[0]
        for frames in self.run.chunk_frames:
            require(
                stride is None or frames <= stride,
                f"run.chunk_frames has {frames}: it must be at most the first of model.summary_strides ({stride})",
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe. raises: ConfigError for a missing or malformed file, an unknown table or key, a bad value"""
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot read the recipe {path}: {error}: give a TOML file") from error
        try:
            return cls._from_tables(tables)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def _from_tables(cls, tables: Mapping[str, Any]) -> Self:
        known = {"model", "features", "data", "augment", "optimizer", "run"}
        for name, table in tables.items():
            require(name in known, f"unknown table [{name}]: known tables are {', '.join(sorted(known))}")
            require(isinstance(table, Mapping), f"{name} is {table!r}: wanted a table, [{name}]")

        def built(table: str, build: Callable[[Mapping[str, Any]], ConfigT]) -> ConfigT:
            try:
                return build(tables.get(table, {}))
            except ConfigError as error:
                raise ConfigError(f"[{table}] {error}") from error

        data = built("data", DataConfig.from_dict)
        tokenizer = read_tokens(Path(data.tokens)) if data.tokens else Tokenizer()
        return cls(
            root=Path.cwd(),
            model=ModelConfig(
                built("features", FeatureConfig.from_dict),
                built("model", _encoder),
                vocabulary_size=len(tokenizer),
                phone_vocabulary_size=len(PHONES) if data.dictionary else 0,
            ),
            data=data,
            tokenizer=tokenizer,
            augment=built("augment", AugmentConfig.from_dict),
            optimizer=built("optimizer", OptimizerConfig.from_dict),
            run=built("run", RunConfig.from_dict),
        )

    def with_options(self, *, processes: int | None = None, steps: int | None = None) -> Self:
        """The recipe with other numbers; the warm-up is at most half of the steps. raises: ConfigError"""
        run, optimizer = self.run, self.optimizer
        if processes is not None:
            run = replace(run, processes=processes)
        if steps is not None:
            optimizer = replace(optimizer, steps=steps, warmup_steps=min(optimizer.warmup_steps, steps // 2))
        return replace(self, run=run, optimizer=optimizer)

    @property
    def directory(self) -> Path:
        """The folder in which the run keeps everything that it writes."""
        return self.root / self.run.directory

    def resolve(self, paths: tuple[str, ...]) -> list[Path]:
        """Paths of the recipe, from its root."""
        return [self.root / path for path in paths]


def _encoder(model: Mapping[str, Any]) -> EncoderConfig:
    """A preset and what the recipe overrides of it."""
    overrides = dict(model)
    base = preset(str(overrides.pop("preset", "tiny"))).to_dict()
    return EncoderConfig.from_dict({**base, **overrides})
