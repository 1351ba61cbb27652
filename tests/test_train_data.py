# ruff: noqa: E402 - torch is looked for before the modules that import it
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training data need the extra `train`")

from edgeasr.config import EncoderConfig, FeatureConfig, ModelConfig
from edgeasr.errors import AudioFormatError, ManifestError
from edgeasr.features import log_mel
from edgeasr.manifest import Utterance
from edgeasr.tokenizer import CHARACTERS, Tokenizer
from edgeasr.train.augment import WaveformAugmenter
from edgeasr.train.data import BatchPlan, Collator, WaveformCache, batch_features
from edgeasr.train.recipe import AugmentConfig

RATE_HZ = 16_000
MODEL = ModelConfig(FeatureConfig(num_mels=20), EncoderConfig(chunk_frames=4))
STEP = 1 / 32768


def speech(folder, name="a.wav", seconds=0.5, rate_hz=RATE_HZ, text="ab") -> Utterance:
    """An utterance whose samples tell which it is."""
    noise = np.random.default_rng(len(name) + ord(name[0])).uniform(-0.5, 0.5, round(seconds * rate_hz))
    soundfile.write(folder / name, noise, rate_hz, subtype="PCM_16" if name.endswith("wav") else None)
    return Utterance(folder / name, seconds, text)


def built(folder, utterances, rate_hz=RATE_HZ) -> WaveformCache:
    cache = WaveformCache(folder / "cache", utterances, rate_hz)
    cache.build(lambda done, total: None)
    cache.open()
    return cache


def samples(utterance: Utterance) -> np.ndarray:
    return soundfile.read(utterance.path, dtype="float32")[0]


# WaveformCache


def test_a_cache_gives_every_utterance_back(tmp_path):
    utterances = [speech(tmp_path, name, s) for name, s in (("a.wav", 0.5), ("bb.wav", 0.1), ("c.flac", 0.3))]
    cache = built(tmp_path, utterances)
    for i, utterance in enumerate(utterances):
        assert cache[i].dtype == np.float32
        np.testing.assert_allclose(cache[i], samples(utterance), atol=STEP)


def test_a_cache_is_mono_at_the_rate_of_the_model(tmp_path):
    time = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 500 * time)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, 0 * tone], 1), 8000)
    (waveform,) = [built(tmp_path, [Utterance(tmp_path / "stereo.wav", 1.0, "a")])[0]]
    assert len(waveform) == RATE_HZ
    assert np.abs(np.fft.rfft(waveform)).argmax() == 500
    assert np.abs(waveform[1000:-1000]).max() == pytest.approx(0.25, abs=0.01)


def test_loud_samples_are_clipped_and_do_not_wrap(tmp_path):
    soundfile.write(tmp_path / "loud.wav", np.linspace(-3, 3, 1600), RATE_HZ, subtype="FLOAT")
    waveform = built(tmp_path, [Utterance(tmp_path / "loud.wav", 0.1, "a")])[0]
    assert (waveform.min(), waveform.max()) == (-1.0, 1 - STEP)
    assert (np.diff(waveform) >= 0).all()


def test_a_finished_cache_is_not_built_again(tmp_path):
    utterance = speech(tmp_path)
    built(tmp_path, [utterance])
    utterance.path.unlink()
    WaveformCache(tmp_path / "cache", [utterance], RATE_HZ).build(lambda *_: pytest.fail("decoded again"))


@pytest.mark.parametrize("damage", ["killed while decoding", "cut samples", "cut ends", "no samples"])
def test_a_half_written_cache_is_built_again(tmp_path, damage):
    utterances = [speech(tmp_path, name) for name in ("a.wav", "bb.wav")]
    whole = built(tmp_path, utterances)
    if damage == "killed while decoding":

        def kill(done, total):
            raise KeyboardInterrupt

        whole.ends_path.unlink()
        whole.samples_path.unlink()
        with pytest.raises(KeyboardInterrupt):
            WaveformCache(tmp_path / "cache", utterances, RATE_HZ).build(kill)
    elif damage == "cut samples":
        whole.samples_path.write_bytes(whole.samples_path.read_bytes()[:-2])
    elif damage == "cut ends":
        whole.ends_path.write_bytes(whole.ends_path.read_bytes()[:-4])
    else:
        whole.samples_path.unlink()
    progress = []
    cache = WaveformCache(tmp_path / "cache", utterances, RATE_HZ)
    cache.build(lambda done, total: progress.append((done, total)))
    cache.open()
    assert progress == [(1, 2), (2, 2)]
    np.testing.assert_allclose(cache[1], samples(utterances[1]), atol=STEP)


