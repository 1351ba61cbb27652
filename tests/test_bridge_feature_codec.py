import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from edgeasr.config import FeatureConfig
from edgeasr.features import log_mel
from edgeasr.firmware_bridge.feature_codec import (
    DEFAULT_SCALE,
    FeatureScale,
    decode_features,
    decode_levels,
    dequantize,
    encode_features,
    encode_levels,
    quantize,
    rice_decode,
    rice_encode,
)
from edgeasr.firmware_bridge.frame import encode_frame
from edgeasr.firmware_bridge.messages import FeatureCoding, Features, ProtocolError, Status

FRAMES_A_MESSAGE = 10


def vectors(repository, name):
    lines = (repository / "firmware_bridge" / "vectors" / f"{name}.txt").read_text().splitlines()
    return [line.split(" ") for line in lines if not line.startswith("#")]


def unhex(word):
    return b"" if word == "-" else bytes.fromhex(word)


def levels_of(word, num_mels):
    return np.frombuffer(unhex(word), np.int8).reshape(-1, num_mels)


@st.composite
def any_levels(draw):
    """Levels of any kind: flat, smooth, or all over the place."""
    shape = draw(st.integers(0, 6)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0, 1, 5, 40, 128]))
    return np.clip(rng.normal(0, spread, shape), -128, 127).astype(np.int8)


@pytest.fixture(scope="module")
def clip(repository):
    waveform, _ = soundfile.read(repository / "edgeasr" / "models" / "demo.flac", dtype="float32")
    return log_mel(waveform, FeatureConfig())


def test_vectors_of_rice_coding(repository):
    for _, num_frames, num_mels, levels, data in vectors(repository, "rice"):
        case = levels_of(levels, int(num_mels))
        assert case.shape == (int(num_frames), int(num_mels))
        assert rice_encode(case) == unhex(data)
        assert (rice_decode(unhex(data), *case.shape) == case).all()
    for name, num_frames, num_mels, data, status in vectors(repository, "rice_malformed"):
        with pytest.raises(ProtocolError) as caught:
            rice_decode(unhex(data), int(num_frames), int(num_mels))
        assert (name, caught.value.status.name) == (name, status)


def test_vectors_of_log_mel_are_the_features_of_the_encoder(repository):
    for _, step, offset, tolerance, pcm, levels in vectors(repository, "logmel"):
        samples = np.frombuffer(unhex(pcm), "<i2").astype(np.float32) / 32768
        ours = quantize(log_mel(samples, FeatureConfig()), FeatureScale(int(step), int(offset)))
        wanted = levels_of(levels, 80)
        assert ours.shape == wanted.shape
        # Float32 against double precision: a level is missed only where a value lies on its edge.
        assert np.count_nonzero(ours != wanted) <= 2
        assert np.abs(ours.astype(int) - wanted).max(initial=0) <= int(tolerance)


def test_rice_coding_by_hand():
    # 5 is predicted as 0 (code 10), the next 5 as 5 (code 0): k = 2 takes 5 + 3 bits, its neighbours 9.
    assert rice_encode(np.array([[5, 5]], np.int8)).hex() == f"{0b010_11010_000 << 5:04x}"
    # Row 0 is 0, 0; row 1 begins with 4, predicted 0 (code 8); the plane through 0, 4 and 0 gives 3 (code 0).
    # k = 1 takes 6 + 2 bits, k = 2 takes 5 + 3, and the lower of two wins.
    expected = f"{0b000_0_0_001_111100_00:04x}"
    assert rice_encode(np.array([[0, 0], [4, 3]], np.int8)).hex() == expected


@given(any_levels(), st.sampled_from(FeatureCoding))
def test_levels_come_back_as_they_were(levels, coding):
    features = encode_levels(levels, FeatureScale(100, 7), coding)
    assert (features.num_frames, features.num_mels, features.step, features.offset) == (*levels.shape, 100, 7)
    assert (decode_levels(features) == levels).all()
    assert decode_levels(features).dtype == np.int8


