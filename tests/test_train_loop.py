# ruff: noqa: E402 - torch is looked for before the modules that import it
import dataclasses
import json
import math

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from edgeasr.errors import BundleError, ConfigError, ManifestError
from edgeasr.manifest import read_manifest
from edgeasr.phones import PHONES, read_dictionary
from edgeasr.train import loop
from edgeasr.train.checkpoint import Checkpoint, load_tensors
from edgeasr.train.loop import BEST, LAST, RESUME, Trainer, learning_rate, train
from edgeasr.train.phone_graph import build
from edgeasr.train.processes import Observer, Outcome, Place

NO_CHANGE = {
    "speed": (1.0, 1.0),
    "gain_db": (-6.0, -6.0),
    "noise": 0.0,
    "reverb": 0.0,
    "equalizer": 0.0,
    "band_limit": 0.0,
    "codec": 0.0,
    "clean_steps": 10**6,
}


class Killed(BaseException):
    """Stands for a kill: nothing is done after it."""


def killed_at(step: int):
    def watch(progress):
        if progress.what == "training" and progress.done == step:
            raise Killed

    return watch


def said(_: str) -> None:
    """Reports that no test looks at."""


def saved_state(recipe) -> dict[str, torch.Tensor]:
    return load_tensors(recipe.directory / RESUME)[0]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.1),
        (4, 0.5),
        (9, 1.0),  # the last of the warm-up
        (10, 1.0),
        (35, 0.5 * (1 + math.cos(math.pi / 4))),
        (60, 0.5),
        (110, 0.0),
        (200, 0.0),
    ],
)
def test_the_learning_rate_rises_in_a_line_and_falls_as_a_cosine(step, rate):
    assert learning_rate(step, peak=2.0, warmup=10, total=110) == pytest.approx(2.0 * rate, abs=1e-12)


@pytest.fixture(scope="module")
def straight(toy_recipe, tmp_path_factory):
    """A run without a stop, over several epochs and with everything random that there is."""
    recipe = toy_recipe(tmp_path_factory.mktemp("straight"), run={"chunk_frames": (2, 4)})
    lines = []
    outcome = train(recipe, lines.append)
    return recipe, outcome, lines


def interrupted(toy_recipe, folder, **run):
    return toy_recipe(folder, run={"chunk_frames": (2, 4), **run})


def test_a_run_says_what_it_does_and_where_it_is(straight):
    recipe, outcome, lines = straight
    assert (outcome.step, outcome.finished) == (8, True)
    assert lines[0] == "decoding: 20 of 20"
    assert any(line.endswith("parameters, 1 processes, step 0") for line in lines)
    steps = [line for line in lines if line.startswith("step ")]
    assert [line.split(":")[0].split(",")[0] for line in steps[:2]] == ["step 1 of 8", "step 2 of 8"]
    assert "loss" in steps[0]
    assert "gradient_norm" in steps[0]
    assert steps[-1].startswith("step 8 of 8, epoch 2: wer/dev ")
    names = {path.name for path in recipe.directory.iterdir()}
    assert names == {BEST, LAST, RESUME, "cache", "logs"}
    assert list((recipe.directory / "logs").glob("events.out.tfevents.*"))


def test_a_checkpoint_tells_what_it_was_trained_on(straight):
    recipe, outcome, _ = straight
    best = Checkpoint.load(recipe.directory / BEST)
    train_set = read_manifest(recipe.root / "train.jsonl")
    assert best.config == recipe.model
    assert best.training == {
        "step": 8,
        "epoch": 2,
        "wer": {"dev": outcome.best},
        "sources": [{"name": "tones", "licence": "CC0-1.0"}],
        "utterances": 20,
        "hours": round(sum(u.duration_s for u in train_set) / 3600, 2),
    }
    averages = saved_state(recipe)
    for name, parameter in best.encoder().named_parameters():
        assert torch.equal(parameter, averages[f"average.{name}"])


@pytest.mark.parametrize("save_every", [1, 3, 5])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(straight, toy_recipe, tmp_path, save_every):
    recipe = interrupted(toy_recipe, tmp_path, save_every=save_every)
    for kill_at in (4, 7):
        with pytest.raises(Killed):
            train(recipe, said, watch=killed_at(kill_at))
    assert train(recipe, said) == straight[1]
    assert_same(saved_state(recipe), saved_state(straight[0]))