def test_another_manifest_or_rate_has_a_cache_of_its_own(tmp_path):
    a, b = Utterance(tmp_path / "a.wav", 1.0, "a"), Utterance(tmp_path / "b.wav", 1.0, "b")
    longer, renamed = Utterance(a.path, 1.5, "a"), Utterance(a.path, 1.0, "other words")

    def name(utterances, rate_hz=RATE_HZ):
        return WaveformCache(tmp_path, utterances, rate_hz).samples_path

    different = [name([a]), name([a, b]), name([b, a]), name([longer]), name([a], 8000)]
    assert len(set(different)) == len(different)
    assert name([renamed]) == name([a])  # the texts are not in it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file|System error"),
        (b"", "cannot read"),
        (b"no sound at all", "cannot read"),
    ],
    ids=["missing", "empty", "text"],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    good, bad = speech(tmp_path), Utterance(tmp_path / "bad.wav", 1.0, "b")
    if content is not None:
        bad.path.write_bytes(content)
    with pytest.raises(AudioFormatError, match=message) as caught:
        built(tmp_path, [good, bad])
    assert str(bad.path) in str(caught.value)
    assert str(caught.value).endswith("mend the file or leave it out")


def test_samples_that_are_no_numbers_and_no_samples_are_refused(tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan, 0.5]), RATE_HZ, subtype="FLOAT")
    with pytest.raises(AudioFormatError, match=r"nan\.wav has samples that are no numbers"):
        built(tmp_path, [Utterance(tmp_path / "nan.wav", 0.1, "a")])
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE_HZ)
    with pytest.raises(AudioFormatError, match=r"none\.wav has no samples: leave it out"):
        built(tmp_path, [Utterance(tmp_path / "none.wav", 0.1, "a")])


def test_a_duration_that_is_not_the_file_s_is_refused(tmp_path):
    utterance = speech(tmp_path, seconds=3.0)
    built(tmp_path, [Utterance(utterance.path, 2.5, "ab")])
    with pytest.raises(ManifestError, match=r"a\.wav lasts 3\.00 s, its manifest says 0\.50 s: mend the duration"):
        built(tmp_path, [Utterance(utterance.path, 0.5, "ab")])


# BatchPlan

DURATIONS = st.lists(st.floats(0.1, 30.0), min_size=1, max_size=80)


@given(DURATIONS, st.floats(30.0, 100.0), st.booleans())
def test_every_utterance_comes_once_an_epoch_within_the_bound(durations_s, batch_s, short_first):
    plan = BatchPlan(durations_s, [1.0] * len(durations_s), batch_s, seed=3)
    batches = plan.epoch(0, short_first)
    assert sorted(i for batch in batches for i in batch) == list(range(len(durations_s)))
    for batch in batches:
        assert max(durations_s[i] for i in batch) * len(batch) <= batch_s


def test_what_is_longer_than_a_batch_is_a_batch_of_its_own():
    plan = BatchPlan([5.0, 1.0, 7.0], [1.0] * 3, batch_s=4.0, seed=0)
    assert sorted(plan.epoch(0, False)) == [[0], [1], [2]]


def test_batches_hold_similar_lengths():
    durations_s = np.random.default_rng(0).uniform(1, 20, 400)
    plan = BatchPlan(durations_s, [1.0] * 400, batch_s=80.0, seed=0)
    batches = plan.epoch(0, False)
    padded = sum(durations_s[batch].max() * len(batch) for batch in batches)
    assert padded / durations_s.sum() < 1.2
    assert len(batches) < 1.3 * durations_s.sum() / 80


