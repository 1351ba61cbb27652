"""A training recipe: one TOML file says everything that a run depends on."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from edgeasr.config import EncoderConfig, FeatureConfig, FrozenConfig, ModelConfig, preset, require
from edgeasr.errors import ConfigError


@dataclass(frozen=True)
class DataConfig(FrozenConfig):
    """Manifests and how utterances become batches."""

    train: tuple[str, ...] = ()
    dev: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()  # folders of noise recordings
    max_duration_s: float = 33.0
    batch_s: float = 80.0  # audio in one optimiser step, over all processes
    weights: dict[str, float] = field(default_factory=dict)  # part of a path -> share drawn in each epoch
    sources: tuple[dict[str, str], ...] = ()  # name, licence, hours: copied into the bundle's manifest

    def __post_init__(self) -> None:
        require(bool(self.train), "data.train is empty: name at least one manifest")
        require(self.batch_s >= self.max_duration_s, "data.batch_s must be at least data.max_duration_s")
        require(all(0 <= w <= 1 for w in self.weights.values()), "every weight in data.weights must be in [0, 1]")


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
    time_masks: int = 8  # the most in one utterance: one every second and a half
    time_mask_frames: int = 25
    frequency_masks: int = 2
    frequency_mask_bands: int = 22
    clean_steps: int = 1500  # no spectrogram masks before this step: early masks keep CTC on blanks


@dataclass(frozen=True)
class OptimizerConfig(FrozenConfig):
    """AdamW with linear warm-up and a cosine to zero."""

    steps: int = 20000
    warmup_steps: int = 800
    peak_rate: float = 1.2e-3
    weight_decay: float = 0.02
    clip_norm: float = 2.0
    ema_decay: float = 0.999
    lower_ctc_weight: float = 0.3
    bf16: bool = True

    def __post_init__(self) -> None:
        require(0 < self.warmup_steps < self.steps, "wanted 0 < optimizer.warmup_steps < optimizer.steps")
        require(0 <= self.lower_ctc_weight < 1, "optimizer.lower_ctc_weight must be in [0, 1)")


@dataclass(frozen=True)
class RunConfig(FrozenConfig):
    """Where a run writes, how often, and its seed."""

    directory: str = "runs/tiny"
    seed: int = 1
    processes: int = 1
    evaluate_every: int = 1000
    save_every: int = 500
    log_every: int = 50
    short_first_epochs: int = 1
    chunk_frames: tuple[int, ...] = ()  # drawn for each batch (dynamic chunk training); empty: the model's own


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; `root` is the folder that relative paths start from."""

    root: Path
    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    run: RunConfig = RunConfig()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a recipe. raises: ConfigError for a missing or malformed file, an unknown table or key"""
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"cannot read the recipe {path}: {error}") from error
        known = {"model", "features", "data", "augment", "optimizer", "run"}
        unknown = sorted(set(tables) - known)
        if unknown:
            raise ConfigError(f"{path}: unknown table [{unknown[0]}]: known tables are {', '.join(sorted(known))}")
        return cls(
            root=Path.cwd(),
            model=_model(tables.get("model", {}), tables.get("features", {})),
            data=DataConfig.from_dict(tables.get("data", {})),
            augment=AugmentConfig.from_dict(tables.get("augment", {})),
            optimizer=OptimizerConfig.from_dict(tables.get("optimizer", {})),
            run=RunConfig.from_dict(tables.get("run", {})),
        )

    def resolve(self, paths: tuple[str, ...]) -> list[Path]:
        """Paths of the recipe, from its root."""
        return [self.root / path for path in paths]


def _model(model: dict[str, Any], features: dict[str, Any]) -> ModelConfig:
    """A preset and what the recipe overrides of it."""
    overrides = dict(model)
    base = preset(overrides.pop("preset", "tiny")).to_dict()
    return ModelConfig(FeatureConfig.from_dict(features), EncoderConfig.from_dict({**base, **overrides}))