def test_a_run_that_was_asked_to_stop_saves_and_goes_on(straight, toy_recipe, tmp_path):
    recipe = interrupted(toy_recipe, tmp_path)
    steps = []

    def watch(progress):
        if progress.what == "training":
            steps.append(progress.done)

    outcome = train(recipe, said, watch=watch, stop=lambda: len(steps) >= 4)
    assert outcome == Outcome(step=5, finished=False, best=math.inf)
    assert steps == [1, 2, 3, 4, 5]
    assert train(recipe, said) == straight[1]
    assert_same(saved_state(recipe), saved_state(straight[0]))


def test_a_kill_while_the_state_is_written_costs_only_that_save(straight, toy_recipe, tmp_path):
    recipe = interrupted(toy_recipe, tmp_path, save_every=2)
    with pytest.raises(Killed):
        train(recipe, said, watch=killed_at(5))
    (tmp_path / f"{RESUME}.partial").write_bytes(b"half of a state")
    train(recipe, said)
    assert_same(saved_state(recipe), saved_state(straight[0]))


def test_a_run_that_is_finished_is_not_trained_further(straight):
    recipe, outcome, _ = straight
    before = (recipe.directory / RESUME).read_bytes()
    assert train(recipe, said, watch=lambda progress: pytest.fail("trained")) == outcome
    assert (recipe.directory / RESUME).read_bytes() == before
    shorter = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, steps=5))
    assert train(shorter, said, watch=lambda progress: pytest.fail("trained")) == outcome


def test_a_finished_run_goes_on_with_more_steps(straight, toy_recipe, tmp_path):
    recipe = toy_recipe(tmp_path, optimizer={"steps": 3})
    train(recipe, said)
    longer = toy_recipe(tmp_path, optimizer={"steps": 5})
    lines = []
    assert train(longer, lines.append).step == 5
    assert not any(line.startswith("step 3") for line in lines)


def test_a_run_is_a_function_of_its_seed(straight, toy_recipe, tmp_path):
    other = toy_recipe(tmp_path / "other", run={"chunk_frames": (2, 4), "seed": 2})
    train(other, said)
    a, b = saved_state(straight[0]), saved_state(other)
    assert not torch.equal(a["model.norm.weight"], b["model.norm.weight"])


def test_dev_never_enters_training(straight, toy_recipe, toy_folder, tmp_path):
    rng = np.random.default_rng(9)
    lines = []
    for i in range(3):
        soundfile.write(tmp_path / f"other{i}.wav", rng.uniform(-1, 1, 9000), 16000)
        lines.append(json.dumps({"audio_filepath": f"other{i}.wav", "duration": 9000 / 16000, "text": "d d d"}))
    (tmp_path / "dev.jsonl").write_text("\n".join(lines))
    recipe = toy_recipe(
        tmp_path / "run",
        data={"dev": (str(tmp_path / "dev.jsonl"),)},
        run={"chunk_frames": (2, 4), "evaluate_every": 2},
    )
    train(recipe, said)
    assert_same(saved_state(recipe), saved_state(straight[0]))


def test_without_a_dev_set_the_last_weights_are_kept(toy_recipe, tmp_path):
    recipe = toy_recipe(tmp_path, data={"dev": ()}, optimizer={"steps": 3})
    assert train(recipe, said) == Outcome(step=3, finished=True, best=math.inf)
    assert not (tmp_path / BEST).exists()
    assert Checkpoint.load(tmp_path / LAST).training["wer"] == {}


def test_an_encoder_learns_a_language_of_tones(trained):
    assert (trained.outcome.step, trained.outcome.finished, len(trained.losses)) == (150, True, 150)
    assert np.mean(trained.losses[-10:]) < 0.1 * np.mean(trained.losses[:10])
    assert trained.outcome.best < 0.3  # of recordings that it has not heard