def test_a_plan_is_a_function_of_seed_and_epoch():
    durations_s = np.random.default_rng(0).uniform(1, 20, 100)

    def plan(seed):
        return BatchPlan(durations_s, [0.7] * 100, 40.0, seed)

    assert plan(1).epoch(3, False) == plan(1).epoch(3, False)
    assert plan(1).epoch(3, False) != plan(1).epoch(4, False)
    assert plan(1).epoch(3, False) != plan(2).epoch(3, False)


def test_the_first_epochs_go_from_short_to_long_where_asked():
    durations_s = np.random.default_rng(0).uniform(1, 20, 200)
    plan = BatchPlan(durations_s, [1.0] * 200, 80.0, seed=0)

    ordered, mixed = plan.epoch(0, True), plan.epoch(0, False)
    assert sorted(ordered) == sorted(mixed)

    def rank_correlation(batches):
        means = [durations_s[batch].mean() for batch in batches]
        return np.corrcoef(np.argsort(np.argsort(means)), range(len(means)))[0, 1]

    assert rank_correlation(ordered) > 0.95
    assert abs(rank_correlation(mixed)) < 0.4


def test_utterances_are_drawn_by_their_shares():
    shares = [0.0] * 50 + [0.2] * 200 + [1.0] * 50
    plan = BatchPlan([1.0] * 300, shares, 10.0, seed=5)
    epochs = [[i for batch in plan.epoch(e, False) for i in batch] for e in range(40)]
    counts = np.bincount(np.concatenate(epochs), minlength=300)
    assert (counts[:50] == 0).all()
    assert (counts[250:] == 40).all()
    assert counts[50:250].mean() == pytest.approx(0.2 * 40, rel=0.1)
    assert (counts[50:250] > 0).all()  # another draw in each epoch


def test_an_epoch_in_which_nothing_is_drawn_has_no_batches():
    assert BatchPlan([1.0], [0.0], 10.0, seed=0).epoch(0, False) == []


def session_plan(seed=0):
    durations_s = np.random.default_rng(0).uniform(1, 9, 120)
    speakers = [f"reader {i % 3}" if i < 90 else "" for i in range(120)]
    return BatchPlan(durations_s, [0.8] * 120, 60.0, seed, speakers, session_s=40.0)


def test_sessions_are_utterances_of_one_speaker_in_their_order():
    plan = session_plan()
    alone = BatchPlan(plan.durations_s, plan.shares, plan.batch_s, plan.seed)
    rows = [row for batch in plan.epoch(0, False) for row in batch]
    assert sorted(i for row in rows for i in row) == sorted(i for batch in alone.epoch(0, False) for i in batch)
    for row in rows:
        assert list(row) == sorted(row)
        assert len({plan.speakers[i] for i in row}) == 1
        assert len(row) == 1 or plan.speakers[row[0]]
        assert sum(plan.durations_s[i] for i in row) <= 40.0
    assert {len(row) for row in rows} >= {1, 3, 5}
    assert plan.epoch(0, False) == session_plan().epoch(0, False)
    assert plan.epoch(0, False) != plan.epoch(1, False)


def test_batches_of_sessions_keep_the_bound():
    plan = session_plan()
    for batch in plan.epoch(0, False):
        longest = max(sum(plan.durations_s[i] for i in row) for row in batch)
        assert longest * len(batch) <= 60.0


# Collator


@pytest.mark.parametrize(
    ("num_samples", "frames", "padded"),
    [
        (400, 1, 16),  # one window
        (100, 1, 16),  # less than a window
        (400 + 3 * 160, 1, 16),  # four feature frames, one encoder frame
        (400 + 4 * 160, 2, 16),
        (400 + 15 * 160, 4, 16),  # a chunk
        (400 + 16 * 160, 5, 32),
    ],
)
def test_features_are_padded_to_whole_chunks(num_samples, frames, padded):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)
    features, lengths = batch_features([waveform], MODEL)
    assert features.shape == (1, padded, 20)
    assert lengths.tolist() == [frames]
    silence = np.zeros((padded - 1) * 160 + 400 - num_samples, np.float32)
    alone = log_mel(np.concatenate([waveform, silence]), MODEL.features)
    np.testing.assert_allclose(features[0].numpy(), alone, atol=1e-4)


