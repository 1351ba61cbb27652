import dataclasses
import json

import pytest

from edgeasr.config import PRESETS, EncoderConfig, FeatureConfig, ModelConfig, preset
from edgeasr.errors import ConfigError


def test_the_default_reaches_ten_thousand_frames_back():
    encoder = ModelConfig().encoder
    assert encoder.level_spans == (100,)
    assert encoder.lookback == 10_000
    assert encoder.lookback * ModelConfig().frame_s == pytest.approx(400.0)


def test_three_levels_of_100_reach_a_million_frames_back():
    encoder = EncoderConfig(summary_strides=(100, 100), memory_capacities=(100, 100))
    assert encoder.level_spans == (100, 10_000)
    assert encoder.lookback == 1_000_000


@pytest.mark.parametrize(
    ("strides", "capacities", "spans", "lookback"),
    [
        ((), (), (), 7),
        ((5,), (1,), (5,), 7),
        ((5,), (2,), (5,), 10),
        ((5, 3), (20, 2), (5, 15), 100),
        ((5, 3, 2), (1, 1, 9), (5, 15, 30), 270),
    ],
)
def test_the_lookback_is_that_of_the_farthest_level(strides, capacities, spans, lookback):
    encoder = EncoderConfig(left_context=7, summary_strides=strides, memory_capacities=capacities)
    assert (encoder.level_spans, encoder.lookback) == (spans, lookback)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reaches_ten_thousand_frames_back(name):
    assert preset(name).lookback >= 10_000


def test_the_default_is_the_preset_tiny():
    assert ModelConfig().encoder == preset("tiny")


def test_derived_sizes_of_the_default():
    config = ModelConfig()
    assert config.features.hop_s == pytest.approx(0.01)
    assert config.features.num_bins == 257
    assert config.encoder.head_dim == 48
    assert config.encoder.subsampling == 4
    assert config.encoder.chunk_features == 16
    assert config.encoder.num_readers == 4
    assert config.frame_s == pytest.approx(0.04)
    assert config.chunk_s == pytest.approx(0.16)
    assert config.chunk_samples == 2560


def test_derived_sizes_follow_the_config():
    features = FeatureConfig(sample_rate_hz=8000, hop_length=100, win_length=200, fft_length=256, high_hz=3800.0)
    encoder = EncoderConfig(d_model=48, num_heads=3, upper_blocks=1, chunk_frames=5)
    config = ModelConfig(features, encoder)
    assert (features.hop_s, features.num_bins) == (pytest.approx(0.0125), 129)
    assert (encoder.head_dim, encoder.num_readers, encoder.chunk_features) == (16, 2, 20)
    assert (config.frame_s, config.chunk_s) == (pytest.approx(0.05), pytest.approx(0.25))
    assert config.chunk_samples == 2000


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name):
    config = ModelConfig(FeatureConfig(num_mels=40), preset(name), vocabulary_size=31)
    values = config.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert ModelConfig.from_dict(json.loads(json.dumps(values))) == config
    assert EncoderConfig.from_dict(config.encoder.to_dict()) == config.encoder


def test_every_field_is_in_the_dictionary_by_name():
    values = ModelConfig().to_dict()
    assert list(values) == ["features", "encoder", "vocabulary_size", "phone_vocabulary_size"]
    assert list(values["encoder"]) == [field.name for field in dataclasses.fields(EncoderConfig)]
    assert values["encoder"]["summary_strides"] == [100]
    assert values["features"]["floor"] == 1e-7


def test_what_a_dictionary_leaves_out_is_the_default():
    config = ModelConfig.from_dict({"encoder": {"d_model": 64, "memory_capacities": [50]}, "features": {}})
    assert config == ModelConfig(encoder=EncoderConfig(d_model=64, memory_capacities=(50,)))