def test_the_average_follows_the_weights(toy_recipe, tmp_path):
    trainer = Trainer(toy_recipe(tmp_path, optimizer={"ema_decay": 0.5}))
    trainer.begin()
    for p in trainer.encoder.parameters():
        p.data.fill_(1.0)
    for average in trainer.average.values():
        average.zero_()
    values = []
    for step in range(12):
        trainer.step = step
        trainer._update_average()
        values.append(float(trainer.average["norm.weight"][0]))
    want = []
    for step in range(12):
        decay = min(0.5, (1 + step) / (10 + step))
        want.append(1 - decay * (1 - (want[-1] if want else 0.0)))
    assert values == pytest.approx(want, rel=1e-5)


def first_loss(recipe) -> float:
    trainer = Trainer(recipe)
    trainer.begin()
    trainer.model = trainer.encoder
    return trainer.train_step(trainer.corpus.collate([0, 1], (0,)))[0]


def test_two_views_that_are_the_same_count_as_one(toy_recipe, toy_model, tmp_path):
    """Without masks and dropout."""
    losses = []
    for weight in (0.0, 0.5):
        optimizer = {"consistency_weight": weight, "bf16": False}
        folder = tmp_path / str(weight)
        losses.append(
            first_loss(toy_recipe(folder, model=toy_model(dropout=0.0), augment=NO_CHANGE, optimizer=optimizer))
        )
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_views_under_masks_of_their_own_disagree(toy_recipe, tmp_path):
    losses = []
    for weight in (1e-6, 10.0):
        augment = {**NO_CHANGE, "clean_steps": 0}
        optimizer = {"consistency_weight": weight}
        losses.append(first_loss(toy_recipe(tmp_path / str(weight), augment=augment, optimizer=optimizer)))
    assert losses[1] > losses[0] + 1e-3


def test_a_step_whose_gradient_is_no_number_changes_nothing(toy_recipe, tmp_path):
    trainer = Trainer(toy_recipe(tmp_path))
    trainer.begin()
    trainer.model = trainer.encoder
    batch = trainer.corpus.collate([0, 1], (0,))
    before = {name: p.clone() for name, p in trainer.encoder.state_dict().items()}
    _, norm = trainer.train_step(batch._replace(features=batch.features.fill_(math.nan)))
    assert not math.isfinite(norm)
    assert_same(before, trainer.encoder.state_dict())
    assert math.isfinite(trainer.train_step(trainer.corpus.collate([0, 1], (0,)))[1])


def test_the_features_are_normalised_by_what_is_trained_on(toy_recipe, tmp_path):
    trainer = Trainer(toy_recipe(tmp_path, augment=NO_CHANGE))
    trainer.begin()
    rows = []
    for i in range(20):
        features, lengths, *_ = trainer.corpus.collate([i], (0,))
        rows.append(features[0, : 4 * int(lengths[0])])
    joined = torch.cat(rows)
    torch.testing.assert_close(trainer.encoder.feature_mean, joined.mean(dim=0), atol=1e-4, rtol=0)
    torch.testing.assert_close(trainer.encoder.feature_std, joined.std(dim=0), atol=1e-4, rtol=0)


def test_a_new_run_can_start_from_a_checkpoint(straight, toy_recipe, tmp_path):
    best = straight[0].directory / BEST
    weights = Checkpoint.load(best).weights
    trainer = Trainer(toy_recipe(tmp_path / "new"), init=best)
    trainer.begin()
    assert_same(trainer.encoder.state_dict(), dict(weights))
    assert_same(trainer.average, {name: weights[name] for name in trainer.average})
    with pytest.raises(Killed):
        train(toy_recipe(tmp_path / "new", run={"save_every": 1}), said, best, killed_at(2))
    resumed = Trainer(toy_recipe(tmp_path / "new"), init=tmp_path / "not looked at")
    resumed.begin()
    assert resumed.step == 1


def test_a_new_run_may_choose_its_own_dropout(straight, toy_recipe, toy_model, tmp_path):
    best = straight[0].directory / BEST
    trainer = Trainer(toy_recipe(tmp_path, model=toy_model(dropout=0.3)), init=best)
    trainer.begin()
    assert_same(trainer.encoder.state_dict(), dict(Checkpoint.load(best).weights))
    assert trainer.encoder.upper[0].dropout.p == 0.3


