import json
import math

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeasr.config import FeatureConfig
from edgeasr.features import LogMel, analysis_window, hz_to_mel, log_mel, mel_filterbank, mel_to_hz, num_frames

CONFIG = FeatureConfig()
LOG_FLOOR = math.log(CONFIG.floor)
CONFIGS = [
    CONFIG,
    FeatureConfig(num_mels=23, win_length=512, hop_length=512),
    FeatureConfig(sample_rate_hz=8000, num_mels=40, win_length=200, hop_length=80, fft_length=256, high_hz=3800.0),
]


def speech_like(num_samples=24000, seed=0):
    """A voice of harmonics that glides and pauses, over noise: energies from the floor to full scale."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 1.3 * time)) / 16000
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 30))
    pauses = np.clip(np.sin(2 * np.pi * 1.1 * time), 0, 1)
    waveform = 0.3 * voice * pauses + 1e-3 * rng.standard_normal(num_samples) * (time < 1.2)
    return waveform.astype(np.float32)


VOICE = speech_like()


def recording(folder, manifest, suffix):
    """Some seconds of the first recording of this kind."""
    if suffix.removeprefix(".").upper() not in {*soundfile.available_formats(), "OPUS"}:
        pytest.skip(f"this libsndfile does not read {suffix}")
    paths = (json.loads(line)["audio_filepath"] for line in (folder / manifest).read_text().splitlines())
    path = next((folder / path for path in paths if path.endswith(suffix)), None)
    if path is None or not path.is_file():
        pytest.skip(f"no {suffix} recording in {manifest}")
    waveform, rate = soundfile.read(path, dtype="float32", frames=5 * 16000)
    assert rate == CONFIG.sample_rate_hz
    return waveform


@pytest.fixture(scope="module", params=["synthesised", "mp3", "opus"])
def waveform(request):
    if request.param == "synthesised":
        return VOICE
    manifest = {"mp3": "dev.jsonl", "opus": "train.jsonl"}[request.param]
    return recording(request.getfixturevalue("speech"), manifest, f".{request.param}")


def assert_same_frames(actual, expected):
    """Equal but for the order in which a matrix product of another size adds."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=5e-6)


def in_blocks(waveform, sizes, config=CONFIG):
    """The frames of `LogMel` from blocks of these sizes, and of the rest in one."""
    features, edges = LogMel(config), np.clip(np.cumsum(sizes, dtype=int), 0, len(waveform))
    return np.concatenate([features.accept_waveform(block) for block in np.split(waveform, edges)])


def test_training_and_device_compute_the_same_features(waveform):
    torch = pytest.importorskip("torch", reason="features of training need the extra `train`")
    from edgeasr.train.features import log_mel as training_log_mel

    shifted = np.roll(waveform, 77)
    batch = training_log_mel(torch.from_numpy(np.stack([waveform, shifted])), CONFIG).numpy()
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch[0], log_mel(waveform, CONFIG), rtol=0, atol=1e-4)
    np.testing.assert_allclose(batch[1], log_mel(shifted, CONFIG), rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("num_samples", [0, 1, 199, 200, 399, 400, 559, 560, 5000])
def test_training_and_device_agree_for_every_length_and_config(config, num_samples):
    torch = pytest.importorskip("torch", reason="features of training need the extra `train`")
    from edgeasr.train.features import log_mel as training_log_mel

    signal = VOICE[:num_samples]
    ours = log_mel(signal, config)
    theirs = training_log_mel(torch.from_numpy(signal)[None], config)[0].numpy()
    assert ours.shape == (num_frames(num_samples, config), config.num_mels)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)


def test_features_are_those_of_librosa(waveform):
    librosa = pytest.importorskip("librosa", reason="the reference needs the extra `train`")
    # librosa puts the window into the middle of the FFT's frame, we at its start.
    margin = (CONFIG.fft_length - CONFIG.win_length) // 2
    energies = librosa.feature.melspectrogram(
        y=np.pad(waveform, margin),
        sr=CONFIG.sample_rate_hz,
        n_fft=CONFIG.fft_length,
        win_length=CONFIG.win_length,
        hop_length=CONFIG.hop_length,
        center=False,
        n_mels=CONFIG.num_mels,
        fmin=CONFIG.low_hz,
        fmax=CONFIG.high_hz,
        norm="slaney",
        htk=False,
        power=2.0,
    )
    np.testing.assert_allclose(log_mel(waveform, CONFIG), np.log(energies.T + CONFIG.floor), rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_filters_are_those_of_librosa(config):
    librosa = pytest.importorskip("librosa", reason="the reference needs the extra `train`")
    filters = librosa.filters.mel(
        sr=config.sample_rate_hz,
        n_fft=config.fft_length,
        n_mels=config.num_mels,
        fmin=config.low_hz,
        fmax=config.high_hz,
    )
    np.testing.assert_allclose(mel_filterbank(config), filters.T, rtol=1e-5, atol=1e-8)


def test_every_filter_sees_a_bin_and_none_is_negative():
    filters = mel_filterbank(CONFIG)
    assert filters.shape == (257, 80)
    assert filters.min() == 0
    assert (filters.max(axis=0) > 0).all()


def test_the_mel_scale_is_slaneys():
    hz = np.array([0.0, 200.0, 1000.0, 6400.0])
    np.testing.assert_allclose(hz_to_mel(hz), [0, 3, 15, 42], atol=1e-9)
    spread = np.linspace(0, 8000, 101)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(spread)), spread, atol=1e-9)