def test_configs_are_frozen_and_hashable():
    config = ModelConfig.from_dict({"encoder": {"summary_strides": [20], "memory_capacities": [5]}})
    assert hash(config) == hash(ModelConfig(encoder=EncoderConfig(summary_strides=(20,), memory_capacities=(5,))))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.vocabulary_size = 30
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.encoder.d_model = 64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 3}, "unknown key 'depth' in ModelConfig: known keys are encoder, features, phone_"),
        ({"encoder": {"dmodel": 64}}, "unknown key 'dmodel' in EncoderConfig: known keys are .*d_model, "),
        ({"features": {"n_mels": 80}}, "unknown key 'n_mels' in FeatureConfig: known keys are .*num_mels, "),
        ({"z": 1, "a": 1}, "unknown key 'a'"),
    ],
)
def test_unknown_keys_are_errors(values, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": 5}, "features in ModelConfig is 5: wanted FeatureConfig"),
        ({"encoder": []}, r"encoder in ModelConfig is \(\): wanted EncoderConfig"),
        ({"vocabulary_size": 29.5}, "vocabulary_size in ModelConfig is 29.5: wanted int"),
        ({"vocabulary_size": None}, "vocabulary_size in ModelConfig is None: wanted int"),
        ({"encoder": {"d_model": "192"}}, "d_model in EncoderConfig is '192': wanted int"),
        ({"encoder": {"d_model": 192.0}}, "d_model in EncoderConfig is 192.0: wanted int"),
        ({"encoder": {"num_heads": True}}, "num_heads in EncoderConfig is True: wanted int"),
        ({"encoder": {"dropout": False}}, "dropout in EncoderConfig is False: wanted float"),
        ({"encoder": {"summary_strides": 100}}, r"summary_strides in EncoderConfig is 100: wanted tuple\[int, ...\]"),
        ({"encoder": {"summary_strides": [1.5]}}, r"summary_strides in EncoderConfig is \(1.5,\): wanted tuple"),
        ({"features": {"floor": "1e-7"}}, "floor in FeatureConfig is '1e-7': wanted float"),
    ],
)
def test_values_of_another_type_are_errors(values, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(values)


def test_a_whole_number_will_do_for_a_float():
    assert FeatureConfig.from_dict({"low_hz": 20, "high_hz": 7600}) == FeatureConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sample_rate_hz": 0}, "sample_rate_hz is 0: it must be positive"),
        ({"num_mels": -1}, "num_mels is -1: it must be positive"),
        ({"hop_length": 0}, "wanted 0 < hop_length <= win_length <= fft_length, got 0, 400, 512"),
        ({"hop_length": 401}, "got 401, 400, 512"),
        ({"win_length": 513}, "got 160, 513, 512"),
        ({"low_hz": -1.0}, "wanted 0 <= low_hz < high_hz <= half the sample rate, got -1.0 and 7600.0"),
        ({"low_hz": 7600.0}, "got 7600.0 and 7600.0"),
        ({"high_hz": 8001.0}, "got 20.0 and 8001.0"),
        ({"high_hz": float("nan")}, "got 20.0 and nan"),
        ({"floor": 0.0}, r"floor is 0.0: it must be in \(0, 1\)"),
        ({"floor": float("nan")}, "floor is nan"),
        ({"floor": float("inf")}, "floor is inf"),
    ],
)
def test_impossible_features_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        FeatureConfig.from_dict(values)


@pytest.mark.parametrize(
    "name",
    [
        *("d_model", "num_heads", "lower_blocks", "upper_blocks", "ff_dim"),
        *("conv_kernel", "conv_channels", "left_context", "chunk_frames"),
    ],
)
@pytest.mark.parametrize("value", [0, -1])
def test_every_size_of_the_encoder_is_positive(name, value):
    with pytest.raises(ConfigError, match=f"{name} is {value}: it must be positive"):
        EncoderConfig(**{name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 196}, r"d_model 196 must be a multiple of twice num_heads \(4\)"),
        ({"num_heads": 5}, r"d_model 192 must be a multiple of twice num_heads \(5\)"),
        ({"summary_strides": (10, 10)}, "summary_strides has 2 levels, memory_capacities 1: give one of each a level"),
        ({"memory_capacities": ()}, "summary_strides has 1 levels, memory_capacities 0"),
        ({"memory_capacities": (0,)}, "every memory capacity must be positive"),
        ({"summary_strides": (0,)}, "every summary stride must be positive"),
        ({"chunk_frames": 101}, "chunk_frames is 101: it must be positive and at most the first summary stride"),
        ({"dropout": 1.0}, r"dropout is 1.0: it must be in \[0, 1\)"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_impossible_encoders_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**values)


def test_without_summaries_a_chunk_may_be_of_any_length():
    assert EncoderConfig(chunk_frames=500, summary_strides=(), memory_capacities=()).chunk_features == 2000


def test_a_vocabulary_is_blank_and_more():
    with pytest.raises(ConfigError, match="vocabulary_size is 1: wanted blank and more"):
        ModelConfig(vocabulary_size=1)


def test_an_unknown_preset_is_refused_by_name():
    with pytest.raises(ConfigError, match="unknown preset 'huge': known presets are nano, tiny, small"):
        preset("huge")
