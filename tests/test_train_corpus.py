import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.errors import AudioFormatError, ManifestError
from edgeasr.train.corpus import Corpus
from edgeasr.train.processes import Observer, Place


def load(recipe, world: int = 1) -> tuple[Corpus, list[str]]:
    lines: list[str] = []
    return Corpus.load(recipe, Place(0, world), Observer(lines.append)), lines


def manifest(path, *rows) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def row(path, duration=0.5, text="a b"):
    return {"audio_filepath": str(path), "duration": duration, "text": text}


def test_a_corpus_is_what_the_recipe_lists(toy_recipe, toy_folder, tmp_path):
    corpus, lines = load(toy_recipe(tmp_path, data={"weights": {"train1": 0.5, "train12": 0.25}}))
    assert [u.path.name for u in corpus.utterances] == [f"train{i}.wav" for i in range(20)]
    assert corpus.hours == pytest.approx(sum(u.duration_s for u in corpus.utterances) / 3600)
    assert lines == ["decoding: 20 of 20", "decoding: 4 of 4"]
    (dev,) = corpus.dev
    assert (dev.name, len(dev.utterances)) == ("dev", 4)
    assert len(dev.cache[3]) == round(dev.utterances[3].duration_s * 16000)
    shares = dict(zip((u.path.name for u in corpus.utterances), corpus.plan.shares, strict=True))
    assert (shares["train0.wav"], shares["train1.wav"], shares["train12.wav"]) == (1.0, 0.5, 0.25)
    assert corpus.collate.augment is not None
    assert len(corpus.collate.augment.noise) == 1
    _, again = load(toy_recipe(tmp_path))
    assert again == []  # nothing was decoded a second time


def test_every_process_gets_its_part_of_a_batch(toy_recipe, tmp_path, monkeypatch):
    load(toy_recipe(tmp_path))
    monkeypatch.setattr(Place, "wait", lambda self: None)
    assert load(toy_recipe(tmp_path), world=3)[0].plan.batch_s == 2.0


def test_what_is_too_long_is_left_out_and_counted(toy_recipe, tmp_path):
    full, _ = load(toy_recipe(tmp_path))
    limit = float(np.median([u.duration_s for u in full.utterances]))
    corpus, lines = load(toy_recipe(tmp_path, data={"max_duration_s": limit}))
    left_out = 20 - len(corpus.utterances)
    assert left_out == sum(u.duration_s > limit for u in full.utterances) > 0
    assert lines[0] == f"left out {left_out} utterances longer than {limit} s (data.max_duration_s)"
    with pytest.raises(ManifestError, match=r"got 20 utterances longer than 0\.01 s in data\.train, wanted shorter"):
        load(toy_recipe(tmp_path, data={"max_duration_s": 0.01}))


def test_a_recording_in_train_and_dev_is_refused(toy_recipe, toy_folder, tmp_path):
    (tmp_path / "link.wav").symlink_to(toy_folder / "train3.wav")
    dev = manifest(tmp_path / "mine.jsonl", row(toy_folder / "dev0.wav"), row(tmp_path / "link.wav"))
    with pytest.raises(ManifestError, match=r"link\.wav of the dev manifest mine is in data\.train too: take it out"):
        load(toy_recipe(tmp_path, data={"dev": (dev,)}))


def test_a_dev_set_without_words_is_refused(toy_recipe, toy_folder, tmp_path):
    dev = manifest(tmp_path / "mine.jsonl", row(toy_folder / "dev0.wav", text=" - "))
    with pytest.raises(ManifestError, match=r"mine\.jsonl has no words, wanted some to count errors against"):
        load(toy_recipe(tmp_path, data={"dev": (dev,)}))


def test_what_is_missing_is_named(toy_recipe, toy_folder, tmp_path):
    with pytest.raises(ManifestError, match=r"cannot read the manifest .*none\.jsonl"):
        load(toy_recipe(tmp_path, data={"train": ("none.jsonl",)}))
    missing = manifest(tmp_path / "missing.jsonl", row("none.wav"))
    with pytest.raises(AudioFormatError, match=r"cannot read .*none\.wav"):
        load(toy_recipe(tmp_path, data={"train": (missing,)}))
