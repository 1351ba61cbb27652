# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="augmentation needs the extra `train`")

from edgeasr.config import FeatureConfig
from edgeasr.errors import AudioFormatError, ConfigError
from edgeasr.train import augment
from edgeasr.train.augment import WaveformAugmenter, change_speed, mask_spectrogram, warp_bands
from edgeasr.train.features import log_mel
from edgeasr.train.recipe import AugmentConfig

RATE_HZ = 16_000
ALWAYS = AugmentConfig(noise=1.0, reverb=1.0, equalizer=1.0, band_limit=1.0, codec=1.0)
NOTHING = AugmentConfig(
    speed=(1.0, 1.0), gain_db=(0.0, 0.0), noise=0.0, reverb=0.0, equalizer=0.0, band_limit=0.0, codec=0.0
)


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def white(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ), dtype=np.float32) * np.float32(0.1)


def peak_hz(waveform: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(waveform)).argmax() * RATE_HZ / len(waveform))


def power(waveform: np.ndarray, low_hz: float = 0, high_hz: float = RATE_HZ / 2) -> float:
    """Energy between two frequencies."""
    spectrum = np.abs(np.fft.rfft(waveform.astype(np.float64))) ** 2
    hz = np.fft.rfftfreq(len(waveform), 1 / RATE_HZ)
    return float(spectrum[(hz >= low_hz) & (hz <= high_hz)].sum())


def decibels(ratio: float) -> float:
    return 10 * np.log10(ratio)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("factor", [0.88, 1.0, 1.12])
def test_speed_changes_length_and_pitch_together(factor):
    changed = augment.change_speed(tone(1000), factor)
    assert changed.dtype == np.float32
    assert len(changed) == pytest.approx(RATE_HZ / factor, abs=1)
    assert peak_hz(changed) == pytest.approx(1000 * factor, abs=1.5)
    assert power(changed) / len(changed) ** 2 == pytest.approx(power(tone(1000)) / RATE_HZ**2, rel=0.02)


@pytest.mark.parametrize("snr_db", [-5.0, 5.0, 30.0])
def test_noise_is_mixed_at_the_ratio_asked_for(snr_db):
    speech, noise = tone(440), white(seed=1)
    mixed = augment.add_noise(speech, noise, snr_db)
    added = mixed.astype(np.float64) - speech
    assert decibels(np.square(speech).mean() / np.square(added).mean()) == pytest.approx(snr_db, abs=0.1)
    assert correlation(added, noise) > 0.999


@pytest.mark.parametrize(("slope", "octave_db"), [(0.0, 0.0), (1.0, 3.01), (2.0, 6.02)])
def test_coloured_noise_falls_with_its_slope(slope, octave_db):
    noise = augment.coloured_noise(20 * RATE_HZ, slope, RATE_HZ, np.random.default_rng(0))
    # Bands of equal width, so that their powers compare as densities at 1 and 2 kHz.
    low, high = power(noise, 950, 1050), power(noise, 1950, 2050)
    assert decibels(low / high) == pytest.approx(octave_db, abs=0.4)