@given(any_levels())
def test_rice_coding_is_never_much_longer_than_int8(levels):
    # With k = 7 no value takes more than 11 bits.
    num_frames, num_mels = levels.shape
    assert len(rice_encode(levels)) <= (num_frames * (3 + 11 * num_mels) + 7) // 8


@given(any_levels(), st.data())
def test_coded_levels_that_are_cut_off_or_continued_are_refused(levels, data):
    coded = rice_encode(levels)
    with pytest.raises(ProtocolError) as caught:
        rice_decode(coded + b"\0", *levels.shape)
    assert caught.value.status == Status.BAD_LENGTH
    if coded:
        with pytest.raises(ProtocolError) as caught:
            rice_decode(coded[: data.draw(st.integers(0, len(coded) - 1))], *levels.shape)
        assert caught.value.status == Status.TRUNCATED


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 2), st.integers(0, 3), st.binary(max_size=60))
def test_any_bytes_give_levels_of_the_announced_shape_or_a_protocol_error(num_mels, num_frames, coding, step, data):
    shape = None
    try:
        shape = decode_levels(Features(num_mels, num_frames, coding, step, 0, data)).shape
    except ProtocolError as error:
        assert str(error)  # noqa: PT017 - the message is what matters
    assert shape in (None, (num_frames, num_mels))


def test_quantisation_takes_the_nearest_level_the_upper_of_two_and_cuts_off():
    scale = FeatureScale(step=512, offset=-256)  # half a nat, around -1
    values = np.array([[-1.0, -0.76, -0.75, -1.25, -1.26, 0.0, 100.0, -100.0]], np.float32)
    levels = quantize(values, scale)
    assert levels.tolist() == [[0, 0, 1, 0, -1, 2, 127, -128]]
    assert dequantize(levels, scale)[0, :6].tolist() == [-1, -1, -0.5, -1, -1.5, 0]


def test_features_of_speech_are_off_by_half_a_step_at_most(clip):
    frames = clip[:100]
    decoded = decode_features(encode_features(frames))
    assert decoded.dtype == np.float32
    assert np.abs(decoded - frames).max() <= DEFAULT_SCALE.step_nats / 2 + 1e-5


def test_every_log_mel_value_has_a_level():
    config = FeatureConfig()
    loudest = log_mel(np.tile(np.repeat(np.float32([-1, 1]), 8), 100), config).max()
    for value in (loudest, np.log(config.floor)):
        level = (value - DEFAULT_SCALE.offset_nats) / DEFAULT_SCALE.step_nats
        assert -128 < level < 127


def test_features_of_speech_take_8_to_16_kbits_a_second_on_the_wire(clip):
    parts = [clip[i : i + FRAMES_A_MESSAGE] for i in range(0, len(clip), FRAMES_A_MESSAGE)]
    size = sum(len(encode_frame(encode_features(part), i % 256, 1600 * i)) for i, part in enumerate(parts))
    kbits = 8 * size / (len(clip) / 100) / 1000
    assert 8 < kbits < 16


def test_features_that_do_not_fit_say_so():
    with pytest.raises(ProtocolError, match="got 3 bytes for 2 frames of 2 mels, wanted one for each value"):
        decode_features(Features(2, 2, FeatureCoding.RAW, 1, 0, bytes(3)))
    with pytest.raises(ProtocolError, match="coding 2, wanted 0"):
        decode_features(Features(2, 2, 2, 1, 0, bytes(4)))
    with pytest.raises(ProtocolError, match="0 mels and step 1"):
        decode_features(Features(0, 2, 0, 1, 0, b""))
    with pytest.raises(ProtocolError, match="num_frames of FEATURES is 256, wanted 0 to 255"):
        encode_features(np.zeros((256, 80), np.float32)).encode()