@pytest.mark.parametrize(
    "change",
    [
        {"write_gate": True},
        {"merge_similarity": 0.8},
        {"summary_strides": (), "memory_capacities": ()},
        {"summary_strides": (8, 2), "memory_capacities": (4, 4)},
    ],
)
def test_a_new_run_may_choose_its_own_memory(straight, toy_recipe, toy_model, tmp_path, change):
    best = straight[0].directory / BEST
    model = toy_model(**change)
    trainer = Trainer(toy_recipe(tmp_path, model=model), init=best)
    fresh = {name: tensor.clone() for name, tensor in trainer.encoder.state_dict().items()}
    trainer.begin()
    trained = Checkpoint.load(best).weights
    for name, tensor in trainer.encoder.state_dict().items():
        torch.testing.assert_close(tensor, trained.get(name, fresh[name]).to(tensor.dtype), rtol=0, atol=0)
    assert trainer.encoder.config == model


def test_what_is_written_has_its_price(toy_recipe, toy_model, tmp_path):
    recipe = toy_recipe(tmp_path, model=toy_model(write_gate=True, dropout=0.0))

    def loss(price):
        optimizer = dataclasses.replace(recipe.optimizer, write_price=price)
        trainer = Trainer(dataclasses.replace(recipe, optimizer=optimizer))
        trainer.begin()
        trainer.model = trainer.encoder
        batch = trainer.corpus.collate([0, 1], (0,))
        tokens = batch.target_lengths.sum()
        emissions = trainer.encoder.eval()(batch.features)
        return trainer.train_step(batch)[0], float(emissions.writes.detach().sum() / tokens)

    (free, writes), (dear, _) = loss(0.0), loss(2.0)
    assert writes > 0
    assert dear - free == pytest.approx(2.0 * writes, rel=1e-3)


def test_a_model_of_characters_can_go_on_to_learn_phones(straight, toy_recipe, tmp_path):
    best = straight[0].directory / BEST
    weights = Checkpoint.load(best).weights
    dictionary = tmp_path / "words.dict"
    texts = {word for u in read_manifest(straight[0].resolve(straight[0].data.train)[0]) for word in u.text.split()}
    dictionary.write_text("".join(f"{word} AH0 T\n" for word in sorted(texts)))
    plain = toy_recipe(tmp_path / "new", data={"dictionary": str(dictionary)})
    recipe = dataclasses.replace(plain, model=dataclasses.replace(plain.model, phone_vocabulary_size=len(PHONES)))
    trainer = Trainer(recipe, init=best)
    trainer.begin()
    now = trainer.encoder.state_dict()
    fresh = {"phone_emission.weight", "phone_emission.bias", "lower_emission.weight", "lower_emission.bias"}
    assert now.keys() - weights.keys() == {"phone_emission.weight", "phone_emission.bias"}
    assert_same({name: now[name] for name in now.keys() - fresh}, {name: weights[name] for name in now.keys() - fresh})
    outcome = train(recipe, said, best)
    assert (outcome.step, outcome.finished) == (8, True)
    assert Checkpoint.load(recipe.directory / LAST).config.phone_vocabulary_size == 41


def test_phones_can_be_trained_as_sequences(toy_recipe, toy_model, tmp_path):
    model = dataclasses.replace(toy_model(dropout=0.0), phone_vocabulary_size=len(PHONES))
    data = {"dictionary": "words.dict", "phone_graph": str(tmp_path / "phones.npz")}
    texts = [u.text for u in read_manifest(toy_recipe(tmp_path).root / "train.jsonl")]
    build(texts, read_dictionary(toy_recipe(tmp_path).root / "words.dict"), max_ngrams=500).save(
        tmp_path / "phones.npz"
    )

    def loss(name, weight):
        optimizer = {"crf_weight": weight}
        return first_loss(toy_recipe(tmp_path / name, model=model, data=data, augment=NO_CHANGE, optimizer=optimizer))

    plain, half, whole = loss("plain", 0.0), loss("half", 0.5), loss("whole", 1.0)
    # Given the phone model, there is less to know.
    assert whole < plain - 0.1
    assert half == pytest.approx((plain + whole) / 2, rel=1e-4)
    other = toy_recipe(tmp_path / "other", data=data, optimizer={"crf_weight": 0.5})
    with pytest.raises(ConfigError, match=r"phones\.npz is of 41 phones, the model has 0: build it again"):
        train(other, said)