@pytest.mark.parametrize("decay_s", [0.1, 0.6])
def test_a_room_keeps_the_direct_sound_and_decays_in_time(decay_s):
    click = np.zeros(RATE_HZ, np.float32)
    click[1000] = 1.0
    wet = augment.reverberate(click, decay_s, RATE_HZ, np.random.default_rng(3))
    assert (len(wet), wet.dtype) == (len(click), np.float32)
    assert wet[1000] == pytest.approx(1.0, abs=1e-4)
    assert np.abs(wet[:1000]).max() < 1e-4  # nothing is heard before it was said
    tail = wet[1033:].astype(np.float64)
    assert 0.05 <= np.square(tail).sum() <= 1.0
    end = round(decay_s * RATE_HZ)
    assert np.abs(wet[1000 + end :]).max() < 1e-4
    first, last = np.square(tail[: end // 10]).mean(), np.square(tail[end * 8 // 10 : end * 9 // 10]).mean()
    assert decibels(first / last) == pytest.approx(60 * 0.8, abs=4)


def test_an_equalizer_stays_within_nine_decibels():
    waveform = white(4)
    for seed in range(5):
        shaped = augment.equalize(waveform, RATE_HZ, np.random.default_rng(seed))
        assert (len(shaped), shaped.dtype) == (len(waveform), np.float32)
        bands = [(hz, hz + 200) for hz in range(100, 7800, 200)]
        gains = [decibels(power(shaped, *band) / power(waveform, *band)) for band in bands]
        assert max(np.abs(gains)) < 9.1
        assert max(gains) - min(gains) > 3


@pytest.mark.parametrize("cutoff_hz", [3400.0, 7500.0])
def test_a_band_limit_removes_what_is_above_it(cutoff_hz):
    waveform = white()
    limited = augment.limit_band(waveform, cutoff_hz, RATE_HZ)
    assert len(limited) == len(waveform)
    kept = power(limited, 0, cutoff_hz - 50) / power(waveform, 0, cutoff_hz - 50)
    assert decibels(kept) == pytest.approx(0, abs=0.1)
    assert decibels(power(limited, cutoff_hz + 250) / power(waveform, cutoff_hz + 250)) < -40


def test_gain_is_that_of_the_peak():
    assert np.abs(augment.scale_to(tone(300), -6.0)).max() == pytest.approx(10 ** (-6 / 20), rel=1e-4)
    loud = augment.scale_to(tone(300), 6.0)
    assert np.abs(loud).max() == 1.0
    assert (np.abs(loud) == 1.0).mean() > 0.5  # clipped, as by a microphone too close


class Choose:
    """A generator whose every draw is the same."""

    def __init__(self, number: int) -> None:
        self.number = number

    def integers(self, _: int) -> int:
        return self.number


@pytest.mark.parametrize("codec", range(len(augment.CODECS)), ids=[c[1] for c in augment.CODECS])
def test_a_codec_keeps_length_time_and_content(codec):
    speech = tone(300) * np.linspace(0, 1, RATE_HZ, dtype=np.float32) + tone(1100) * (np.arange(RATE_HZ) % 4000 < 2000)
    speech = augment.scale_to(speech, -3)
    decoded = augment.transcode(speech, RATE_HZ, Choose(codec))
    assert decoded.dtype == np.float32
    assert len(decoded) == pytest.approx(len(speech), abs=400)
    length = min(len(decoded), len(speech))
    assert correlation(decoded[:length], speech[:length]) > 0.95
    for lag in (-8, 8):
        assert correlation(np.roll(decoded[:length], lag), speech[:length]) < correlation(
            decoded[:length], speech[:length]
        )
    assert not np.array_equal(decoded[:length], speech[:length])


@pytest.mark.parametrize("waveform", [np.zeros(4000, np.float32), tone(300, 0.05)], ids=["silence", "50 ms"])
@pytest.mark.parametrize("codec", range(len(augment.CODECS)), ids=[c[1] for c in augment.CODECS])
def test_silence_and_short_sounds_stay_finite(waveform, codec):
    rng = np.random.default_rng(0)
    decoded = augment.transcode(waveform, RATE_HZ, Choose(codec))
    assert np.isfinite(decoded).all()
    whole = WaveformAugmenter(ALWAYS, [white(seed=2)], RATE_HZ)(waveform, rng)
    assert np.isfinite(whole).all()
    assert np.abs(whole).max() <= 1.1


def test_an_augmenter_draws_everything_from_its_generator():
    augmenter = WaveformAugmenter(ALWAYS, [white(2, seed=1), white(0.1, seed=2)], RATE_HZ)
    speech = tone(200) + white()
    first, again = (augmenter(speech, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = augmenter(speech, np.random.default_rng(8))
    assert len(other) != len(first)
    np.testing.assert_array_equal(speech, tone(200) + white())


def test_an_augmenter_that_is_told_to_do_nothing_only_scales():
    speech = tone(200) + white()
    changed = WaveformAugmenter(NOTHING, [], RATE_HZ)(speech, np.random.default_rng(0))
    np.testing.assert_allclose(changed, speech / np.abs(speech).max(), atol=1e-6)


def test_each_probability_stands_for_one_change():
    speech, rng = tone(200) + white(), np.random.default_rng(0)
    plain = WaveformAugmenter(NOTHING, [], RATE_HZ)(speech, rng)
    for name in ("noise", "reverb", "equalizer", "band_limit", "codec"):
        config = dataclasses.replace(NOTHING, **{name: 1.0})
        changed = WaveformAugmenter(config, [white()], RATE_HZ)(speech, np.random.default_rng(0))
        assert len(changed) == len(plain)
        assert np.abs(changed - plain).max() > 1e-3, name
        half = WaveformAugmenter(dataclasses.replace(NOTHING, **{name: 0.5}), [white()], RATE_HZ)
        rng = np.random.default_rng(1)
        untouched = sum(np.array_equal(half(speech[:2000], rng), plain_of(speech[:2000])) for _ in range(40))
        assert 10 <= untouched <= 30, name


def plain_of(speech: np.ndarray) -> np.ndarray:
    return WaveformAugmenter(NOTHING, [], RATE_HZ)(speech, np.random.default_rng(0))


@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_noise_of_any_length_fills_the_speech(length, seed):
    augmenter = WaveformAugmenter(ALWAYS, [white(0.05, seed=1)], RATE_HZ)
    noise = augmenter._noise(length, np.random.default_rng(seed))
    assert noise.shape == (length,)
    assert np.isfinite(noise).all()


def test_noise_is_read_from_folders_at_the_rate_of_the_model(tmp_path):
    soundfile.write(tmp_path / "b.wav", np.stack([tone(500, 0.5), -tone(500, 0.5)], 1), RATE_HZ)
    soundfile.write(tmp_path / "a.FLAC", tone(500, 0.5)[::2], RATE_HZ // 2)
    (tmp_path / "README.md").write_text("noises")
    low, cancelled = augment.load_noise([tmp_path], RATE_HZ)
    assert (len(low), len(cancelled)) == (8000, 8000)
    assert peak_hz(low) == pytest.approx(500, abs=2)
    assert np.abs(cancelled).max() < 1e-3


def test_a_folder_without_noise_and_noise_without_sound_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"got no recordings in the noise folder {tmp_path}, wanted .flac, .mp3"):
        augment.load_noise([tmp_path], RATE_HZ)
    with pytest.raises(ConfigError, match="got no recordings in the noise folder"):
        augment.load_noise([tmp_path / "missing"], RATE_HZ)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE_HZ)
    with pytest.raises(AudioFormatError, match=r"the noise .*empty\.wav is empty"):
        augment.load_noise([tmp_path], RATE_HZ)
    (tmp_path / "empty.wav").write_bytes(b"no sound")
    with pytest.raises(AudioFormatError, match=r"cannot read the noise .*empty\.wav: .*: mend the file or take it out"):
        augment.load_noise([tmp_path], RATE_HZ)


def masked(config, frames, lengths, seed=0):
    """(B, T, M) bool: what was filled."""
    torch.manual_seed(seed)
    features = torch.zeros(len(lengths), frames, 80)
    return mask_spectrogram(features, torch.tensor(lengths), config, torch.ones(80)).bool()


def runs(row) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row.numpy().astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def test_frequency_masks_cover_whole_bands_and_no_more_than_asked():
    config = AugmentConfig(time_masks=0, frequency_masks=1, frequency_mask_bands=22)
    mask = masked(config, 200, [200] * 64)
    assert torch.equal(mask.all(dim=1), mask.any(dim=1))  # a band is filled at all times or at none
    widths = [sum(runs(row)) for row in mask[:, 0]]
    assert all(len(runs(row)) <= 1 for row in mask[:, 0])
    assert (min(widths), max(widths)) == (0, 22)


def test_time_masks_grow_in_number_with_length_and_stay_inside_of_it():
    config = AugmentConfig(time_masks=8, time_mask_frames=25, frequency_masks=0)
    mask = masked(config, 1500, [100, 160, 700, 1500] * 32)
    assert torch.equal(mask.all(dim=2), mask.any(dim=2))
    filled = mask[:, :, 0]
    counts = filled.reshape(32, 4, 1500).sum(dim=2).float()
    assert counts.amax(dim=0)[0] <= 25  # one mask
    assert counts.amax(dim=0)[1] <= 50  # two
    # Means: a mask has 12.5 frames; some overlap.
    assert counts.mean(dim=0)[0] == pytest.approx(12.5, abs=3)
    assert counts.mean(dim=0)[3] == pytest.approx(8 * 12.5, abs=16)
    assert not filled.reshape(32, 4, 1500)[:, 0, 100:].any()
    assert not filled.reshape(32, 4, 1500)[:, 2, 700:].any()


def test_masks_are_filled_and_the_rest_is_left_alone():
    features = torch.randn(4, 300, 80, generator=torch.Generator().manual_seed(1))
    fill = torch.arange(80.0)
    torch.manual_seed(5)
    first = mask_spectrogram(features, torch.tensor([300] * 4), AugmentConfig(), fill)
    torch.manual_seed(5)
    again = mask_spectrogram(features, torch.tensor([300] * 4), AugmentConfig(), fill)
    assert torch.equal(first, again)
    changed = first != features
    assert 0.02 < changed.float().mean() < 0.6
    assert torch.equal(first[changed], fill.expand_as(first)[changed])


def test_masks_fit_utterances_that_are_shorter_than_they():
    config = AugmentConfig(time_mask_frames=100, frequency_mask_bands=200)
    mask = masked(config, 8, [1, 8])
    assert mask.shape == (2, 8, 80)


def test_a_warp_by_one_changes_nothing():
    features = torch.randn(2, 5, 80, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warp_bands(features, torch.ones(2), FeatureConfig()), features)


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_a_warp_moves_the_spectrum_as_faster_speech_does(factor):
    """The mean spectrum of a voice-like sound, warped, is nearer to that of the sound played faster than at first."""
    config = FeatureConfig()
    sound = sum(tone(hz) / (1 + abs(hz - 1200) / 300) for hz in range(110, 7000, 110)).astype(np.float32)
    faster = change_speed(sound, factor)

    def spectrum(waveform):
        return log_mel(torch.from_numpy(waveform)[None], config)

    warped = warp_bands(spectrum(sound), torch.tensor([factor]), config).mean(dim=1)[0, 10:65]
    unwarped, wanted = (spectrum(w).mean(dim=1)[0, 10:65] for w in (sound, faster))
    # Levels apart: they depend on how densely the harmonics lie.
    off = (warped - warped.mean()) - (wanted - wanted.mean())
    off_before = (unwarped - unwarped.mean()) - (wanted - wanted.mean())
    assert off.abs().mean() < 0.5 * off_before.abs().mean()


def test_each_row_is_warped_by_its_own_factor():
    features = torch.randn(1, 5, 80, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
    both = warp_bands(features, torch.tensor([0.9, 1.1]), FeatureConfig())
    torch.testing.assert_close(both[:1], warp_bands(features[:1], torch.tensor([0.9]), FeatureConfig()))
    torch.testing.assert_close(both[1:], warp_bands(features[:1], torch.tensor([1.1]), FeatureConfig()))
