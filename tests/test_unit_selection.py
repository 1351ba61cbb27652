# ruff: noqa: E402 - torch is looked for before the modules that import it
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.errors import BundleError, ConfigError
from edgeasr.phones import PHONE_IDS, read_dictionary
from edgeasr.tokenizer import Tokenizer
from edgeasr.train.corpus import Corpus
from edgeasr.train.frame_files import FrameFile, FrameWriter, HeardRow
from edgeasr.train.processes import Observer, Place
from edgeasr.train.unit_selection import (
    Listener,
    PoolPass,
    Script,
    Speaker,
    Unit,
    UnitConfig,
    UnitPool,
    write_shard,
)

CONFIG = UnitConfig(longest_phones=(2, 4), pause_frames=(0, 2), words=(1, 6), shard_sentences=6, batch_frames=60)
WIDTH = 3


def written(path, texts: list[list[int]], rng: np.random.Generator) -> FrameFile:
    """Recordings of these phones: 2 frames of silence, 1 to 3 a phone, 1 of silence; each frame has its number."""
    phones, bounds, frames = [], [], 0
    with FrameWriter(path) as writer:
        for text in texts:
            ends = frames + 2 + np.cumsum(rng.integers(1, 4, len(text)))
            phones += [*text, 0]
            bounds += [frames + 2, *ends.tolist()]
            numbers = np.arange(frames, ends[-1] + 1)
            lower = np.repeat(numbers[:, None], WIDTH, axis=1)
            writer.add(HeardRow(lower, np.zeros(len(numbers), np.int64), np.zeros(len(numbers)), lower))
            frames = int(ends[-1]) + 1
        writer.finish(WIDTH, phones=np.array(phones, np.uint8), bounds=np.array(bounds))
    return FrameFile.load(path)


@pytest.fixture
def pool(tmp_path) -> SimpleNamespace:
    """Two passes over recordings of the phones 1, 2 and 3."""
    rng = np.random.default_rng(0)
    texts = [[rng.integers(1, 4, rng.integers(1, 12)).tolist() for _ in range(8)] for _ in range(2)]
    files = [written(tmp_path / f"{i}.safetensors", some, rng) for i, some in enumerate(texts)]
    return SimpleNamespace(files=files, texts=[bytes(text) for some in texts for text in some], made=UnitPool(files, 4))


def test_units_spell_the_phones_and_are_the_longest_there_are(pool):
    rng = np.random.default_rng(1)
    for _ in range(50):
        phones = bytes(rng.integers(1, 4, 20).tolist())
        units = pool.made.units(phones, (4, 4), rng)
        assert b"".join(pool.made.phones[u.at : u.at + u.length].tobytes() for u in units) == phones
        at = 0
        for unit in units:
            found = [n for n in range(1, 5) if any(phones[at : at + n] in text for text in pool.texts)]
            assert unit.length == min(max(found), len(phones) - at)
            at += unit.length


def test_all_places_are_chosen_from_and_none_reaches_over_the_end_of_a_recording(pool):
    for phones in (b"\x01", b"\x02\x03", b"\x03\x01\x02", b"\x01\x01\x01\x01\x01"):
        length, first, behind = pool.made.longest(phones)
        wanted = phones[:length]
        places = sum(text[i:].startswith(wanted) for text in pool.texts for i in range(len(text)))
        assert behind - first == places > 0
    rng = np.random.default_rng(2)
    chosen = {pool.made.units(b"\x02", (1, 4), rng)[0].at for _ in range(500)}
    assert len(chosen) == sum(text.count(2) for text in pool.texts)


def test_a_limit_that_is_drawn_is_kept_and_a_phone_that_nobody_says_is_missed(pool):
    rng = np.random.default_rng(3)
    units = pool.made.units(pool.texts[0] * 5, (1, 2), rng)
    assert {unit.length for unit in units} == {1, 2}
    assert pool.made.units(b"\x01\x04", (1, 4), rng) is None


def test_frames_of_a_unit_are_those_of_its_phones_in_the_pass_it_is_of(pool):
    offset = 0
    for file in pool.files:
        phones, bounds = file.more["phones"], file.more["bounds"]
        for at in np.flatnonzero(phones):
            frames = pool.made.frames(Unit(offset + int(at), 1))
            assert frames.shape[1] == WIDTH
            assert frames[:, 0].tolist() == list(range(bounds[at], bounds[at + 1]))
        offset += len(phones)