def test_a_row_does_not_depend_on_what_it_is_padded_with():
    rng = np.random.default_rng(0)
    short, long = (rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in (4000, 9000))
    together, frames = batch_features([short, long], MODEL)
    alone, length = batch_features([short], MODEL)
    assert frames[0] == length[0]
    torch.testing.assert_close(together[0, : alone.shape[1]], alone[0])


def test_targets_are_padded_and_their_lengths_kept(tmp_path):
    texts = ("ab", "it's", "Café -  a")
    utterances = [speech(tmp_path, f"{'abc'[i]}.wav", 0.4, text=text) for i, text in enumerate(texts)]
    tokenizer = Tokenizer()
    collate = Collator(built(tmp_path, utterances), MODEL, tokenizer, None)
    batch = collate([2, 0, 1], (0,))
    assert batch.target_lengths.tolist() == [6, 2, 4]
    rows = [row[:n].tolist() for row, n in zip(batch.targets, batch.target_lengths, strict=True)]
    assert [tokenizer.decode(row) for row in rows] == ["cafe a", "ab", "it's"]
    assert not batch.targets[1, 2:].any()
    assert batch.features.shape == (3, 48, 20)
    assert batch.frames.tolist() == [10] * 3


@pytest.mark.parametrize(
    ("tokens", "said"), [(CHARACTERS, "ab it's ab"), (("<blank>", " ", *"abist'", " a", " it"), "ab it's ab")]
)
def test_a_session_is_heard_with_pauses_and_read_with_spaces(tmp_path, tokens, said):
    utterances = [speech(tmp_path, f"{i}.wav", 0.4, text=text) for i, text in enumerate(("ab", "it's"))]
    tokenizer = Tokenizer(tokens)
    collate = Collator(built(tmp_path, utterances), MODEL, tokenizer, None)
    batch, again, other = (collate([(0, 1, 0)], seed) for seed in ((0,), (0,), (1,)))
    assert tokenizer.decode(batch.targets[0].tolist()) == said
    # Three times 0.4 s and two pauses of 0.1 to 0.9 s, in frames of 40 ms.
    assert 35 <= batch.frames.item() <= 75
    assert torch.equal(batch.features, again.features)
    assert batch.features.shape != other.features.shape
    first = collate([0], (0,)).features[0]
    torch.testing.assert_close(batch.features[0, :30], first[:30])


def test_the_seed_decides_what_augmentation_does(tmp_path):
    utterances = [speech(tmp_path, name, 0.5) for name in ("a.wav", "bb.wav")]
    augmenter = WaveformAugmenter(AugmentConfig(), [], RATE_HZ)
    collate = Collator(built(tmp_path, utterances), MODEL, Tokenizer(), augmenter)
    first, again, other = collate([0, 1], (1, 2)), collate([0, 1], (1, 2)), collate([0, 1], (1, 3))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert first.features.shape != other.features.shape or not torch.equal(first.features, other.features)
    assert torch.equal(first.targets, other.targets)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty: leave the line out of the training manifest"),
        (" -- ", "the text is empty"),
        ("room 5", "the text 'room 5' has digits: spell numbers out"),
    ],
)
def test_a_text_that_cannot_be_learnt_is_refused(tmp_path, text, message):
    cache = WaveformCache(tmp_path, [Utterance(tmp_path / "a.wav", 1.0, text)], RATE_HZ)
    with pytest.raises(ManifestError) as caught:
        Collator(cache, MODEL, Tokenizer(), None)
    assert str(caught.value).startswith(f"{tmp_path / 'a.wav'}: {message}")


def test_a_character_without_a_token_is_refused(tmp_path):
    cache = WaveformCache(tmp_path, [Utterance(tmp_path / "a.wav", 1.0, "abc")], RATE_HZ)
    with pytest.raises(ManifestError, match=r"a\.wav: got \['c'\] in 'abc'"):
        Collator(cache, MODEL, Tokenizer(("<blank>", " ", "a", "b")), None)