def test_a_word_without_a_pronunciation_is_found_before_training(straight, toy_recipe, tmp_path):
    dictionary = tmp_path / "words.dict"
    dictionary.write_text("nothing AH0\n")
    with pytest.raises(ManifestError, match="is not in the dictionary: add its pronunciation"):
        Trainer(toy_recipe(tmp_path, data={"dictionary": str(dictionary)})).begin()


def test_a_checkpoint_of_another_model_is_refused(straight, toy_recipe, toy_model, tmp_path):
    with pytest.raises(ConfigError, match=f"{BEST} has another model configuration than the recipe: make them equal"):
        train(toy_recipe(tmp_path, model=toy_model(ff_dim=40)), said, straight[0].directory / BEST)
    with pytest.raises(BundleError, match="says format None"):
        train(toy_recipe(tmp_path), said, straight[0].directory / RESUME)


def test_a_run_of_another_model_or_in_other_processes_is_refused(straight, toy_recipe, toy_model, monkeypatch):
    directory = straight[0].directory
    with pytest.raises(ConfigError, match=r"has encoder\.ff_dim 32, this run 40: take back the change, or delete"):
        train(toy_recipe(directory, model=toy_model(ff_dim=40)), said)
    monkeypatch.setattr(Place, "wait", lambda self: None)
    with pytest.raises(ConfigError, match="was saved in 1 processes, this run has 2: go on with --processes 1, or"):
        Trainer(straight[0], Place(0, 2)).begin()


def test_an_epoch_without_a_batch_for_every_process_is_refused(toy_recipe, tmp_path):
    recipe = toy_recipe(tmp_path, data={"weights": {"train": 0.0}})
    with pytest.raises(ConfigError, match="got 0 batches in epoch 0, wanted one for each of 1 processes: lower"):
        train(recipe, said)


def test_data_errors_come_before_hours_of_decoding(toy_recipe, toy_folder, tmp_path):
    line = json.dumps({"audio_filepath": str(toy_folder / "dev0.wav"), "duration": 1.0, "text": "room 5"})
    (tmp_path / "digits.jsonl").write_text(line)
    recipe = toy_recipe(tmp_path / "run", data={"train": ("train.jsonl", str(tmp_path / "digits.jsonl")), "dev": ()})
    with pytest.raises(ManifestError, match="has digits: spell numbers out"):
        train(recipe, said, watch=lambda progress: pytest.fail("decoded"))


def test_observers_hear_nothing_by_default(toy_recipe, tmp_path, capsys):
    Trainer(toy_recipe(tmp_path, optimizer={"steps": 3}), Place(), Observer()).run()
    assert capsys.readouterr() == ("", "")


def test_a_processor_without_bf16_trains_in_fp32_and_says_so(toy_recipe, tmp_path, monkeypatch):
    def weights(name, **optimizer):
        recipe = toy_recipe(tmp_path / name, optimizer={"steps": 3, "warmup_steps": 1, **optimizer})
        lines = []
        train(recipe, lines.append)
        return saved_state(recipe), [line for line in lines if "bf16" in line]

    asked_for_fp32 = weights("fp32", bf16=False)
    monkeypatch.setattr(loop, "computes_bf16", lambda device: True)
    in_bf16 = weights("bf16")
    monkeypatch.setattr(loop, "computes_bf16", lambda device: False)
    without = weights("without")
    assert_same(without[0], asked_for_fp32[0])
    assert any(not torch.equal(in_bf16[0][name], tensor) for name, tensor in without[0].items())
    assert (asked_for_fp32[1], in_bf16[1]) == ([], [])
    assert without[1] == ["this processor has no instructions for bf16: training in fp32 (optimizer.bf16)"]


def test_gpus_are_taken_to_compute_bf16():
    assert loop.computes_bf16(torch.device("cuda"))