def test_silence_lies_around_the_speech_of_a_recording(pool):
    rng = np.random.default_rng(4)
    starts = {int(start) for file in pool.files for start in file.starts}
    ends = {int(end) for file in pool.files for end in file.ends}
    for _ in range(30):
        before, behind = (pool.made.silence(5, rng, before=where)[:, 0] for where in (True, False))
        assert int(before[0]) in starts
        assert len(before) == 2
        assert int(behind[-1]) + 1 in ends
        assert len(behind) == 1
        assert len(pool.made.silence(1, rng, before=True)) == 1


def test_frames_that_were_cut_short_are_refused(pool, tmp_path):
    raw = tmp_path / "0.lower.f16"
    raw.write_bytes(raw.read_bytes()[:-2])
    with pytest.raises(BundleError, match=r"0.lower.f16 has \d+ bytes, wanted \d+: delete .*0.safetensors"):
        pool.files[0].lower()
    with pytest.raises(BundleError, match=r"where no file is"):
        FrameFile.load(tmp_path / "9.safetensors")


def test_frames_are_not_there_before_they_are_finished(tmp_path):
    with FrameWriter(tmp_path / "a.safetensors") as writer:
        writer.add(HeardRow(np.zeros((2, WIDTH)), np.zeros(2, np.int64), np.zeros(2)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.outputs.f16.partial"]


# With an encoder that hears


@pytest.fixture(scope="module")
def spoken(trained, tmp_path_factory) -> SimpleNamespace:
    """One pass over the toy language, and who says sentences with it."""
    from edgeasr.train.checkpoint import Checkpoint

    recipe = replace(trained.recipe, augment=replace(trained.recipe.augment, vocal_tract=(0.98, 1.02)))
    listener = Listener(Checkpoint.load(recipe.directory / "best.safetensors").encoder())
    corpus = Corpus.load(recipe, Place(), Observer())
    path = tmp_path_factory.mktemp("pool") / "pass.safetensors"
    with FrameWriter(path) as writer:
        one = PoolPass(listener, recipe.augment.vocal_tract, writer)
        for number, make in enumerate(corpus.batches(0, False, Place(), 0, 1)):
            one.hear(make(), np.random.default_rng(number))
        one.finish()
    file = FrameFile.load(path)
    speaker = Speaker(UnitPool([file], 4), listener, Tokenizer(), read_dictionary(recipe.root / "words.dict"), CONFIG)
    return SimpleNamespace(file=file, speaker=speaker, corpus=corpus, one=one, listener=listener)


def test_a_pool_holds_what_the_encoder_makes_of_whole_utterances(spoken):
    file, collate = spoken.file, spoken.corpus.collate
    said = [bytes(part) for part in bytes(file.more["phones"]).split(b"\0")[:-1]]
    assert sorted(said) == sorted(map(bytes, collate.phones))
    assert len(file.ends) == len(said)
    bounds = file.more["bounds"]
    assert (np.diff(bounds)[file.more["phones"][:-1] != 0] > 0).all()
    # The two halves of the encoder are the encoder: emissions of the outputs are those of the rows.
    outputs = torch.from_numpy(file.outputs().astype(np.float32))
    log_probs = spoken.listener.encoder.emission(outputs).log_softmax(-1)
    torch.testing.assert_close(log_probs[:, 0], torch.from_numpy(file.blanks).float(), atol=0.05, rtol=0.01)
    row = file.lower()[file.starts[0] : file.ends[0]].astype(np.float32)
    padded = np.concatenate([row, np.repeat(row[-1:], -len(row) % 4, axis=0)])
    again = spoken.listener.above(torch.from_numpy(padded)[None]).outputs[0, : len(row) // 4 * 4]
    torch.testing.assert_close(again, outputs[: len(again)], atol=0.02, rtol=0.02)


def test_listening_in_halves_is_the_encoder(spoken):
    encoder, features = spoken.listener.encoder, torch.randn(2, 64, 20, generator=torch.Generator().manual_seed(0))
    heard, whole = spoken.listener.above(spoken.listener.lower(features)), encoder(features)
    torch.testing.assert_close(heard.log_probs, whole.final)
    torch.testing.assert_close(heard.phones, whole.phones)


def test_labels_of_a_pool_and_of_sentences_spell_their_texts(spoken):
    tokenizer, texts = Tokenizer(), sorted(u.text for u in spoken.corpus.utterances)
    file = spoken.file
    rows = [file.labels[start:end].tolist() for start, end in zip(file.starts, file.ends, strict=True)]
    assert sorted(tokenizer.decode(row) for row in rows) == texts
    asked = ["abcd dcba", "c", "cab bad", "no such word"]
    said = list(spoken.speaker.say_all(asked, np.random.default_rng(5)))
    assert sorted(tokenizer.decode(row.labels.tolist()) for row in said) == ["abcd dcba", "c", "cab bad"]
    assert all(len(row.outputs) == len(row.labels) == len(row.blanks) for row in said)


def test_the_encoder_understands_what_units_say(spoken):
    tokenizer, asked = Tokenizer(), ["abd cab", "dad bac cab", "bca dab", "acdc abba"]
    emission = spoken.listener.encoder.emission
    errors = 0
    for row in spoken.speaker.say_all(asked, np.random.default_rng(6)):
        best = torch.unique_consecutive(emission(torch.from_numpy(row.outputs)).argmax(-1))
        # Spaces are pauses in this language, which units do not make.
        heard, said = (tokenizer.decode(ids).replace(" ", "") for ids in (best.tolist(), row.labels.tolist()))
        errors += heard != said
    assert errors <= 1


def test_words_are_said_in_all_their_ways(spoken):
    ways = {"a": (("AA",), ("B",), ("K",)), "b": (("D",),)}
    rng = np.random.default_rng(7)
    said = [spoken.speaker.phones("a b", ways, rng) for _ in range(300)]
    first = sum(phones[0] == PHONE_IDS["AA"] for phones in said)
    assert first / len(said) == pytest.approx(0.7 + 0.3 / 3, abs=0.08)
    assert {phones[0] for phones in said} == {PHONE_IDS[phone] for phone in ("AA", "B", "K")}
    assert {phones[1:] for phones in said} == {bytes([PHONE_IDS["D"]])}
    assert spoken.speaker.phones("a c", ways, rng) == b""


def test_a_shard_is_a_function_of_its_number(spoken, tmp_path):
    (tmp_path / "text").write_text("".join(f"{word} cab\n" for word in ("a", "b", "ab", "ba", "abc", "cba", "dd")))
    script = Script(tmp_path / "text", CONFIG)
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    frames = [write_shard(path, number, script, spoken.speaker) for path, number in zip(paths, (0, 0, 1), strict=True)]
    first, again, other = map(FrameFile.load, paths)
    assert frames[0] == len(first.labels)
    assert first.labels.tolist() == again.labels.tolist() != other.labels.tolist()
    assert first.outputs().tobytes() == again.outputs().tobytes()


def test_a_script_says_every_sentence_once_before_any_again(tmp_path):
    lines = [f"{word}\n" for word in ("One", "two.", "Three!", "four", "five", "six", "seven", "a b c d e f g", "")]
    (tmp_path / "text").write_text("".join(lines))
    script = Script(tmp_path / "text", CONFIG)
    drawn = [text for number in range(7) for text in script.shard(number)]
    every = ["five", "four", "one", "seven", "six", "three", "two"]
    for start in range(0, 42, 7):
        assert sorted(drawn[start : start + 7]) == every
    assert drawn[:7] != drawn[7:14]


@pytest.mark.parametrize("content", [b"", b"12 34\n...\n", b"\xff\xfe"])
def test_a_text_without_words_is_refused(tmp_path, content):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ConfigError, match=r"without sentences of 1 to 6 words|name a text in UTF-8"):
        Script(tmp_path / "text", CONFIG)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"longest_phones": (5, 4)}, "longest_phones is from 5 to 4"),
        ({"longest_phones": (0, 4)}, "wanted 1 or more"),
        ({"pause_frames": (-1, 4)}, "wanted 0 or more"),
        ({"first_pronunciation": 1.5}, "a probability"),
        ({"passes": 0}, "passes is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_settings_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        UnitConfig(**setting)
