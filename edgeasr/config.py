"""Frozen configurations; every derived size is a property here and typed nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, get_args, get_origin, get_type_hints

from edgeasr.errors import ConfigError


class FrozenConfig:
    """Conversion to and from plain dictionaries; an unknown key is an error."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the config from JSON or TOML values; raises ConfigError on unknown keys or impossible values."""
        kinds = get_type_hints(cls)
        unknown = sorted(set(values) - set(kinds))
        if unknown:
            raise ConfigError(
                f"unknown key {unknown[0]!r} in {cls.__name__}: known keys are {', '.join(sorted(kinds))}"
            )
        frozen = {key: _frozen(value) for key, value in values.items()}
        for key, value in frozen.items():
            wanted = cls.__annotations__[key]
            require(_fits(value, kinds[key]), f"{key} in {cls.__name__} is {value!r}: wanted {wanted}")
        return cls(**frozen)

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON-ready values."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))  # type: ignore[call-overload]
        return plain


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of its field; a whole number is a float too, but a truth value is no number."""
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if isinstance(value, tuple) and items[-1] is Ellipsis:
            items = items[:1] * len(value)
        return isinstance(value, tuple) and len(value) == len(items) and all(map(_fits, value, items))
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, get_origin(kind) or kind)


def require(condition: bool, message: str) -> None:
    """Raise ConfigError with `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


@dataclasses.dataclass(frozen=True)
class FeatureConfig(FrozenConfig):
    """Log-mel features; lengths in samples, frequencies in Hz."""

    sample_rate_hz: int = 16000
    num_mels: int = 80
    win_length: int = 400
    hop_length: int = 160
    fft_length: int = 512
    low_hz: float = 20.0
    high_hz: float = 7600.0
    floor: float = 1e-7

    def __post_init__(self) -> None:
        require(self.sample_rate_hz > 0, f"sample_rate_hz is {self.sample_rate_hz}: it must be positive")
        require(self.num_mels > 0, f"num_mels is {self.num_mels}: it must be positive")
        require(
            0 < self.hop_length <= self.win_length <= self.fft_length,
            "wanted 0 < hop_length <= win_length <= fft_length, "
            f"got {self.hop_length}, {self.win_length}, {self.fft_length}",
        )
        require(
            0 <= self.low_hz < self.high_hz <= self.sample_rate_hz / 2,
            f"wanted 0 <= low_hz < high_hz <= half the sample rate, got {self.low_hz} and {self.high_hz}",
        )
        require(0 < self.floor < 1, f"floor is {self.floor}: it must be in (0, 1)")

    @property
    def hop_s(self) -> float:
        """Seconds from one feature frame to the next."""
        return self.hop_length / self.sample_rate_hz

    @property
    def num_bins(self) -> int:
        """Frequency bins of the power spectrum."""
        return self.fft_length // 2 + 1


@dataclasses.dataclass(frozen=True)
class EncoderConfig(FrozenConfig):
    """The hierarchical attention encoder; lengths in encoder frames unless a name says otherwise."""

    d_model: int = 192
    num_heads: int = 4
    lower_blocks: int = 4
    upper_blocks: int = 3
    ff_dim: int = 576
    conv_kernel: int = 15
    conv_channels: int = 48
    left_context: int = 100
    chunk_frames: int = 4
    # One entry a level above the first: vectors of the level below in a summary, and summaries kept.
    summary_strides: tuple[int, ...] = (100,)
    memory_capacities: tuple[int, ...] = (100,)
    merge_similarity: float = 1.0  # a summary with a cosine above it to a stored one is merged into that; 1: none is
    write_gate: bool = False  # whether a learned gate may skip summaries
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = ("d_model", "num_heads", "lower_blocks", "upper_blocks", "ff_dim", "conv_kernel", "conv_channels")
        for name in (*sizes, "left_context"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: it must be positive")
        require(
            self.d_model % (2 * self.num_heads) == 0,
            f"d_model {self.d_model} must be a multiple of twice num_heads ({self.num_heads})",
        )
        require(
            len(self.summary_strides) == len(self.memory_capacities),
            f"summary_strides has {len(self.summary_strides)} levels, "
            f"memory_capacities {len(self.memory_capacities)}: give one of each a level",
        )
        require(all(n > 0 for n in self.memory_capacities), "every memory capacity must be positive")
        require(all(n > 0 for n in self.summary_strides), "every summary stride must be positive")
        require(
            0 < self.chunk_frames <= (self.summary_strides or (self.chunk_frames,))[0],
            f"chunk_frames is {self.chunk_frames}: it must be positive and at most the first summary stride",
        )
        require(
            -1 <= self.merge_similarity <= 1,
            f"merge_similarity is {self.merge_similarity}: it must be a cosine, in [-1, 1]",
        )
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}: it must be in [0, 1)")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.d_model // self.num_heads

    @property
    def subsampling(self) -> int:
        """Feature frames in one encoder frame (two convolutions of stride 2)."""
        return 4

    @property
    def chunk_features(self) -> int:
        """Feature frames in one chunk."""
        return self.chunk_frames * self.subsampling

    @property
    def num_readers(self) -> int:
        """Attention layers that read a memory bank: its own level's, then one an upper block."""
        return 1 + self.upper_blocks

    @property
    def level_spans(self) -> tuple[int, ...]:
        """Encoder frames summarised by one vector of each level above the first."""
        spans, span = [], 1
        for stride in self.summary_strides:
            span *= stride
            spans.append(span)
        return tuple(spans)

    @property
    def hops(self) -> tuple[int, ...]:
        """Attention layers from a frame to what is emitted now: in the window of level 1, and through each level above.

        A frame that level l remembers was pooled l - 1 times and is read once.
        """
        return tuple(range(1, 2 + len(self.summary_strides)))

    @property
    def lookback(self) -> int:
        """Encoder frames in reach of the farthest memory if all is stored; merging and skipping only add to it."""
        reaches = [s * n for s, n in zip(self.level_spans, self.memory_capacities, strict=True)]
        return max([self.left_context, *reaches])


@dataclasses.dataclass(frozen=True)
class ModelConfig(FrozenConfig):
    """Features, encoder and vocabulary sizes of one acoustic model."""

    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    vocabulary_size: int = 29
    phone_vocabulary_size: int = 0  # 0: characters only

    def __post_init__(self) -> None:
        require(self.vocabulary_size > 1, f"vocabulary_size is {self.vocabulary_size}: wanted blank and more")
        require(
            self.phone_vocabulary_size == 0 or self.phone_vocabulary_size > 1,
            f"phone_vocabulary_size is {self.phone_vocabulary_size}: wanted blank and more, or 0 for none",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Like FrozenConfig.from_dict, with nested `features` and `encoder` tables."""
        nested = dict(values)
        for key, part in (("features", FeatureConfig), ("encoder", EncoderConfig)):
            if isinstance(nested.get(key), Mapping):
                nested[key] = part.from_dict(nested[key])
        return super().from_dict(nested)

    @property
    def frame_s(self) -> float:
        """Seconds in one encoder frame."""
        return self.features.hop_s * self.encoder.subsampling

    @property
    def chunk_s(self) -> float:
        """Seconds in one chunk."""
        return self.frame_s * self.encoder.chunk_frames

    @property
    def chunk_ms(self) -> int:
        """Milliseconds in one chunk."""
        return round(self.chunk_s * 1000)

    def with_chunk(self, chunk_ms: int) -> Self:
        """The same model in chunks of another length. Errors: ConfigError for one that it cannot have"""
        chunk_frames, frame_ms = round(chunk_ms / 1000 / self.frame_s), round(self.frame_s * 1000)
        longest = (self.encoder.summary_strides or (chunk_frames,))[0]
        require(
            chunk_ms == chunk_frames * frame_ms and 0 < chunk_frames <= longest,
            f"got chunks of {chunk_ms} ms, wanted a multiple of {frame_ms} ms"
            + (f" up to {longest * frame_ms} ms" if self.encoder.summary_strides else ""),
        )
        return dataclasses.replace(self, encoder=dataclasses.replace(self.encoder, chunk_frames=chunk_frames))

    @property
    def chunk_samples(self) -> int:
        """Samples by which the stream advances in one chunk."""
        return self.features.hop_length * self.encoder.chunk_features


PRESETS: dict[str, EncoderConfig] = {
    "nano": EncoderConfig(d_model=112, lower_blocks=3, upper_blocks=2, ff_dim=336, conv_channels=32),
    "tiny": EncoderConfig(),
    "small": EncoderConfig(d_model=288, num_heads=6, lower_blocks=6, upper_blocks=5, ff_dim=864),
}


def preset(name: str) -> EncoderConfig:
    """The encoder for a class of devices: nano (about 1 M parameters), tiny (3-5 M) or small (10-15 M)."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}: known presets are {', '.join(PRESETS)}")
    return PRESETS[name]