def test_the_window_is_a_periodic_hann_window():
    window = analysis_window(CONFIG)
    np.testing.assert_allclose(window[[0, 100, 200, 300]], [0, 0.5, 1, 0.5], atol=1e-7)
    np.testing.assert_allclose(window[1:], window[:0:-1], atol=1e-7)


@pytest.mark.parametrize("sample", [0, 159, 160, 400, 1000, 2345])
def test_a_click_is_in_the_frames_whose_window_holds_it(sample):
    waveform = np.zeros(4000, np.float32)
    waveform[sample] = 1.0
    loud = np.flatnonzero(log_mel(waveform, CONFIG).max(axis=1) > LOG_FLOOR + 1)
    # The first sample of a window has no weight.
    holding = [t for t in range(num_frames(4000, CONFIG)) if t * 160 < sample < t * 160 + 400]
    assert loud.tolist() == holding


@pytest.mark.parametrize("hz", [150.0, 440.0, 1000.0, 3000.0, 7000.0])
def test_a_tone_is_loudest_in_the_band_around_it(hz):
    tone = 0.5 * np.sin(2 * np.pi * hz * np.arange(1600) / 16000)
    band = log_mel(tone.astype(np.float32), CONFIG).mean(axis=0).argmax()
    edges = mel_to_hz(np.linspace(*hz_to_mel(np.array([CONFIG.low_hz, CONFIG.high_hz])), CONFIG.num_mels + 2))
    assert edges[band] < hz < edges[band + 2]


def test_silence_is_the_log_of_the_floor():
    features = log_mel(np.zeros(1000, np.float32), CONFIG)
    np.testing.assert_allclose(features, np.full((4, 80), LOG_FLOOR), rtol=1e-6)


def test_twice_the_amplitude_is_four_times_the_energy():
    waveform = VOICE[:4000] + 0.1
    difference = log_mel(2 * waveform, CONFIG) - log_mel(waveform, CONFIG)
    loud = log_mel(waveform, CONFIG) > 0
    assert loud.any()
    np.testing.assert_allclose(difference[loud], math.log(4), atol=1e-4)


def test_features_are_float32():
    assert log_mel(VOICE[:800], CONFIG).dtype == np.float32
    assert LogMel(CONFIG).accept_waveform(VOICE[:800]).dtype == np.float32


@pytest.mark.parametrize(
    ("num_samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)]
)
def test_only_whole_windows_are_frames(num_samples, frames):
    assert num_frames(num_samples, CONFIG) == frames
    assert log_mel(np.zeros(num_samples, np.float32), CONFIG).shape == (frames, 80)
    assert LogMel(CONFIG).accept_waveform(np.zeros(num_samples, np.float32)).shape == (frames, 80)


@pytest.mark.parametrize("size", [159, 160, 161, 399, 400, 401, 2560])
def test_blocks_of_one_size_give_the_frames_of_the_whole(waveform, size):
    expected = log_mel(waveform, CONFIG)
    assert_same_frames(in_blocks(waveform, [size] * (len(waveform) // size)), expected)


def test_blocks_of_one_sample_give_the_frames_of_the_whole():
    waveform = VOICE[:2000]
    assert_same_frames(in_blocks(waveform, [1] * 2000), log_mel(waveform, CONFIG))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 900), max_size=20), st.integers(0, 5000))
def test_blocks_of_any_sizes_give_the_frames_of_the_whole(sizes, num_samples):
    waveform = VOICE[:num_samples]
    assert_same_frames(in_blocks(waveform, sizes), log_mel(waveform, CONFIG))


@pytest.mark.parametrize("config", CONFIGS)
def test_blocks_give_the_frames_of_the_whole_in_every_config(config):
    waveform = VOICE[:6000]
    assert_same_frames(in_blocks(waveform, [37, 0, 901, 80, 512] * 3, config), log_mel(waveform, config))


def test_frames_come_as_soon_as_their_last_sample():
    features, waveform = LogMel(CONFIG), VOICE[:721]
    counts = [len(features.accept_waveform(waveform[i : i + 1])) for i in range(len(waveform))]
    assert np.flatnonzero(counts).tolist() == [399, 559, 719]


def test_a_reset_forgets_the_waiting_samples():
    features, waveform = LogMel(CONFIG), VOICE[:2000]
    features.accept_waveform(speech_like(777, seed=1))
    features.reset()
    assert_same_frames(features.accept_waveform(waveform), log_mel(waveform, CONFIG))


def test_an_endless_stream_leaves_no_more_than_a_window_waiting():
    features, block = LogMel(CONFIG), VOICE[:1000]
    for _ in range(20):
        features.accept_waveform(block)
        assert len(features._pending) < CONFIG.win_length


def test_the_given_samples_stay_as_they_were():
    waveform = VOICE[:3000]
    before = waveform.copy()
    features = LogMel(CONFIG)
    features.accept_waveform(waveform[:1500])
    features.accept_waveform(waveform[1500:])
    np.testing.assert_array_equal(waveform, before)
